//! Who asks: authentication.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header, request::Parts};

use super::deadline::Deadline;
use crate::{
    Error,
    server::{Authenticator, Credentials, UserInfo, authn::ANONYMOUS, pipeline::Core},
    status,
};

/// The client's certificate, which the TLS layer in front puts into a request's extensions.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// The leaf, in DER, after its chain was checked; or why it is not trusted.
    pub trusted: Result<Bytes, String>,
    /// All that the client showed, the leaf first, for those who have authorities of their own.
    pub chain: Arc<[Bytes]>,
}

/// Where a connection comes from, which the listener puts into a request's extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) std::net::SocketAddr);

/// Drops the headers whose names begin so.
pub(crate) fn drop_headers(headers: &mut HeaderMap, prefix: &str) {
    let dropped: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(prefix)).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
}

/// Who sends a request.
///
/// # Errors
/// 401 if nobody knows the credentials, 504 if that takes too long.
pub(super) async fn authenticate(core: &Core, parts: &mut Parts, deadline: Deadline) -> Result<Arc<UserInfo>, Error> {
    let token = parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim().to_owned());
    let certificate = parts.extensions.remove::<ClientCertificate>();
    let (certificate, chain) = certificate.map(|shown| (shown.trusted, shown.chain)).unzip();
    let credentials = Credentials {
        certificate,
        chain: chain.unwrap_or_default(),
        token,
        headers: std::mem::take(&mut parts.headers),
    };
    let authenticated = deadline.keep(async { Ok(core.authenticator.authenticate(&credentials).await) }).await;
    parts.headers = credentials.headers;
    // They have said what they had to say, and to nobody else: requests are sent on in this server's own name.
    drop_headers(&mut parts.headers, "x-remote-");
    #[cfg(feature = "serve")]
    if let Some(proxy) = &core.front_proxy {
        proxy.clear(&mut parts.headers);
    }
    match authenticated? {
        Ok(Some(user)) if user.name == ANONYMOUS && !core.anonymous_paths.allow(parts.uri.path()) => {
            Err(status::unauthorized().into())
        }
        Ok(Some(user)) => Ok(Arc::new(user)),
        Ok(None) => Err(status::unauthorized().into()),
        Err(error) => {
            tracing::debug!(%error, "credentials refused");
            Err(status::unauthorized().into())
        }
    }
}
