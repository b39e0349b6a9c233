//! The four patches of the API.

use serde_json::Value;

/// How a patch is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PatchKind {
    /// RFC 6902: a list of operations.
    Json,
    /// RFC 7386: a partial object; null removes; lists are replaced.
    Merge,
    /// Kubernetes' strategic merge: lists merge by their keys.
    Strategic,
    /// Server-side apply: the caller's wanted fields (KEP-555).
    Apply,
}

impl PatchKind {
    /// The media type in requests.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }

    /// The kind that a media type names (parameters are ignored).
    pub fn from_content_type(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        [Self::Json, Self::Merge, Self::Strategic, Self::Apply].into_iter().find(|kind| kind.content_type() == essence)
    }
}

/// A change of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// How `body` is read.
    pub kind: PatchKind,
    /// The patch itself.
    pub body: Value,
    /// Takes over fields that others own; server-side apply only.
    pub force: bool,
}

impl Patch {
    /// A merge patch.
    pub fn merge(body: Value) -> Self {
        Self { kind: PatchKind::Merge, body, force: false }
    }

    /// A strategic merge patch.
    pub fn strategic(body: Value) -> Self {
        Self { kind: PatchKind::Strategic, body, force: false }
    }

    /// A JSON patch.
    pub fn json(body: Value) -> Self {
        Self { kind: PatchKind::Json, body, force: false }
    }

    /// A server-side apply; the field manager is in the request's options.
    pub fn apply(body: Value) -> Self {
        Self { kind: PatchKind::Apply, body, force: false }
    }

    /// With `force`: conflicts are won.
    #[must_use]
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }
}
