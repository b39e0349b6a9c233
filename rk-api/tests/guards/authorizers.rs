//! Authorizers beside RBAC: a webhook and a policy file.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rk_api::server::{
    Remote,
    authz::{Abac, AuthorizationWebhook, WebhookOptions},
    pki::Pki,
};
use serde_json::json;

use super::common::{Api, Caller, bearer, https};

#[tokio::test]
async fn a_webhook_decides_what_rbac_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(folder.path()).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let url = https(&pki, {
        let asked = Arc::clone(&asked);
        move |_, question| {
            assert_eq!(question["kind"], "SubjectAccessReview");
            asked.fetch_add(1, Ordering::SeqCst);
            let spec = &question["spec"];
            assert_eq!(spec["user"], "jane");
            let status = match spec["resourceAttributes"]["resource"].as_str() {
                Some("configmaps") => json!({"allowed": true, "reason": "she may"}),
                Some("secrets") => json!({"allowed": false, "denied": true, "reason": "never"}),
                _ => json!({"allowed": false}),
            };
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status})
        }
    })
    .await;
    let remote = Remote::new(&url, pki.ca()).unwrap();
    let webhook = Arc::new(AuthorizationWebhook::new(remote, WebhookOptions::default()));
    let api = Api::start(|_, security| security.with_authorizer(webhook)).await;
    let jane = bearer("jane");
    for _ in 0..3 {
        assert_eq!(api.get(&jane, "/api/v1/namespaces/default/configmaps").await.code, 200);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the answer is remembered");
    let refused = api.get(&jane, "/api/v1/namespaces/default/secrets").await;
    assert!(refused.code == 403 && refused.body["message"].as_str().unwrap().ends_with(": never"), "{}", refused.body);
    assert_eq!(api.get(&jane, "/api/v1/pods").await.code, 403);
    let before = asked.load(Ordering::SeqCst);
    assert_eq!(api.get(&bearer("admin"), "/api/v1/pods").await.code, 200);
    assert_eq!(asked.load(Ordering::SeqCst), before, "it is asked last");
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let rules = api.call(&bearer("admin"), "POST", path, json!({"spec": {"namespace": "default"}})).await.body;
    assert_eq!(rules["status"]["incomplete"], true);
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_fails_or_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(folder.path()).unwrap();
    let word = "authorization webhook: dial";
    for (deny_on_failure, code) in [(false, 500), (true, 403)] {
        let remote = Remote::new("https://localhost:1/", pki.ca()).unwrap();
        let options = WebhookOptions { deny_on_failure, ..WebhookOptions::default() };
        let webhook = Arc::new(AuthorizationWebhook::new(remote, options));
        let api = Api::start(|_, security| security.with_authorizer(webhook)).await;
        let refused = api.get(&bearer("jane"), "/api/v1/pods").await;
        assert!(refused.code == code && refused.body["message"].as_str().unwrap().contains(word), "{}", refused.body);
        assert_eq!(api.get(&bearer("admin"), "/api/v1/pods").await.code, 200, "others allow it");
        let asked = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods"}}});
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let status = &api.call(&bearer("jane"), "POST", path, asked).await.body["status"];
        assert_eq!(status["allowed"], false, "{status}");
        assert_eq!(status["evaluationError"].is_string(), !deny_on_failure, "{status}");
    }
}

#[tokio::test]
async fn a_policy_file_allows_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.jsonl");
    let line = |spec: &str| {
        format!("{{\"apiVersion\":\"abac.authorization.kubernetes.io/v1beta1\",\"kind\":\"Policy\",\"spec\":{spec}}}\n")
    };
    let reader = line(r#"{"user":"jane","namespace":"default","resource":"pods","apiGroup":"","readonly":true}"#);
    std::fs::write(&path, reader + &line(r#"{"group":"dev","nonResourcePath":"/metrics"}"#)).unwrap();
    let abac = Arc::new(Abac::from_file(&path).unwrap());
    let api = Api::start(|_, security| security.with_authorizer(abac)).await;
    let jane = bearer("jane");
    for (path, code) in [
        ("/api/v1/namespaces/default/pods", 200),
        ("/api/v1/namespaces/kube-system/pods", 403),
        ("/metrics", 200),
        ("/logs/", 403),
    ] {
        assert_eq!(api.get(&jane, path).await.code, code, "{path}");
    }
    assert_eq!(api.get(&Caller::default(), "/metrics").await.code, 401);
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let rules = api.call(&jane, "POST", path, json!({"spec": {"namespace": "default"}})).await.body;
    let rules = rules["status"]["resourceRules"].as_array().unwrap().clone();
    assert!(rules.iter().any(|rule| rule["resources"] == json!(["pods"]) && rule["verbs"][0] == "get"), "{rules:?}");
}

#[tokio::test]
async fn rights_in_a_namespace_reach_nothing_of_the_cluster() {
    let api = Api::start(|_, security| security).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    api.create("/api/v1/nodes", node).await;
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    api.create("/api/v1/namespaces", namespace("dev")).await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    api.create("/apis/rbac.authorization.k8s.io/v1/namespaces/dev/rolebindings", binding).await;
    let jane = bearer("jane");
    assert_eq!(api.get(&jane, "/api/v1/namespaces/dev/pods").await.code, 200);
    for path in ["nodes", "nodes/n1", "nodes/n1/proxy/pods", "nodes/n1:10250/proxy/run/a/b/c", "persistentvolumes"] {
        assert_eq!(api.get(&jane, &format!("/api/v1/namespaces/dev/{path}")).await.code, 404, "{path}");
    }
    for (group, kind) in [("authentication", "TokenReview"), ("authorization", "SubjectAccessReview")] {
        let version = format!("{group}.k8s.io/v1");
        let path = format!("/apis/{version}/namespaces/dev/{}s", kind.to_lowercase());
        let review = json!({"apiVersion": version, "kind": kind, "spec": {"token": "x", "user": "jane"}});
        assert_eq!(api.call(&jane, "POST", &path, review).await.code, 404, "{path}");
    }
}
