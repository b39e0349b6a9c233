//! StatefulSets: pods with names that stay, started and ended in order.
//!
//! `identity` makes the pod and the claims of an ordinal. A reconciliation walks the ordinals upwards to make what is
//! missing, the superfluous ones downwards to end them, and then downwards again to replace pods of the old template;
//! with `OrderedReady` each step waits until the pods before it are ready.

mod identity;

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus},
    core::v1::{ObjectReference, PersistentVolumeClaim, Pod},
};
use rk_api::{Api, DeleteOptions, Informer, Informers, LabelSelector, Preconditions, object_reference};
use tokio_util::sync::CancellationToken;

use super::deployment::scaled;
use crate::{
    Action, Context, Controller, Error, Reconcile,
    common::{claim, history, history::History, meta, pod},
    error::is_terminating,
};
use identity::{claims, make, ordinal_of};

/// Keeps StatefulSets.
pub struct StatefulSetController {
    pods: Informer,
    revisions: Informer,
    claims: Informer,
}

/// Runs the StatefulSet controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    let claims = informers.of::<PersistentVolumeClaim>();
    let reconciler = StatefulSetController {
        pods: informers.of::<Pod>(),
        revisions: informers.of::<ControllerRevision>(),
        claims: claims.clone(),
    };
    tokio::select! {
        () = claims.synced() => {}
        () = shutdown.cancelled() => return,
    }
    Controller::new("statefulset-controller", reconciler, informers)
        .owns::<Pod>()
        .owns::<ControllerRevision>()
        .run(shutdown)
        .await;
}

#[async_trait]
impl Reconcile for StatefulSetController {
    type Object = StatefulSet;

    async fn reconcile(&self, set: Arc<StatefulSet>, context: &Context) -> Result<Action, Error> {
        let spec = set.spec.clone().ok_or_else(|| Error::invalid("a StatefulSet without spec"))?;
        let selector = LabelSelector::from_spec(&spec.selector)?;
        if meta::is_deleting(&set.metadata) || selector.requirements.is_empty() {
            return Ok(Action::await_change());
        }
        let status = set.status.clone().unwrap_or_default();
        let history =
            history::sync(context, set.as_ref(), &selector, &spec.template, status.collision_count, &self.revisions)
                .await?;
        let mut pods: Vec<Arc<Pod>> = claim::claim(context, set.as_ref(), &selector, &self.pods).await?;
        pods.retain(|pod| ordinal_of(&set, pod).is_some());
        pods.sort_by_key(|pod| ordinal_of(&set, pod));
        let current = status.current_revision.as_deref();
        let current = history.all.iter().find(|revision| Some(meta::name(&revision.metadata)) == current);
        let sync = Sync {
            context,
            claims: &self.claims,
            api: context.api(meta::namespace(&set.metadata)),
            about: object_reference(set.as_ref()),
            current: current.unwrap_or(&history.update),
            set: &set,
            spec: &spec,
            history: &history,
            pods: &pods,
        };
        let result = sync.step().await;
        let new = sync.status();
        sync.write(&new).await?;
        result?;
        let in_use: BTreeSet<String> =
            pods.iter().filter_map(|pod| meta::labels(&pod.metadata).get(history::HASH).cloned()).collect();
        let named = |revision: &ControllerRevision| {
            let name = meta::name(&revision.metadata);
            in_use.contains(name) || new.current_revision.as_deref() == Some(name)
        };
        history.truncate(context, spec.revision_history_limit.unwrap_or(10), &BTreeSet::new(), named).await?;
        let (now, min_ready) = (rk_api::now(), spec.min_ready_seconds.unwrap_or(0));
        let waits = pods.iter().filter_map(|pod| pod::until_available(pod, min_ready, now));
        let soonest = waits.filter(|wait| !wait.is_zero()).min();
        Ok(soonest.map_or_else(Action::await_change, Action::requeue))
    }
}

/// One reconciliation of one StatefulSet.
struct Sync<'a> {
    context: &'a Context,
    claims: &'a Informer,
    api: Api<Pod>,
    about: ObjectReference,
    /// The revision before the one that is being rolled out.
    current: &'a Arc<ControllerRevision>,
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    history: &'a History,
    pods: &'a [Arc<Pod>],
}

impl Sync<'_> {
    fn start(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
    }

    fn end(&self) -> i32 {
        self.start() + self.spec.replicas.unwrap_or(1)
    }

    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn pod(&self, ordinal: i32) -> Option<&Arc<Pod>> {
        self.pods.iter().find(|pod| ordinal_of(self.set, pod) == Some(ordinal))
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        pod::is_active(pod) && pod::is_available(pod, min_ready, rk_api::now())
    }

    fn is_of(&self, pod: &Pod, revision: &ControllerRevision) -> bool {
        meta::labels(&pod.metadata).get(history::HASH).is_some_and(|name| name == meta::name(&revision.metadata))
    }

    fn partition(&self) -> i32 {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition).unwrap_or(0)
    }

    /// Does what comes next.
    async fn step(&self) -> Result<(), Error> {
        for ordinal in self.start()..self.end() {
            let done = match self.pod(ordinal) {
                None => {
                    self.create(ordinal).await?;
                    false
                }
                Some(pod) if meta::is_deleting(&pod.metadata) => false,
                // It is made anew under its name when it is gone.
                Some(pod) if pod::is_terminal(pod) => {
                    self.delete(pod, "RecreatingTerminatedPod").await?;
                    false
                }
                Some(pod) => {
                    self.ensure_claims(ordinal).await?;
                    self.is_healthy(pod)
                }
            };
            if !done && self.is_ordered() {
                return Ok(());
            }
        }
        let within = |pod: &&Arc<Pod>| ordinal_of(self.set, pod).is_some_and(|o| o >= self.start() && o < self.end());
        let (kept, condemned): (Vec<_>, Vec<_>) = self.pods.iter().partition(within);
        for pod in condemned.iter().rev() {
            if !meta::is_deleting(&pod.metadata) {
                self.delete(pod, "").await?;
            }
            if self.is_ordered() {
                return Ok(());
            }
        }
        self.drop_claims().await?;
        self.update(&kept).await
    }

    /// Replaces pods of the old template, the highest ordinal first.
    async fn update(&self, pods: &[&Arc<Pod>]) -> Result<(), Error> {
        let strategy = self.spec.update_strategy.clone().unwrap_or_default();
        if strategy.type_.as_deref() == Some("OnDelete") {
            return Ok(());
        }
        let most = strategy.rolling_update.and_then(|rolling| rolling.max_unavailable);
        let most = match &most {
            Some(most) => scaled(Some(most), self.spec.replicas.unwrap_or(1), true).max(1),
            None => 1,
        };
        let expected = usize::try_from(self.spec.replicas.unwrap_or(1)).unwrap_or(0);
        let unhealthy = pods.iter().filter(|pod| !self.is_healthy(pod)).count() + expected.saturating_sub(pods.len());
        let mut room = usize::try_from(most).unwrap_or(1).saturating_sub(unhealthy);
        let from = self.start() + self.partition();
        for pod in pods.iter().rev().filter(|pod| ordinal_of(self.set, pod).is_some_and(|ordinal| ordinal >= from)) {
            if self.is_of(pod, &self.history.update) || meta::is_deleting(&pod.metadata) {
                continue;
            }
            // One that does not work anyway costs nothing.
            if self.is_healthy(pod) {
                if room == 0 {
                    return Ok(());
                }
                room -= 1;
            }
            self.delete(pod, "").await?;
        }
        Ok(())
    }

    /// The revision that the pod of an ordinal is made from.
    fn revision_for(&self, ordinal: i32) -> &Arc<ControllerRevision> {
        let strategy = self.spec.update_strategy.as_ref();
        let rolls = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
        let partition = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition).filter(|p| *p > 0);
        let still_current = match partition {
            Some(partition) => ordinal < self.start() + partition,
            // The rollout goes downwards: it has not come to this ordinal while a higher one is of the old revision.
            None => self.pods.iter().any(|pod| {
                ordinal_of(self.set, pod).is_some_and(|higher| higher > ordinal)
                    && !meta::is_deleting(&pod.metadata)
                    && self.is_of(pod, self.current)
            }),
        };
        if rolls && still_current { self.current } else { &self.history.update }
    }

    async fn create(&self, ordinal: i32) -> Result<(), Error> {
        self.ensure_claims(ordinal).await?;
        let revision = self.revision_for(ordinal);
        let pod = make(self.set, &history::template(revision)?, meta::name(&revision.metadata), ordinal);
        let name = meta::name(&pod.metadata);
        let set = self.about.name.as_deref().unwrap_or_default();
        match self.api.create(&pod).await {
            Ok(_) => {
                let message = format!("create Pod {name} in StatefulSet {set} successful");
                self.context.events.normal(&self.about, "SuccessfulCreate", message);
                Ok(())
            }
            // Made before, and not in the copy yet; or somebody else's, which shows when the copy has it.
            Err(error) if error.is_already_exists() || is_terminating(&error) => Ok(()),
            Err(error) => {
                let message = format!("create Pod {name} in StatefulSet {set} failed error: {error}");
                self.context.events.warning(&self.about, "FailedCreate", message);
                Err(Error::told(error))
            }
        }
    }

    async fn delete(&self, pod: &Pod, warning: &str) -> Result<(), Error> {
        let name = meta::name(&pod.metadata);
        let set = self.about.name.as_deref().unwrap_or_default();
        if !warning.is_empty() {
            let message = format!("StatefulSet {set} is recreating terminated Pod {name}");
            self.context.events.warning(&self.about, warning, message);
        }
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), ..Preconditions::default() };
        match self.api.delete(name, DeleteOptions { preconditions, ..DeleteOptions::default() }).await {
            Ok(_) => {
                let message = format!("delete Pod {name} in StatefulSet {set} successful");
                self.context.events.normal(&self.about, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn ensure_claims(&self, ordinal: i32) -> Result<(), Error> {
        let namespace = meta::namespace(&self.set.metadata);
        for claim in claims(self.set, ordinal) {
            if self.claims.get(namespace, meta::name(&claim.metadata)).is_some() {
                continue;
            }
            match self.context.api::<PersistentVolumeClaim>(namespace).create(&claim).await {
                Err(error) if !error.is_already_exists() && !is_terminating(&error) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes the claims of pods that a scaling took away, where the set says so.
    async fn drop_claims(&self) -> Result<(), Error> {
        let policy = self.spec.persistent_volume_claim_retention_policy.as_ref();
        if policy.and_then(|policy| policy.when_scaled.as_deref()) != Some("Delete") {
            return Ok(());
        }
        let namespace = meta::namespace(&self.set.metadata);
        for ordinal in self.end().. {
            let there = claims(self.set, ordinal)
                .into_iter()
                .filter(|claim| self.claims.get(namespace, meta::name(&claim.metadata)).is_some());
            let names: Vec<_> = there.map(|claim| meta::name(&claim.metadata).to_owned()).collect();
            if names.is_empty() {
                return Ok(());
            }
            for name in names {
                match self.context.api::<PersistentVolumeClaim>(namespace).delete(&name, DeleteOptions::default()).await
                {
                    Err(error) if !error.is_not_found() => return Err(error.into()),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn status(&self) -> StatefulSetStatus {
        let old = self.set.status.clone().unwrap_or_default();
        let (now, min_ready) = (rk_api::now(), self.spec.min_ready_seconds.unwrap_or(0));
        let count = |counts: &dyn Fn(&Pod) -> bool| {
            i32::try_from(self.pods.iter().filter(|pod| counts(pod)).count()).unwrap_or(i32::MAX)
        };
        let some = |count: i32| (count != 0).then_some(count);
        let alive = |pod: &Pod| !meta::is_deleting(&pod.metadata);
        let ready = count(&pod::is_ready);
        let mut current = count(&|pod| alive(pod) && self.is_of(pod, self.current));
        let updated = count(&|pod| alive(pod) && self.is_of(pod, &self.history.update));
        let update = meta::name(&self.history.update.metadata).to_owned();
        let mut revision = meta::name(&self.current.metadata).to_owned();
        let replicas = count(&|_| true);
        // The rollout is complete: the new revision is the current one from now on.
        if updated == replicas && ready == replicas && Some(updated) == self.spec.replicas.or(Some(1)) {
            (current, revision) = (updated, update.clone());
        }
        StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            replicas,
            ready_replicas: some(ready),
            available_replicas: Some(count(&|pod| pod::is_available(pod, min_ready, now))),
            current_replicas: some(current),
            updated_replicas: some(updated),
            current_revision: Some(revision),
            update_revision: Some(update),
            collision_count: Some(old.collision_count.unwrap_or(0)),
            conditions: old.conditions,
        }
    }

    async fn write(&self, status: &StatefulSetStatus) -> Result<(), Error> {
        if self.set.status.as_ref() == Some(status) {
            return Ok(());
        }
        let changed = StatefulSet { status: Some(status.clone()), ..self.set.clone() };
        match self.context.api::<StatefulSet>(meta::namespace(&self.set.metadata)).update_status(&changed).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}
