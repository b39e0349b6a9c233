//! Which pods go first when there are too many (client-go's `ActivePodsWithRanks`).

use std::{
    cmp::{Ordering, Reverse},
    collections::HashMap,
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::common::{meta, pod};

/// The annotation by which a user says which pods to keep.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods whose loss matters least. `related` are all pods that share a purpose with them: of nodes with many, pods go first.
pub(super) fn least_useful(active: &[Arc<Pod>], related: &[Arc<Pod>], count: usize) -> Vec<Arc<Pod>> {
    if count >= active.len() {
        return active.to_vec();
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related {
        *on_node.entry(pod::node_name(pod)).or_default() += 1;
    }
    let now = rk_api::now();
    let mut ranked: Vec<&Arc<Pod>> = active.iter().collect();
    ranked.sort_by(|a, b| {
        let neighbours = |pod: &Pod| on_node.get(pod::node_name(pod)).copied().unwrap_or(0);
        compare(a, b, neighbours(a), neighbours(b), now)
    });
    ranked.into_iter().take(count).cloned().collect()
}

/// `Less`: `a` goes before `b`.
fn compare(a: &Pod, b: &Pod, a_neighbours: usize, b_neighbours: usize, now: Timestamp) -> Ordering {
    let scheduled = |pod: &Pod| !pod::node_name(pod).is_empty();
    let phase = |pod: &Pod| match pod::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    // Ages of the same magnitude count as the same, so that neither the old nor the young all go at once.
    let magnitude = |since: Timestamp| {
        let seconds = u64::try_from(now.as_second() - since.as_second()).unwrap_or(0);
        seconds.checked_ilog2().map_or(0, |log| log + 1)
    };
    let ready_for = |pod: &Pod| pod::ready_since(pod).map_or(0, magnitude);
    scheduled(a)
        .cmp(&scheduled(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| pod::is_ready(a).cmp(&pod::is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| b_neighbours.cmp(&a_neighbours))
        .then_with(|| ready_for(a).cmp(&ready_for(b)))
        .then_with(|| pod::restarts(b).cmp(&pod::restarts(a)))
        .then_with(|| magnitude(meta::created(&a.metadata)).cmp(&magnitude(meta::created(&b.metadata))))
        .then_with(|| Reverse(meta::uid(&a.metadata)).cmp(&Reverse(meta::uid(&b.metadata))))
}

fn cost(pod: &Pod) -> i32 {
    meta::annotation(&pod.metadata, DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, node: &str, phase: &str, ready_age: Option<i64>, more: Value) -> Arc<Pod> {
        let ago = |seconds: i64| Timestamp::from_second(rk_api::now().as_second() - seconds).unwrap().to_string();
        let mut pod = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": ago(5000)},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": phase},
        });
        if let Some(age) = ready_age {
            pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "lastTransitionTime": ago(age)}]);
        }
        for (field, value) in more.as_object().into_iter().flatten() {
            pod["metadata"][field] = value.clone();
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let cheap = json!({"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}});
        let order = [
            pod("unscheduled", "", "Pending", None, json!({})),
            pod("pending", "n1", "Pending", None, json!({})),
            pod("unready", "n1", "Running", None, json!({})),
            pod("cheap", "n2", "Running", Some(1000), cheap),
            pod("crowded", "n1", "Running", Some(1000), json!({})),
            pod("ready-lately", "n2", "Running", Some(3), json!({})),
            pod("good", "n3", "Running", Some(1000), json!({})),
        ];
        let mut shuffled = order.to_vec();
        shuffled.rotate_left(3);
        shuffled.swap(0, 2);
        let ranked = least_useful(&shuffled, &shuffled, 6);
        let names: Vec<_> = ranked.iter().map(|pod| meta::name(&pod.metadata).to_owned()).collect();
        assert_eq!(names, ["unscheduled", "pending", "unready", "cheap", "crowded", "ready-lately"]);
    }
}
