//! Questions that the server answers and does not store: who a token is, whether somebody may do something, what one
//! may do oneself, and requests for tokens.
//!
//! [`rows`] are the registry's rows for all of them; each is the built-in row with a [`strategy`] of this module.

mod access;
mod identity;
mod token;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Authenticator, Authorizer, Row, Strategy,
    authn::{ServiceAccountTokens, TokenSigner},
    authz::RuleResolver,
    builtin,
};
use crate::{Status, StatusExt, status};

/// What the answers come from.
#[derive(Clone)]
pub struct ReviewDeps {
    /// Knows the holders of tokens that are no service accounts'.
    pub authenticator: Arc<dyn Authenticator>,
    /// Decides on access.
    pub authorizer: Arc<dyn Authorizer>,
    /// Lists what a caller may do.
    pub rules: Arc<dyn RuleResolver>,
    /// Knows the holders of service-account tokens.
    pub service_accounts: Option<Arc<ServiceAccountTokens>>,
    /// Signs service-account tokens; without one the server issues none.
    pub signer: Option<Arc<TokenSigner>>,
    /// The server's own audiences: those of tokens that ask for none.
    pub audiences: Vec<String>,
}

/// The strategy that answers questions of this kind; for a ServiceAccount (its `token` subresource) one that leaves
/// everything else to `inner`. `None` if the kind is no question.
pub fn strategy(group: &str, kind: &str, deps: &ReviewDeps, inner: &Arc<dyn Strategy>) -> Option<Arc<dyn Strategy>> {
    let deps = || deps.clone();
    Some(match (group, kind) {
        ("authentication.k8s.io", "TokenReview") => Arc::new(identity::TokenReviews(deps())),
        ("authentication.k8s.io", "SelfSubjectReview") => Arc::new(identity::SelfSubjectReviews),
        ("authorization.k8s.io", "SubjectAccessReview") => {
            Arc::new(access::AccessReviews(deps(), access::Subject::Named))
        }
        ("authorization.k8s.io", "LocalSubjectAccessReview") => {
            Arc::new(access::AccessReviews(deps(), access::Subject::NamedInNamespace))
        }
        ("authorization.k8s.io", "SelfSubjectAccessReview") => {
            Arc::new(access::AccessReviews(deps(), access::Subject::Caller))
        }
        ("authorization.k8s.io", "SelfSubjectRulesReview") => Arc::new(access::RulesReviews(deps())),
        ("", "ServiceAccount") => Arc::new(token::WithTokens { inner: Arc::clone(inner), deps: deps() }),
        _ => return None,
    })
}

/// The rows of every question, for [`ServerBuilder::row`](super::ServerBuilder::row).
pub fn rows(deps: &ReviewDeps) -> Vec<Row> {
    let answered = |row: Row| {
        let strategy = strategy(&row.resource.group, &row.resource.kind, deps, &row.strategy)?;
        Some(Row { strategy, ..row })
    };
    builtin::rows().into_iter().filter_map(answered).collect()
}

/// Reads a question; what it does not understand is a 400.
fn read<T: DeserializeOwned>(question: &Value) -> Result<T, Box<Status>> {
    serde_json::from_value(question.clone()).map_err(|error| Box::new(status::bad_request(error.to_string())))
}

/// A 422 on a field of a question.
fn invalid(group: &str, kind: &str, field: &str, message: &str) -> Status {
    status::failure(422, "Invalid", format!("{kind}.{group} \"\" is invalid: {field}: {message}"))
        .about(group, kind, "")
        .cause("FieldValueInvalid", field, message)
}

/// The question with its answer in `status`.
fn answered(mut question: Value, answer: Value) -> Value {
    question["status"] = answer;
    if question["metadata"].is_null() {
        question["metadata"] = serde_json::json!({});
    }
    question
}
