//! What an object takes of a quota, and which quotas look at it
//! (<https://kubernetes.io/docs/concepts/policy/resource-quotas/>).

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::{
    limit_ranger::{Amounts, amounts, pod_amounts},
    list, text,
};
use crate::{Quantity, Resource};

fn one() -> Quantity {
    Quantity::from_value(1)
}

/// What an object takes, by the names that quotas use.
pub(super) fn of(resource: &Resource, object: &Value) -> Amounts {
    let mut usage = Amounts::from([(format!("count/{}", resource.group_resource()), one())]);
    if !resource.group.is_empty() {
        return usage;
    }
    let plural = resource.plural.as_ref();
    match plural {
        "pods" => pod(object, &mut usage),
        "persistentvolumeclaims" => claim(object, &mut usage),
        "services" => service(object, &mut usage),
        "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => {
            usage.insert(plural.to_owned(), one());
        }
        _ => {}
    }
    usage
}

fn is_terminal(pod: &Value) -> bool {
    matches!(text(&pod["status"]["phase"]), "Failed" | "Succeeded")
}

fn pod(pod: &Value, usage: &mut Amounts) {
    if is_terminal(pod) {
        return;
    }
    usage.insert("pods".to_owned(), one());
    for (name, amount) in pod_amounts(&pod["spec"], "requests") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            usage.insert(name.clone(), amount);
        }
        usage.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in pod_amounts(&pod["spec"], "limits") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{name}"), amount);
        }
    }
}

fn claim(claim: &Value, usage: &mut Amounts) {
    usage.insert("persistentvolumeclaims".to_owned(), one());
    let storage = amounts(&claim["spec"]["resources"]["requests"]).get("storage").copied();
    let annotation = claim["metadata"]["annotations"].get("volume.beta.kubernetes.io/storage-class");
    let class = annotation.map_or_else(|| text(&claim["spec"]["storageClassName"]), text);
    if !class.is_empty() {
        usage.insert(format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), one());
    }
    if let Some(storage) = storage {
        usage.insert("requests.storage".to_owned(), storage);
        if !class.is_empty() {
            usage.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), storage);
        }
    }
}

fn service(service: &Value, usage: &mut Amounts) {
    usage.insert("services".to_owned(), one());
    let spec = &service["spec"];
    let ports = || Quantity::from_value(i64::try_from(list(&spec["ports"]).len()).unwrap_or(i64::MAX));
    match text(&spec["type"]) {
        "NodePort" => _ = usage.insert("services.nodeports".to_owned(), ports()),
        "LoadBalancer" => {
            usage.insert("services.loadbalancers".to_owned(), one());
            if spec["allocateLoadBalancerNodePorts"] != false {
                usage.insert("services.nodeports".to_owned(), ports());
            }
        }
        _ => {}
    }
}

/// What the scopes of a quota look at.
pub(super) struct Scoped {
    pod: bool,
    terminating: bool,
    best_effort: bool,
    priority_class: String,
    cross_namespace: bool,
}

impl Scoped {
    pub(super) fn of(object: &Value) -> Self {
        let spec = &object["spec"];
        let containers = ["initContainers", "containers"].into_iter().flat_map(|field| list(&spec[field]));
        let asks = |resources: &Value| {
            ["requests", "limits"].iter().any(|field| {
                let amounts = amounts(&resources[field]);
                ["cpu", "memory"].iter().any(|name| amounts.get(*name).is_some_and(|amount| !amount.is_zero()))
            })
        };
        let mut resources = containers.map(|container| &container["resources"]).chain([&spec["resources"]]);
        Self {
            pod: spec["containers"].is_array(),
            terminating: spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0),
            best_effort: !resources.any(asks),
            priority_class: text(&spec["priorityClassName"]).to_owned(),
            cross_namespace: crosses_namespaces(&spec["affinity"]),
        }
    }
}

fn crosses_namespaces(affinity: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let required = list(&affinity[kind]["requiredDuringSchedulingIgnoredDuringExecution"]).iter();
        let preferred = list(&affinity[kind]["preferredDuringSchedulingIgnoredDuringExecution"]).iter();
        let mut terms = required.chain(preferred.map(|weighted| &weighted["podAffinityTerm"]));
        terms.any(|term| !list(&term["namespaces"]).is_empty() || !term["namespaceSelector"].is_null())
    })
}

/// Whether a quota, by its scopes, looks at an object. Quotas with scopes look at pods only.
pub(super) fn matches(spec: &Value, object: &Scoped) -> bool {
    let plain = list(&spec["scopes"]).iter().map(|scope| (text(scope), "Exists", &[] as &[Value]));
    let expressions = list(&spec["scopeSelector"]["matchExpressions"]).iter();
    let selected = expressions.map(|e| (text(&e["scopeName"]), text(&e["operator"]), list(&e["values"])));
    let mut all = plain.chain(selected);
    all.all(|(scope, operator, values)| {
        object.pod
            && match scope {
                "Terminating" => object.terminating,
                "NotTerminating" => !object.terminating,
                "BestEffort" => object.best_effort,
                "NotBestEffort" => !object.best_effort,
                "CrossNamespacePodAffinity" => object.cross_namespace,
                "PriorityClass" => {
                    let named = values.iter().any(|value| text(value) == object.priority_class);
                    match operator {
                        "In" => named,
                        "NotIn" => !named,
                        "DoesNotExist" => object.priority_class.is_empty(),
                        _ => !object.priority_class.is_empty(),
                    }
                }
                _ => false,
            }
    })
}

/// What the containers of a pod must say and do not, where a quota counts it: `limits.cpu for: a,b; ...`.
pub(super) fn unspecified(resource: &Resource, pod: &Value, hard: &Amounts) -> Option<String> {
    const COUNTED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
    if !resource.group.is_empty() || resource.plural != "pods" || is_terminal(pod) {
        return None;
    }
    let spec = &pod["spec"];
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in COUNTED.into_iter().filter(|name| hard.contains_key(*name)) {
        let (field, plain) = match name.split_once('.') {
            Some(("limits", plain)) => ("limits", plain),
            Some((_, plain)) => ("requests", plain),
            None => ("requests", name),
        };
        // What the pod says as a whole, its containers need not say.
        if amounts(&spec["resources"][field]).contains_key(plain) {
            continue;
        }
        for container in ["containers", "initContainers"].into_iter().flat_map(|kind| list(&spec[kind])) {
            if !amounts(&container["resources"][field]).contains_key(plain) {
                missing.entry(name).or_default().push(text(&container["name"]));
            }
        }
    }
    if missing.is_empty() {
        return None;
    }
    let parts: Vec<_> = missing.iter().map(|(name, of)| format!("{name} for: {}", of.join(","))).collect();
    Some(parts.join("; "))
}
