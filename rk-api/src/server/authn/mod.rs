//! Authentication: who sends a request.
//!
//! - `ClientCertificates` (feature `serve`): the common name is the user, the organizations are the groups.
//! - `RequestHeader` (feature `serve`): a front proxy says who it is.
//! - [`StaticTokens`]: bearer tokens from a file; [`BootstrapTokens`]: those in Secrets, for new nodes.
//! - `Oidc`, `TokenWebhook` (feature `serve`): tokens of an issuer, and of whom a service knows.
//! - [`ServiceAccountTokens`]: JSON Web Tokens of service accounts, checked against the objects that they name;
//!   [`TokenSigner`] makes them.
//! - [`Union`]: all of them together, as Kubernetes joins them.
//!
//! [`discovery`] and [`jwks`] are the documents with which others check the cluster's service-account tokens.

mod anonymous;
mod bootstrap_token;
#[cfg(feature = "serve")]
mod certificate;
mod claims;
#[cfg(feature = "serve")]
mod oidc;
#[cfg(feature = "serve")]
mod request_header;
mod service_account;
mod signer;
mod static_token;
#[cfg(feature = "serve")]
mod webhook;

use std::sync::Arc;

use async_trait::async_trait;

use super::{AuthenticationError, Authenticator, Credentials, UserInfo};

pub use anonymous::Anonymous;
pub use bootstrap_token::BootstrapTokens;
#[cfg(feature = "serve")]
pub use certificate::ClientCertificates;
pub use claims::{Claims, KubernetesClaims, ObjectRef};
#[cfg(feature = "serve")]
pub use oidc::{Oidc, OidcIssuer};
#[cfg(feature = "serve")]
pub use request_header::{IdentityHeaders, RequestHeader};
pub use service_account::{ServiceAccountTokens, service_account_user};
pub use signer::{KeyError, TokenKey, TokenSigner, discovery, jwks};
pub use static_token::{StaticTokens, TokenFileError};
#[cfg(feature = "serve")]
pub use webhook::TokenWebhook;

/// The group of every caller that is known.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of callers that nobody knows.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name of callers that nobody knows.
pub const ANONYMOUS: &str = "system:anonymous";

/// Several authenticators: the first that knows the caller wins; whoever is known joins [`AUTHENTICATED`].
///
/// Wrong credentials are an error (401) if no authenticator knows the caller, and so is a bearer token that nobody
/// knows. A request with no credentials at all is anonymous where that is allowed.
#[derive(Clone)]
pub struct Union {
    authenticators: Vec<Arc<dyn Authenticator>>,
    anonymous: bool,
}

impl Union {
    /// Asks these, in this order; `anonymous` says whether callers with no credentials are let in as
    /// [`UserInfo::anonymous`].
    pub fn new(authenticators: Vec<Arc<dyn Authenticator>>, anonymous: bool) -> Self {
        Self { authenticators, anonymous }
    }
}

#[async_trait]
impl Authenticator for Union {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<UserInfo>, AuthenticationError> {
        let mut errors = Vec::new();
        for authenticator in &self.authenticators {
            match authenticator.authenticate(credentials).await {
                Ok(None) => {}
                Ok(Some(user)) => return Ok(Some(with_group(user))),
                Err(error) => errors.push(error.0),
            }
        }
        if errors.is_empty() && credentials.token.is_some() {
            errors.push("invalid bearer token".to_owned());
        }
        if !errors.is_empty() {
            return Err(AuthenticationError(errors.join(", ")));
        }
        Ok(self.anonymous.then(UserInfo::anonymous))
    }
}

fn with_group(mut user: UserInfo) -> UserInfo {
    if user.name != ANONYMOUS && !user.in_group(AUTHENTICATED) && !user.in_group(UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Result<Option<UserInfo>, AuthenticationError>);

    #[async_trait]
    impl Authenticator for Fixed {
        async fn authenticate(&self, _: &Credentials) -> Result<Option<UserInfo>, AuthenticationError> {
            self.0.clone()
        }
    }

    #[tokio::test]
    async fn the_first_who_knows_wins_and_errors_only_count_if_nobody_does() {
        let unknown = || Arc::new(Fixed(Ok(None))) as Arc<dyn Authenticator>;
        let wrong = || Arc::new(Fixed(Err(AuthenticationError("expired".into())))) as Arc<dyn Authenticator>;
        let known = || Arc::new(Fixed(Ok(Some(UserInfo::new("jane", ["dev"]))))) as Arc<dyn Authenticator>;
        let nothing = Credentials::default();
        let token = Credentials { token: Some("t".into()), ..Credentials::default() };
        let ask = |list, anonymous, credentials: Credentials| async move {
            Union::new(list, anonymous).authenticate(&credentials).await
        };
        let jane = ask(vec![unknown(), wrong(), known()], true, nothing.clone()).await.unwrap().unwrap();
        assert_eq!(jane, UserInfo::new("jane", ["dev", AUTHENTICATED]));
        assert!(ask(vec![unknown(), wrong()], true, nothing.clone()).await.is_err());
        assert_eq!(ask(vec![unknown()], true, nothing.clone()).await.unwrap(), Some(UserInfo::anonymous()));
        assert_eq!(ask(vec![unknown()], false, nothing).await.unwrap(), None);
        let error = ask(vec![unknown()], true, token).await.unwrap_err();
        assert_eq!(error.0, "invalid bearer token");
    }
}
