//! A guarded server: reviews, tokens, admission and RBAC together.
#![cfg(feature = "server")]

use std::sync::Arc;

use k8s_openapi::api::{
    authentication::v1::{SelfSubjectReview, TokenReview},
    authorization::v1::{
        LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
    },
    core::v1::{Node, Pod, ServiceAccount},
};
use rk_api::{
    Client, DeleteOptions, Error, Request, Resource, ResourceType, Verb, WriteOptions,
    server::{
        Security, Server, ServiceAccountIssuer, UserInfo,
        authn::StaticTokens,
        bootstrap::{Config, ensure},
    },
};
use rk_store::MemoryStore;
use serde_json::{Value, json};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// A key made for tests only.
const KEY: &str = include_str!("../src/server/authn/service_account/keys/p256.pem");

async fn server() -> Server {
    let security = Security {
        tokens: StaticTokens::new([("secret".to_owned(), UserInfo::new("jane", ["dev"]))]),
        service_accounts: Some(ServiceAccountIssuer {
            url: ISSUER.into(),
            jwks_uri: format!("{ISSUER}/openid/v1/jwks"),
            key: KEY.into(),
            ..ServiceAccountIssuer::default()
        }),
        anonymous: true.into(),
        ..Security::default()
    };
    let server = security.build(Server::builder(Arc::new(MemoryStore::new()))).await.unwrap();
    let client = admin(&server);
    ensure(&*client, &Config::default()).await.unwrap();
    create::<ServiceAccount>(&client, "default", json!({"metadata": {"name": "default"}})).await.unwrap();
    server
}

fn admin(server: &Server) -> Arc<dyn Client> {
    server.client(UserInfo::loopback())
}

async fn send<K: ResourceType>(
    client: &Arc<dyn Client>,
    namespace: &str,
    name: &str,
    subresource: &str,
    verb: Verb,
) -> Result<Value, Error> {
    let request = Request {
        resource: Resource::of::<K>(),
        namespace: namespace.into(),
        name: name.into(),
        subresource: subresource.into(),
        verb,
    };
    client.request(request).await?.value()
}

async fn create<K: ResourceType>(client: &Arc<dyn Client>, namespace: &str, body: Value) -> Result<Value, Error> {
    send::<K>(client, namespace, "", "", Verb::Create(body, WriteOptions::default())).await
}

async fn token(client: &Arc<dyn Client>, spec: Value) -> Result<Value, Error> {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    send::<ServiceAccount>(client, "default", "default", "token", Verb::Create(body, WriteOptions::default())).await
}

#[tokio::test]
async fn tokens_are_issued_reviewed_and_end_with_their_pod() {
    let server = server().await;
    let client = admin(&server);
    let body = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pod = create::<Pod>(&client, "default", body).await.unwrap();
    assert_eq!(pod["spec"]["serviceAccountName"], "default");
    assert!(pod["spec"]["volumes"][0]["name"].as_str().unwrap().starts_with("kube-api-access-"));

    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"]});
    let issued = token(&client, json!({"expirationSeconds": 600, "boundObjectRef": bound})).await.unwrap();
    assert_eq!((&issued["kind"], &issued["spec"]["audiences"]), (&json!("TokenRequest"), &json!([ISSUER])));
    assert!(issued["status"]["expirationTimestamp"].is_string());
    let review = async |audiences: Value| {
        let spec = json!({"token": issued["status"]["token"], "audiences": audiences});
        create::<TokenReview>(&client, "", json!({"spec": spec})).await.unwrap()["status"].clone()
    };
    let status = review(json!([])).await;
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:default");
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    assert_eq!(status["audiences"], json!([ISSUER]));
    let status = review(json!(["other"])).await;
    assert!(status["error"].as_str().unwrap().contains("invalid for the target audiences"), "{status}");

    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    send::<Pod>(&client, "default", "p", "", Verb::Delete(now)).await.unwrap();
    let status = review(json!([])).await;
    assert_eq!(status["error"], "service account token has been invalidated");
}

#[tokio::test]
async fn wrong_token_requests_are_refused() {
    let server = server().await;
    let client = admin(&server);
    let pod = |name: &str| json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": name}});
    for (spec, code, word) in [
        (json!({"expirationSeconds": 599}), 422, "may not specify a duration less than 10 minutes"),
        (json!({"expirationSeconds": 1_i64 << 33}), 422, "may not specify a duration larger than 2^32 seconds"),
        (json!({"boundObjectRef": {"kind": "Deployment", "apiVersion": "apps/v1", "name": "x"}}), 400, "cannot bind"),
        (pod("gone"), 404, "pods \"gone\" not found"),
    ] {
        let error = token(&client, spec).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    let node = server.client(UserInfo::new("system:node:n1", ["system:nodes", "system:authenticated"]));
    let error = token(&node, json!({})).await.unwrap_err();
    assert!(error.to_string().contains("no relationship found between node 'n1' and this object"), "{error}");
}

#[tokio::test]
async fn static_tokens_are_reviewed_too() {
    let server = server().await;
    let client = admin(&server);
    let review = async |spec: Value| create::<TokenReview>(&client, "", json!({"spec": spec})).await;
    let status = review(json!({"token": "secret"})).await.unwrap()["status"].clone();
    assert_eq!(status["user"], json!({"username": "jane", "groups": ["dev", "system:authenticated"]}));
    let status = review(json!({"token": "wrong"})).await.unwrap()["status"].clone();
    assert_eq!(status["error"], "invalid bearer token");
    let status = review(json!({"token": "secret", "audiences": ["other"]})).await.unwrap()["status"].clone();
    assert!(status["authenticated"].is_null());
    assert_eq!(review(json!({})).await.unwrap_err().code(), 400);
}

#[tokio::test]
async fn access_reviews_tell_what_rbac_decides() {
    let server = server().await;
    let client = admin(&server);
    let status = async |spec: Value| {
        let body = json!({"spec": spec});
        create::<SubjectAccessReview>(&client, "", body).await.map(|review| review["status"].clone())
    };
    let resource = |verb: &str| json!({"verb": verb, "resource": "nodes"});
    let asked = |verb: &str| json!({"user": "system:kube-scheduler", "resourceAttributes": resource(verb)});
    let reason = "RBAC: allowed by ClusterRoleBinding \"system:kube-scheduler\" of ClusterRole \
                  \"system:kube-scheduler\" to User \"system:kube-scheduler\"";
    assert_eq!(status(asked("list")).await.unwrap(), json!({"allowed": true, "reason": reason}));
    assert_eq!(status(asked("delete")).await.unwrap(), json!({"allowed": false}));
    let path =
        json!({"groups": ["system:unauthenticated"], "nonResourceAttributes": {"verb": "get", "path": "/version"}});
    assert_eq!(status(path).await.unwrap()["allowed"], true);
    for (spec, field) in [
        (json!({"user": "x"}), "spec.resourceAttributes"),
        (json!({"resourceAttributes": resource("get")}), "spec.user"),
        (
            json!({"user": "x", "resourceAttributes": resource("get"), "nonResourceAttributes": {"path": "/"}}),
            "spec.nonResourceAttributes",
        ),
    ] {
        let Error::Api(error) = status(spec).await.unwrap_err() else { panic!() };
        assert_eq!(error.code, Some(422));
        assert_eq!(error.details.unwrap().causes.unwrap()[0].field.as_deref(), Some(field));
    }
    let local = |namespace: &str| json!({"spec": {"user": "x", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": namespace}}});
    create::<LocalSubjectAccessReview>(&client, "default", local("default")).await.unwrap();
    assert!(create::<LocalSubjectAccessReview>(&client, "default", local("other")).await.unwrap_err().is_invalid());
    let of_path = json!({"spec": {"user": "x", "nonResourceAttributes": {"verb": "get", "path": "/version"}}});
    let refused = create::<LocalSubjectAccessReview>(&client, "default", of_path).await.unwrap_err().to_string();
    assert!(refused.contains("/version") && refused.contains("disallowed on this kind of request"), "{refused}");

    let jane = server.client(UserInfo::new("jane", ["system:authenticated"]));
    let mine = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}});
    assert_eq!(create::<SelfSubjectAccessReview>(&jane, "", mine).await.unwrap()["status"], json!({"allowed": false}));
    let rules = create::<SelfSubjectRulesReview>(&jane, "", json!({"spec": {"namespace": "default"}})).await.unwrap();
    let resources = rules["status"]["resourceRules"].as_array().unwrap();
    assert!(resources.iter().any(|rule| rule["resources"][0] == "selfsubjectaccessreviews"), "{rules}");
    assert!(!rules["status"]["nonResourceRules"].as_array().unwrap().is_empty());
    let me = create::<SelfSubjectReview>(&jane, "", json!({})).await.unwrap();
    assert_eq!(me["status"]["userInfo"], json!({"username": "jane", "groups": ["system:authenticated"]}));
}

#[tokio::test]
async fn admission_runs_in_the_server() {
    let server = server().await;
    let client = admin(&server);
    let error = create::<Pod>(
        &client,
        "lost",
        json!({"metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "c", "image": "i"}]}}),
    )
    .await
    .unwrap_err();
    assert_eq!(error.to_string(), "namespaces \"lost\" not found");
    let node = create::<Node>(&client, "", json!({"metadata": {"name": "n1"}})).await.unwrap();
    assert_eq!(node["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
}
