//! What RBAC takes to decide where there are 10,000 bindings of each kind. `cargo bench -p rk-benches --bench authorization`.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use futures::executor::block_on;
use rk_api::{
    Request, Resource, Verb, WriteOptions,
    server::{Attributes, Authorizer, Decision, Server, UserInfo, authz::Rbac},
};
use rk_store::MemoryStore;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Bindings of the cluster, and as many of namespaces.
const BINDINGS: usize = 10_000;
const NAMESPACES: usize = 100;
const ROLES: usize = 100;
const GROUP: &str = "rbac.authorization.k8s.io";

/// A role that reads, with some rules more than are looked through one by one.
fn role(name: &str) -> Value {
    let rule = |group: &str, resource: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": ["get", "list", "watch"]});
    let rules = [("", "pods"), ("", "services"), ("", "configmaps"), ("apps", "deployments"), ("batch", "jobs")];
    json!({"metadata": {"name": name}, "rules": rules.map(|(group, resource)| rule(group, resource))})
}

/// Gives a role to a user of its own and to one of a thousand groups.
fn binding(name: &str, kind: &str, i: usize) -> Value {
    let subject = |kind: &str, name: String| json!({"kind": kind, "name": name, "apiGroup": GROUP});
    json!({"metadata": {"name": name}, "roleRef": {"kind": kind, "name": format!("role-{}", i % ROLES), "apiGroup": GROUP},
        "subjects": [subject("User", name.to_owned()), subject("Group", format!("{kind}-group-{}", i % 1000))]})
}

/// Every object: its kind, resource, namespace and content.
fn objects() -> Vec<(&'static str, &'static str, String, Value)> {
    let namespace = |i: usize| format!("ns-{}", i % NAMESPACES);
    let mut all = Vec::new();
    for i in 0..NAMESPACES {
        let object = json!({"metadata": {"name": namespace(i)}});
        all.push(("Namespace", "namespaces", String::new(), object));
    }
    for i in 0..ROLES {
        all.push(("ClusterRole", "clusterroles", String::new(), role(&format!("role-{i}"))));
    }
    for i in 0..NAMESPACES * ROLES {
        all.push(("Role", "roles", namespace(i), role(&format!("role-{}", i / NAMESPACES))));
    }
    for i in 0..BINDINGS {
        let object = binding(&format!("of-cluster-{i}"), "ClusterRole", i);
        all.push(("ClusterRoleBinding", "clusterrolebindings", String::new(), object));
        let object = binding(&format!("of-namespace-{i}"), "Role", i);
        all.push(("RoleBinding", "rolebindings", namespace(i), object));
    }
    all
}

async fn server() -> Server {
    let server = Server::builder(Arc::new(MemoryStore::new())).build().await.expect("a server");
    let client = server.client(UserInfo::loopback());
    for (kind, plural, namespace, object) in objects() {
        let group = if kind == "Namespace" { "" } else { GROUP };
        let resource = Resource::new(group, "v1", kind, plural, !namespace.is_empty());
        let verb = Verb::Create(object, WriteOptions::default());
        let (name, subresource) = (String::new(), String::new());
        client.request(Request { resource, namespace, name, subresource, verb }).await.expect("created");
    }
    server
}

fn rbac(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let server = runtime.block_on(server());
    let rbac = Rbac::new(server.reader());
    for (what, user, groups, namespace, verb, allowed) in [
        ("cluster-wide, allowed", "of-cluster-7777", "Role-group-1", "ns-5", "get", true),
        ("cluster-wide, allowed to a group", "nobody", "ClusterRole-group-7", "ns-5", "get", true),
        ("cluster-wide, denied", "of-cluster-7777", "ClusterRole-group-7", "ns-5", "delete", false),
        ("namespaced, allowed", "of-namespace-5505", "dev", "ns-5", "get", true),
        ("namespaced, allowed to a group", "nobody", "Role-group-505", "ns-5", "get", true),
        ("namespaced, denied", "of-namespace-5505", "Role-group-505", "ns-5", "delete", false),
        ("a stranger, denied", "nobody", "dev", "ns-5", "get", false),
    ] {
        let asked = Attributes {
            user: Arc::new(UserInfo::new(user, [groups, "ops", "system:authenticated"])),
            verb: verb.into(),
            version: "v1".into(),
            resource: "pods".into(),
            namespace: namespace.to_owned(),
            name: "web-0".to_owned(),
            ..Attributes::default()
        };
        let decided = block_on(rbac.authorize(&asked));
        assert_eq!(matches!(decided, Decision::Allow(_)), allowed, "{what}: {decided:?}");
        c.bench_function(&format!("RBAC, 10,000 bindings/{what}"), |b| {
            b.iter(|| block_on(rbac.authorize(black_box(&asked))));
        });
    }
}

criterion_group!(benches, rbac);
criterion_main!(benches);
