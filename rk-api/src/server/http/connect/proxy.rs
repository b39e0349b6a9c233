//! `proxy`: HTTP through the API server to nodes, pods and services.

use std::sync::Arc;

use http::{HeaderValue, Response, header, request::Parts};
use serde_json::Value;
use tokio::net::TcpStream;

use super::{
    super::{body::Body, path::ResourcePath},
    forward::forward,
    kubelet::{self, Address},
};
use crate::{
    Error, LabelSelector,
    server::{
        Reader,
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

async fn plain(
    address: &Address,
    parts: &mut Parts,
    path: &ResourcePath,
    body: Body,
    scheme: &str,
) -> Result<Response<Body>, Error> {
    if scheme == "https" {
        return Err(status::bad_request("proxying to https backends is not supported").into());
    }
    let authority = address.authority();
    let dialled = TcpStream::connect((address.host.as_str(), address.port)).await;
    let stream = dialled.map_err(|error| kubelet::dial_error(&authority, &error))?;
    send(stream, &authority, parts, path, body).await
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

/// Answers `nodes/proxy`: the kubelet's own API.
pub(super) async fn node(
    core: &Arc<Core>,
    call: &Call,
    parts: &mut Parts,
    path: &ResourcePath,
    body: Body,
) -> Result<Response<Body>, Error> {
    let (_, name, _) = split(&call.name)?;
    let (stream, address) = kubelet::connect(core, name).await?;
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
    let Some(host) = pod["status"]["podIP"].as_str().filter(|ip| !ip.is_empty()) else {
        return Err(status::bad_request(format!("address not allowed: pod {name} has no IP")).into());
    };
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
    plain(&address(host, number)?, parts, path, body, scheme).await
}

fn address(host: &str, port: u64) -> Result<Address, Error> {
    let port = u16::try_from(port).map_err(|_| status::bad_request(format!("invalid port {port}")))?;
    Ok(Address { host: host.to_owned(), port })
}

/// Answers `services/proxy`: a ready endpoint of the service.
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
    let none = || Error::from(status::unavailable(format!("no endpoints available for service {:?}", call.name)));
    if port.is_null() {
        return Err(status::unavailable(format!("no service port {wanted:?} found for service {name:?}")).into());
    }
    let selector: LabelSelector = format!("kubernetes.io/service-name={name}").parse().map_err(status::internal)?;
    let slices = Reader::list(core.as_ref(), "discovery.k8s.io", "endpointslices", &call.namespace, &selector).await?;
    for slice in slices {
        let slice = slice.value()?;
        let port_name = port["name"].as_str().unwrap_or_default();
        let slice_ports = slice["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        let target = slice_ports.iter().find(|p| p["name"].as_str().unwrap_or_default() == port_name);
        let Some(number) = target.and_then(|port| port["port"].as_u64()) else { continue };
        let ready = |endpoint: &&Value| endpoint["conditions"]["ready"] != false;
        let endpoint = slice["endpoints"].as_array().and_then(|endpoints| endpoints.iter().find(ready));
        if let Some(host) = endpoint.and_then(|endpoint| endpoint["addresses"][0].as_str()) {
            return plain(&address(host, number)?, parts, path, body, scheme).await;
        }
    }
    Err(none())
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
