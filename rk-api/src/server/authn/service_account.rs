//! Who holds a service-account token.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{Validation, errors::ErrorKind};

use super::{Claims, ObjectRef, TokenKey};
use crate::{
    Object,
    server::{AuthenticationError, Authenticator, Credentials, Reader, UserInfo},
};

/// How far clocks may differ, in seconds, as Kubernetes has it.
const LEEWAY: i64 = 60;

/// Checks service-account tokens: signature, issuer, audience, time, and that the service account and what else the
/// token is bound to are still there, with the same uid.
pub struct ServiceAccountTokens {
    issuers: Vec<String>,
    audiences: Vec<String>,
    keys: Vec<TokenKey>,
    reader: Arc<dyn Reader>,
}

/// The user that a service account is.
pub fn service_account_user(namespace: &str, name: &str, uid: &str) -> UserInfo {
    UserInfo {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        uid: uid.to_owned(),
        groups: vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")],
        extra: BTreeMap::new(),
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, AuthenticationError> {
    Err(AuthenticationError(why.into()))
}

/// The issuer that a token claims, unchecked; `None` if it is no JWT with one.
pub(super) fn claimed_issuer(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    claims["iss"].as_str().map(str::to_owned)
}

impl ServiceAccountTokens {
    /// Accepts tokens of these issuers, signed with one of these keys, for one of these audiences (the API server's own).
    pub fn new(issuers: Vec<String>, audiences: Vec<String>, keys: Vec<TokenKey>, reader: Arc<dyn Reader>) -> Self {
        Self { issuers, audiences, keys, reader }
    }

    /// The audiences that a token must be for where none are asked for.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Who holds a token, and for which of the wanted audiences (empty: the server's own) it is.
    /// `None` if it is no token of these issuers.
    ///
    /// # Errors
    /// It is such a token, but wrong, ended, for others, or what it is bound to is gone.
    pub async fn check(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Option<(UserInfo, Vec<String>)>, AuthenticationError> {
        if !claimed_issuer(token).is_some_and(|issuer| self.issuers.contains(&issuer)) {
            return Ok(None);
        }
        let claims = self.verify(token)?;
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        let fitting: Vec<_> = claims.aud.iter().filter(|audience| wanted.contains(audience)).cloned().collect();
        if fitting.is_empty() {
            let list = |list: &[String]| list.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(" ");
            return refuse(format!(
                "token audiences [{}] is invalid for the target audiences [{}]",
                list(&claims.aud),
                list(wanted)
            ));
        }
        let now = now.as_second();
        if now > claims.exp + LEEWAY {
            return refuse("service account token has expired");
        }
        if now + LEEWAY < claims.nbf {
            return refuse("service account token is not valid yet");
        }
        Ok(Some((self.bound(&claims, now).await?, fitting)))
    }

    /// The claims, if the signature is by one of the keys.
    fn verify(&self, token: &str) -> Result<Claims, AuthenticationError> {
        let header = match jsonwebtoken::decode_header(token) {
            Ok(header) => header,
            Err(error) => return refuse(format!("invalid bearer token: {error}")),
        };
        for key in &self.keys {
            // A key checks its own algorithm only, so a token can't choose a weaker one; without a `kid` all are tried.
            if header.alg != key.algorithm || header.kid.as_ref().is_some_and(|id| *id != key.id) {
                continue;
            }
            let mut validation = Validation::new(key.algorithm);
            // Times and audiences are checked by `check`, against its own clock.
            validation.validate_exp = false;
            validation.validate_aud = false;
            validation.required_spec_claims.clear();
            match jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {}
                Err(error) => return refuse(format!("invalid bearer token: {error}")),
            }
        }
        refuse("invalid bearer token: no key of this cluster signed it")
    }

    async fn find(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, AuthenticationError> {
        self.reader.get("", plural, namespace, name).await.or_else(|error| refuse(error.to_string()))
    }

    /// The user, if everything the token is bound to is still there.
    async fn bound(&self, claims: &Claims, now: i64) -> Result<UserInfo, AuthenticationError> {
        let bound = &claims.kubernetes;
        let (namespace, account) = (&bound.namespace, &bound.serviceaccount);
        if claims.sub != format!("system:serviceaccount:{namespace}:{}", account.name) {
            return refuse("service account token claims could not be validated: subject and kubernetes.io differ");
        }
        let Some(object) = self.find("serviceaccounts", namespace, &account.name).await? else {
            return refuse(format!("serviceaccounts {:?} not found", account.name));
        };
        if is_deleted(&object, now) {
            return refuse(format!("service account {namespace}/{} has been deleted", account.name));
        }
        if object.meta().uid != account.uid {
            let uid = &object.meta().uid;
            return refuse(format!("service account UID ({uid}) does not match claim ({})", account.uid));
        }
        let mut user = service_account_user(namespace, &account.name, &account.uid);
        let mut say = |key: &str, value: &str| {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        };
        if !claims.jti.is_empty() {
            say("credential-id", &format!("JTI={}", claims.jti));
        }
        if let Some(secret) = &bound.secret {
            self.still_there("secrets", "Secret", namespace, secret, now).await?;
        }
        if let Some(pod) = &bound.pod {
            self.still_there("pods", "pod", namespace, pod, now).await?;
            say("pod-name", &pod.name);
            say("pod-uid", &pod.uid);
        }
        if let Some(node) = &bound.node {
            // The token of a pod only tells its node; a token for a node ends with it.
            if bound.pod.is_none() {
                self.still_there("nodes", "node", "", node, now).await?;
            }
            say("node-name", &node.name);
            if !node.uid.is_empty() {
                say("node-uid", &node.uid);
            }
        }
        Ok(user)
    }

    async fn still_there(
        &self,
        plural: &str,
        what: &str,
        namespace: &str,
        wanted: &ObjectRef,
        now: i64,
    ) -> Result<(), AuthenticationError> {
        match self.find(plural, namespace, &wanted.name).await? {
            Some(object) if is_deleted(&object, now) => refuse("service account token has been invalidated"),
            None => refuse("service account token has been invalidated"),
            Some(object) if object.meta().uid != wanted.uid => {
                let (uid, claim, lower) = (&object.meta().uid, &wanted.uid, what.to_ascii_lowercase());
                refuse(format!("{what} UID ({uid}) does not match service account {lower} ref claim ({claim})"))
            }
            Some(_) => Ok(()),
        }
    }
}

/// Whether an object's deletion is over, but for what still holds it.
fn is_deleted(object: &Object, now: i64) -> bool {
    let at = object.meta().deletion_timestamp.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
    at.is_some_and(|at| at.as_second() < now - LEEWAY)
}

#[async_trait]
impl Authenticator for ServiceAccountTokens {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<UserInfo>, AuthenticationError> {
        let Some(token) = &credentials.token else { return Ok(None) };
        Ok(self.check(token, &[], crate::now()).await?.map(|(user, _)| user))
    }
}

#[cfg(test)]
mod tests;
