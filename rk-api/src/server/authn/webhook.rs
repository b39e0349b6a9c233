//! A service that knows the holders of tokens
//! (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication>).

use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use serde_json::{Value, json};

use crate::server::{
    AuthenticationError, Authenticator, Credentials, Remote, UserInfo,
    remembered::{Remembered, question},
};

/// How long the service may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Answers that are remembered at once.
const REMEMBERED: usize = 4096;

/// What the service said.
type Answer = Result<Option<UserInfo>, AuthenticationError>;

/// Asks a service with a `TokenReview`, and remembers its answers for a while.
pub struct TokenWebhook {
    remote: Remote,
    audiences: Vec<String>,
    remember: Duration,
    known: Remembered<Answer>,
}

impl TokenWebhook {
    /// Asks `remote` whether a token is for one of these audiences; none for any. Answers count for `remember`
    /// (kube-apiserver's default is 2 minutes).
    pub fn new(remote: Remote, audiences: Vec<String>, remember: Duration) -> Self {
        Self { remote, audiences, remember, known: Remembered::new(REMEMBERED) }
    }

    async fn ask(&self, token: &str) -> Result<Answer, String> {
        let mut spec = json!({"token": token});
        if !self.audiences.is_empty() {
            spec["audiences"] = json!(self.audiences);
        }
        let question = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
        let asked = tokio::time::timeout(PATIENCE, self.remote.json(Method::POST, Some(&question))).await;
        let answer = asked.map_err(|_| "it does not answer".to_owned())??;
        let status = &answer["status"];
        if status["authenticated"] != true {
            return Ok(match status["error"].as_str().filter(|error| !error.is_empty()) {
                Some(error) => Err(AuthenticationError(error.to_owned())),
                None => Ok(None),
            });
        }
        let list = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap_or_default() };
        let fits = list(&status["audiences"]).iter().any(|audience| self.audiences.contains(audience));
        if !self.audiences.is_empty() && !fits {
            return Ok(Ok(None));
        }
        let text = |field: &str| status["user"][field].as_str().unwrap_or_default().to_owned();
        Ok(Ok(Some(UserInfo {
            name: text("username"),
            uid: text("uid"),
            groups: list(&status["user"]["groups"]),
            extra: serde_json::from_value(status["user"]["extra"].clone()).unwrap_or_default(),
        })))
    }
}

#[async_trait]
impl Authenticator for TokenWebhook {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<UserInfo>, AuthenticationError> {
        let Some(token) = &credentials.token else { return Ok(None) };
        let question = question(token);
        if let Some(answer) = self.known.get(&question) {
            return answer;
        }
        // A service that does not answer is asked again; what it said counts, a no as well as a yes.
        let answer = self.ask(token).await.map_err(|why| AuthenticationError(format!("token webhook: {why}")))?;
        self.known.put(question, answer.clone(), self.remember);
        answer
    }
}
