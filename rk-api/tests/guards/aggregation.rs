//! A server behind a server: APIServices, whether they are available, requests that are passed on, discovery and OpenAPI.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use rk_api::server::{
    Aggregation, Security, Server, UserInfo,
    authn::{IdentityHeaders, RequestHeader},
    bootstrap::{Config, ensure},
    pki::{Pki, Wanted},
    serve, tls_config,
};
use rk_store::MemoryStore;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::common::{Answer, Api, Caller, bearer};

/// Where the extension's group is.
const GROUP: &str = "/apis/metrics.example.com/v1";

/// A second server, which believes the front proxy of the first; its port.
async fn extension(front: &Pki, own: &Pki) -> (Server, u16, CancellationToken) {
    let trusted = RequestHeader::new(front.ca(), vec!["front-proxy".into()], &IdentityHeaders::default()).unwrap();
    let security = Security { request_header: Some(Arc::new(trusted)), ..Security::default() };
    let server = security.build(Server::builder(Arc::new(MemoryStore::new()))).await.unwrap();
    ensure(&*server.client(UserInfo::loopback()), &Config::default()).await.unwrap();
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "value": {"type": "integer"}}}}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "samples.metrics.example.com"}, "spec": {
            "group": "metrics.example.com", "scope": "Namespaced",
            "names": {"plural": "samples", "singular": "sample", "kind": "Sample", "shortNames": ["smp"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    server.define(definition).await.unwrap();
    let name = "extension.default.svc";
    let identity = own.identity("extension", &Wanted::server(name, [name.to_owned()])).unwrap();
    // Clients are asked for certificates; the front proxy's is of another authority than theirs.
    let tls = tls_config(&identity.certificate, &identity.key, Some(own.ca())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, stop) = (listener.local_addr().unwrap().port(), CancellationToken::new());
    tokio::spawn(serve(listener, server.service(), Some(tls), stop.clone()));
    (server, port, stop)
}

/// Asks until the answer is as wanted.
async fn until(api: &Api, caller: &Caller<'_>, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let mut last = String::new();
    for _ in 0..200 {
        let answer = api.get(caller, path).await;
        if wanted(&answer) {
            return answer;
        }
        last = format!("{} {}", answer.code, answer.body);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path}: {last}");
}

fn condition(answer: &Answer) -> &Value {
    &answer.body["status"]["conditions"][0]
}

#[tokio::test]
async fn another_server_serves_a_group() {
    let folder = tempfile::tempdir().unwrap();
    let front = Pki::open(folder.path()).unwrap();
    let shown = front.identity("front-proxy", &Wanted::client("front-proxy", "")).unwrap();
    let aggregation = Aggregation { identity: Some((shown.certificate, shown.key)) };
    let api = Api::build(|_, security| security, |_, builder| builder.aggregation(aggregation)).await;
    let (behind, port, stop) = extension(&front, &api.pki).await;
    let admin = bearer("admin");
    let services = "/apis/apiregistration.k8s.io/v1/apiservices";

    // What the server serves itself is said, too.
    let local = until(&api, &admin, &format!("{services}/v1.apps"), |answer| answer.code == 200).await;
    assert_eq!(local.body["spec"]["groupPriorityMinimum"], 17800);
    until(&api, &admin, &format!("{services}/v1."), |answer| condition(answer)["reason"] == "Local").await;

    let reference = json!({"namespace": "default", "name": "extension", "port": 443});
    let service = json!({"metadata": {"name": "v1.metrics.example.com"}, "spec": {
        "group": "metrics.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100,
        "service": reference, "caBundle": STANDARD.encode(api.pki.ca())}});
    api.create(services, service).await;
    let own = format!("{services}/v1.metrics.example.com");
    let missing = until(&api, &admin, &own, |answer| condition(answer)["status"] == "False").await;
    assert_eq!(condition(&missing)["reason"], "ServiceNotFound");
    let refused = api.get(&admin, &format!("{GROUP}/samples")).await;
    assert_eq!((refused.code, &refused.body["message"]), (503, &json!("service unavailable")));

    let ports = json!([{"port": 443, "protocol": "TCP"}]);
    let object = json!({"metadata": {"name": "extension"}, "spec": {"ports": ports}});
    api.create("/api/v1/namespaces/default/services", object).await;
    let slice = json!({"metadata": {"name": "extension", "labels": {"kubernetes.io/service-name": "extension"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}]});
    api.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    until(&api, &admin, &own, |answer| condition(answer)["status"] == "True").await;

    // Requests go through, with who makes them.
    let samples = format!("{GROUP}/namespaces/default/samples");
    let sample = json!({"apiVersion": "metrics.example.com/v1", "kind": "Sample", "metadata": {"name": "a"},
        "spec": {"value": 7}});
    api.create(&samples, sample).await;
    assert_eq!(api.get(&admin, &format!("{samples}/a")).await.body["spec"]["value"], 7);
    let watched = api.get(&admin, &format!("{samples}?watch=true&timeoutSeconds=1")).await;
    assert_eq!((watched.code, &watched.body["type"]), (200, &json!("ADDED")));
    assert!(api.server.resource_of("metrics.example.com/v1", "Sample").is_none(), "it is not stored here");
    // Jane may not ask here; once she may, the other server decides, and knows her by name.
    let jane = bearer("jane");
    let refused = api.get(&jane, &samples).await;
    let by = "User \"jane\" cannot list resource \"samples\"";
    assert!(refused.code == 403 && refused.body["message"].as_str().unwrap().contains(by), "{}", refused.body);
    let rules = json!([{"apiGroups": ["metrics.example.com"], "resources": ["samples"], "verbs": ["*"]}]);
    let role = json!({"metadata": {"name": "samples"}, "rules": rules});
    let binding = json!({"metadata": {"name": "samples"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "samples"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "dev"}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    api.create(&format!("{rbac}/clusterroles"), role.clone()).await;
    api.create(&format!("{rbac}/clusterrolebindings"), binding.clone()).await;
    // Whoever says in a header that they are somebody else is not believed.
    let headers = [("X-Remote-User", "root"), ("X-Remote-Group", "system:masters")];
    let jane_lies = Caller { headers: &headers, ..bearer("jane") };
    for caller in [&jane, &jane_lies] {
        let refused = api.get(caller, &samples).await;
        assert!(refused.code == 403 && refused.body["message"].as_str().unwrap().contains(by), "{}", refused.body);
    }
    // What follows a subresource makes no other thing of it.
    let refused = api.get(&jane, &format!("{samples}/a/status/more")).await;
    let message = refused.body["message"].as_str().unwrap();
    assert!(refused.code == 403 && message.contains("samples/status"), "{message}");
    let client = behind.client(UserInfo::loopback());
    for (kind, plural, body) in
        [("ClusterRole", "clusterroles", role), ("ClusterRoleBinding", "clusterrolebindings", binding)]
    {
        let request = rk_api::Request {
            resource: rk_api::Resource::new("rbac.authorization.k8s.io", "v1", kind, plural, false),
            namespace: String::new(),
            name: String::new(),
            subresource: String::new(),
            verb: rk_api::Verb::Create(body, rk_api::WriteOptions::default()),
        };
        client.request(request).await.unwrap();
    }
    assert_eq!(api.get(&jane, &samples).await.code, 200);

    // Discovery and OpenAPI show it.
    let headers = [("Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let groups = api.get(&Caller { headers: &headers, ..bearer("admin") }, "/apis").await.body;
    let found =
        groups["items"].as_array().unwrap().iter().find(|group| group["metadata"]["name"] == "metrics.example.com");
    let resource = &found.unwrap()["versions"][0]["resources"][0];
    assert_eq!((&resource["resource"], &resource["shortNames"][0]), (&json!("samples"), &json!("smp")));
    let groups = api.get(&admin, "/apis").await.body;
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "metrics.example.com"));
    let group = api.get(&admin, "/apis/metrics.example.com").await.body;
    assert_eq!(group["preferredVersion"]["groupVersion"], "metrics.example.com/v1");
    assert_eq!(api.get(&admin, GROUP).await.body["resources"][0]["kind"], "Sample");
    let index = api.get(&admin, "/openapi/v3").await.body;
    let url = index["paths"]["apis/metrics.example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = api.get(&admin, &url).await.body;
    assert!(document["components"]["schemas"].to_string().contains("Sample"), "{document}");
    let older = api.get(&admin, "/openapi/v2").await.body;
    assert!(older["paths"][format!("{GROUP}/namespaces/{{namespace}}/samples")].is_object());
    assert!(older["paths"]["/api/v1/pods"].is_object());

    // When it is gone, it is not available; when its APIService is, so is the group.
    stop.cancel();
    until(&api, &admin, &samples, |answer| answer.code == 503).await;
    let gone = until(&api, &admin, &own, |answer| condition(answer)["status"] == "False").await;
    assert_eq!(condition(&gone)["reason"], "FailedDiscoveryCheck");
    assert_eq!(api.get(&admin, &samples).await.code, 503);
    assert_eq!(api.call(&admin, "DELETE", &own, Value::Null).await.code, 200);
    until(&api, &admin, &samples, |answer| answer.code == 404).await;
    until(&api, &admin, "/apis/metrics.example.com", |answer| answer.code == 404).await;
}

#[tokio::test]
async fn definitions_have_api_services() {
    let api = Api::build(|_, security| security, |_, builder| builder.aggregation(Aggregation::default())).await;
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com",
        "scope": "Cluster", "names": {"plural": "widgets", "kind": "Widget"}, "versions": [{"name": "v1", "served": true,
            "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    api.create(definitions, definition).await;
    let (admin, own) = (bearer("admin"), "/apis/apiregistration.k8s.io/v1/apiservices/v1.example.com");
    until(&api, &admin, own, |answer| condition(answer)["reason"] == "Local").await;
    let path = format!("{definitions}/widgets.example.com");
    assert_eq!(api.call(&admin, "DELETE", &path, Value::Null).await.code, 200);
    until(&api, &admin, own, |answer| answer.code == 404).await;
    let wrong = json!({"metadata": {"name": "x"}, "spec": {"group": "example.com", "version": "v1",
        "groupPriorityMinimum": 0, "versionPriority": 1}});
    let answer = api.call(&admin, "POST", "/apis/apiregistration.k8s.io/v1/apiservices", wrong).await;
    assert_eq!(answer.code, 422, "{}", answer.body);
}
