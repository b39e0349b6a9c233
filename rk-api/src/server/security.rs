//! A guarded server, put together as kube-apiserver does it by default.

use std::{fmt, sync::Arc};

#[cfg(feature = "serve")]
use super::authn::{ClientCertificates, RequestHeader};
use super::{
    Authenticator, Authorizer, LateReader, Reader, Server, ServerBuilder,
    authn::{self, Anonymous, BootstrapTokens, KeyError, ServiceAccountTokens, StaticTokens, TokenKey, TokenSigner},
    authz::{self, EscalationCheck, NodeAuthorizer, Rbac, Resolvers, RuleResolver, SuperUsers},
    plugins, reviews,
};
use crate::Error;

/// Who issues service-account tokens, and with which key.
#[derive(Clone, Default)]
pub struct ServiceAccountIssuer {
    /// The URL in the tokens, such as `https://kubernetes.default.svc.cluster.local`.
    pub url: String,
    /// Where others find the keys: the API server's address and `/openid/v1/jwks`.
    pub jwks_uri: String,
    /// The private key in PEM; see [`TokenSigner::from_pem`].
    pub key: String,
    /// For whom tokens are that ask for nobody; empty for the URL itself.
    pub audiences: Vec<String>,
    /// Keys in PEM, public or private, whose tokens count as well: the ones before, until their last token has ended, and
    /// the next one, so that everybody knows it before it signs.
    pub other_keys: Vec<String>,
    /// URLs that the issuer had before, whose tokens still count.
    pub other_urls: Vec<String>,
}

impl fmt::Debug for ServiceAccountIssuer {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccountIssuer")
            .field("url", &self.url)
            .field("jwks_uri", &self.jwks_uri)
            .field("audiences", &self.audiences)
            .field("other_urls", &self.other_urls)
            .finish_non_exhaustive()
    }
}

/// What guards a server: client certificates (feature `serve`), tokens, the Node authorizer, RBAC, the default admission
/// plugins, and the reviews that tell about them.
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
#[derive(Clone, Default)]
pub struct Security {
    /// The front proxy whose word on who calls is taken; asked first.
    #[cfg(feature = "serve")]
    pub request_header: Option<Arc<RequestHeader>>,
    /// Users by bearer token.
    pub tokens: StaticTokens,
    /// Tokens of service accounts; `None` for none.
    pub service_accounts: Option<ServiceAccountIssuer>,
    /// Whether Secrets in `kube-system` hold tokens of new nodes.
    pub bootstrap_tokens: bool,
    /// Others who know callers, such as `Oidc` and `TokenWebhook`; asked last.
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    /// Others who decide, such as `Abac` and `AuthorizationWebhook`; asked after RBAC. Use
    /// [`with_authorizer`](Self::with_authorizer).
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    /// What those others say of the rules of a caller.
    pub rules: Vec<Arc<dyn RuleResolver>>,
    /// Whether callers without credentials are let in as `system:anonymous`; the authorizers decide what they may do.
    pub anonymous: Anonymous,
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security")
            .field("tokens", &self.tokens)
            .field("service_accounts", &self.service_accounts)
            .field("bootstrap_tokens", &self.bootstrap_tokens)
            .field("anonymous", &self.anonymous)
            .finish_non_exhaustive()
    }
}

impl Security {
    /// Asks this authorizer too, after RBAC and those before it.
    #[must_use]
    pub fn with_authorizer<A: Authorizer + RuleResolver>(mut self, authorizer: Arc<A>) -> Self {
        self.authorizers.push(authorizer.clone());
        self.rules.push(authorizer);
        self
    }

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
        {
            builder.front_proxy.clone_from(&self.request_header);
            authenticators.extend(self.request_header.map(|proxy| proxy as Arc<dyn Authenticator>));
            authenticators.push(Arc::new(ClientCertificates::default()));
        }
        authenticators.push(Arc::new(self.tokens));
        let (mut service_accounts, mut signer, mut audiences) = (None, None, Vec::new());
        if let Some(issuer) = self.service_accounts {
            audiences = if issuer.audiences.is_empty() { vec![issuer.url.clone()] } else { issuer.audiences };
            let token_signer = TokenSigner::from_pem(&issuer.url, &issuer.key)?;
            let mut keys = vec![token_signer.public_key().clone()];
            for pem in &issuer.other_keys {
                keys.push(TokenKey::from_pem(pem)?);
            }
            builder = builder
                .document("/.well-known/openid-configuration", authn::discovery(&issuer.url, &issuer.jwks_uri, &keys))
                .document("/openid/v1/jwks", authn::jwks(&keys));
            let urls = [issuer.url].into_iter().chain(issuer.other_urls).collect();
            let tokens = Arc::new(ServiceAccountTokens::new(urls, audiences.clone(), keys, Arc::clone(&reader)));
            authenticators.push(tokens.clone());
            (service_accounts, signer) = (Some(tokens), Some(Arc::new(token_signer)));
        }
        if self.bootstrap_tokens {
            authenticators.push(Arc::new(BootstrapTokens::new(Arc::clone(&reader))));
        }
        authenticators.extend(self.authenticators);
        let rbac = Arc::new(Rbac::new(Arc::clone(&reader)));
        let nodes = Arc::new(NodeAuthorizer::new(reader));
        let mut authorizers: Vec<Arc<dyn Authorizer>> = vec![Arc::new(SuperUsers), nodes.clone(), rbac.clone()];
        authorizers.extend(self.authorizers);
        let authorizer: Arc<dyn Authorizer> = Arc::new(authz::Union::new(authorizers));
        let mut rules: Vec<Arc<dyn RuleResolver>> = vec![nodes, rbac.clone()];
        rules.extend(self.rules);
        for authenticator in &authenticators {
            builder = builder.authenticator(Arc::clone(authenticator));
        }
        builder = builder.anonymous(self.anonymous).authorizer(Arc::clone(&authorizer));
        // It only validates, and Kubernetes' registry does so before the validating plugins.
        builder = builder.admission(Arc::new(EscalationCheck::new(Arc::clone(&authorizer), rbac)));
        for plugin in plugins::authorizing_chain(&authorizer) {
            builder = builder.admission(plugin);
        }
        let deps = reviews::ReviewDeps {
            authenticator: Arc::new(authn::Union::new(authenticators, false)),
            authorizer,
            rules: Arc::new(Resolvers::new(rules)),
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
