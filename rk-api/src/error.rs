//! Errors of the API: Kubernetes' `Status`, and what can go wrong on the way to it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

/// Why a request to an API failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server's answer, shown as its message; see [`StatusExt`] for what else it says.
    #[error("{}", .0.message.as_deref().or(.0.reason.as_deref()).unwrap_or("unknown error"))]
    Api(Box<Status>),
    /// Bytes that are not what was expected.
    #[error("can't decode {what}: {message}")]
    Decode {
        /// What was read.
        what: String,
        /// What is wrong with it, and where.
        message: String,
    },
    /// The server could not be reached, or the connection broke.
    #[error("can't reach the API server: {0}")]
    Transport(String),
}

impl Error {
    /// A decoding error of `what`.
    pub fn decode(what: &str, error: &dyn std::fmt::Display) -> Self {
        Self::Decode { what: what.to_owned(), message: error.to_string() }
    }

    /// The server's reason, such as `NotFound`; empty if no server answered.
    pub fn reason(&self) -> &str {
        match self {
            Self::Api(status) => status.reason.as_deref().unwrap_or_default(),
            _ => "",
        }
    }

    /// The HTTP code of the server's answer; 0 if no server answered.
    pub fn code(&self) -> u16 {
        match self {
            Self::Api(status) => status.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(0),
            _ => 0,
        }
    }

    /// The object is not there.
    pub fn is_not_found(&self) -> bool {
        self.reason() == "NotFound"
    }

    /// Somebody else changed the object first.
    pub fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }

    /// An object of this name is there.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    /// The revision to watch from or list at was compacted: list anew.
    pub fn is_expired(&self) -> bool {
        matches!(self.reason(), "Expired" | "Gone") || self.code() == 410
    }

    /// The object breaks a rule of its kind.
    pub fn is_invalid(&self) -> bool {
        self.reason() == "Invalid"
    }

    /// The caller may not do this.
    pub fn is_forbidden(&self) -> bool {
        self.reason() == "Forbidden"
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Api(Box::new(status))
    }
}

/// Building [`Status`] failures field by field.
pub trait StatusExt: Sized {
    /// Names the object that the failure is about.
    fn about(self, group: &str, kind: &str, name: &str) -> Self;
    /// Adds a cause: `reason` such as `FieldValueInvalid`, the path of the field, and what is wrong.
    fn cause(self, reason: &str, field: &str, message: &str) -> Self;
    /// When the client may try again.
    fn retry_after(self, seconds: i32) -> Self;
}

impl StatusExt for Status {
    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        (details.group, details.kind, details.name) = (some(group), some(kind), some(name));
        self
    }

    fn cause(mut self, reason: &str, field: &str, message: &str) -> Self {
        let cause = StatusCause {
            reason: Some(reason.to_owned()),
            field: (!field.is_empty()).then(|| field.to_owned()),
            message: Some(message.to_owned()),
        };
        self.details.get_or_insert_default().causes.get_or_insert_default().push(cause);
        self
    }

    fn retry_after(mut self, seconds: i32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }
}

/// The `Status` failures of the API, each with Kubernetes' code, reason and wording
/// (apimachinery's `api/errors`).
pub mod status {
    use super::{Status, StatusDetails, StatusExt};
    use crate::Resource;

    /// A failure with a code, a reason and a message.
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Status {
        Status {
            status: Some("Failure".to_owned()),
            code: Some(code.into()),
            reason: Some(reason.to_owned()),
            message: Some(message.into()),
            ..Status::default()
        }
    }

    fn about(code: u16, reason: &str, resource: &Resource, name: &str, message: String) -> Status {
        failure(code, reason, message).about(&resource.group, &resource.plural, name)
    }

    /// 404: no such object.
    pub fn not_found(resource: &Resource, name: &str) -> Status {
        about(404, "NotFound", resource, name, format!("{} {name:?} not found", resource.group_resource()))
    }

    /// 404: no such path or resource.
    pub fn no_such_path() -> Status {
        let mut status = failure(404, "NotFound", "the server could not find the requested resource");
        status.details = Some(StatusDetails::default());
        status
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &Resource, name: &str) -> Status {
        about(409, "AlreadyExists", resource, name, format!("{} {name:?} already exists", resource.group_resource()))
    }

    /// 409: the object changed meanwhile, or a precondition failed.
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Status {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.group_resource());
        about(409, "Conflict", resource, name, message)
    }

    /// The wording of a conflict on `resourceVersion`.
    pub const MODIFIED: &str =
        "the object has been modified; please apply your changes to the latest version and try again";

    /// 403: not allowed.
    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Status {
        let target =
            if name.is_empty() { resource.group_resource() } else { format!("{} {name:?}", resource.group_resource()) };
        about(403, "Forbidden", resource, name, format!("{target} is forbidden: {why}"))
    }

    /// 400: the request can't be understood.
    pub fn bad_request(message: impl Into<String>) -> Status {
        failure(400, "BadRequest", message)
    }

    /// 401: nobody knows the caller.
    pub fn unauthorized() -> Status {
        failure(401, "Unauthorized", "Unauthorized")
    }

    /// 405: the verb is not served here.
    pub fn method_not_allowed() -> Status {
        failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 410: the revision is compacted.
    pub fn expired(message: impl Into<String>) -> Status {
        failure(410, "Expired", message)
    }

    /// 500: the server's own failure.
    pub fn internal(message: impl std::fmt::Display) -> Status {
        let message = message.to_string();
        failure(500, "InternalError", format!("Internal error occurred: {message}")).cause("", "", &message)
    }

    /// 503: not now.
    pub fn unavailable(message: impl Into<String>) -> Status {
        failure(503, "ServiceUnavailable", message)
    }

    /// 507 as Kubernetes has none: the store is full; reads go on.
    pub fn no_space(message: &str) -> Status {
        failure(507, "InsufficientStorage", format!("etcdserver: no space: {message}"))
    }
}
