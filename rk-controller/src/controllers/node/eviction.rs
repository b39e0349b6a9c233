//! Taint-based eviction: pods that don't tolerate a node's `NoExecute` taints are deleted, at once or when their
//! toleration's time is over.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use rk_api::{Change, DeleteOptions, Informer, Informers, Key, Preconditions, object_reference};
use tokio_util::sync::CancellationToken;

use super::{mark_disrupted, pods_on, taints};
use crate::{
    Action, Context, Controller, Error, Reconcile,
    common::{meta, pod},
};

/// Evicts pods.
pub struct TaintEvictionController {
    pods: Informer,
}

/// Runs the taint eviction controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    let pods = informers.of::<Pod>();
    Controller::new("taint-eviction-controller", TaintEvictionController { pods: pods.clone() }, informers)
        .watches_informer(pods, |change| {
            let of = |object: &rk_api::Object| object.typed::<Pod>().ok();
            let (old, new) = match change {
                Change::Added(object) => (None, of(object)),
                Change::Updated { old, new } => (of(old), of(new)),
                Change::Deleted(_) => return Vec::new(),
            };
            let Some(new) = new else { return Vec::new() };
            let relevant = |pod: &Pod| (pod::node_name(pod).to_owned(), tolerations(pod).to_vec());
            let news = old.is_none_or(|old| relevant(&old) != relevant(&new));
            let node = pod::node_name(&new);
            if news && !node.is_empty() { vec![(String::new(), node.to_owned())] } else { Vec::new() }
        })
        .run(shutdown)
        .await;
}

fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}

/// Whether a toleration covers a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => {
            !key.is_empty() && toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("")
        }
        _ => false,
    }
}

/// When a pod has to go; `None` if it may stay.
fn due(pod: &Pod, taints: &[&Taint]) -> Option<Timestamp> {
    let mut due: Option<Timestamp> = None;
    for taint in taints {
        let covering: Vec<_> = tolerations(pod).iter().filter(|toleration| tolerates(toleration, taint)).collect();
        if covering.is_empty() {
            return Some(Timestamp::MIN);
        }
        // The shortest of several holds; none of them having a time means for ever.
        let Some(seconds) = covering.iter().filter_map(|toleration| toleration.toleration_seconds).min() else {
            continue;
        };
        let since = taint.time_added.as_ref().map_or(Timestamp::MIN, |time| time.0).max(meta::created(&pod.metadata));
        let at = Timestamp::from_second(since.as_second().saturating_add(seconds.max(0))).unwrap_or(Timestamp::MAX);
        due = Some(due.map_or(at, |due| due.min(at)));
    }
    due
}

#[async_trait]
impl Reconcile for TaintEvictionController {
    type Object = Node;

    async fn reconcile(&self, node: Arc<Node>, context: &Context) -> Result<Action, Error> {
        let taints: Vec<_> = taints(&node).filter(|taint| taint.effect == "NoExecute").collect();
        if taints.is_empty() {
            return Ok(Action::await_change());
        }
        let now = rk_api::now();
        let mut action = Action::await_change();
        for pod in pods_on(&self.pods, meta::name(&node.metadata))? {
            if meta::is_deleting(&pod.metadata) {
                continue;
            }
            let Some(due) = due(&pod, &taints) else { continue };
            let left = due.as_millisecond().saturating_sub(now.as_millisecond());
            match u64::try_from(left) {
                Ok(left) if left > 0 => action = action.or_sooner(Action::requeue(Duration::from_millis(left))),
                _ => evict(&pod, context).await?,
            }
        }
        Ok(action)
    }

    async fn gone(&self, _: &Key, _: &Context) -> Result<Action, Error> {
        Ok(Action::await_change())
    }
}

async fn evict(pod: &Pod, context: &Context) -> Result<(), Error> {
    let (namespace, name) = meta::key(&pod.metadata);
    let api = context.api::<Pod>(&namespace);
    let message = format!("Marking for deletion Pod {namespace}/{name}");
    context.events.normal(&object_reference(pod), "TaintManagerEviction", message);
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), ..Preconditions::default() };
    let result = async {
        mark_disrupted(&api, pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", false)
            .await?;
        api.delete(&name, DeleteOptions { preconditions, ..DeleteOptions::default() }).await
    };
    match result.await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_shortest_toleration_of_all_taints_counts() {
        let added: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let taint = |key: &str| Taint {
            key: key.to_owned(),
            effect: "NoExecute".to_owned(),
            time_added: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(added)),
            value: None,
        };
        let (a, b) = (taint("a"), taint("b"));
        let pod = |tolerations| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [], "tolerations": tolerations}})).unwrap()
        };
        let exists = |key: &str, seconds: Option<i64>| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        assert_eq!(due(&pod(json!([])), &[&a]), Some(Timestamp::MIN));
        assert_eq!(due(&pod(json!([exists("a", None)])), &[&a]), None);
        assert_eq!(due(&pod(json!([exists("a", None)])), &[&a, &b]), Some(Timestamp::MIN));
        let timed = pod(json!([exists("a", Some(300)), exists("b", Some(60))]));
        assert_eq!(due(&timed, &[&a, &b]).unwrap().duration_since(added).as_secs(), 60);
        assert_eq!(due(&pod(json!([{"operator": "Exists"}])), &[&a, &b]), None, "tolerates everything");
    }
}
