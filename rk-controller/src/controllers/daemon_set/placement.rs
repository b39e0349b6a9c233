//! Which nodes a DaemonSet's pods belong on, and binding a pod to one.

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    PodTemplateSpec, Toleration,
};

use crate::{
    common::{meta, pod},
    controllers::node::tolerates,
};

/// Taints that a daemon's pod always tolerates: it runs where others don't.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let network = ("node.kubernetes.io/network-unavailable", "NoSchedule");
    let host = (spec.host_network == Some(true)).then_some(network);
    let always = TOLERATED.into_iter().chain(host).map(|(key, effect)| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    });
    let mut all = spec.tolerations.clone().unwrap_or_default();
    for toleration in always {
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    all
}

/// Whether a pod of the template should run on the node, and whether one that does may go on.
pub(super) fn place(template: &PodTemplateSpec, node: &Node) -> (bool, bool) {
    let spec = template.spec.clone().unwrap_or_default();
    if spec.node_name.as_ref().is_some_and(|name| !name.is_empty() && name != meta::name(&node.metadata)) {
        return (false, false);
    }
    let labels = meta::labels(&node.metadata);
    if !spec.node_selector.iter().flatten().all(|(name, value)| labels.get(name) == Some(value)) {
        return (false, false);
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    if required.is_some_and(|required| !required.node_selector_terms.iter().any(|term| matches(term, node))) {
        return (false, false);
    }
    let tolerations = tolerations(&spec);
    let taints = || node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let tolerated = |effects: &[&str]| {
        let mut hard = taints().filter(|taint| effects.contains(&taint.effect.as_str()));
        hard.all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
    };
    let stays = tolerated(&["NoExecute"]);
    (stays && tolerated(&["NoSchedule"]), stays)
}

/// Whether a node selector term holds; an empty one never does.
fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = meta::labels(&node.metadata);
    let expressions = || term.match_expressions.iter().flatten();
    let fields = || term.match_fields.iter().flatten();
    if expressions().next().is_none() && fields().next().is_none() {
        return false;
    }
    expressions().all(|wanted| holds(wanted, labels.get(&wanted.key).map(String::as_str)))
        && fields().all(|wanted| holds(wanted, (wanted.key == "metadata.name").then_some(meta::name(&node.metadata))))
}

fn holds(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let listed = || wanted.values.iter().flatten().any(|listed| Some(listed.as_str()) == value);
    let numbers = || {
        let bound: i64 = wanted.values.as_ref()?.first()?.parse().ok()?;
        Some((value?.parse::<i64>().ok()?, bound))
    };
    match wanted.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// Makes the scheduler put a pod on a node, whatever else the template's affinity says, as it has been judged already.
pub(super) fn bind(pod: &mut Pod, node: &str) {
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    let by_name = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![by_name]), match_expressions: None };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a pod is on, or is meant for.
pub(super) fn node_of(pod: &Pod) -> String {
    let bound = pod::node_name(pod);
    if !bound.is_empty() {
        return bound.to_owned();
    }
    let meant = || {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let field = required.node_selector_terms.first()?.match_fields.as_ref()?.first()?;
        field.values.as_ref()?.first().cloned()
    };
    meant().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn taints_selectors_and_affinity_decide() {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"disk": "ssd", "cores": "8"}},
            "spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"},
                {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]}}))
            .unwrap();
        let placed = |spec: Value| {
            let mut template = json!({"spec": {"containers": []}});
            template["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            place(&serde_json::from_value(template).unwrap(), &node)
        };
        assert_eq!(placed(json!({})), (false, true), "an untolerated NoSchedule only keeps new pods away");
        let gpu = json!([{"key": "gpu", "operator": "Exists"}]);
        assert_eq!(placed(json!({"tolerations": gpu})), (true, true));
        assert_eq!(placed(json!({"tolerations": gpu, "nodeSelector": {"disk": "hdd"}})), (false, false));
        let cores = |operator: &str, value: &str| {
            json!({"tolerations": gpu, "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "cores", "operator": operator, "values": [value]}]}]}}}})
        };
        assert_eq!(placed(cores("Gt", "4")), (true, true));
        assert_eq!(placed(cores("In", "4")), (false, false));
    }
}
