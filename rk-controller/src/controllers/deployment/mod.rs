//! Deployments: a template's pods, replaced step by step when the template changes.
//!
//! Each template has a ReplicaSet (`revision`). A reconciliation moves replicas from the old ones to the new one by
//! the strategy (`rolling`, `recreate`), or, when only the number changed, scales them in proportion (`scale`), and
//! tells how far it is (`status`). `numbers` has the arithmetic. The rules are those of Kubernetes' deployment controller.

mod numbers;
mod recreate;
mod revision;
mod rolling;
mod scale;
mod status;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentSpec, ReplicaSet},
    core::v1::{ObjectReference, Pod},
};
use rk_api::{Change, Informer, Informers, Key, LabelSelector, Object, Resource, object_reference};
use tokio_util::sync::CancellationToken;

use crate::{
    Action, Context, Controller, Error, Reconcile,
    common::{claim, meta},
    runtime::controller_key,
};

pub(super) use numbers::scaled;
pub(crate) use revision::template_hash;

/// Keeps Deployments.
pub struct DeploymentController {
    sets: Informer,
    pods: Informer,
}

/// Runs the Deployment controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    let (sets, pods) = (informers.of::<ReplicaSet>(), informers.of::<Pod>());
    let deployments = informers.of::<Deployment>();
    let reconciler = DeploymentController { sets: sets.clone(), pods };
    let by_set = sets.clone();
    Controller::new("deployment-controller", reconciler, informers)
        .owns::<ReplicaSet>()
        .watches_informer(sets, move |change| adopters(change, &deployments))
        // `Recreate` waits for the last old pod to go, which changes no ReplicaSet.
        .watches_changes::<Pod>(move |change| match change {
            Change::Deleted(pod) => deployment_of_pod(pod, &by_set).into_iter().collect(),
            _ => Vec::new(),
        })
        .run(shutdown)
        .await;
}

/// The Deployments that may adopt an orphan.
fn adopters(change: &Change, deployments: &Informer) -> Vec<Key> {
    let set = change.object();
    if matches!(change, Change::Deleted(_))
        || set.meta().owner_references.iter().any(|owner| owner.controller == Some(true))
    {
        return Vec::new();
    }
    let selects = |deployment: &Arc<Object>| {
        let deployment = deployment.typed::<Deployment>().ok()?;
        let selector = LabelSelector::from_spec(&deployment.spec.as_ref()?.selector).ok()?;
        (!selector.requirements.is_empty() && selector.matches(&set.meta().labels))
            .then(|| meta::key(&deployment.metadata))
    };
    deployments.list_namespace(&set.meta().namespace).iter().filter_map(selects).collect()
}

fn deployment_of_pod(pod: &Object, sets: &Informer) -> Option<Key> {
    let (namespace, name) = controller_key(pod, &Resource::of::<ReplicaSet>())?;
    controller_key(&*sets.get(&namespace, &name)?, &Resource::of::<Deployment>())
}

#[async_trait]
impl Reconcile for DeploymentController {
    type Object = Deployment;

    async fn reconcile(&self, deployment: Arc<Deployment>, context: &Context) -> Result<Action, Error> {
        let spec = deployment.spec.clone().ok_or_else(|| Error::invalid("a Deployment without spec"))?;
        let selector = LabelSelector::from_spec(&spec.selector)?;
        let about = object_reference(deployment.as_ref());
        if selector.requirements.is_empty() {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            context.events.warning(&about, "SelectingAll", message);
            return Ok(Action::await_change());
        }
        let sets = claim::claim::<_, ReplicaSet>(context, deployment.as_ref(), &selector, &self.sets).await?;
        let sets = sets.iter().map(|set| ReplicaSet::clone(set)).collect();
        let mut rollout =
            Rollout { context, pods: &self.pods, deployment: Deployment::clone(&deployment), spec, about, sets };
        rollout.advance().await
    }
}

/// One reconciliation of one Deployment.
struct Rollout<'a> {
    context: &'a Context,
    pods: &'a Informer,
    deployment: Deployment,
    spec: DeploymentSpec,
    about: ObjectReference,
    /// All its ReplicaSets.
    sets: Vec<ReplicaSet>,
}

impl Rollout<'_> {
    async fn advance(&mut self) -> Result<Action, Error> {
        if meta::is_deleting(&self.deployment.metadata) {
            self.write_counts().await?;
            return Ok(Action::await_change());
        }
        self.mark_pause().await?;
        self.sync_revision().await?;
        if self.spec.paused == Some(true) || self.is_scaling_event() {
            return self.sync().await;
        }
        match self.strategy() {
            "Recreate" => self.recreate().await,
            _ => self.roll().await,
        }
    }

    fn strategy(&self) -> &str {
        self.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate")
    }

    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn name(&self) -> &str {
        meta::name(&self.deployment.metadata)
    }

    fn namespace(&self) -> &str {
        meta::namespace(&self.deployment.metadata)
    }

    /// Index of the ReplicaSet of the current template; the oldest, should there be several.
    fn new_set(&self) -> Option<usize> {
        let current = (0..self.sets.len()).filter(|&i| revision::has_template(&self.sets[i], &self.spec.template));
        current.min_by_key(|&i| by_age(&self.sets[i]))
    }

    /// Indices of the other ReplicaSets, oldest first.
    fn old_sets(&self) -> Vec<usize> {
        let new = self.new_set();
        let mut old: Vec<usize> = (0..self.sets.len()).filter(|&i| Some(i) != new).collect();
        old.sort_by_key(|&i| by_age(&self.sets[i]));
        old
    }

    /// The wanted replicas of all ReplicaSets together.
    fn total_wanted(&self) -> i32 {
        self.sets.iter().map(wanted).sum()
    }

    /// Only brings numbers and status up to date: the Deployment is paused, or was scaled.
    async fn sync(&mut self) -> Result<Action, Error> {
        self.scale().await?;
        if self.spec.paused == Some(true) {
            self.clean_up().await?;
        }
        self.write_counts().await?;
        Ok(Action::await_change())
    }
}

fn by_age(set: &ReplicaSet) -> (jiff::Timestamp, String) {
    (meta::created(&set.metadata), meta::name(&set.metadata).to_owned())
}

fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}
