//! Telling why a pod was not scheduled: its condition, its nominated node, and an event.

use std::sync::Arc;

use k8s_openapi::{
    api::{core::v1::Pod, scheduling::v1alpha2::PodGroup},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use rk_api::{Api, DeleteOptions, Patch, Preconditions, object_reference};
use serde_json::json;
use tokio::time::Instant;

use super::Running;
use crate::{
    engine::{Cause, Eviction, GroupOutcome, Refusal, with_condition},
    model::PodInfo,
    plugins::release,
};

/// A pod that could not be evicted.
pub(super) struct NotEvicted {
    preemptor: Arc<str>,
    victim: Arc<str>,
}

/// Bytes of an event's message at the most (`validation.NoteLengthLimit`).
const LONGEST_NOTE: usize = 1024;

/// A message as an event has it: what is too much is cut off (`truncateMessage`).
fn note(message: &str) -> String {
    const SUFFIX: &str = " ...";
    if message.len() <= LONGEST_NOTE {
        return message.to_owned();
    }
    let end = (0..=LONGEST_NOTE - SUFFIX.len()).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{SUFFIX}", &message[..end])
}

impl Running {
    /// A pod was left out because it is being deleted.
    pub(super) fn skipped(&self, pod: &PodInfo) {
        let message = format!("skip schedule deleting pod: {}/{}", pod.namespace, pod.name);
        self.recorder(pod).warning(&object_reference(&*pod.pod), "FailedScheduling", message);
    }

    /// A pod got no node.
    pub(super) fn refused(&self, refusal: &Refusal) {
        let (pod, message) = (&refusal.pod, refusal.message());
        if let Cause::Failed(_) = refusal.cause {
            tracing::warn!(pod = %pod.name, namespace = %pod.namespace, message, "error scheduling pod");
        } else {
            tracing::debug!(pod = %pod.name, namespace = %pod.namespace, message, "unable to schedule pod");
        }
        if let Some(eviction) = &refusal.eviction {
            self.evict(pod, eviction);
        }
        if let Some(claim) = &refusal.deallocation {
            let (client, claim) = (Arc::clone(&self.client), Arc::clone(claim));
            tokio::spawn(async move { release(client, &claim).await });
        }
        self.recorder(pod).warning(&object_reference(&*pod.pod), "FailedScheduling", note(&message));
        self.statuses.refused(refusal, message);
    }

    /// The pods of a group were tried.
    pub(super) fn grouped(&self, outcome: &GroupOutcome) {
        self.set_conditions(&outcome.group, outcome.conditions());
    }

    fn set_conditions(&self, group: &PodGroup, conditions: Vec<Condition>) {
        let (namespace, name) = (group.metadata.namespace.clone().unwrap_or_default(), group.metadata.name.clone());
        let name = name.unwrap_or_default();
        let api = Api::<PodGroup>::namespaced(Arc::clone(&self.client), &namespace);
        // Another group may have the name by now.
        let patch = json!({"metadata": {"uid": group.metadata.uid}, "status": {"conditions": conditions}});
        tokio::spawn(async move {
            match api.patch_status(&name, Patch::merge(patch)).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => tracing::warn!(%error, group = %name, %namespace, "condition not written"),
            }
        });
    }

    /// A pod that was to go stays.
    pub(super) fn not_evicted(&mut self, failure: &NotEvicted) {
        self.engine.not_evicted(&failure.preemptor, &failure.victim, Instant::now());
    }

    /// Deletes the pods that have to go for another.
    fn evict(&self, pod: &Arc<PodInfo>, eviction: &Eviction) {
        for group in &eviction.groups {
            let condition = Condition {
                type_: "DisruptionTarget".to_owned(),
                status: "True".to_owned(),
                reason: "PreemptionByScheduler".to_owned(),
                message: format!("{}: preempting to accommodate a higher priority pod group", pod.scheduler_name()),
                observed_generation: group.metadata.generation,
                last_transition_time: Time(rk_api::now()),
            };
            self.set_conditions(group, with_condition(group, condition));
        }
        for victim in &eviction.victims {
            let victim = Arc::clone(victim);
            let node = victim.node_name().unwrap_or(&eviction.node);
            let message = format!("Preempted by pod {} on node {node}", pod.uid);
            let preemptor = format!("{}: preempting to accommodate a higher priority pod", pod.scheduler_name());
            let about = object_reference(&*victim.pod);
            let recorder = self.recorder(pod);
            let (failures, wanted_by) = (self.failures.0.clone(), Arc::clone(&pod.uid));
            let api = Api::<Pod>::namespaced(Arc::clone(&self.client), &victim.namespace);
            // Another pod may have the name by now.
            let uid = Some(victim.uid.to_string());
            let preconditions = Preconditions { uid, ..Preconditions::default() };
            let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
            tokio::spawn(async move {
                let condition = json!({"metadata": {"uid": victim.uid.as_ref()}, "status": {"conditions": [{
                    "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                    "message": preemptor, "lastTransitionTime": rk_api::now().to_string(),
                }]}});
                let told = api.patch_status(&victim.name, Patch::strategic(condition)).await;
                let gone = match told {
                    Ok(_) => api.delete(&victim.name, options).await.map(drop),
                    Err(error) => Err(error),
                };
                match gone {
                    Ok(()) => recorder.normal(&about, "Preempted", message),
                    Err(error) if error.is_not_found() => {}
                    // The pod that wanted the room is tried again, and so is the preemption.
                    Err(error) => {
                        tracing::warn!(%error, pod = %victim.name, namespace = %victim.namespace, "not preempted");
                        // The scheduler that would hear it may have stopped.
                        let _ = failures.send(NotEvicted { preemptor: wanted_by, victim: Arc::clone(&victim.uid) });
                    }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_at_a_character() {
        assert_eq!(note("short"), "short");
        let long = note(&"ä".repeat(1000));
        assert!(long.len() <= LONGEST_NOTE && long.ends_with("ä ..."), "{long}");
    }
}
