//! A guarded server, put together as kube-apiserver does it by default.

use std::sync::Arc;

#[cfg(feature = "serve")]
use super::authn::ClientCertificates;
use super::{
    Authenticator, LateReader, Reader, Server, ServerBuilder,
    authn::{self, KeyError, ServiceAccountTokens, StaticTokens, TokenSigner},
    authz::{self, EscalationCheck, Rbac, SuperUsers},
    plugins, reviews,
};
use crate::Error;

/// Who issues service-account tokens, and with which key.
#[derive(Debug, Clone)]
pub struct ServiceAccountIssuer {
    /// The URL in the tokens, such as `https://kubernetes.default.svc.cluster.local`.
    pub url: String,
    /// Where others find the keys: the API server's address and `/openid/v1/jwks`.
    pub jwks_uri: String,
    /// The private key in PEM; see [`TokenSigner::from_pem`].
    pub key: String,
    /// For whom tokens are that ask for nobody; empty for the URL itself.
    pub audiences: Vec<String>,
}

/// What guards a server: client certificates (feature `serve`), tokens, RBAC, the default admission plugins, and the
/// reviews that tell about them.
///
/// ```
/// use std::sync::Arc;
/// use rk_api::{Api, ListOptions, k8s_openapi::api::core::v1::Pod, server::{Security, Server, UserInfo}};
/// use rk_store::MemoryStore;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let builder = Server::builder(Arc::new(MemoryStore::new()));
/// let server = Security::default().build(builder).await?;
/// let pods = Api::<Pod>::all(server.client(UserInfo::new("jane", [])));
/// assert!(pods.list(ListOptions::default()).await.unwrap_err().is_forbidden());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// Users by bearer token.
    pub tokens: StaticTokens,
    /// Tokens of service accounts; `None` for none.
    pub service_accounts: Option<ServiceAccountIssuer>,
    /// Whether callers without credentials are let in as `system:anonymous`; RBAC decides what they may do.
    pub anonymous: bool,
}

impl Security {
    /// Builds a server with these guards.
    ///
    /// # Errors
    /// The key is none, or the server can't be built.
    pub async fn build(self, builder: ServerBuilder) -> Result<Server, Error> {
        builder.security(self).build().await
    }

    /// Adds these guards, which will read the server through `reader`.
    pub(super) fn guard(self, mut builder: ServerBuilder, reader: &Arc<LateReader>) -> Result<ServerBuilder, KeyError> {
        let reader: Arc<dyn Reader> = reader.clone();
        let mut authenticators: Vec<Arc<dyn Authenticator>> = Vec::new();
        #[cfg(feature = "serve")]
        authenticators.push(Arc::new(ClientCertificates::default()));
        authenticators.push(Arc::new(self.tokens));
        let (mut service_accounts, mut signer, mut audiences) = (None, None, Vec::new());
        if let Some(issuer) = self.service_accounts {
            audiences = if issuer.audiences.is_empty() { vec![issuer.url.clone()] } else { issuer.audiences };
            let token_signer = TokenSigner::from_pem(&issuer.url, &issuer.key)?;
            let keys = vec![token_signer.public_key().clone()];
            builder = builder
                .document("/.well-known/openid-configuration", authn::discovery(&issuer.url, &issuer.jwks_uri, &keys))
                .document("/openid/v1/jwks", authn::jwks(&keys));
            let tokens =
                Arc::new(ServiceAccountTokens::new(vec![issuer.url], audiences.clone(), keys, Arc::clone(&reader)));
            authenticators.push(tokens.clone());
            (service_accounts, signer) = (Some(tokens), Some(Arc::new(token_signer)));
        }
        let rbac = Arc::new(Rbac::new(reader));
        let authorizer: Arc<dyn super::Authorizer> =
            Arc::new(authz::Union::new(vec![Arc::new(SuperUsers), rbac.clone()]));
        for authenticator in &authenticators {
            builder = builder.authenticator(Arc::clone(authenticator));
        }
        builder = builder.anonymous(self.anonymous).authorizer(Arc::clone(&authorizer));
        builder = builder.admission(Arc::new(EscalationCheck::new(Arc::clone(&authorizer), Arc::clone(&rbac))));
        for plugin in plugins::authorizing_chain(&authorizer).into_iter().chain(plugins::default_chain()) {
            builder = builder.admission(plugin);
        }
        let deps = reviews::ReviewDeps {
            authenticator: Arc::new(authn::Union::new(authenticators, false)),
            authorizer,
            rules: rbac,
            service_accounts,
            signer,
            audiences,
        };
        for (group, kind, strategy) in reviews::strategies(&deps) {
            builder = builder.strategy(group, kind, strategy);
        }
        Ok(builder)
    }
}
