//! Questions that the server answers and does not store: who a token is, whether somebody may do something, what one
//! may do oneself, and requests for tokens.
//!
//! [`strategies`] are the [`Strategy`] of each.

mod access;
mod identity;
mod token;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Authenticator, Authorizer, Strategy,
    authn::{ServiceAccountTokens, TokenSigner},
    authz::RuleResolver,
    kinds,
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

/// The strategies of every question, by group and kind, for
/// [`ServerBuilder::strategy`](super::ServerBuilder::strategy). That of ServiceAccounts answers requests for their tokens
/// and leaves the rest to the kind's own.
pub fn strategies(deps: &ReviewDeps) -> Vec<(&'static str, &'static str, Arc<dyn Strategy>)> {
    const AUTHENTICATION: &str = "authentication.k8s.io";
    const AUTHORIZATION: &str = "authorization.k8s.io";
    let access = |subject| Arc::new(access::AccessReviews(deps.clone(), subject)) as Arc<dyn Strategy>;
    let accounts = token::WithTokens { inner: kinds::strategy("", "ServiceAccount"), deps: deps.clone() };
    vec![
        (AUTHENTICATION, "TokenReview", Arc::new(identity::TokenReviews(deps.clone()))),
        (AUTHENTICATION, "SelfSubjectReview", Arc::new(identity::SelfSubjectReviews)),
        (AUTHORIZATION, "SubjectAccessReview", access(access::Subject::Named)),
        (AUTHORIZATION, "LocalSubjectAccessReview", access(access::Subject::NamedInNamespace)),
        (AUTHORIZATION, "SelfSubjectAccessReview", access(access::Subject::Caller)),
        (AUTHORIZATION, "SelfSubjectRulesReview", Arc::new(access::RulesReviews(deps.clone()))),
        ("", "ServiceAccount", Arc::new(accounts)),
    ]
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
