//! Asking a webhook over HTTPS.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::text;
use crate::server::Reader;

/// No answer is longer, in bytes: as much as a request to the API may be.
const MAX_ANSWER: usize = 3 << 20;

/// Where a webhook is.
struct Target {
    /// Host and port to connect to.
    address: String,
    /// The name in its certificate, and in the request.
    host: String,
    path: String,
}

async fn target(config: &Value, reader: &dyn Reader) -> Result<Target, String> {
    if let Some(url) = config["url"].as_str() {
        let uri: Uri = url.parse().map_err(|error| format!("url {url:?}: {error}"))?;
        let host = uri.host().ok_or_else(|| format!("url {url:?} has no host"))?;
        if uri.scheme_str() != Some("https") {
            return Err(format!("url {url:?} is not https"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let address = format!("{host}:{}", uri.port_u16().unwrap_or(443));
        return Ok(Target { address, host: host.trim_matches(['[', ']']).to_owned(), path });
    }
    let service = &config["service"];
    let (namespace, name) = (text(&service["namespace"]), text(&service["name"]));
    let port = service["port"].as_i64().unwrap_or(443);
    let found = reader.get("", "services", namespace, name).await.map_err(|error| error.to_string())?;
    let Some(found) = found else { return Err(format!("service {name:?} not found")) };
    let value = found.value().map_err(|error| error.to_string())?;
    let ip = match (text(&value["spec"]["type"]), text(&value["spec"]["clusterIP"])) {
        ("ExternalName", _) => text(&value["spec"]["externalName"]),
        (_, "" | "None") => return Err(format!("service {name:?} has no cluster IP")),
        (_, ip) => ip,
    };
    let address = if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    let path = service["path"].as_str().filter(|path| !path.is_empty()).unwrap_or("/").to_owned();
    Ok(Target { address, host: format!("{name}.{namespace}.svc"), path })
}

fn tls(config: &Value) -> Result<Arc<ClientConfig>, String> {
    let bundle = STANDARD.decode(text(&config["caBundle"])).map_err(|error| format!("caBundle: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bundle) {
        let certificate = certificate.map_err(|error| format!("caBundle: {error}"))?;
        roots.add(certificate).map_err(|error| format!("caBundle: {error}"))?;
    }
    if roots.is_empty() {
        return Err("clientConfig has no caBundle, and this server trusts no other authorities".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Posts a review to a webhook and reads the answer.
pub(crate) async fn call(config: &Value, question: &Value, reader: &dyn Reader) -> Result<Value, String> {
    let failed = |error: &dyn std::fmt::Display| format!("failed to call webhook: {error}");
    let target = target(config, reader).await.map_err(|error| failed(&error))?;
    let name = ServerName::try_from(target.host.clone()).map_err(|error| failed(&error))?;
    let tls = TlsConnector::from(tls(config).map_err(|error| failed(&error))?);
    let stream = TcpStream::connect(&target.address).await;
    let stream = stream.map_err(|error| failed(&format!("dial tcp {}: {error}", target.address)))?;
    let stream = tls.connect(name, stream).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let body = serde_json::to_vec(question).map_err(|error| failed(&error))?;
    let request = Request::post(&target.path)
        .header(header::HOST, &target.host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| failed(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| failed(&error))?.to_bytes();
        if !code.is_success() {
            return Err(failed(&format!("status {code}: {}", String::from_utf8_lossy(&body[..body.len().min(512)]))));
        }
        serde_json::from_slice(&body).map_err(|error| failed(&format!("the answer is no JSON: {error}")))
    };
    // The connection is driven here and ends with this call; its own error shows in the exchange.
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}
