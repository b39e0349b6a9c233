//! Who a front proxy says that the caller is
//! (<https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/#kubernetes-apiserver-client-authentication>).

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, header::InvalidHeaderName};
use rustls::{
    pki_types::{CertificateDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::ClientCertificates;
use crate::server::{
    AuthenticationError, Authenticator, Credentials, TlsError, UserInfo,
    http::{drop_headers, roots, unescape},
};

/// The headers in which a front proxy says who calls; these are the usual ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// Where the user's name is.
    pub username: Vec<String>,
    /// Where the user's uid is.
    pub uid: Vec<String>,
    /// Where the groups are, one in each.
    pub group: Vec<String>,
    /// What the headers of everything else begin with.
    pub extra_prefix: Vec<String>,
}

impl Default for IdentityHeaders {
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            username: one("X-Remote-User"),
            uid: one("X-Remote-Uid"),
            group: one("X-Remote-Group"),
            extra_prefix: one("X-Remote-Extra-"),
        }
    }
}

/// Believes the identity headers of a proxy that shows a certificate of an authority which signs for proxies only.
pub struct RequestHeader {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
    username: Vec<HeaderName>,
    uid: Vec<HeaderName>,
    group: Vec<HeaderName>,
    extra_prefix: Vec<String>,
}

impl fmt::Debug for RequestHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHeader").field("names", &self.names).finish_non_exhaustive()
    }
}

impl RequestHeader {
    /// Believes proxies whose certificates are of `ca` (PEM) and have one of these common names (none: any name).
    ///
    /// # Errors
    /// The authority is none, or a header's name or prefix is none.
    pub fn new(ca: &str, names: Vec<String>, headers: &IdentityHeaders) -> Result<Self, TlsError> {
        let wrong = |what, reason: &dyn fmt::Display| TlsError { what, reason: reason.to_string() };
        let roots = Arc::new(roots("request-header CA", ca)?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        let verifier = verifier.map_err(|error| wrong("request-header CA", &error))?;
        let list = |names: &[String]| -> Result<Vec<HeaderName>, InvalidHeaderName> {
            names.iter().map(|name| HeaderName::from_bytes(name.as_bytes())).collect()
        };
        if headers.extra_prefix.iter().any(String::is_empty) {
            return Err(wrong("request header", &"an empty prefix is that of all headers"));
        }
        let named = |names| list(names).map_err(|error| wrong("request header", &error));
        Ok(Self {
            verifier,
            names,
            username: named(&headers.username)?,
            uid: named(&headers.uid)?,
            group: named(&headers.group)?,
            extra_prefix: headers.extra_prefix.iter().map(|prefix| prefix.to_ascii_lowercase()).collect(),
        })
    }

    /// Removes the headers in which a proxy says who calls.
    pub(crate) fn clear(&self, headers: &mut HeaderMap) {
        for name in [&self.username, &self.uid, &self.group].into_iter().flatten() {
            headers.remove(name);
        }
        for prefix in &self.extra_prefix {
            drop_headers(headers, prefix);
        }
    }

    /// The user that the headers name; `None` if they name none.
    fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let first = |names: &[HeaderName]| {
            let values = names.iter().filter_map(|name| headers.get(name)?.to_str().ok());
            values.map(str::trim).find(|value| !value.is_empty()).map(str::to_owned)
        };
        let name = first(&self.username)?;
        let groups = self.group.iter().flat_map(|name| headers.get_all(name));
        let groups = groups.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (header, value) in headers {
            let key = self.extra_prefix.iter().find_map(|prefix| header.as_str().strip_prefix(prefix.as_str()));
            if let (Some(key), Ok(value)) = (key.and_then(unescape), value.to_str()) {
                extra.entry(key).or_default().push(value.to_owned());
            }
        }
        Some(UserInfo { name, uid: first(&self.uid).unwrap_or_default(), groups, extra })
    }
}

#[async_trait]
impl Authenticator for RequestHeader {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<UserInfo>, AuthenticationError> {
        let Some((leaf, others)) = credentials.chain.split_first() else { return Ok(None) };
        // Of most requests nobody says anything, and nobody's certificate has to be checked for that.
        let Some(user) = self.user(&credentials.headers) else { return Ok(None) };
        let der = |bytes: &bytes::Bytes| CertificateDer::from(bytes.to_vec());
        let others: Vec<_> = others.iter().map(der).collect();
        // A certificate of another authority is no proxy's: others may know its holder.
        if self.verifier.verify_client_cert(&der(leaf), &others, UnixTime::now()).is_err() {
            return Ok(None);
        }
        let proxy = ClientCertificates::user(leaf, crate::now())?;
        let name = proxy.map(|proxy| proxy.name).unwrap_or_default();
        if !self.names.is_empty() && !self.names.contains(&name) {
            return Err(AuthenticationError(format!("x509: subject with cn={name} is not in the allowed list")));
        }
        Ok(Some(user))
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::server::pki::{Pki, Wanted};

    #[tokio::test]
    async fn nothing_is_checked_of_a_request_that_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let proxies = Pki::open(folder.path()).unwrap();
        let believed = RequestHeader::new(proxies.ca(), vec!["front".into()], &IdentityHeaders::default()).unwrap();
        let identity = proxies.identity("other", &Wanted::client("other", "")).unwrap();
        let leaf = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
        let mut credentials = Credentials { chain: [leaf.to_vec().into()].into(), ..Credentials::default() };
        assert_eq!(believed.authenticate(&credentials).await.unwrap(), None, "its name was not looked at");
        credentials.headers.insert("x-remote-user", "jane".parse().unwrap());
        assert!(believed.authenticate(&credentials).await.unwrap_err().0.contains("not in the allowed list"));
        let every = IdentityHeaders { extra_prefix: vec![String::new()], ..IdentityHeaders::default() };
        let refused = RequestHeader::new(proxies.ca(), Vec::new(), &every).unwrap_err();
        assert!(refused.to_string().contains("empty prefix"), "{refused}");
    }
}
