//! Pods that no node will ever end: those of nodes that are gone, those deleted before they had a node, and ended ones
//! beyond a number.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use rk_api::{Change, DeleteOptions, Informer, Informers, Preconditions};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{mark_disrupted, ready_status, taints};
use crate::{
    Action, Context, Controller, Error, Reconcile,
    common::{meta, pod},
};

const NAME: &str = "pod-garbage-collector-controller";
/// How often ended pods are counted (`gcCheckPeriod`).
const TRIM: Duration = Duration::from_secs(20);
/// How long a node must have been missing before its pods are taken for lost.
const QUARANTINE: Duration = Duration::from_secs(40);
/// The taint by which an administrator says that a node will not come back.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Removes pods that no node will end.
pub struct PodGarbageCollector {
    nodes: Informer,
    /// Since when nodes that pods are bound to have been missing.
    missing: Mutex<HashMap<String, Instant>>,
}

/// Runs the pod garbage collector until `shutdown`; at most `threshold` ended pods stay, 0 for any number.
pub async fn run(informers: &Informers, threshold: usize, shutdown: CancellationToken) {
    let (pods, nodes) = (informers.of::<Pod>(), informers.of::<Node>());
    nodes.synced().await;
    let reconciler = PodGarbageCollector { nodes: nodes.clone(), missing: Mutex::default() };
    let context = Context::new(informers, NAME);
    let ended = trim_ended(pods.clone(), threshold, context.clone(), shutdown.clone());
    let controller = Controller::with_context(NAME, reconciler, context)
        .watches_informer(nodes, move |change| {
            let concerned = match change {
                Change::Deleted(_) => true,
                Change::Updated { new, .. } => {
                    new.typed::<Node>().is_ok_and(|node| taints(&node).any(|taint| taint.key == OUT_OF_SERVICE))
                }
                Change::Added(_) => false,
            };
            let name = &change.object().meta().name;
            let of_node = |object: &Arc<rk_api::Object>| {
                let pod = object.typed::<Pod>().ok()?;
                (pod::node_name(&pod) == name).then(|| meta::key(&pod.metadata))
            };
            if concerned { pods.list().iter().filter_map(of_node).collect() } else { Vec::new() }
        })
        .run(shutdown);
    tokio::join!(controller, ended);
}

/// Deletes the oldest ended pods beyond the threshold, if there is one, now and then until `shutdown`.
async fn trim_ended(pods: Informer, threshold: usize, context: Context, shutdown: CancellationToken) {
    if threshold == 0 {
        return;
    }
    let mut ticks = tokio::time::interval(TRIM);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if pods.len() > threshold
            && let Err(error) = trim(&pods, threshold, &context).await
        {
            tracing::warn!(%error, "ended pods not deleted");
        }
    }
}

async fn trim(pods: &Informer, threshold: usize, context: &Context) -> Result<(), Error> {
    let mut ended = Vec::new();
    for object in pods.list() {
        let pod: Arc<Pod> = object.typed()?;
        if pod::is_terminal(&pod) && !meta::is_deleting(&pod.metadata) {
            ended.push(pod);
        }
    }
    ended.sort_by_key(|pod| meta::created(&pod.metadata));
    let surplus = ended.len().saturating_sub(threshold);
    for pod in ended.into_iter().take(surplus) {
        remove(&pod, context, None).await?;
    }
    Ok(())
}

#[async_trait]
impl Reconcile for PodGarbageCollector {
    type Object = Pod;

    async fn reconcile(&self, pod: Arc<Pod>, context: &Context) -> Result<Action, Error> {
        let node = pod::node_name(&pod);
        let deleting = meta::is_deleting(&pod.metadata);
        if node.is_empty() {
            if deleting {
                remove(&pod, context, None).await?;
            }
            return Ok(Action::await_change());
        }
        match self.nodes.get_as::<Node>("", node)? {
            None => return self.lost(&pod, node, context).await,
            Some(found) => {
                self.missing.lock().remove(node);
                if deleting && ready_status(&found) != "True" && taints(&found).any(|t| t.key == OUT_OF_SERVICE) {
                    remove(&pod, context, Some("PodGC: node is out of service")).await?;
                }
            }
        }
        Ok(Action::await_change())
    }
}

impl PodGarbageCollector {
    /// A pod of a node that is not there: looked at again after a while, by the server's own word.
    async fn lost(&self, pod: &Pod, node: &str, context: &Context) -> Result<Action, Error> {
        let missing = {
            let mut missing = self.missing.lock();
            *missing.entry(node.to_owned()).or_insert_with(Instant::now)
        };
        // It may be registered later than a pod was bound to it, or be about to be replaced.
        let left = QUARANTINE.saturating_sub(missing.elapsed());
        if !left.is_zero() {
            return Ok(Action::requeue(left));
        }
        if context.api_all::<Node>().get_opt(node).await?.is_none() {
            remove(pod, context, Some("PodGC: node no longer exists")).await?;
        }
        Ok(Action::await_change())
    }
}

/// Deletes a pod at once; with a reason it is said to have failed first.
async fn remove(pod: &Pod, context: &Context, why: Option<&str>) -> Result<(), Error> {
    let api = context.api::<Pod>(meta::namespace(&pod.metadata));
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        preconditions: Preconditions { uid: pod.metadata.uid.clone(), ..Preconditions::default() },
        ..DeleteOptions::default()
    };
    let result = async {
        if let Some(why) = why {
            mark_disrupted(&api, pod, "DeletionByPodGC", why, true).await?;
        }
        api.delete(meta::name(&pod.metadata), options).await
    };
    match result.await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}
