//! One server behind this one: where it is, and whether it is there.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use parking_lot::Mutex;
use rustls::ClientConfig;
use serde_json::Value;

use super::{RemoteVersion, document, status::Condition};
use crate::{
    Error,
    server::{
        Reader, UserInfo, endpoints,
        http::drop_headers,
        outbound::{Connection, Trust, authority, bundle_tls, client_tls, connect, exchange},
        pipeline::Core,
    },
    tree::text,
};

/// How long a backend may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// The server of a group and version.
pub(crate) struct Backend {
    /// The APIService's name.
    pub(super) name: String,
    pub(super) group: String,
    pub(super) version: String,
    pub(super) spec: Value,
    tls: Result<Arc<ClientConfig>, String>,
    /// What was found when it was last looked at; at first nothing is known.
    condition: Mutex<Condition>,
}

/// Who this server is where it asks for itself.
fn itself() -> UserInfo {
    UserInfo::new("system:kube-aggregator", ["system:masters"])
}

impl Backend {
    pub(super) fn new(name: &str, spec: &Value, identity: Option<(&str, &str)>) -> Self {
        let tls = match spec["insecureSkipTLSVerify"] == true {
            true => client_tls(Trust::Anybody, identity),
            false => bundle_tls(&spec["caBundle"], identity),
        };
        Self {
            name: name.to_owned(),
            group: text(&spec["group"]).to_owned(),
            version: text(&spec["version"]).to_owned(),
            spec: spec.clone(),
            tls: tls.map_err(|error| error.to_string()),
            condition: Mutex::new(Condition::new("Unknown", "NotChecked", "it was not looked at yet")),
        }
    }

    pub(super) fn condition(&self) -> Condition {
        self.condition.lock().clone()
    }

    /// Whether requests can be sent there.
    pub(crate) fn is_available(&self) -> bool {
        self.condition.lock().status == "True"
    }

    /// The host's name in its certificate and in requests.
    pub(crate) fn host(&self) -> String {
        let service = &self.spec["service"];
        format!("{}.{}.svc", text(&service["name"]), text(&service["namespace"]))
    }

    /// Where the Service leads: a ready endpoint, or, of one without a selector's endpoints, its address.
    async fn address(&self, reader: &dyn Reader) -> Result<String, Condition> {
        let no = |reason: &'static str, message: String| Condition::new("False", reason, &message);
        let failed = |error: Error| no("ServiceAccessError", error.to_string());
        let reference = &self.spec["service"];
        let (namespace, name) = (text(&reference["namespace"]), text(&reference["name"]));
        let port = reference["port"].as_i64().unwrap_or(443);
        let found = reader.get("", "services", namespace, name).await.map_err(failed)?;
        let Some(service) = found else {
            let why = format!("service/{name} in {namespace:?} is not present");
            return Err(no("ServiceNotFound", why));
        };
        let service = service.value().map_err(failed)?;
        let spec = &service["spec"];
        if spec["type"] == "ExternalName" {
            return Ok(format!("{}:{port}", text(&spec["externalName"])));
        }
        let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(wanted) = ports.iter().find(|entry| entry["port"].as_i64() == Some(port)) else {
            let why = format!("service/{name} in {namespace:?} is not listening on port {port}");
            return Err(no("ServicePortError", why));
        };
        let ready = endpoints::ready(reader, namespace, name, text(&wanted["name"])).await.map_err(failed)?;
        if let Some(endpoint) = ready.first() {
            return Ok(authority(&endpoint.host, endpoint.port));
        }
        let why = format!(
            "endpoints for service/{name} in {namespace:?} have no addresses with port name {:?}",
            text(&wanted["name"])
        );
        Err(no("MissingEndpoints", why))
    }

    /// A connection to it.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn connect(&self, reader: &dyn Reader) -> Result<Box<dyn Connection>, String> {
        let address = self.address(reader).await.map_err(|condition| condition.message)?;
        self.dial(&address).await
    }

    async fn dial(&self, address: &str) -> Result<Box<dyn Connection>, String> {
        let tls = self.tls.as_ref().map_err(Clone::clone)?;
        connect(address, Some((tls, &self.host()))).await.map_err(|error| format!("dial {address}: {error}"))
    }

    /// What it answers to a GET in this server's own name.
    async fn get(&self, address: &str, path: &str) -> Result<Value, String> {
        let stream = self.dial(address).await?;
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = path.parse().map_err(|_| format!("invalid path {path:?}"))?;
        let host = HeaderValue::from_str(&self.host()).map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, host);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        identify(headers, &itself());
        let answer = exchange(stream, request).await?;
        if !answer.status().is_success() {
            return Err(format!("bad status from {path}: {}", answer.status().as_u16()));
        }
        serde_json::from_slice(answer.body()).map_err(|error| format!("{path} is no JSON: {error}"))
    }

    /// Looks whether it is there, and at what it serves.
    pub(super) async fn look(&self, core: &Arc<Core>) -> Option<RemoteVersion> {
        let looked = tokio::time::timeout(PATIENCE, self.discover(&**core)).await;
        let late = || Condition::new("False", "FailedDiscoveryCheck", "it does not answer in time");
        match looked.unwrap_or_else(|_| Err(late())) {
            Ok(version) => {
                *self.condition.lock() = Condition::new("True", "Passed", "all checks passed");
                Some(version)
            }
            Err(condition) => {
                *self.condition.lock() = condition;
                None
            }
        }
    }

    async fn discover(&self, reader: &dyn Reader) -> Result<RemoteVersion, Condition> {
        let address = self.address(reader).await?;
        let path = format!("apis/{}/{}", self.group, self.version);
        let list = self.get(&address, &format!("/{path}")).await.map_err(|why| {
            let message = format!("failing or missing response from https://{address}/{path}: {why}");
            Condition::new("False", "FailedDiscoveryCheck", &message)
        })?;
        // A server that has no OpenAPI is fine, too.
        let index = self.get(&address, "/openapi/v3").await.unwrap_or_default();
        let older = self.get(&address, "/openapi/v2").await.unwrap_or_default();
        let priority = |field: &str| self.spec[field].as_i64().unwrap_or_default();
        Ok(RemoteVersion {
            group: self.group.clone(),
            version: self.version.clone(),
            priority: (priority("groupPriorityMinimum"), priority("versionPriority")),
            resources: document::resources(&list, &self.group, &self.version),
            openapi: index["paths"][&path]["serverRelativeURL"].as_str().map(str::to_owned),
            openapi_v2: document::part_of(&older, &format!("/{path}/")),
        })
    }
}

/// Says in headers who a request is from; what the client said there is dropped.
pub(crate) fn identify(headers: &mut http::HeaderMap, user: &UserInfo) {
    drop_headers(headers, "x-remote-");
    // A name that no header can hold is nobody's: the other side then knows no caller.
    let mut say = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) =
            (http::HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.append(name, value);
        }
    };
    say("x-remote-user", &user.name);
    if !user.uid.is_empty() {
        say("x-remote-uid", &user.uid);
    }
    for group in &user.groups {
        say("x-remote-group", group);
    }
    for (key, values) in &user.extra {
        let key: String = form_urlencoded::byte_serialize(key.to_ascii_lowercase().as_bytes()).collect();
        for value in values {
            say(&format!("x-remote-extra-{}", key.replace('+', "%20")), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::server::{
        outbound::tests::{answering, in_a_system},
        pki::Pki,
    };

    #[tokio::test]
    async fn a_backend_without_a_bundle_is_one_of_the_systems() {
        let test = "server::aggregation::backend::tests::a_backend_without_a_bundle_is_one_of_the_systems";
        let Some(folder) = in_a_system(true, test) else { return };
        let port = answering(&Pki::open(&folder).unwrap()).await;
        let mut spec = json!({"service": {"namespace": "dev", "name": "hook"}});
        let backend = Backend::new("v1.example.com", &spec, None);
        assert_eq!(backend.get(&format!("127.0.0.1:{port}"), "/").await, Ok(json!({})));
        spec["caBundle"] = "?".into();
        let refused = Backend::new("v1.example.com", &spec, None).dial("127.0.0.1:1").await.err();
        assert!(refused.is_some_and(|why| why.starts_with("CA: ")), "what is no bundle is not a missing one");
    }
}
