use serde_json::json;

use super::*;
use crate::server::{LateReader, fixture::Objects};

fn pod(name: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "dev", "uid": name}, "spec": {
        "nodeName": node, "serviceAccountName": "bot", "imagePullSecrets": [{"name": "pull"}],
        "containers": [{"name": "c", "env": [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "k"}}},
        ]}],
        "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "from"}}]}],
        "volumes": [
            {"name": "s", "secret": {"secretName": "volume"}},
            {"name": "p", "projected": {"sources": [{"configMap": {"name": "projected"}}]}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
            {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
        ],
    }})
}

fn ask(node: &str, verb: &'static str, what: &'static str, name: &str) -> Attributes {
    let (what, group) = what.split_once('.').unwrap_or((what, ""));
    let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
    let cluster =
        matches!(resource, "nodes" | "persistentvolumes" | "volumeattachments" | "csinodes" | "resourceslices");
    Attributes {
        user: Arc::new(UserInfo::new(&format!("system:node:{node}"), ["system:nodes"])),
        verb: verb.into(),
        group: group.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: if cluster { "" } else { "dev" }.into(),
        name: name.into(),
        ..Attributes::default()
    }
}

async fn allows(node: &NodeAuthorizer, asked: &Attributes) -> bool {
    matches!(node.authorize(asked).await, Decision::Allow(_))
}

#[tokio::test]
async fn a_node_reads_what_its_pods_need() {
    let objects = Objects::new([
        ("pods", pod("p", "n1")),
        (
            "persistentvolumeclaims",
            json!({"metadata": {"name": "claim", "namespace": "dev"}, "spec": {"volumeName": "pv"}}),
        ),
        (
            "persistentvolumes",
            json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {
                "claimRef": {"namespace": "dev", "name": "claim"},
                "csi": {"driver": "d", "volumeHandle": "h", "nodeStageSecretRef": {"name": "stage", "namespace": "dev"}}}}),
        ),
        ("volumeattachments", json!({"metadata": {"name": "va"}, "spec": {"nodeName": "n1"}})),
    ]);
    let authorizer = NodeAuthorizer::new(objects.clone());
    for (verb, what, name, allowed) in [
        ("get", "secrets", "pull", true),
        ("get", "secrets", "env", true),
        ("get", "secrets", "from", true),
        ("watch", "secrets", "volume", true),
        ("list", "secrets", "volume", true),
        ("get", "secrets", "stage", true),
        ("get", "secrets", "other", false),
        ("list", "secrets", "", false),
        ("update", "secrets", "volume", false),
        ("get", "configmaps", "env", true),
        ("get", "configmaps", "projected", true),
        ("get", "configmaps", "volume", false),
        ("get", "persistentvolumeclaims", "claim", true),
        ("get", "persistentvolumeclaims", "p-e", true),
        ("patch", "persistentvolumeclaims/status", "claim", true),
        ("get", "persistentvolumeclaims", "other", false),
        ("get", "persistentvolumes", "pv", true),
        ("get", "persistentvolumes", "lost", false),
        ("get", "volumeattachments.storage.k8s.io", "va", true),
        ("create", "serviceaccounts/token", "bot", true),
        ("create", "serviceaccounts/token", "default", false),
        ("get", "pods", "p", true),
        ("get", "pods", "q", false),
        ("list", "pods", "", false),
        ("create", "pods", "", true),
        ("patch", "pods/status", "p", true),
        ("create", "pods/exec", "p", false),
        ("list", "services", "", true),
        ("get", "nodes", "n1", true),
        ("get", "nodes", "n2", false),
        ("list", "nodes", "", false),
        ("patch", "nodes/status", "n1", true),
        ("delete", "nodes", "n1", false),
        ("get", "csinodes.storage.k8s.io", "n1", true),
        ("get", "csinodes.storage.k8s.io", "n2", false),
        ("create", "deployments.apps", "", false),
    ] {
        assert_eq!(allows(&authorizer, &ask("n1", verb, what, name)).await, allowed, "{verb} {what} {name}");
    }
    assert!(!allows(&authorizer, &ask("n2", "get", "secrets", "env")).await);
    let own = |node: &str| Attributes {
        fields: crate::FieldSelector::field("spec.nodeName", node),
        ..ask("n1", "list", "pods", "")
    };
    assert!(allows(&authorizer, &own("n1")).await && !allows(&authorizer, &own("n2")).await);
    let lease = |namespace: &str, name: &str| Attributes {
        namespace: namespace.into(),
        ..ask("n1", "update", "leases.coordination.k8s.io", name)
    };
    assert!(allows(&authorizer, &lease("kube-node-lease", "n1")).await);
    assert!(!allows(&authorizer, &lease("kube-node-lease", "n2")).await);
    assert!(!allows(&authorizer, &lease("dev", "n1")).await);
}

#[tokio::test]
async fn the_graph_follows_the_pods() {
    let objects = Objects::new([("pods", pod("p", ""))]);
    let authorizer = NodeAuthorizer::new(objects.clone());
    let secret = |node: &str| ask(node, "get", "secrets", "env");
    assert!(!allows(&authorizer, &secret("n1")).await);
    objects.put("pods", pod("p", "n1"));
    objects.put("pods", pod("q", "n1"));
    assert!(allows(&authorizer, &secret("n1")).await);
    objects.remove("pods", "dev", "p");
    assert!(allows(&authorizer, &secret("n1")).await, "the other pod needs it too");
    objects.remove("pods", "dev", "q");
    let refused = authorizer.authorize(&secret("n1")).await;
    let why = "no relationship found between node 'n1' and this object";
    assert_eq!(refused, Decision::NoOpinion(why.into()));
    let mut mirror = pod("m", "n1");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    objects.put("pods", mirror);
    assert!(!allows(&authorizer, &secret("n1")).await, "a node can't give itself secrets");
    assert!(allows(&authorizer, &ask("n1", "get", "pods", "m")).await);
}

#[tokio::test]
async fn others_are_no_nodes() {
    let authorizer = NodeAuthorizer::new(Objects::new([]));
    let mut asked = ask("n1", "get", "nodes", "n1");
    asked.user = Arc::new(UserInfo::new("jane", []));
    assert_eq!(authorizer.authorize(&asked).await, Decision::NoOpinion(String::new()));
    assert!(!authorizer.rules_for(&asked.user, "dev").await.incomplete);
    asked.user = Arc::new(UserInfo::new("jane", ["system:nodes"]));
    assert_eq!(authorizer.authorize(&asked).await, Decision::NoOpinion("unknown node for user \"jane\"".into()));
    assert!(authorizer.rules_for(&asked.user, "dev").await.incomplete);
}

#[tokio::test]
async fn what_cannot_be_read_is_no_refusal() {
    // It was bound to no server.
    let authorizer = NodeAuthorizer::new(LateReader::new());
    for (verb, what) in [("get", "secrets"), ("get", "pods"), ("get", "persistentvolumes")] {
        let decision = authorizer.authorize(&ask("n1", verb, what, "x")).await;
        assert!(matches!(decision, Decision::Failed(_)), "{what}: {decision:?}");
    }
}
