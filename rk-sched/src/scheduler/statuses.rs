//! Writing why pods are not scheduled into their statuses, those of one pod one after the other.
//!
//! What is written is the difference to what the pod says. That is what the API answered last, if the informer has not come so far: a pod that
//! is refused twice in a row must not keep what was said first. What comes while a request is on its way waits, and only the newest of it is written.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use parking_lot::Mutex;
use rk_api::{Api, Client, Error, Patch};
use serde_json::{Value, json};

use crate::{engine::Refusal, model::PodInfo};

/// What a pod's status is to say.
struct Wanted {
    pod: Arc<PodInfo>,
    nominated: Option<Arc<str>>,
    reason: &'static str,
    message: String,
}

/// What a pod's status says, as far as a scheduler writes it.
#[derive(Debug, Clone)]
struct Said {
    version: u64,
    condition: Option<PodCondition>,
    nominated: Option<String>,
}

impl Said {
    fn by(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let nominated = status.and_then(|status| status.nominated_node_name.clone());
        Self {
            version: pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0),
            condition: conditions.iter().find(|condition| condition.type_ == "PodScheduled").cloned(),
            nominated: nominated.filter(|name| !name.is_empty()),
        }
    }
}

/// The writes of one pod.
#[derive(Default)]
struct Writing {
    /// Whether a task is at it.
    busy: bool,
    next: Option<Wanted>,
    /// What the API answered last; `None` where it is not known what was done.
    said: Option<Said>,
    /// Whether something was written at all.
    wrote: bool,
    /// Whether the pod is gone or has its node.
    over: bool,
}

/// The statuses of a scheduler's pods. Clones are one.
#[derive(Clone)]
pub(super) struct Statuses {
    client: Arc<dyn Client>,
    pods: Arc<Mutex<HashMap<Arc<str>, Writing>>>,
}

impl Statuses {
    pub(super) fn new(client: Arc<dyn Client>) -> Self {
        Self { client, pods: Arc::default() }
    }

    /// Writes why a pod was refused, once what is being written of it is done.
    pub(super) fn refused(&self, refusal: &Refusal, message: String) {
        let pod = Arc::clone(&refusal.pod);
        let uid = Arc::clone(&pod.uid);
        let wanted = Wanted { pod, nominated: refusal.nominated.clone(), reason: refusal.reason(), message };
        let mut pods = self.pods.lock();
        let writing = pods.entry(Arc::clone(&uid)).or_default();
        (writing.next, writing.over) = (Some(wanted), false);
        if !std::mem::replace(&mut writing.busy, true) {
            let statuses = self.clone();
            tokio::spawn(async move { statuses.write_all(&uid).await });
        }
    }

    /// The pod is gone, or has its node.
    pub(super) fn forget(&self, uid: &str) {
        let mut pods = self.pods.lock();
        if let Some(writing) = pods.get_mut(uid) {
            (writing.next, writing.over) = (None, true);
            if !writing.busy {
                pods.remove(uid);
            }
        }
    }

    /// What is to be written next, with what the pod says; `None` if nothing is.
    fn next(&self, uid: &str) -> Option<(Wanted, Option<Said>)> {
        let mut pods = self.pods.lock();
        let writing = pods.get_mut(uid)?;
        let Some(wanted) = writing.next.take() else {
            writing.busy = false;
            if writing.over {
                pods.remove(uid);
            }
            return None;
        };
        let seen = Said::by(&wanted.pod.pod);
        let said = match (writing.wrote, writing.said.take()) {
            (false, _) => Some(seen),
            (true, Some(said)) if said.version > seen.version => Some(said),
            (true, Some(_)) => Some(seen),
            (true, None) => None,
        };
        Some((wanted, said))
    }

    async fn write_all(&self, uid: &Arc<str>) {
        while let Some((wanted, said)) = self.next(uid) {
            let Some(patch) = status_patch(&wanted, said.as_ref()) else {
                self.done(uid, said);
                continue;
            };
            let pod = &wanted.pod;
            let api = Api::<Pod>::namespaced(Arc::clone(&self.client), &pod.namespace);
            let said = match api.patch_status(&pod.name, Patch::strategic(patch)).await {
                Ok(written) => Some(Said::by(&written)),
                Err(error) => {
                    if !error.is_not_found() {
                        tracing::warn!(%error, pod = %pod.name, namespace = %pod.namespace, "condition not written");
                    }
                    // One that was refused has changed nothing.
                    said.filter(|_| is_refused(&error))
                }
            };
            self.done(uid, said);
        }
    }

    fn done(&self, uid: &str, said: Option<Said>) {
        if let Some(writing) = self.pods.lock().get_mut(uid) {
            (writing.said, writing.wrote) = (said, true);
        }
    }
}

/// Whether the API has said no, and so did nothing.
fn is_refused(error: &Error) -> bool {
    (400..500).contains(&error.code()) && !matches!(error.code(), 408 | 429)
}

/// The change of a pod's status, `None` where it says all that already. What it says is not known after a write without an answer; then all
/// is written.
fn status_patch(wanted: &Wanted, said: Option<&Said>) -> Option<Value> {
    let condition = said.and_then(|said| said.condition.as_ref()).filter(|condition| condition.status == "False");
    let same_condition = condition.is_some_and(|condition| {
        condition.reason.as_deref() == Some(wanted.reason) && condition.message.as_deref() == Some(&wanted.message)
    });
    let same_node = said.is_some_and(|said| said.nominated.as_deref() == wanted.nominated.as_deref());
    if same_condition && same_node {
        return None;
    }
    let since = condition.and_then(|condition| condition.last_transition_time.clone());
    let since = since.map_or_else(rk_api::now, |time| time.0);
    // Another pod may have the name by now.
    let mut patch = json!({"metadata": {"uid": wanted.pod.uid.as_ref()}, "status": {"conditions": [{
        "type": "PodScheduled", "status": "False", "reason": wanted.reason, "message": wanted.message,
        "observedGeneration": wanted.pod.pod.metadata.generation, "lastTransitionTime": Time(since),
    }]}});
    if !same_node {
        patch["status"]["nominatedNodeName"] = wanted.nominated.as_deref().map_or(Value::Null, Value::from);
    }
    Some(patch)
}
