//! Telling why a pod was not scheduled: its condition, its nominated node, and an event.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use rk_api::{Api, DeleteOptions, Patch, object_reference};
use serde_json::{Value, json};

use super::Running;
use crate::{
    framework::{Diagnosis, Status},
    model::PodInfo,
    queue::QueuedPod,
};

impl Running {
    pub(super) fn event(&self, pod: &PodInfo, warning: bool, reason: &str, message: &str) {
        let about = object_reference(&*pod.pod);
        let recorder = self.recorder(pod);
        if warning { recorder.warning(&about, reason, message) } else { recorder.normal(&about, reason, message) }
    }

    /// No node would do.
    pub(super) fn refused(&mut self, queued: QueuedPod, diagnosis: &Diagnosis) {
        self.refused_because(queued, diagnosis, &diagnosis.to_string());
    }

    /// The plugins that the diagnosis blames refused the pod.
    pub(super) fn refused_because(&mut self, mut queued: QueuedPod, diagnosis: &Diagnosis, message: &str) {
        tracing::debug!(pod = %queued.pod.name, namespace = %queued.pod.namespace, message, "unable to schedule pod");
        self.tell(&queued.pod, "Unschedulable", message);
        queued.plugins.clone_from(&diagnosis.plugins);
        queued.pending.clone_from(&diagnosis.pending);
        self.queue.refused(queued);
    }

    /// Something failed that has nothing to do with the pod.
    pub(super) fn failed(&mut self, queued: QueuedPod, status: &Status) {
        let message = if status.plugin().is_empty() {
            status.message()
        } else {
            format!("running plugin {:?}: {}", status.plugin(), status.message())
        };
        tracing::warn!(pod = %queued.pod.name, namespace = %queued.pod.namespace, message, "error scheduling pod");
        self.tell(&queued.pod, "SchedulerError", &message);
        self.queue.failed(queued);
    }

    fn tell(&self, pod: &Arc<PodInfo>, reason: &'static str, message: &str) {
        self.event(pod, true, "FailedScheduling", message);
        let Some(patch) = status_patch(pod, self.nominated.node_of(&pod.uid), reason, message) else { return };
        let api = Api::<Pod>::namespaced(Arc::clone(&self.client), &pod.namespace);
        let pod = Arc::clone(pod);
        tokio::spawn(async move {
            match api.patch_status(&pod.name, Patch::strategic(patch)).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::warn!(%error, pod = %pod.name, namespace = %pod.namespace, "condition not written");
                }
            }
        });
    }

    /// Deletes the pods that have to go for another.
    pub(super) fn evict(&self, pod: &Arc<PodInfo>, node: &str, victims: Vec<Arc<PodInfo>>) {
        for victim in victims {
            let message = format!("Preempted by pod {} on node {node}", pod.uid);
            let preemptor = format!("{}: preempting to accommodate a higher priority pod", pod.scheduler_name());
            let about = object_reference(&*victim.pod);
            let recorder = self.recorder(pod);
            let api = Api::<Pod>::namespaced(Arc::clone(&self.client), &victim.namespace);
            tokio::spawn(async move {
                let condition = json!({"status": {"conditions": [{
                    "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                    "message": preemptor, "lastTransitionTime": rk_api::now().to_string(),
                }]}});
                let told = api.patch_status(&victim.name, Patch::strategic(condition)).await;
                let gone = match told {
                    Ok(_) => api.delete(&victim.name, DeleteOptions::default()).await.map(drop),
                    Err(error) => Err(error),
                };
                match gone {
                    Ok(()) => recorder.normal(&about, "Preempted", message),
                    Err(error) if error.is_not_found() => {}
                    // The pod that wanted the room is tried again, and so is the preemption.
                    Err(error) => {
                        tracing::warn!(%error, pod = %victim.name, namespace = %victim.namespace, "not preempted")
                    }
                }
            });
        }
    }
}

/// The change of the pod's status, `None` where it says all that already.
fn status_patch(pod: &PodInfo, nominated: Option<&Arc<str>>, reason: &str, message: &str) -> Option<Value> {
    let status = pod.pod.status.as_ref();
    let condition = status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
        .iter()
        .find(|condition| condition.type_ == "PodScheduled");
    let said = condition.is_some_and(|condition| {
        condition.status == "False"
            && condition.reason.as_deref() == Some(reason)
            && condition.message.as_deref() == Some(message)
    });
    let same_node = pod.nominated_node_name() == nominated.map(AsRef::as_ref);
    if said && same_node {
        return None;
    }
    let since = condition.filter(|condition| condition.status == "False").and_then(|c| c.last_transition_time.clone());
    let since = since.map_or_else(rk_api::now, |time| time.0);
    let mut patch = json!({"status": {"conditions": [{
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
        "observedGeneration": pod.pod.metadata.generation,
        "lastTransitionTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(since),
    }]}});
    if !same_node {
        patch["status"]["nominatedNodeName"] = nominated.map_or(Value::Null, |node| node.as_ref().into());
    }
    Some(patch)
}
