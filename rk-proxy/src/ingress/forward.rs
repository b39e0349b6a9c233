//! Forwarding one request to an endpoint.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{self, Entry},
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body as _, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use parking_lot::RwLock;

use super::{
    Directory, Router,
    pages::{Body, page},
};

/// How a request came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    /// The client.
    pub(super) client: IpAddr,
    /// The port it came to.
    pub(super) port: u16,
    /// Whether it came over TLS.
    pub(super) tls: bool,
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) router: RwLock<Arc<Router>>,
    pub(super) directory: Directory,
    client: Client<HttpConnector, Body>,
}

impl Shared {
    pub(super) fn new(connect_timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .build(connector);
        Self { router: RwLock::default(), directory: Directory::default(), client }
    }

    /// Answers a request.
    pub(super) async fn answer(&self, request: Request<Incoming>, origin: Origin) -> Response<Body> {
        let host = request.uri().authority().map(|authority| authority.as_str().to_owned());
        let host = host.or_else(|| request.headers().get(header::HOST)?.to_str().ok().map(str::to_owned));
        let host = host.unwrap_or_default();
        let backend = self.router.read().route(&host, request.uri().path());
        let Some(backend) = backend else {
            return page(StatusCode::NOT_FOUND, "There is no rule for this host and path.");
        };
        let endpoints = self.directory.endpoints(&backend).unwrap_or_default();
        if endpoints.is_empty() {
            return page(StatusCode::SERVICE_UNAVAILABLE, "The service has no endpoints that are ready.");
        }
        self.forward(request, &host, origin, &endpoints).await
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        host: &str,
        origin: Origin,
        endpoints: &[SocketAddr],
    ) -> Response<Body> {
        let upgrade = upgrade_of(request.headers());
        let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        prepare(&mut parts.headers, host, origin, upgrade.as_ref());
        // Without a body the request can be made again for another endpoint.
        let repeatable = body.is_end_stream() && idempotent(&parts.method);
        let mut body = Some(body);
        let mut failure = String::new();
        for endpoint in endpoints {
            let body = match body.take() {
                Some(body) if !repeatable => body.boxed(),
                _ => Empty::<Bytes>::new().map_err(|never| match never {}).boxed(),
            };
            let Some(uri) = target(*endpoint, parts.uri.path_and_query()) else {
                return page(StatusCode::BAD_REQUEST, "The request's target can't be forwarded.");
            };
            let mut outgoing = Request::new(body);
            *outgoing.method_mut() = parts.method.clone();
            *outgoing.uri_mut() = uri;
            *outgoing.version_mut() = Version::HTTP_11;
            *outgoing.headers_mut() = parts.headers.clone();
            match self.client.request(outgoing).await {
                Ok(response) => return finish(response, client_side),
                Err(error) => {
                    failure = error.to_string();
                    tracing::debug!(%endpoint, error = failure, "endpoint failed");
                    if !(repeatable && error.is_connect()) {
                        break;
                    }
                }
            }
        }
        tracing::warn!(host, error = failure, "no endpoint answered");
        page(StatusCode::BAD_GATEWAY, "The service did not answer.")
    }
}

/// Whether making the request twice is like making it once (RFC 9110, 9.2.2).
fn idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

fn target(endpoint: SocketAddr, path: Option<&PathAndQuery>) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Authority::try_from(endpoint.to_string()).ok();
    parts.path_and_query = Some(path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    Uri::from_parts(parts).ok()
}

/// The protocol that a message wants to change to.
fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let wants = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let wants = wants.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    wants.then(|| headers.get(header::UPGRADE).cloned()).flatten()
}

/// Headers that concern one connection only (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

fn set_upgrade(headers: &mut HeaderMap, protocol: &HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol.clone());
}

/// Makes a client's headers those of the request to the endpoint.
fn prepare(headers: &mut HeaderMap, host: &str, origin: Origin, upgrade: Option<&HeaderValue>) {
    remove_hop_by_hop(headers);
    if let Some(protocol) = upgrade {
        set_upgrade(headers, protocol);
    }
    let text = |value: String| HeaderValue::try_from(value).ok();
    if let Some(host) = text(host.to_owned()) {
        headers.insert(header::HOST, host.clone());
        set_first(headers, "x-forwarded-host", Some(host));
    }
    let client = origin.client.to_string();
    let before = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let forwarded = before.map_or_else(|| client.clone(), |before| format!("{before}, {client}"));
    if let Some(forwarded) = text(forwarded) {
        headers.insert("x-forwarded-for", forwarded);
    }
    set_first(headers, "x-real-ip", text(client));
    set_first(headers, "x-forwarded-proto", Some(HeaderValue::from_static(if origin.tls { "https" } else { "http" })));
    set_first(headers, "x-forwarded-port", text(origin.port.to_string()));
}

/// Sets what a proxy before this one has not set.
fn set_first(headers: &mut HeaderMap, name: &'static str, value: Option<HeaderValue>) {
    if let (Entry::Vacant(entry), Some(value)) = (headers.entry(name), value) {
        entry.insert(value);
    }
}

/// Passes an endpoint's answer on; where both agreed on another protocol, joins the two connections.
fn finish(mut response: Response<Incoming>, client_side: Option<hyper::upgrade::OnUpgrade>) -> Response<Body> {
    let upgrade = (response.status() == StatusCode::SWITCHING_PROTOCOLS)
        .then(|| response.headers().get(header::UPGRADE).cloned())
        .flatten();
    let endpoint_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut response));
    remove_hop_by_hop(response.headers_mut());
    if let (Some(protocol), Some(client_side), Some(endpoint_side)) = (upgrade, client_side, endpoint_side) {
        set_upgrade(response.headers_mut(), &protocol);
        tokio::spawn(async move {
            let (client, endpoint) = match tokio::try_join!(client_side, endpoint_side) {
                Ok(both) => both,
                Err(error) => {
                    tracing::debug!(%error, "upgrade failed");
                    return;
                }
            };
            let joined = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(endpoint)).await;
            if let Err(error) = joined {
                tracing::debug!(%error, "upgraded connection broke");
            }
        });
    }
    response.map(BodyExt::boxed)
}
