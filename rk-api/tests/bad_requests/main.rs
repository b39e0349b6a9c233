//! Wrong requests over HTTP: each is answered with Kubernetes' code, reason and field causes, and changes nothing.
#![cfg(feature = "server")]
#![allow(missing_docs)]

mod fixtures;
mod table;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use rk_api::server::{Security, Server, ServiceAccountIssuer, UserInfo, authn, bootstrap};
use rk_store::{MemoryStore, Store};
use serde_json::Value;
use table::Case;
use tower::ServiceExt;

struct Api {
    server: Server,
    store: Arc<MemoryStore>,
}

const ADMIN: &str = "Bearer admin-token";

impl Api {
    async fn start() -> Self {
        let store = Arc::new(MemoryStore::new());
        let tokens = authn::StaticTokens::new([
            ("admin-token".to_owned(), UserInfo::new("admin", ["system:masters"])),
            ("limited-token".to_owned(), UserInfo::new("limited", [])),
        ]);
        let url = "https://kubernetes.default.svc".to_owned();
        let service_accounts = Some(ServiceAccountIssuer {
            jwks_uri: format!("{url}/openid/v1/jwks"),
            url,
            key: include_str!("../../src/server/authn/service_account/keys/p256.pem").to_owned(),
            ..ServiceAccountIssuer::default()
        });
        let security = Security { tokens, service_accounts, anonymous: true.into(), ..Security::default() };
        let server = security.build(Server::builder(Arc::clone(&store) as Arc<dyn Store>)).await.unwrap();
        let loopback = server.client(UserInfo::loopback());
        bootstrap::ensure(&*loopback, &bootstrap::Config::default()).await.unwrap();
        let api = Self { server, store };
        for (path, body) in fixtures::FIXTURES {
            let (code, answer) =
                api.call("POST", path, &[(header::CONTENT_TYPE.as_str(), "application/json")], *body).await;
            assert_eq!(code, 201, "{path}: {answer}");
        }
        api
    }

    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
            request = request.header(header::AUTHORIZATION, ADMIN);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let answer = self.server.service().oneshot(request).await.unwrap();
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into())))
    }

    /// What is wrong with the answer to one case, if anything.
    async fn check(&self, case: &Case) -> Option<String> {
        let before = self.store.status().await.unwrap().revision;
        let headers = [(header::CONTENT_TYPE.as_str(), case.content_type)];
        let (code, answer) = self.call(case.method, case.path, &headers, case.body).await;
        let after = self.store.status().await.unwrap().revision;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut causes: Vec<String> = answer["details"]["causes"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|cause| format!("{} {}", text(&cause["reason"]), text(&cause["field"])).trim_end().to_owned())
            .collect();
        causes.sort();
        let message = text(&answer["message"]);
        let right = (code, &answer["code"]) == (case.code, &Value::from(case.code))
            && (&answer["kind"], &answer["status"]) == (&Value::from("Status"), &Value::from("Failure"))
            && text(&answer["reason"]) == case.reason
            && causes == case.causes
            && message.contains(case.message);
        let Case { method, path, body, .. } = case;
        let wrong = |what: &str| {
            let reason = text(&answer["reason"]);
            let causes = causes.join("\n    ");
            Some(format!("{what}{method} {path} {body}\n    {code} {reason}: {message}\n    {causes}"))
        };
        match (right, before == after) {
            (true, true) => None,
            (false, true) => wrong(""),
            (_, false) => wrong("the store was changed by "),
        }
    }
}

#[tokio::test]
async fn wrong_requests_are_answered_as_kubernetes_answers_them() {
    let api = Api::start().await;
    let cases = table::cases();
    assert!(cases.len() >= 200, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        wrong.extend(api.check(case).await);
    }
    assert!(wrong.is_empty(), "{} of {} cases; answered was:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test]
async fn wrong_credentials_are_401_and_missing_rights_403() {
    let api = Api::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    for token in ["Bearer wrong", "Bearer eyJhbGciOiJub25lIn0.e30.", "Bearer a.b.c"] {
        let (code, answer) = api.call("GET", pods, &[("authorization", token)], "").await;
        assert_eq!((code, answer["reason"].as_str()), (401, Some("Unauthorized")), "{token}: {answer}");
    }
    let limited = [("authorization", "Bearer limited-token")];
    let (code, answer) = api.call("GET", pods, &limited, "").await;
    assert_eq!((code, answer["reason"].as_str()), (403, Some("Forbidden")), "{answer}");
    let message =
        r#"pods is forbidden: User "limited" cannot list resource "pods" in API group "" in the namespace "default""#;
    assert_eq!(answer["message"], message);
    let (code, answer) = api.call("GET", &format!("{pods}/taken"), &limited, "").await;
    assert_eq!(code, 200, "a role allows it: {answer}");
    for (method, path) in
        [("DELETE", format!("{pods}/taken")), ("GET", "/metrics".to_owned()), ("GET", "/api/v1/nodes".to_owned())]
    {
        let (code, answer) = api.call(method, &path, &limited, "").await;
        assert_eq!((code, answer["reason"].as_str()), (403, Some("Forbidden")), "{path}: {answer}");
    }
    let impersonating = [("authorization", "Bearer limited-token"), ("impersonate-user", "admin")];
    let (code, answer) = api.call("GET", pods, &impersonating, "").await;
    assert_eq!(code, 403, "{answer}");
    assert!(
        answer["message"].as_str().unwrap().contains("cannot impersonate-on:user-info:list resource \"pods\""),
        "{answer}"
    );
}

#[tokio::test]
async fn wrong_representations_are_refused() {
    let api = Api::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let json = ("content-type", "application/json");
    let (code, answer) = api.call("GET", maps, &[("accept", "image/png")], "").await;
    assert_eq!((code, answer["reason"].as_str()), (406, Some("NotAcceptable")), "{answer}");
    let large = format!(r#"{{"metadata":{{"name":"large"}},"data":{{"x":"{}"}}}}"#, "x".repeat(4 << 20));
    let (code, answer) = api.call("POST", maps, &[json], large).await;
    assert_eq!(
        (code, answer["reason"].as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE.as_u16(), Some("RequestEntityTooLarge")),
        "{answer}"
    );
    let fat = format!(r#"{{"metadata":{{"name":"fat"}},"data":{{"x":"{}"}}}}"#, "x".repeat(1_100_000));
    let (code, answer) = api.call("POST", maps, &[json], fat).await;
    assert_eq!(code, 422, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("Too long"), "{answer}");
    let (code, answer) = api.call("POST", maps, &[json], &b"{\"metadata\":{\"name\":\"a\xff\"}}"[..]).await;
    assert_eq!(code, 400, "{answer}");
    let deep = format!(r#"{{"metadata":{{"name":"deep"}},"data":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let (code, answer) = api.call("POST", maps, &[json], deep).await;
    assert_eq!(code, 400, "{answer}");
}

#[tokio::test]
async fn a_stale_continue_token_is_410() {
    let api = Api::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let (_, page) = api.call("GET", &format!("{maps}?limit=1"), &[], "").await;
    let token = page["metadata"]["continue"].as_str().unwrap();
    let version: u64 = page["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    for i in 0..3 {
        let body = format!(r#"{{"metadata":{{"name":"later-{i}"}}}}"#);
        api.call("POST", maps, &[("content-type", "application/json")], body).await;
    }
    api.store.compact(version + 2).await.unwrap();
    let (code, answer) = api.call("GET", &format!("{maps}?limit=1&continue={token}"), &[], "").await;
    assert_eq!((code, answer["reason"].as_str()), (410, Some("Expired")), "{answer}");
    // The answer holds a token to go on with, inconsistently.
    let token = answer["metadata"]["continue"].as_str().unwrap();
    let (code, page) = api.call("GET", &format!("{maps}?limit=1&continue={token}"), &[], "").await;
    assert_eq!(code, 200, "{page}");
    // This server remembers the changes themselves; another one on the same store knows what the store still has.
    let other = Server::builder(Arc::clone(&api.store) as Arc<dyn Store>).build().await.unwrap();
    let request = Request::get(format!("{maps}?watch=1&resourceVersion=1")).body(Full::<Bytes>::default()).unwrap();
    let answer = other.service_as(UserInfo::loopback()).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let event = answer.into_body().collect().await.unwrap().to_bytes();
    let event: Value = serde_json::from_slice(&event).unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&"ERROR".into(), &410.into()), "{event}");
    assert_eq!(event["object"]["reason"], "Expired", "{event}");
}

#[tokio::test]
async fn one_that_cannot_be_deleted_does_not_save_the_others() {
    let api = Api::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let (_, last) = api.call("GET", &format!("{maps}/frozen"), &[], "").await;
    let only = serde_json::json!({"preconditions": {"uid": last["metadata"]["uid"]}}).to_string();
    let (code, answer) = api.call("DELETE", maps, &[("content-type", "application/json")], only).await;
    assert_eq!((code, answer["reason"].as_str()), (409, Some("Conflict")), "{answer}");
    for (name, code) in [("cm", 200), ("frozen", 404)] {
        assert_eq!(api.call("GET", &format!("{maps}/{name}"), &[], "").await.0, code, "{name}");
    }
}
