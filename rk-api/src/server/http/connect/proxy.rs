//! `proxy`: HTTP through the API server to nodes, pods and services.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Response, header, request::Parts};
use serde_json::Value;
use tokio::net::TcpStream;

use super::{
    super::{body::Body, path::ResourcePath},
    forward::{broken, forward},
    kubelet,
};
use crate::{
    Error,
    server::{
        Reader,
        endpoints::{self, Endpoint},
        outbound::{Trust, authority, client_tls, secure},
        pipeline::{Call, Core},
    },
    status,
};

/// `[scheme:]name[:port]`, taken apart.
fn split(name: &str) -> Result<(&str, &str, &str), Error> {
    let parts: Vec<&str> = name.split(':').collect();
    match parts.as_slice() {
        [name] => Ok(("", name, "")),
        [name, port] => Ok(("", name, port)),
        [scheme @ ("" | "http" | "https"), name, port] => Ok((scheme, name, port)),
        _ => Err(status::bad_request(format!("invalid proxy target {name:?}")).into()),
    }
}

/// The path and query behind `proxy`.
fn target(parts: &Parts, path: &ResourcePath) -> String {
    match parts.uri.query() {
        Some(query) => format!("/{}?{query}", path.rest),
        None => format!("/{}", path.rest),
    }
}

/// How long a backend may take for the handshake of TLS, as with Go's default transport.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Sends a request on to a host, if requests may be led there. With the scheme `https` it goes over TLS to whoever answers: as with
/// kube-apiserver's proxy transport, the backend has to hold the key of its certificate, and no more is asked of it.
async fn lead(
    core: &Core,
    (host, port): (&str, u16),
    parts: &mut Parts,
    path: &ResourcePath,
    body: Body,
    scheme: &str,
) -> Result<Response<Body>, Error> {
    let authority = authority(host, port);
    let addresses = core.reach.resolve(host, port).await?;
    let dialled = TcpStream::connect(addresses.as_slice()).await;
    let stream = dialled.map_err(|error| kubelet::dial_error(&authority, &error))?;
    if scheme != "https" {
        return send(stream, &authority, parts, path, body).await;
    }
    let tls = client_tls(Trust::Anybody, None).map_err(status::internal)?;
    let secured = tokio::time::timeout(HANDSHAKE, secure(stream, &tls, host)).await;
    let secured = secured.map_err(|_| broken(&"net/http: TLS handshake timeout"))?;
    send(secured.map_err(|error| broken(&error))?, &authority, parts, path, body).await
}

/// Sends a request on; redirects inside the target are led back through the proxy.
async fn send<S>(
    stream: S,
    authority: &str,
    parts: &mut Parts,
    path: &ResourcePath,
    body: Body,
) -> Result<Response<Body>, Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let uri = target(parts, path);
    let whole = parts.uri.path();
    let base = whole.strip_suffix(path.rest.as_str()).unwrap_or(whole).trim_end_matches('/').to_owned();
    let mut response = forward(stream, authority, &uri, parts, body).await?;
    let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
    if let Some(location) = location.filter(|location| location.starts_with('/'))
        && let Ok(led_back) = HeaderValue::from_str(&format!("{base}{location}"))
    {
        response.headers_mut().insert(header::LOCATION, led_back);
    }
    Ok(response)
}

/// Answers `nodes/proxy`: the kubelet's own API, or another port of the node.
pub(super) async fn node(
    core: &Arc<Core>,
    call: &Call,
    parts: &mut Parts,
    path: &ResourcePath,
    body: Body,
) -> Result<Response<Body>, Error> {
    let (scheme, name, wanted) = split(&call.name)?;
    let address = kubelet::locate(core, name).await?;
    if !wanted.is_empty() {
        let number: u16 = wanted.parse().map_err(|_| status::bad_request(format!("invalid port {wanted:?}")))?;
        if number != address.port {
            return lead(core, (&address.host, number), parts, path, body, scheme).await;
        }
    }
    let (stream, address) = kubelet::dial(core, address).await?;
    send(stream, &address.authority(), parts, path, body).await
}

/// Answers `pods/proxy`: a port of the pod, its first if none is named.
pub(super) async fn pod(
    core: &Arc<Core>,
    call: &Call,
    parts: &mut Parts,
    path: &ResourcePath,
    body: Body,
) -> Result<Response<Body>, Error> {
    let (scheme, name, port) = split(&call.name)?;
    let found = Reader::get(core.as_ref(), "", "pods", &call.namespace, name).await?;
    let pod = found.ok_or_else(|| status::not_found(call.resource(), name))?.value()?;
    let host = core.reach.check(pod["status"]["podIP"].as_str().unwrap_or_default())?.to_string();
    let mut ports = pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let number = match port {
        "" => ports.next().and_then(|port| port["containerPort"].as_u64()).unwrap_or(80),
        text => match text.parse() {
            Ok(number) => number,
            Err(_) => ports
                .find(|port| port["name"] == text)
                .and_then(|port| port["containerPort"].as_u64())
                .ok_or_else(|| status::bad_request(format!("no port {text:?} in pod {name:?}")))?,
        },
    };
    let number = u16::try_from(number).map_err(|_| status::bad_request(format!("invalid port {number}")))?;
    lead(core, (&host, number), parts, path, body, scheme).await
}

/// Whether an endpoint is the address of a pod of the namespace: whoever writes endpoints may not lead this server to where they
/// can't go themselves.
async fn is_of_pod(core: &Core, namespace: &str, endpoint: &Endpoint) -> Result<bool, Error> {
    let target = &endpoint.target;
    let Some(name) = target["name"].as_str().filter(|_| target["namespace"] == namespace) else { return Ok(false) };
    let Some(pod) = Reader::get(core, "", "pods", namespace, name).await? else { return Ok(false) };
    let pod = pod.value()?;
    let ips = pod["status"]["podIPs"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(ips.iter().any(|ip| ip["ip"] == endpoint.host.as_str()))
}

/// Answers `services/proxy`: a ready pod of the service.
pub(super) async fn service(
    core: &Arc<Core>,
    call: &Call,
    parts: &mut Parts,
    path: &ResourcePath,
    body: Body,
) -> Result<Response<Body>, Error> {
    let (scheme, name, wanted) = split(&call.name)?;
    let found = Reader::get(core.as_ref(), "", "services", &call.namespace, name).await?;
    let service = found.ok_or_else(|| status::not_found(call.resource(), name))?.value()?;
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let port = match (wanted, ports) {
        ("", [only]) => only,
        ("", _) => &Value::Null,
        (text, ports) => ports
            .iter()
            .find(|port| port["name"] == text || port["port"].as_u64().map(|n| n.to_string()).as_deref() == Some(text))
            .unwrap_or(&Value::Null),
    };
    if port.is_null() {
        return Err(status::unavailable(format!("no service port {wanted:?} found for service {name:?}")).into());
    }
    let port = port["name"].as_str().unwrap_or_default();
    for endpoint in endpoints::ready(core.as_ref(), &call.namespace, name, port).await? {
        if is_of_pod(core, &call.namespace, &endpoint).await? {
            return lead(core, (&endpoint.host, endpoint.port), parts, path, body, scheme).await;
        }
    }
    Err(status::unavailable(format!("no endpoints available for service {:?}", call.name)).into())
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn targets_are_taken_apart() {
        assert_eq!(split("a").unwrap(), ("", "a", ""));
        assert_eq!(split("a:80").unwrap(), ("", "a", "80"));
        assert_eq!(split("http:a:web").unwrap(), ("http", "a", "web"));
        assert!(split("ftp:a:1").is_err());
    }
}
