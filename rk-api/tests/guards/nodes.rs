//! What nodes may do: the Node authorizer and NodeRestriction together.

use serde_json::{Value, json};

use super::common::{Api, Caller, bearer};
use rk_api::server::pki::{Identity, Wanted};

fn as_node(identity: &Identity) -> Caller<'_> {
    Caller { identity: Some(identity), ..Caller::default() }
}

#[tokio::test]
async fn a_node_sees_what_its_pods_use_and_nothing_else() {
    let api = Api::start(|_, security| security).await;
    let identity = |name: &str| api.pki.identity(name, &Wanted::kubelet_client(name)).unwrap();
    let (n1, n2) = (identity("n1"), identity("n2"));
    let (n1, n2) = (as_node(&n1), as_node(&n2));
    api.create("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    for name in ["used", "other"] {
        api.create("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": name}})).await;
    }
    let node = json!({"metadata": {"name": "n1"}});
    assert_eq!(api.call(&n1, "POST", "/api/v1/nodes", node.clone()).await.code, 201);
    assert_eq!(api.call(&n2, "POST", "/api/v1/nodes", node).await.code, 403, "not its own");
    let used = "/api/v1/namespaces/default/secrets/used";
    let answer = api.get(&n1, used).await;
    assert_eq!(answer.code, 403);
    let why = "secrets \"used\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" in API group \"\" in \
               the namespace \"default\": no relationship found between node 'n1' and this object";
    assert_eq!(answer.body["message"], why);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i",
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "used", "key": "k"}}}]}]}});
    let pod = api.create("/api/v1/namespaces/default/pods", pod).await;

    let secrets = "/api/v1/namespaces/default/secrets";
    let pods = "/api/v1/pods";
    for (caller, path, code) in [
        (&n1, used.to_owned(), 200),
        (&n1, format!("{secrets}?fieldSelector=metadata.name%3Dused"), 200),
        (&n1, format!("{secrets}/other"), 403),
        (&n1, secrets.to_owned(), 403),
        (&n2, used.to_owned(), 403),
        (&n1, format!("{pods}?fieldSelector=spec.nodeName%3Dn1"), 200),
        (&n1, format!("{pods}?fieldSelector=spec.nodeName%3Dn2"), 403),
        (&n1, pods.to_owned(), 403),
        (&n1, "/api/v1/namespaces/default/pods/p".to_owned(), 200),
        (&n2, "/api/v1/namespaces/default/pods/p".to_owned(), 403),
        (&n1, "/api/v1/nodes/n1".to_owned(), 200),
        (&n2, "/api/v1/nodes/n1".to_owned(), 403),
        (&n1, "/api/v1/services".to_owned(), 200),
        (&n1, "/apis/apps/v1/deployments".to_owned(), 403),
    ] {
        let answer = api.get(caller, &path).await;
        assert_eq!(answer.code, code, "{path}: {}", answer.body);
    }

    // Tokens are for the accounts of its pods, bound to them, and for whom their volumes are.
    let token = |audience: &str| {
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {
            "audiences": if audience.is_empty() { vec![] } else { vec![audience] },
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"]}}})
    };
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    assert_eq!(api.call(&n1, "POST", path, token("")).await.code, 201);
    let refused = api.call(&n1, "POST", path, token("vault")).await;
    assert!(refused.body["message"].as_str().unwrap().contains("audience \"vault\" not found in pod spec volume"));
    assert_eq!(api.call(&n2, "POST", path, token("")).await.code, 403);

    let path = "/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0";
    assert_eq!(api.call(&bearer("admin"), "DELETE", path, Value::Null).await.code, 200);
    assert_eq!(api.get(&n1, used).await.code, 403, "its pod is gone");
}

#[tokio::test]
async fn rules_of_nodes_are_said_to_be_incomplete() {
    let api = Api::start(|_, security| security).await;
    let identity = api.pki.identity("n1", &Wanted::kubelet_client("n1")).unwrap();
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let question = json!({"spec": {"namespace": "default"}});
    let rules = api.call(&as_node(&identity), "POST", path, question.clone()).await.body;
    assert_eq!(rules["status"]["incomplete"], true);
    assert_eq!(rules["status"]["evaluationError"], "node authorizer does not support user rule resolution");
    let rules = api.call(&bearer("jane"), "POST", path, question).await.body;
    assert_eq!(rules["status"]["incomplete"], false);
}
