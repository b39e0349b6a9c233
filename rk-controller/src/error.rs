//! Why a reconciliation failed.

/// Why a reconciliation failed; it is tried again, later each time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API said no, or could not be asked.
    #[error(transparent)]
    Api(#[from] rk_api::Error),
    /// The object asks for what can't be done, as its author has to see.
    #[error("{0}")]
    Invalid(String),
    /// An error that the reconciler has told in an event of its own.
    #[error(transparent)]
    Told(Box<Error>),
    /// The reconciler panicked.
    #[error("the reconciler panicked: {0}")]
    Panic(String),
    /// An error of the reconciler's own.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// An error of the reconciler's own.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }

    /// An error that the reconciler has told in an event of its own: no other event tells it.
    pub fn told(error: impl Into<Self>) -> Self {
        Self::Told(Box::new(error.into()))
    }

    /// The object asks for what can't be done.
    pub fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid(why.into())
    }

    /// Whether it comes of nothing but others' writes and deletes, or of a namespace that is going: to try again is all
    /// there is to do, and nobody needs to be told.
    pub fn is_expected(&self) -> bool {
        match self {
            Self::Api(error) => error.is_conflict() || error.is_not_found() || is_terminating(error),
            Self::Told(error) => error.is_expected(),
            _ => false,
        }
    }
}

/// Whether a create was refused because its namespace is going.
pub(crate) fn is_terminating(error: &rk_api::Error) -> bool {
    let rk_api::Error::Api(status) = error else { return false };
    error.is_forbidden()
        && (status.message.as_deref().is_some_and(|message| message.contains("because it is being terminated"))
            || status.details.as_ref().and_then(|details| details.causes.as_ref()).is_some_and(|causes| {
                causes.iter().any(|cause| cause.reason.as_deref() == Some("NamespaceTerminating"))
            }))
}

impl From<rk_api::SelectorError> for Error {
    fn from(error: rk_api::SelectorError) -> Self {
        Self::Invalid(error.to_string())
    }
}
