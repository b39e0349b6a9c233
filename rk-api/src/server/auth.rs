//! Who asks, and whether they may: the contracts.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{FieldSelector, LabelSelector};

/// The caller, as the API knows them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserInfo {
    /// Unique name: `admin`, `system:node:n1`, `system:serviceaccount:ns:name`.
    pub name: String,
    /// Identity over time, where the authenticator knows one.
    pub uid: String,
    /// Groups: `system:authenticated`, `system:masters`, ...
    pub groups: Vec<String>,
    /// What else the authenticator says.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user in groups.
    pub fn new<'a>(name: &str, groups: impl IntoIterator<Item = &'a str>) -> Self {
        let groups = groups.into_iter().map(str::to_owned).collect();
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    /// Nobody known: `system:anonymous` in `system:unauthenticated`.
    pub fn anonymous() -> Self {
        Self::new("system:anonymous", ["system:unauthenticated"])
    }

    /// The control plane itself: may do everything.
    pub fn loopback() -> Self {
        Self::new("system:apiserver", ["system:masters", "system:authenticated"])
    }

    /// Whether the user is in a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// What a request brings to prove who sends it.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// The client certificate in DER, the leaf, if TLS brought one: the TLS layer checked its chain against the client
    /// CA; its dates and usage are the authenticator's to check. Or why it is not trusted.
    pub certificate: Option<Result<Bytes, String>>,
    /// All certificates that the client showed, in DER, the leaf first; nobody has checked them.
    pub chain: Arc<[Bytes]>,
    /// The bearer token, if any.
    pub token: Option<String>,
    /// All headers.
    pub headers: http::HeaderMap,
}

/// Credentials that are wrong (as opposed to absent): the answer is 401.
#[derive(Debug, Clone, thiserror::Error)]
#[error("authentication failed: {0}")]
pub struct AuthenticationError(pub String);

/// Tells who a caller is. Authenticators are asked in order; the first that knows the caller wins.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// `None` if these credentials are not of this authenticator's kind.
    ///
    /// # Errors
    /// The credentials are of its kind but wrong. The others are still asked; if none knows the caller, 401.
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<UserInfo>, AuthenticationError>;
}

/// What a caller wants to do, in the authorizers' terms
/// (<https://kubernetes.io/docs/reference/access-authn-authz/authorization/>).
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    /// Who.
    pub user: Arc<UserInfo>,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or the lower-case HTTP method
    /// for a path that is no resource.
    pub verb: Cow<'static, str>,
    /// API group.
    pub group: Cow<'static, str>,
    /// API version.
    pub version: Cow<'static, str>,
    /// Plural name; empty if the path is no resource.
    pub resource: Cow<'static, str>,
    /// Subresource.
    pub subresource: String,
    /// Namespace; empty for all, or for resources of the cluster.
    pub namespace: String,
    /// Object name; empty for collections.
    pub name: String,
    /// The URL path, if it is no resource's; a resource's path tells no more than what is above.
    pub path: String,
    /// Which objects of a collection are meant, by their labels.
    pub labels: LabelSelector,
    /// Which objects of a collection are meant, by their fields.
    pub fields: FieldSelector,
}

/// An authorizer's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes, because.
    Allow(String),
    /// No, whatever the others say.
    Deny(String),
    /// Not by this one; the reason is shown if nobody allows.
    NoOpinion(String),
    /// It can't be told now, and why. The others are still asked; if none of them decides, the answer is 500, for a 403 would be
    /// taken for the last word.
    Failed(String),
}

/// Tells whether a caller may do something. Authorizers are asked in order until one allows or denies.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// The decision on one request.
    async fn authorize(&self, attributes: &Attributes) -> Decision;

    /// The same decision, if it takes no wait: what most requests are decided by is at hand. `None` if [`authorize`](Self::authorize) is
    /// to be asked.
    fn authorize_at_once(&self, attributes: &Attributes) -> Option<Decision> {
        let _ = attributes;
        None
    }
}
