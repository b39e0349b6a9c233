//! Nodes and pods in short: what a case says of them, to the full object.

use k8s_openapi::api::core::v1::{Node, Pod};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Labels that the cases call `host`, `zone` and `region`.
fn label(name: &str) -> &str {
    match name {
        "host" => HOST,
        "zone" => ZONE,
        "region" => "topology.kubernetes.io/region",
        name => name,
    }
}

/// Reads an object and makes sure that nothing of it was overlooked.
pub fn exact<K: DeserializeOwned + Serialize>(value: Value) -> K {
    let object: K = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"));
    let read = serde_json::to_value(&object).unwrap();
    if let Some(path) = overlooked(&value, &read, String::new()) {
        panic!("there is no field {path} in {value}");
    }
    object
}

fn overlooked(given: &Value, read: &Value, path: String) -> Option<String> {
    match (given, read) {
        (Value::Null, _) => None,
        (Value::Object(given), Value::Object(read)) => given.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match read.get(key) {
                Some(read) => overlooked(value, read, path),
                None if value.is_null() => None,
                None => Some(path),
            }
        }),
        (Value::Array(given), Value::Array(read)) => {
            given.iter().zip(read).find_map(|(given, read)| overlooked(given, read, path.clone()))
        }
        _ => None,
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A map with texts for values, such as quantities given as numbers; null leaves the key out.
fn texts(map: &Value) -> Value {
    let entries = map.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
    entries.map(|(key, value)| (label(key).to_owned(), Value::from(text(value)))).collect::<Map<_, _>>().into()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        Value::Null => Map::new(),
        other => panic!("not a map: {other}"),
    }
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().unwrap() {
        into[label(key)] = value.clone();
    }
}

/// A node of 4 cores, 8 GiB and 110 pods, with a host name, unless it says otherwise. Taints are as kubectl has them: `key=value:Effect`.
pub fn node(name: &str, short: &Value) -> Node {
    let mut allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    let mut labels = json!({HOST: name});
    let (mut spec, mut images, mut annotations) = (json!({}), Vec::new(), Value::Null);
    let mut name = Value::from(name);
    for (key, value) in object(short.clone()) {
        match key.as_str() {
            "name" => name = value,
            "zone" => labels[ZONE] = value,
            "labels" => merge(&mut labels, &value),
            "annotations" => annotations = value,
            "taints" => spec["taints"] = value.as_array().unwrap().iter().map(taint).collect(),
            "unschedulable" => spec["unschedulable"] = value,
            "images" => {
                images = object(value).iter().map(|(name, size)| json!({"names": [name], "sizeBytes": size})).collect();
            }
            "allocatable" => merge(&mut allocatable, &value),
            "cpu" | "memory" | "pods" => allocatable[key] = text(&value).into(),
            other => panic!("a node has no {other:?}"),
        }
    }
    exact(json!({
        "metadata": {"name": name, "labels": texts(&labels), "annotations": annotations},
        "spec": spec,
        "status": {"allocatable": texts(&allocatable), "images": images},
    }))
}

fn taint(short: &Value) -> Value {
    let short = short.as_str().unwrap();
    let (key, effect) = short.rsplit_once(':').unwrap();
    match key.split_once('=') {
        Some((key, value)) => json!({"key": key, "value": value, "effect": effect}),
        None => json!({"key": key, "effect": effect}),
    }
}

/// A pod of one container that asks for nothing, in the namespace `default`. What is no field of the short form is one of `spec`.
pub fn pod(short: &Value, default_name: &str) -> Pod {
    let short = object(short.clone());
    let name = short.get("name").and_then(Value::as_str).unwrap_or(default_name);
    let mut metadata = json!({"name": name, "uid": name, "namespace": "default"});
    let mut spec = json!({});
    let (mut status, mut container, mut images) = (json!({}), json!({"name": "c"}), Vec::new());
    let mut affinity = object(short.get("affinity").cloned().unwrap_or_default());
    let affinity = &mut affinity;
    for (key, value) in &short {
        match key.as_str() {
            "name" | "affinity" => {}
            "namespace" | "uid" | "annotations" => metadata[key] = value.clone(),
            "labels" => metadata[key] = texts(value),
            "owner" => {
                metadata["ownerReferences"] = json!([{
                    "apiVersion": "apps/v1", "kind": value["kind"], "name": value["name"], "uid": "owner",
                    "controller": true,
                }]);
            }
            "deleting" => metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into(),
            "preempted" => {
                metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                let reason = "PreemptionByScheduler";
                status["conditions"] = json!([{"type": "DisruptionTarget", "status": "True", "reason": reason}]);
            }
            "on" => spec["nodeName"] = value.clone(),
            "asks" => container["resources"] = json!({"requests": texts(value)}),
            "images" => images = value.as_array().unwrap().clone(),
            "ports" => container["ports"] = value.as_array().unwrap().iter().map(port).collect(),
            "started" => status["startTime"] = value.clone(),
            "nominated" => status["nominatedNodeName"] = value.clone(),
            "claims" => spec["volumes"] = value.as_array().unwrap().iter().map(claim).collect(),
            "near" => terms(affinity, "podAffinity", value),
            "far" => terms(affinity, "podAntiAffinity", value),
            "requires" => {
                let terms: Value = value.as_array().unwrap().iter().map(term).collect();
                let required = json!({"nodeSelectorTerms": terms});
                deep(affinity, "nodeAffinity")["requiredDuringSchedulingIgnoredDuringExecution"] = required;
            }
            "prefers" => {
                let one = |term: &Value| json!({"weight": term["weight"], "preference": self::term(&term["term"])});
                let terms: Value = value.as_array().unwrap().iter().map(one).collect();
                deep(affinity, "nodeAffinity")["preferredDuringSchedulingIgnoredDuringExecution"] = terms;
            }
            "spread" => spec["topologySpreadConstraints"] = value.as_array().unwrap().iter().map(constraint).collect(),
            _ => spec[key] = value.clone(),
        }
    }
    if !affinity.is_empty() {
        spec["affinity"] = Value::Object(affinity.clone());
    }
    if spec.get("containers").is_none() {
        let several = images.iter().enumerate().map(|(i, image)| json!({"name": format!("c{i}"), "image": image}));
        spec["containers"] = if images.is_empty() { json!([container]) } else { several.collect() };
    }
    exact(json!({"metadata": metadata, "spec": spec, "status": status}))
}

fn deep<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Value {
    map.entry(key.to_owned()).or_insert_with(|| json!({}))
}

/// `80`, `80/UDP` or `127.0.0.1:80`: a port of the node.
fn port(short: &Value) -> Value {
    let short = text(short);
    let (rest, protocol) = short.split_once('/').map_or((short.as_str(), None), |(rest, p)| (rest, Some(p)));
    let (ip, number) = rest.rsplit_once(':').map_or((None, rest), |(ip, number)| (Some(ip), number));
    let number: i32 = number.parse().unwrap();
    json!({"containerPort": 8080, "hostPort": number, "hostIP": ip, "protocol": protocol})
}

fn claim(name: &Value) -> Value {
    json!({"name": name, "persistentVolumeClaim": {"claimName": name}})
}

/// `key Operator value,value`, each of which must hold; `metadata.name` is the node's name.
fn term(short: &Value) -> Value {
    let mut term = json!({});
    for expression in short.as_array().unwrap() {
        let mut words = expression.as_str().unwrap().split_whitespace();
        let (key, operator) = (words.next().unwrap(), words.next().unwrap());
        let values: Option<Vec<&str>> = words.next().map(|values| values.split(',').collect());
        let list = if key.starts_with("metadata.") { "matchFields" } else { "matchExpressions" };
        let expression = json!({"key": label(key), "operator": operator, "values": values});
        match term.get_mut(list).and_then(Value::as_array_mut) {
            Some(all) => all.push(expression),
            None => term[list] = json!([expression]),
        }
    }
    term
}

/// A label selector: `match` has the labels, `where` the expressions.
fn selector(short: &mut Map<String, Value>) -> Option<Value> {
    let labels = short.remove("match").map(|labels| texts(&labels));
    let expressions = short.remove("where").map(|list| term(&list)["matchExpressions"].clone());
    (labels.is_some() || expressions.is_some()).then(|| json!({"matchLabels": labels, "matchExpressions": expressions}))
}

/// Terms of pod affinity: `match` or `where` select pods, `by` is the topology key; with a `weight` it is preferred.
fn terms(affinity: &mut Map<String, Value>, kind: &str, short: &Value) {
    let (mut required, mut preferred) = (Vec::new(), Vec::new());
    for one in short.as_array().unwrap() {
        let mut term = object(one.clone());
        if let Some(selector) = selector(&mut term) {
            term.insert("labelSelector".to_owned(), selector);
        }
        let by = term.remove("by").unwrap();
        term.insert("topologyKey".to_owned(), label(by.as_str().unwrap()).into());
        match term.remove("weight") {
            Some(weight) => preferred.push(json!({"weight": weight, "podAffinityTerm": term})),
            None => required.push(Value::Object(term)),
        }
    }
    let terms = deep(affinity, kind);
    if !required.is_empty() {
        terms["requiredDuringSchedulingIgnoredDuringExecution"] = required.into();
    }
    if !preferred.is_empty() {
        terms["preferredDuringSchedulingIgnoredDuringExecution"] = preferred.into();
    }
}

/// A spread constraint: `by` and `skew`, `match` or `where`, `soft` for ScheduleAnyway.
pub fn constraint(short: &Value) -> Value {
    let mut spread = object(short.clone());
    if let Some(selector) = selector(&mut spread) {
        spread.insert("labelSelector".to_owned(), selector);
    }
    let by = spread.remove("by").unwrap();
    let soft = spread.remove("soft").is_some();
    spread.insert("topologyKey".to_owned(), label(by.as_str().unwrap()).into());
    spread.insert("maxSkew".to_owned(), spread.get("skew").cloned().unwrap_or_else(|| 1.into()));
    spread.remove("skew");
    spread.insert("whenUnsatisfiable".to_owned(), if soft { "ScheduleAnyway" } else { "DoNotSchedule" }.into());
    Value::Object(spread)
}
