//! ReplicaSets and ReplicationControllers: so many pods of a template.
//!
//! A reconciliation claims the owner's pods (`common::claim`), creates what is missing in growing batches or deletes
//! the least useful ones (`ranking`), and writes what it counted to the status. `kind` says what the two kinds have
//! in common.

mod kind;
mod ranking;
mod status;

use std::{marker::PhantomData, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Pod, ReplicationController},
};
use rk_api::{Change, DeleteOptions, Informer, Informers, Key, Preconditions, Resource, object_reference};
use tokio_util::sync::CancellationToken;

use crate::{
    Action, Context, Controller, Error, Expectations, Reconcile,
    common::{batch, claim, meta, pod},
    error::is_terminating,
};
pub use kind::Replicated;

/// Pods created or deleted in one reconciliation at most (`BurstReplicas`).
const BURST: usize = 500;

/// Keeps the pods of one kind of owner.
pub struct ReplicaController<K> {
    pods: Informer,
    owners: Informer,
    expectations: Arc<Expectations>,
    kind: PhantomData<fn() -> K>,
}

/// Runs the ReplicaSet controller until `shutdown`.
pub async fn run_replica_sets(informers: &Informers, shutdown: CancellationToken) {
    run::<ReplicaSet>("replicaset-controller", informers, shutdown).await;
}

/// Runs the ReplicationController controller until `shutdown`.
pub async fn run_replication_controllers(informers: &Informers, shutdown: CancellationToken) {
    run::<ReplicationController>("replication-controller", informers, shutdown).await;
}

async fn run<K: Replicated>(name: &str, informers: &Informers, shutdown: CancellationToken) {
    let pods = informers.of::<Pod>();
    let owners = informers.of::<K>();
    let expectations = Arc::new(Expectations::default());
    let reconciler = ReplicaController::<K> {
        pods: pods.clone(),
        owners: owners.clone(),
        expectations: Arc::clone(&expectations),
        kind: PhantomData,
    };
    let observe = observe_pods::<K>(expectations, owners);
    Controller::new(name, reconciler, informers).watches_informer(pods, observe).run(shutdown).await;
}

/// Notes what was expected and has been seen, and answers whom a change of a pod concerns: its controllers before and
/// after, or, for an orphan, those that may adopt it.
fn observe_pods<K: Replicated>(
    expectations: Arc<Expectations>,
    owners: Informer,
) -> impl Fn(&Change) -> Vec<Key> + Send + Sync {
    let resource = Resource::of::<K>();
    move |change| {
        let pod = change.object();
        let mut keys = expectations.observe(change, &resource);
        let orphan = pod.meta().owner_references.iter().all(|owner| owner.controller != Some(true));
        if orphan && !matches!(change, Change::Deleted(_)) {
            let selects = |owner: &Arc<rk_api::Object>| {
                let owner = owner.typed::<K>().ok()?;
                let selector = owner.selector().ok()?;
                (!selector.requirements.is_empty() && selector.matches(&pod.meta().labels))
                    .then(|| meta::key(owner.meta()))
            };
            keys.extend(owners.list_namespace(&pod.meta().namespace).iter().filter_map(selects));
        }
        keys.dedup();
        keys
    }
}

#[async_trait]
impl<K: Replicated> Reconcile for ReplicaController<K> {
    type Object = K;

    async fn reconcile(&self, owner: Arc<K>, context: &Context) -> Result<Action, Error> {
        let key = meta::key(owner.meta());
        let selector = owner.selector()?;
        let pending = self.expectations.pending(&key);
        let pods: Vec<Arc<Pod>> = claim::claim(context, owner.as_ref(), &selector, &self.pods).await?;
        let terminating = pods.iter().filter(|pod| meta::is_deleting(&pod.metadata) && !pod::is_terminal(pod)).count();
        let active: Vec<Arc<Pod>> = pods.into_iter().filter(|pod| pod::is_active(pod)).collect();

        let managed = if pending.is_none() && !meta::is_deleting(owner.meta()) {
            self.manage(&key, owner.as_ref(), &active, context).await
        } else {
            Ok(())
        };
        let status = status::count(owner.as_ref(), &active, terminating, managed.as_ref().err());
        status::write(owner.as_ref(), &status, context).await?;
        managed?;

        // Nothing changes in the API when a ready pod becomes available: its time is up.
        let (min_ready, now) = (owner.min_ready_seconds(), rk_api::now());
        let waits = active.iter().filter_map(|pod| pod::until_available(pod, min_ready, now));
        let soonest = waits.filter(|wait| !wait.is_zero()).chain(pending).min();
        Ok(soonest.map_or_else(Action::await_change, Action::requeue))
    }

    async fn gone(&self, key: &Key, _: &Context) -> Result<Action, Error> {
        self.expectations.forget(key);
        Ok(Action::await_change())
    }
}

impl<K: Replicated> ReplicaController<K> {
    async fn manage(&self, key: &Key, owner: &K, active: &[Arc<Pod>], context: &Context) -> Result<(), Error> {
        let wanted = usize::try_from(owner.replicas()).unwrap_or(0);
        match active.len() {
            have if have < wanted => self.create(key, owner, (wanted - have).min(BURST), context).await,
            have if have > wanted => {
                let related = self.related(owner, active);
                let doomed = ranking::least_useful(active, &related, (have - wanted).min(BURST));
                self.delete(key, owner, &doomed, context).await
            }
            _ => Ok(()),
        }
    }

    async fn create(&self, key: &Key, owner: &K, count: usize, context: &Context) -> Result<(), Error> {
        let (api, about) = (context.api::<Pod>(&key.0), object_reference(owner));
        let pod = pod::from_template(&owner.template(), &key.0, meta::controller_reference(owner));
        self.expectations.expect_creations(key, count);
        let create = async |_| match api.create(&pod).await {
            Ok(pod) => {
                let message = format!("Created pod: {}", meta::name(&pod.metadata));
                context.events.normal(&about, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                if !is_terminating(&error) {
                    context.events.warning(&about, "FailedCreate", format!("Error creating: {error}"));
                }
                Err(error)
            }
        };
        let (done, result) = batch::slow_start(count, create).await;
        for _ in done..count {
            self.expectations.created(key);
        }
        match result {
            // The namespace is going: nothing can be done, and that is right.
            Err(error) if is_terminating(&error) => Ok(()),
            other => other.map_err(Error::told),
        }
    }

    async fn delete(&self, key: &Key, owner: &K, doomed: &[Arc<Pod>], context: &Context) -> Result<(), Error> {
        let (api, about) = (context.api::<Pod>(&key.0), object_reference(owner));
        self.expectations.expect_deletions(key, doomed.iter().map(|pod| meta::uid(&pod.metadata).to_owned()));
        let delete = async |pod: &Arc<Pod>| {
            let (name, uid) = (meta::name(&pod.metadata), meta::uid(&pod.metadata));
            let preconditions = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
            let result = api.delete(name, DeleteOptions { preconditions, ..DeleteOptions::default() }).await;
            if result.is_err() {
                self.expectations.deleted(key, uid);
            }
            match result {
                Ok(_) => {
                    context.events.normal(&about, "SuccessfulDelete", format!("Deleted pod: {name}"));
                    Ok(())
                }
                Err(error) if error.is_not_found() => Ok(()),
                Err(error) => {
                    context.events.warning(&about, "FailedDelete", format!("Error deleting: {error}"));
                    Err(Error::told(error))
                }
            }
        };
        batch::all(doomed.iter().map(delete)).await
    }

    /// The active pods of all owners that the same object controls (the ReplicaSets of one Deployment), this one's too.
    fn related(&self, owner: &K, active: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let Some(parent) = meta::controller_of(owner.meta()) else { return active.to_vec() };
        let siblings = self.owners.controlled_by(&parent.uid);
        let pods = siblings.iter().flat_map(|sibling| self.pods.controlled_by(&sibling.meta().uid));
        pods.filter_map(|pod| pod.typed::<Pod>().ok()).filter(|pod| pod::is_active(pod)).collect()
    }
}
