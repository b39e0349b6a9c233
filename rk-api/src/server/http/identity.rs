//! Who asks: authentication and impersonation.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header, request::Parts};

use super::deadline::Deadline;
use crate::{
    Error,
    server::{Attributes, Authenticator, Credentials, UserInfo, audit, authn::ANONYMOUS, pipeline::Core},
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

/// Lets a caller act as somebody else, where they are allowed to (the verb `impersonate` on `users`, `groups`,
/// `serviceaccounts`, `uids` and `userextras`).
///
/// # Errors
/// 403 if they are not allowed to.
pub(super) async fn impersonate(core: &Core, user: Arc<UserInfo>, headers: &HeaderMap) -> Result<Arc<UserInfo>, Error> {
    const EXTRA: &str = "impersonate-extra-";
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = text("impersonate-user");
    let wanted = headers.keys().any(|key| key.as_str().starts_with("impersonate-"));
    if !wanted {
        return Ok(user);
    }
    if name.is_empty() {
        let asked = "requested impersonation without impersonating a user";
        return Err(status::internal(asked).into());
    }
    let mut acting = UserInfo::new(name, []);
    acting.uid = text("impersonate-uid").to_owned();
    let groups = headers.get_all("impersonate-group").iter().filter_map(|value| value.to_str().ok());
    acting.groups = groups.map(str::to_owned).collect();
    let mut checks = Vec::new();
    let check =
        |group: &'static str, resource: &'static str, subresource: &str, namespace: &str, name: &str| Attributes {
            user: Arc::clone(&user),
            verb: "impersonate".into(),
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        };
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, account)) => {
            checks.push(check("", "serviceaccounts", "", namespace, account));
            if acting.groups.is_empty() {
                acting.groups =
                    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
            }
        }
        None => checks.push(check("", "users", "", "", name)),
    }
    for value in headers.get_all("impersonate-group").iter().filter_map(|value| value.to_str().ok()) {
        checks.push(check("", "groups", "", "", value));
    }
    if !acting.uid.is_empty() {
        checks.push(check("authentication.k8s.io", "uids", "", "", &acting.uid));
    }
    for (key, value) in headers {
        let Some(extra) = key.as_str().strip_prefix(EXTRA).and_then(super::path::unescape) else { continue };
        let value = value.to_str().unwrap_or_default();
        checks.push(check("authentication.k8s.io", "userextras", &extra, "", value));
        acting.extra.entry(extra).or_default().push(value.to_owned());
    }
    for attributes in &checks {
        core.authorize_attributes(attributes).await?;
    }
    let anonymous = acting.name == "system:anonymous";
    let class = if anonymous { "system:unauthenticated" } else { "system:authenticated" };
    if !acting.in_group("system:authenticated") && !acting.in_group("system:unauthenticated") {
        acting.groups.push(class.to_owned());
    }
    let acting = Arc::new(acting);
    audit::impersonated(&acting);
    Ok(acting)
}
