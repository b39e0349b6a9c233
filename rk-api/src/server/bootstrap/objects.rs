//! The bootstrap objects.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::{Value, json};

use super::{
    ApiServer, Config, Wanted, controller_roles, flow,
    roles::{self, Rule},
    service_cidr,
};
use crate::{Resource, server::kinds::service::addresses};

/// The namespaces that every cluster has.
pub const SYSTEM_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

const RBAC: &str = "rbac.authorization.k8s.io";

fn wanted(group: &str, version: &str, plural: &str, namespaced: bool, value: Value) -> Wanted {
    let kind = value["kind"].as_str().unwrap_or_default();
    Wanted { resource: Resource::new(group, version, kind, plural, namespaced), value }
}

pub(super) fn namespaces() -> Vec<Wanted> {
    let namespace = |name: &&str| {
        wanted(
            "",
            "v1",
            "namespaces",
            false,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        )
    };
    SYSTEM_NAMESPACES.iter().map(namespace).collect()
}

pub(super) fn others(config: &Config) -> Vec<Wanted> {
    let mut all = cluster_roles();
    all.extend(namespaced_roles());
    all.extend(priority_classes());
    all.extend(config.api_server.iter().flat_map(kubernetes_service));
    all.extend(config.root_ca.iter().flat_map(|ca| root_ca(ca, config.front_proxy.as_ref())));
    if config.flow_control {
        let of = |plural| move |value| wanted("flowcontrol.apiserver.k8s.io", "v1", plural, false, value);
        all.extend(flow::levels().map(of("prioritylevelconfigurations")));
        all.extend(flow::schemas().map(of("flowschemas")));
    }
    all.extend(config.service_cidr.iter().map(|range| Wanted {
        resource: addresses::service_cidrs(),
        value: json!(service_cidr::default_range(range)),
    }));
    all
}

pub(super) fn policy_rule(rule: &Rule) -> Value {
    let words =
        |text: &str| text.split_whitespace().map(|w| if w == "core" { "" } else { w }).map(Value::from).collect();
    let fields = [
        ("apiGroups", rule.groups),
        ("resources", rule.resources),
        ("resourceNames", rule.names),
        ("nonResourceURLs", rule.paths),
        ("verbs", rule.verbs),
    ];
    let present = fields.into_iter().filter(|(_, text)| !text.is_empty());
    present.map(|(field, text)| (field.to_owned(), Value::Array(words(text)))).collect::<serde_json::Map<_, _>>().into()
}

fn meta(name: &str, namespace: &str, labels: &[(&str, &str)]) -> Value {
    let mut all = BTreeMap::from([("kubernetes.io/bootstrapping", "rbac-defaults")]);
    all.extend(labels.iter().copied());
    let mut meta = json!({"name": name, "labels": all,
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}});
    if !namespace.is_empty() {
        meta["namespace"] = namespace.into();
    }
    meta
}

fn aggregate_label(to: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{to}")
}

fn role(kind: &str, meta: Value, rules: Vec<Value>) -> Wanted {
    let plural = if kind == "Role" { "roles" } else { "clusterroles" };
    let value = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": meta, "rules": rules});
    wanted(RBAC, "v1", plural, kind == "Role", value)
}

fn binding(name: &str, namespace: &str, role: (&str, &str), subjects: Vec<Value>) -> Wanted {
    let (kind, plural) = if namespace.is_empty() {
        ("ClusterRoleBinding", "clusterrolebindings")
    } else {
        ("RoleBinding", "rolebindings")
    };
    let mut value = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
        "metadata": meta(name, namespace, &[]),
        "roleRef": {"apiGroup": RBAC, "kind": role.0, "name": role.1},
    });
    if !subjects.is_empty() {
        value["subjects"] = subjects.into();
    }
    wanted(RBAC, "v1", plural, !namespace.is_empty(), value)
}

/// A subject: `User NAME`, `Group NAME`, or `ServiceAccount NAME` in kube-system.
fn subject(text: &str) -> Value {
    match text.split_once(' ') {
        Some(("ServiceAccount", name)) => json!({"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}),
        Some((kind, name)) => json!({"apiGroup": RBAC, "kind": kind, "name": name}),
        None => Value::Null,
    }
}

fn cluster_roles() -> Vec<Wanted> {
    let mut all = Vec::new();
    for (name, aggregate_to, rules) in roles::CLUSTER_ROLES {
        let label = aggregate_label(aggregate_to);
        let labels = [(label.as_str(), "true")];
        let labels: &[_] = if aggregate_to.is_empty() { &[] } else { &labels };
        all.push(role("ClusterRole", meta(name, "", labels), rules.iter().map(policy_rule).collect()));
    }
    // view is part of edit, and edit of admin. The rules are written out, so that whoever reads the role sees them.
    let mut rules = Vec::new();
    for (name, part_of) in [("view", "edit"), ("edit", "admin"), ("admin", "")] {
        let label = aggregate_label(part_of);
        let labels = [(label.as_str(), "true")];
        let labels: &[_] = if part_of.is_empty() { &[] } else { &labels };
        let own = roles::CLUSTER_ROLES.iter().filter(|(_, aggregate_to, _)| *aggregate_to == name);
        rules.extend(own.flat_map(|(_, _, rules)| rules.iter()).map(policy_rule));
        let mut aggregated = role("ClusterRole", meta(name, "", labels), rules.clone());
        aggregated.value["aggregationRule"] =
            json!({"clusterRoleSelectors": [{"matchLabels": {aggregate_label(name): "true"}}]});
        all.push(aggregated);
    }
    for (name, role, subjects) in roles::CLUSTER_ROLE_BINDINGS {
        all.push(binding(name, "", ("ClusterRole", role), subjects.iter().map(|text| subject(text)).collect()));
    }
    let events = policy_rule(&roles::EVENTS);
    for (controller, rules) in controller_roles::CONTROLLER_ROLES {
        let name = format!("system:controller:{controller}");
        let rules = rules.iter().map(policy_rule).chain([events.clone()]).collect();
        all.push(role("ClusterRole", meta(&name, "", &[]), rules));
        let subjects = vec![subject(&format!("ServiceAccount {controller}"))];
        all.push(binding(&name, "", ("ClusterRole", &name), subjects));
    }
    all
}

fn namespaced_roles() -> Vec<Wanted> {
    let mut all = Vec::new();
    for (namespace, name, rules, bound, subjects) in roles::ROLES {
        all.push(role("Role", meta(name, namespace, &[]), rules.iter().map(policy_rule).collect()));
        let subjects = subjects.iter().map(|text| subject(text)).collect();
        all.push(binding(bound, namespace, ("Role", name), subjects));
    }
    all
}

fn priority_classes() -> Vec<Wanted> {
    let class = |(name, value, description): (&str, i64, &str)| {
        let value = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "preemptionPolicy": "PreemptLowerPriority", "description": description});
        wanted("scheduling.k8s.io", "v1", "priorityclasses", false, value)
    };
    let node = "Used for system critical pods that must not be moved from their current node.";
    let cluster =
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.";
    [("system-node-critical", 2_000_001_000, node), ("system-cluster-critical", 2_000_000_000, cluster)]
        .map(class)
        .into()
}

/// The Service `default/kubernetes`, and its endpoints if there are any addresses.
pub(super) fn kubernetes_service(api: &ApiServer) -> Vec<Wanted> {
    let meta = |labels: Value| json!({"name": "kubernetes", "namespace": "default", "labels": labels});
    let port = json!([{"name": "https", "port": api.port, "protocol": "TCP"}]);
    let addresses: Vec<_> = api.addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let endpoints: Vec<_> =
        api.addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    let v6 = api.addresses.first().is_some_and(IpAddr::is_ipv6);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": meta(json!({"component": "apiserver", "provider": "kubernetes"})),
        "spec": {
            "type": "ClusterIP", "sessionAffinity": "None", "clusterIP": api.cluster_ip, "clusterIPs": [api.cluster_ip],
            "ports": [{"name": "https", "port": api.service_port, "protocol": "TCP", "targetPort": api.port}],
        },
    });
    let legacy = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": meta(json!({"endpointslice.kubernetes.io/skip-mirror": "true"})),
        "subsets": [{"addresses": addresses, "ports": port}],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": meta(json!({"kubernetes.io/service-name": "kubernetes"})),
        "addressType": if v6 { "IPv6" } else { "IPv4" }, "endpoints": endpoints, "ports": port,
    });
    if api.addresses.is_empty() {
        return vec![wanted("", "v1", "services", true, service)];
    }
    vec![
        wanted("", "v1", "services", true, service),
        wanted("", "v1", "endpoints", true, legacy),
        wanted("discovery.k8s.io", "v1", "endpointslices", true, slice),
    ]
}

fn root_ca(ca: &str, front_proxy: Option<&(String, Vec<String>)>) -> Vec<Wanted> {
    let config_map = |name: &str, namespace: &str, data: Value| {
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace}, "data": data});
        wanted("", "v1", "configmaps", true, value)
    };
    let published = SYSTEM_NAMESPACES.iter().map(|ns| config_map("kube-root-ca.crt", ns, json!({"ca.crt": ca})));
    let mut extension = json!({"client-ca-file": ca});
    if let Some((ca, names)) = front_proxy {
        for (field, list) in [
            ("allowed-names", names.iter().map(String::as_str).collect()),
            ("username-headers", vec!["X-Remote-User"]),
            ("uid-headers", vec!["X-Remote-Uid"]),
            ("group-headers", vec!["X-Remote-Group"]),
            ("extra-headers-prefix", vec!["X-Remote-Extra-"]),
        ] {
            extension[format!("requestheader-{field}")] = json!(list).to_string().into();
        }
        extension["requestheader-client-ca-file"] = ca.as_str().into();
    }
    published.chain([config_map("extension-apiserver-authentication", "kube-system", extension)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
    use std::collections::BTreeSet;

    #[test]
    fn every_object_is_well_formed_and_named_once() {
        let config = Config {
            api_server: Some(ApiServer {
                addresses: vec!["192.0.2.1".parse().unwrap()],
                port: 6443,
                service_port: 443,
                cluster_ip: "10.96.0.1".parse().unwrap(),
            }),
            root_ca: Some("PEM".into()),
            service_cidr: Some("10.96.0.0/16".parse().unwrap()),
            flow_control: true,
            front_proxy: Some(("PEM".into(), vec!["front-proxy-client".into()])),
        };
        let all: Vec<_> = namespaces().into_iter().chain(others(&config)).collect();
        let mut seen = BTreeSet::new();
        let cluster: BTreeSet<_> =
            all.iter().filter(|w| w.resource.kind == "ClusterRole").map(|w| w.name().to_owned()).collect();
        for wanted in &all {
            let key = (wanted.resource.group_resource(), wanted.namespace().to_owned(), wanted.name().to_owned());
            assert!(seen.insert(key.clone()), "{key:?} twice");
            let (value, kind) = (wanted.value.clone(), wanted.resource.kind.as_ref());
            match kind {
                "ClusterRole" => {
                    let role: ClusterRole = serde_json::from_value(value).unwrap();
                    let rules = role.rules.unwrap();
                    assert!(!rules.is_empty() && rules.iter().all(|rule| !rule.verbs.is_empty()), "{key:?}");
                }
                "Role" => assert!(!serde_json::from_value::<Role>(value).unwrap().rules.unwrap().is_empty()),
                "ClusterRoleBinding" => {
                    let binding: ClusterRoleBinding = serde_json::from_value(value).unwrap();
                    assert!(cluster.contains(&binding.role_ref.name), "{key:?}");
                    assert!(binding.subjects.is_some_and(|subjects| !subjects.is_empty()) || key.2 == "system:node");
                }
                "RoleBinding" => _ = serde_json::from_value::<RoleBinding>(value).unwrap(),
                _ => {}
            }
        }
        assert!(cluster.len() > 60, "{}", cluster.len());
        let rules = |name: &str| {
            let found = all.iter().find(|w| w.resource.kind == "ClusterRole" && w.name() == name).unwrap();
            found.value["rules"].as_array().unwrap().len()
        };
        assert!(rules("view") < rules("edit") && rules("edit") < rules("admin"));
    }
}
