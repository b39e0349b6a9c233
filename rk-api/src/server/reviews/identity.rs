//! Who a token is, and who one is oneself.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{ReviewDeps, answered};
use crate::{
    Status,
    server::{Credentials, Strategy, UserInfo, WriteContext, authn::AUTHENTICATED},
    status,
};

/// A user as reviews show it; what is not known is left out.
fn user_info(user: &UserInfo) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// Answers `TokenReview`.
pub(super) struct TokenReviews(pub ReviewDeps);

impl TokenReviews {
    /// The holder of a token and the audiences it is for, of those asked for.
    async fn holder(&self, token: &str, asked: &[String]) -> Result<Option<(UserInfo, Vec<String>)>, String> {
        if let Some(tokens) = &self.0.service_accounts {
            match tokens.check(token, asked, crate::now()).await {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(error) => return Err(error.0),
            }
        }
        // Other tokens are for the API server and nobody else.
        let own = &self.0.audiences;
        let fitting: Vec<String> = if asked.is_empty() {
            own.clone()
        } else {
            asked.iter().filter(|audience| own.contains(audience)).cloned().collect()
        };
        if fitting.is_empty() && !asked.is_empty() {
            return Ok(None);
        }
        let credentials = Credentials { token: Some(token.to_owned()), ..Credentials::default() };
        let found = self.0.authenticator.authenticate(&credentials).await.map_err(|error| error.0)?;
        Ok(found.map(|user| (user, fitting)))
    }
}

#[async_trait]
impl Strategy for TokenReviews {
    async fn answer(&self, question: Value, _context: &WriteContext<'_>) -> Result<Value, Status> {
        let token = question["spec"]["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(status::bad_request("token is required for TokenReview in authentication"));
        }
        let asked = question["spec"]["audiences"].as_array().into_iter().flatten();
        let asked: Vec<String> = asked.filter_map(Value::as_str).map(str::to_owned).collect();
        let status = match self.holder(token, &asked).await {
            Ok(Some((mut user, audiences))) => {
                if !user.in_group(AUTHENTICATED) {
                    user.groups.push(AUTHENTICATED.to_owned());
                }
                let mut status = json!({"authenticated": true, "user": user_info(&user)});
                if !audiences.is_empty() {
                    status["audiences"] = json!(audiences);
                }
                status
            }
            Ok(None) => json!({"user": {}}),
            Err(error) => json!({"user": {}, "error": error}),
        };
        Ok(answered(question, status))
    }
}

/// Answers `SelfSubjectReview`: `kubectl auth whoami`.
pub(super) struct SelfSubjectReviews;

#[async_trait]
impl Strategy for SelfSubjectReviews {
    async fn answer(&self, mut question: Value, context: &WriteContext<'_>) -> Result<Value, Status> {
        let now = crate::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        question["metadata"] = json!({"creationTimestamp": now});
        Ok(answered(question, json!({"userInfo": user_info(context.user)})))
    }
}
