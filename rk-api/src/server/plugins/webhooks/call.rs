//! Asking a webhook over HTTPS.

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::Full;
use serde_json::Value;

use super::super::text;
use crate::server::{
    Reader,
    outbound::{self, authority, bundle_tls},
};

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
    let address = authority(ip, port);
    let path = service["path"].as_str().filter(|path| !path.is_empty()).unwrap_or("/").to_owned();
    Ok(Target { address, host: format!("{name}.{namespace}.svc"), path })
}

/// Posts a review to a webhook and reads the answer.
pub(crate) async fn call(config: &Value, question: &Value, reader: &dyn Reader) -> Result<Value, String> {
    let failed = |error: &dyn std::fmt::Display| format!("failed to call webhook: {error}");
    let target = target(config, reader).await.map_err(|error| failed(&error))?;
    let tls = bundle_tls(&config["caBundle"], None);
    let tls = tls.map_err(|error| failed(&format!("caBundle: {}", error.reason)))?;
    let stream = outbound::connect(&target.address, Some((&tls, &target.host))).await;
    let stream = stream.map_err(|error| failed(&format!("dial tcp {}: {error}", target.address)))?;
    let request = Request::post(&target.path)
        .header(header::HOST, &target.host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(Full::new(Bytes::from(question.to_string())))
        .map_err(|error| failed(&error))?;
    let answer = outbound::exchange(stream, request).await.map_err(|error| failed(&error))?;
    outbound::json(answer).map_err(|error| failed(&error))
}
