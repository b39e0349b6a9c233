//! The messages of `k8s.io/kube-scheduler/extender/v1`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::{
    framework::{ExtenderFilter, NodeVictims, VictimIds},
    model::PodInfo,
};

/// `ExtenderArgs`: nodes by name for an extender that knows them, else in full.
pub(super) fn args(pod: &PodInfo, nodes: &[Arc<Node>], by_name: bool) -> Value {
    let (list, names) = if by_name {
        let names: Vec<&str> = nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
        (Value::Null, json!(names))
    } else {
        let items: Vec<&Node> = nodes.iter().map(AsRef::as_ref).collect();
        (json!({"metadata": {}, "items": items}), Value::Null)
    };
    json!({"Pod": *pod.pod, "Nodes": list, "NodeNames": names})
}

/// `ExtenderPreemptionArgs`.
pub(super) fn preemption_args(pod: &PodInfo, proposals: &[NodeVictims], by_name: bool) -> Value {
    let victims = |pods: &dyn Fn(&PodInfo) -> Value| -> Value {
        let of_node = |proposal: &NodeVictims| {
            let pods: Vec<Value> = proposal.pods.iter().map(|pod| pods(pod)).collect();
            (proposal.node.to_string(), json!({"Pods": pods, "NumPDBViolations": proposal.violations}))
        };
        proposals.iter().map(of_node).collect()
    };
    let (full, meta) = if by_name {
        (Value::Null, victims(&|pod| json!({"UID": pod.uid.as_ref()})))
    } else {
        (victims(&|pod| json!(*pod.pod)), Value::Null)
    };
    json!({"Pod": *pod.pod, "NodeNameToVictims": full, "NodeNameToMetaVictims": meta})
}

/// `ExtenderBindingArgs`.
pub(super) fn binding_args(pod: &PodInfo, node: &str) -> Value {
    let (name, namespace, uid) = (pod.name.as_ref(), pod.namespace.as_ref(), pod.uid.as_ref());
    json!({"PodName": name, "PodNamespace": namespace, "PodUID": uid, "Node": node})
}

/// A field by its name in any case; `None` for one that is null.
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = value.as_object()?;
    let found = fields.get(name).or_else(|| {
        let (_, value) = fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(value)
    });
    found.filter(|value| !value.is_null())
}

/// The error that an answer tells of.
pub(super) fn error_of(answer: &Value) -> Option<String> {
    field(answer, "Error").and_then(Value::as_str).filter(|error| !error.is_empty()).map(str::to_owned)
}

fn text(value: &Value, what: &str) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("{what}: a text is wanted, not {value}"))
}

fn list<'a>(value: &'a Value, what: &str) -> Result<&'a [Value], String> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| format!("{what}: a list is wanted, not {value}"))
}

/// `ExtenderFilterResult` to a question about these nodes.
pub(super) fn filter_result(
    answer: &Value,
    asked: &[Arc<Node>],
    by_name: bool,
    extender: &str,
) -> Result<ExtenderFilter, String> {
    if let Some(error) = error_of(answer) {
        return Err(error);
    }
    let asked: BTreeSet<&str> = asked.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
    let names = field(answer, "NodeNames").filter(|_| by_name);
    let nodes: Vec<String> = if let Some(names) = names {
        list(names, "NodeNames")?.iter().map(|name| text(name, "NodeNames")).collect::<Result<_, _>>()?
    } else if let Some(items) = field(answer, "Nodes").and_then(|nodes| field(nodes, "items")) {
        let name = |node: &Value| text(&node["metadata"]["name"], "Nodes.items.metadata.name");
        list(items, "Nodes.items")?.iter().map(name).collect::<Result<_, _>>()?
    } else {
        Vec::new()
    };
    if let Some(stranger) = nodes.iter().find(|name| !asked.contains(name.as_str())) {
        return Err(format!(
            "extender {extender:?} claims a filtered node {stranger:?} which is not found in the input node list"
        ));
    }
    let reasons = |name: &str| -> Result<BTreeMap<String, String>, String> {
        let Some(map) = field(answer, name) else { return Ok(BTreeMap::new()) };
        let map = map.as_object().ok_or_else(|| format!("{name}: an object is wanted, not {map}"))?;
        map.iter().map(|(node, reason)| Ok((node.clone(), text(reason, name)?))).collect()
    };
    Ok(ExtenderFilter { nodes, failed: reasons("FailedNodes")?, unresolvable: reasons("FailedAndUnresolvableNodes")? })
}

/// `HostPriorityList`.
pub(super) fn host_priorities(answer: &Value) -> Result<Vec<(String, i64)>, String> {
    if answer.is_null() {
        return Ok(Vec::new());
    }
    let one = |priority: &Value| {
        let host = text(field(priority, "Host").unwrap_or(&Value::Null), "Host")?;
        let score = field(priority, "Score").map_or(Some(0), Value::as_i64);
        Ok((host, score.ok_or_else(|| format!("Score: a whole number is wanted, not {priority}"))?))
    };
    list(answer, "HostPriorityList")?.iter().map(one).collect()
}

/// `ExtenderPreemptionResult`.
pub(super) fn preemption_result(answer: &Value) -> Result<Vec<VictimIds>, String> {
    let Some(nodes) = field(answer, "NodeNameToMetaVictims") else { return Ok(Vec::new()) };
    let nodes = nodes.as_object().ok_or_else(|| format!("NodeNameToMetaVictims: an object is wanted, not {nodes}"))?;
    let uid = |pod: &Value| text(field(pod, "UID").unwrap_or(&Value::Null), "UID");
    let one = |(node, victims): (&String, &Value)| {
        let pods = field(victims, "Pods").map_or(Ok(&[][..]), |pods| list(pods, "Pods"))?;
        let violations = field(victims, "NumPDBViolations").and_then(Value::as_u64).unwrap_or(0);
        Ok(VictimIds {
            node: node.clone(),
            uids: pods.iter().map(uid).collect::<Result<_, String>>()?,
            violations: usize::try_from(violations).unwrap_or(usize::MAX),
        })
    };
    nodes.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(name: &str) -> Arc<PodInfo> {
        let pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}")}});
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value::<Pod>(pod).unwrap())))
    }

    fn nodes() -> Vec<Arc<Node>> {
        ["a", "b"].map(|name| Arc::new(serde_json::from_value(json!({"metadata": {"name": name}})).unwrap())).into()
    }

    #[test]
    fn questions_are_kubernetes() {
        let by_name = args(&pod("p"), &nodes(), true);
        assert_eq!((&by_name["NodeNames"], &by_name["Nodes"]), (&json!(["a", "b"]), &Value::Null));
        assert_eq!(by_name["Pod"]["metadata"]["name"], "p");
        let full = args(&pod("p"), &nodes(), false);
        assert_eq!((&full["NodeNames"], &full["Nodes"]["items"][1]["metadata"]["name"]), (&Value::Null, &json!("b")));
        let proposals = [NodeVictims { node: "a".into(), pods: vec![pod("v")], violations: 1 }];
        let meta = preemption_args(&pod("p"), &proposals, true);
        assert_eq!(meta["NodeNameToMetaVictims"], json!({"a": {"Pods": [{"UID": "uid-v"}], "NumPDBViolations": 1}}));
        assert_eq!(meta["NodeNameToVictims"], Value::Null);
        let full = preemption_args(&pod("p"), &proposals, false);
        assert_eq!(full["NodeNameToVictims"]["a"]["Pods"][0]["metadata"]["name"], "v");
        let binding = json!({"PodName": "p", "PodNamespace": "ns", "PodUID": "uid-p", "Node": "a"});
        assert_eq!(binding_args(&pod("p"), "a"), binding);
    }

    #[test]
    fn answers_are_read_in_any_case() {
        let read = |answer: Value, by_name| filter_result(&answer, &nodes(), by_name, "x");
        let expected = ExtenderFilter {
            nodes: vec!["a".to_owned()],
            failed: BTreeMap::from([("b".to_owned(), "full".to_owned())]),
            unresolvable: BTreeMap::new(),
        };
        let lower = json!({"nodenames": ["a"], "failedNodes": {"b": "full"}, "error": ""});
        assert_eq!(read(lower, true), Ok(expected.clone()));
        let full = json!({"Nodes": {"Items": [{"metadata": {"name": "a"}}]}, "FailedNodes": {"b": "full"}});
        assert_eq!(read(full.clone(), false), Ok(expected.clone()));
        assert_eq!(read(full, true), Ok(expected));
        assert_eq!(read(json!({"Nodes": null}), true), Ok(ExtenderFilter::default()));
        assert_eq!(read(json!({"Error": "no"}), true), Err("no".to_owned()));
        let stranger = "extender \"x\" claims a filtered node \"c\" which is not found in the input node list";
        assert_eq!(read(json!({"NodeNames": ["c"]}), true), Err(stranger.to_owned()));
        assert!(read(json!({"NodeNames": "a"}), true).is_err());
        assert_eq!(host_priorities(&json!([{"host": "a", "Score": 7}])), Ok(vec![("a".to_owned(), 7)]));
        assert!(host_priorities(&json!([{"Host": "a", "Score": 0.5}])).is_err());
        let victims = VictimIds { node: "a".to_owned(), uids: vec!["u".to_owned()], violations: 2 };
        let answer = json!({"nodeNameToMetaVictims": {"a": {"pods": [{"uid": "u"}], "numPDBViolations": 2}}});
        assert_eq!(preemption_result(&answer), Ok(vec![victims]));
    }
}
