//! A guarded server, called over HTTP by somebody who may do everything, and what of its discovery was called.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use rk_api::server::{Body, Security, Server, ServiceAccountIssuer, UserInfo, bootstrap};
use rk_store::MemoryStore;
use serde_json::{Value, json};

pub const JSON: &str = "application/json";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
pub const MERGE: &str = "application/merge-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";

/// A key made for tests only.
const KEY: &str = include_str!("../../src/server/authn/service_account/keys/p256.pem");

/// An answer: code, content type and body.
pub struct Answer(pub u16, pub String, pub Bytes);

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.2).unwrap_or_else(|_| panic!("{} {}: {:?}", self.0, self.1, self.2))
    }

    /// The body of an answer with this code.
    pub fn is(self, code: u16, what: &str) -> Value {
        assert_eq!(self.0, code, "{what}: {}", String::from_utf8_lossy(&self.2));
        self.json()
    }
}

/// `apps/v1 deployments/scale get`.
type Called = String;

#[derive(Clone)]
pub struct Api {
    server: Server,
    called: Arc<Mutex<BTreeSet<Called>>>,
}

impl Api {
    pub async fn start() -> Self {
        let issuer = ServiceAccountIssuer {
            url: "https://issuer.example.com".into(),
            key: KEY.into(),
            ..ServiceAccountIssuer::default()
        };
        let security = Security { service_accounts: Some(issuer), ..Security::default() };
        let server = security.build(Server::builder(Arc::new(MemoryStore::new()))).await.unwrap();
        bootstrap::ensure(&*server.client(UserInfo::loopback()), &bootstrap::Config::default()).await.unwrap();
        let api = Self { server, called: Arc::default() };
        let account = json!({"metadata": {"name": "default"}});
        api.post("/api/v1/namespaces/default/serviceaccounts", &account).await.is(201, "service account");
        api
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        let called = called(request.method().as_str(), request.uri().path(), request.uri().query());
        let answer = self.server.service_as(UserInfo::loopback()).handle(request).await;
        if answer.status().is_success() {
            self.called.lock().unwrap().extend(called);
        }
        answer
    }

    pub async fn raw(&self, method: &str, path: &str, accept: &str, kind: &str, body: Bytes) -> Answer {
        let request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
        let answer = self.send(request.header(header::CONTENT_TYPE, kind).body(Full::new(body)).unwrap()).await;
        let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let (code, kind) = (answer.status().as_u16(), kind.to_owned());
        Answer(code, kind, answer.into_body().collect().await.unwrap().to_bytes())
    }

    pub async fn call(&self, method: &str, path: &str, kind: &str, body: &Value) -> Answer {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        self.raw(method, path, JSON, kind, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, JSON, &Value::Null).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, JSON, body).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, JSON, body).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.call("PATCH", path, MERGE, body).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, JSON, &Value::Null).await
    }

    /// The body of a watch, in the form that is accepted.
    pub async fn watch(&self, path: &str, accept: &str) -> Response<Body> {
        self.send(Request::get(path).header(header::ACCEPT, accept).body(Full::default()).unwrap()).await
    }

    /// The events of a watch, up to the one of this type.
    pub async fn watch_until(&self, path: &str, last: &str) -> Vec<(String, Value)> {
        let mut body = self.watch(path, JSON).await.into_body();
        let (mut events, mut read) = (Vec::new(), Vec::new());
        while events.last().is_none_or(|(kind, _): &(String, Value)| kind != last) {
            let frame = body.frame().await.expect("the watch goes on").unwrap();
            read.extend_from_slice(&frame.into_data().unwrap());
            while let Some(end) = read.iter().position(|byte| *byte == b'\n') {
                let mut event: Value = serde_json::from_slice(&read[..end]).unwrap();
                read.drain(..=end);
                events.push((event["type"].as_str().unwrap().to_owned(), event["object"].take()));
            }
        }
        events
    }

    /// The resources and subresources of each version: `APIResourceList`s, the core's first.
    pub async fn discovery(&self) -> Vec<Value> {
        let groups = self.get("/apis").await.is(200, "groups");
        let groups = groups["groups"].as_array().unwrap().iter();
        let versions = groups.flat_map(|group| group["versions"].as_array().unwrap());
        let paths = versions.map(|version| format!("/apis/{}", version["groupVersion"].as_str().unwrap()));
        let mut lists = Vec::new();
        for path in ["/api/v1".to_owned()].into_iter().chain(paths) {
            lists.push(self.get(&path).await.is(200, &path));
        }
        lists
    }

    /// What discovery names and nobody has called with success.
    pub async fn not_called(&self) -> Vec<Called> {
        let lists = self.discovery().await;
        let called = self.called.lock().unwrap();
        let named = lists.iter().flat_map(|list| {
            let version = list["groupVersion"].as_str().unwrap();
            let resources = list["resources"].as_array().unwrap().iter();
            resources.flat_map(move |resource| {
                let name = resource["name"].as_str().unwrap();
                texts(&resource["verbs"]).into_iter().map(move |verb| format!("{version} {name} {verb}"))
            })
        });
        named.filter(|named| !called.contains(named)).collect()
    }
}

pub fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// What a request calls; `None` for a document.
fn called(method: &str, path: &str, query: Option<&str>) -> Option<Called> {
    let mut parts = path.trim_start_matches('/').split('/');
    let version = match parts.next()? {
        "api" => parts.next()?.to_owned(),
        "apis" => format!("{}/{}", parts.next()?, parts.next()?),
        _ => return None,
    };
    let mut parts: Vec<_> = parts.collect();
    if parts.first() == Some(&"namespaces") && parts.len() > 2 && !matches!(parts[2..], ["status" | "finalize"]) {
        parts.drain(..2);
    }
    let collection = parts.len() == 1;
    let watch = query.is_some_and(|query| query.split('&').any(|option| option == "watch=true"));
    let verb = match method {
        "GET" if collection && watch => "watch",
        "GET" if collection => "list",
        "GET" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if collection => "deletecollection",
        "DELETE" => "delete",
        _ => return None,
    };
    match parts[..] {
        [plural] | [plural, _] => Some(format!("{version} {plural} {verb}")),
        [plural, _, subresource] => Some(format!("{version} {plural}/{subresource} {verb}")),
        _ => None,
    }
}
