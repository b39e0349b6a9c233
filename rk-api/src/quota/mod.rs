//! Resource quotas: what an object takes, and which quotas look at it
//! (<https://kubernetes.io/docs/concepts/policy/resource-quotas/>). The API server's admission and the quota controller
//! count by these rules.

mod amounts;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use crate::{
    Error, Object, Quantity, Resource,
    tree::{list, text},
};

pub use amounts::{Amounts, amounts, pod_amounts};

/// The resource whose objects a quota's name counts, as `plural` or `plural.group`; `None` for a name that counts nothing.
///
/// ```
/// use rk_api::quota::counted;
///
/// assert_eq!(counted("requests.cpu"), Some("pods"));
/// assert_eq!(counted("gold.storageclass.storage.k8s.io/requests.storage"), Some("persistentvolumeclaims"));
/// assert_eq!(counted("count/deployments.apps"), Some("deployments.apps"));
/// assert_eq!(counted("nodes"), None);
/// ```
pub fn counted(name: &str) -> Option<&str> {
    if let Some(resource) = name.strip_prefix("count/") {
        return Some(resource);
    }
    match name {
        "configmaps"
        | "secrets"
        | "replicationcontrollers"
        | "resourcequotas"
        | "services"
        | "persistentvolumeclaims" => Some(name),
        "services.nodeports" | "services.loadbalancers" => Some("services"),
        "requests.storage" => Some("persistentvolumeclaims"),
        _ if name.contains(".storageclass.storage.k8s.io/") => Some("persistentvolumeclaims"),
        "pods" | "cpu" | "memory" | "ephemeral-storage" => Some("pods"),
        _ if ["requests.", "limits.", "hugepages-"].iter().any(|prefix| name.starts_with(prefix)) => Some("pods"),
        _ => None,
    }
}

/// What an object takes, and what the scopes of quotas look at.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Amounts by the names that quotas use.
    pub usage: Amounts,
    /// What scopes look at.
    pub scoped: Scoped,
}

impl Measured {
    /// Measures an object.
    pub fn of(resource: &Resource, object: &Value) -> Self {
        Self { usage: usage(resource, object), scoped: Scoped::of(object) }
    }

    /// Measures stored objects of a resource; each but once, however often this is asked.
    ///
    /// # Errors
    /// [`Error::Decode`] if one of them is broken.
    pub fn all(resource: &Resource, objects: &[Arc<Object>]) -> Result<Vec<Arc<Self>>, Error> {
        if resource.group.is_empty() && matches!(&*resource.plural, "pods" | "services" | "persistentvolumeclaims") {
            let measure = |object: &Arc<Object>| object.cached(|| Ok(Self::of(resource, &object.value()?)));
            return objects.iter().map(measure).collect();
        }
        // One is like the other.
        let one = Arc::new(Self::of(resource, &Value::Null));
        Ok(vec![one; objects.len()])
    }
}

/// Those of some objects that a quota looks at, by its scopes.
pub fn seen<'a>(spec: &Value, all: &'a [Arc<Measured>]) -> Vec<&'a Measured> {
    all.iter().map(|measured| &**measured).filter(|measured| matches(spec, &measured.scoped)).collect()
}

/// How much of what a quota's name counts these objects take, which are those that it looks at.
pub fn sum(name: &str, seen: &[&Measured]) -> Quantity {
    let amounts = seen.iter().filter_map(|measured| measured.usage.get(name));
    // A sum is written as its first amount.
    amounts.fold(Quantity::ZERO, |sum, amount| if sum.is_zero() { *amount } else { sum + *amount })
}

fn one() -> Quantity {
    Quantity::from_value(1)
}

/// What an object takes, by the names that quotas use.
pub fn usage(resource: &Resource, object: &Value) -> Amounts {
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
#[derive(Debug, Clone)]
pub struct Scoped {
    pod: bool,
    terminating: bool,
    best_effort: bool,
    priority_class: String,
    cross_namespace: bool,
}

impl Scoped {
    /// What scopes look at of an object.
    pub fn of(object: &Value) -> Self {
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
pub fn matches(spec: &Value, object: &Scoped) -> bool {
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
pub fn unspecified(resource: &Resource, pod: &Value, hard: &Amounts) -> Option<String> {
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
