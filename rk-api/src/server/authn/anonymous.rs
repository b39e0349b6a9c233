//! Where callers that nobody knows are let in (KEP-4633).

/// Which requests without credentials are let in as `system:anonymous`. The authorizers decide what they may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// None: 401.
    #[default]
    Refused,
    /// All.
    Allowed,
    /// Those of exactly these paths, such as `/livez`.
    At(Vec<String>),
}

impl Anonymous {
    /// Whether there are any.
    pub(crate) fn is_possible(&self) -> bool {
        *self != Self::Refused
    }

    /// Whether a request of this path is let in.
    pub(crate) fn allow(&self, path: &str) -> bool {
        match self {
            Self::Refused => false,
            Self::Allowed => true,
            Self::At(paths) => paths.iter().any(|known| known == path),
        }
    }
}

impl From<bool> for Anonymous {
    fn from(allowed: bool) -> Self {
        if allowed { Self::Allowed } else { Self::Refused }
    }
}
