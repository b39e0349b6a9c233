//! PodDisruptionBudgets: how many of an application's pods may be missing, which the eviction API asks before it evicts one.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::{Pod, ReplicationController},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use rk_api::{Change, Informer, Informers, Key, LabelSelector, object_reference};
use tokio_util::sync::CancellationToken;

use super::deployment::scaled;
use crate::{
    Action, Context, Controller, Error, Reconcile,
    common::{meta, pod},
};

/// How long an eviction that was allowed counts before the pod is seen to go.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);

/// Keeps the status of budgets.
pub struct DisruptionController {
    pods: Informer,
    sets: Informer,
    controllers: Informer,
    deployments: Informer,
    stateful: Informer,
}

/// Runs the disruption controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    let pods = informers.of::<Pod>();
    let reconciler = DisruptionController {
        pods: pods.clone(),
        sets: informers.of::<ReplicaSet>(),
        controllers: informers.of::<ReplicationController>(),
        deployments: informers.of::<Deployment>(),
        stateful: informers.of::<StatefulSet>(),
    };
    for informer in [&reconciler.sets, &reconciler.controllers, &reconciler.deployments, &reconciler.stateful] {
        tokio::select! {
            () = informer.synced() => {}
            () = shutdown.cancelled() => return,
        }
    }
    let (budgets, of_scale) = (informers.of::<PodDisruptionBudget>(), informers.of::<PodDisruptionBudget>());
    let in_namespace = move |change: &Change| -> Vec<Key> {
        let budgets = of_scale.list_namespace(&change.object().meta().namespace);
        budgets.iter().map(|budget| (budget.meta().namespace.clone(), budget.meta().name.clone())).collect()
    };
    // What is expected changes with the scale of the owners.
    let scaled = move |change: &Change| match change {
        Change::Updated { old, new } if old.meta().generation == new.meta().generation => Vec::new(),
        _ => in_namespace(change),
    };
    let scaled = Arc::new(scaled);
    let (a, b, c, d) = (Arc::clone(&scaled), Arc::clone(&scaled), Arc::clone(&scaled), scaled);
    Controller::new("disruption-controller", reconciler, informers)
        .watches_informer(pods, move |change| budgets_of(change, &budgets))
        .watches_changes::<ReplicaSet>(move |change| a(change))
        .watches_changes::<ReplicationController>(move |change| b(change))
        .watches_changes::<Deployment>(move |change| c(change))
        .watches_changes::<StatefulSet>(move |change| d(change))
        .run(shutdown)
        .await;
}

fn budgets_of(change: &Change, budgets: &Informer) -> Vec<Key> {
    let pod = change.object();
    let old = match change {
        Change::Updated { old, .. } => Some(old),
        _ => None,
    };
    let selects = |object: &Arc<rk_api::Object>| {
        let budget = object.typed::<PodDisruptionBudget>().ok()?;
        let selector = LabelSelector::from_spec(budget.spec.as_ref()?.selector.as_ref()?).ok()?;
        let concerned = selector.matches(&pod.meta().labels) || old.is_some_and(|o| selector.matches(&o.meta().labels));
        concerned.then(|| meta::key(&budget.metadata))
    };
    budgets.list_namespace(&pod.meta().namespace).iter().filter_map(selects).collect()
}

#[async_trait]
impl Reconcile for DisruptionController {
    type Object = PodDisruptionBudget;

    async fn reconcile(&self, budget: Arc<PodDisruptionBudget>, context: &Context) -> Result<Action, Error> {
        let spec = budget.spec.clone().unwrap_or_default();
        let namespace = meta::namespace(&budget.metadata);
        // No selector selects nothing, an empty one everything.
        let mut pods: Vec<Arc<Pod>> = Vec::new();
        if let Some(selector) = &spec.selector {
            let selector = LabelSelector::from_spec(selector)?;
            for object in self.pods.list_namespace(namespace) {
                if selector.matches(&object.meta().labels) {
                    pods.push(object.typed()?);
                }
            }
        }
        pods.retain(|pod| !pod::is_terminal(pod));
        let about = object_reference(budget.as_ref());
        let all = i32::try_from(pods.len()).unwrap_or(i32::MAX);
        let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
            (Some(most), _) => match self.expected(&pods)? {
                Ok(expected) => (expected, (expected - scaled(Some(most), expected, true)).max(0)),
                Err(why) => return self.fail(&budget, &about, why, context).await,
            },
            (None, Some(least @ k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String(_))) => {
                match self.expected(&pods)? {
                    Ok(expected) => (expected, scaled(Some(least), expected, true)),
                    Err(why) => return self.fail(&budget, &about, why, context).await,
                }
            }
            (None, Some(least)) => (all, scaled(Some(least), all, true)),
            (None, None) => (all, 0),
        };

        let now = rk_api::now();
        let (disrupted, wait) = still_disrupted(&budget, &pods, now);
        let healthy = pods.iter().filter(|pod| {
            let going = meta::is_deleting(&pod.metadata) || disrupted.contains_key(meta::name(&pod.metadata));
            !going && pod::is_ready(pod)
        });
        let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
        let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
        let (truth, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        let status = PodDisruptionBudgetStatus {
            current_healthy: Some(healthy),
            desired_healthy: Some(desired),
            expected_pods: Some(expected),
            disruptions_allowed: Some(allowed),
            disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
            observed_generation: budget.metadata.generation,
            conditions: Some(conditions(&budget, truth, reason, String::new())),
        };
        write(&budget, status, context).await?;
        Ok(wait.map_or_else(Action::await_change, Action::requeue))
    }
}

impl DisruptionController {
    /// How many pods the owners of these want in all; or why that can't be known.
    fn expected(&self, pods: &[Arc<Pod>]) -> Result<Result<i32, String>, Error> {
        let (mut owners, mut expected) = (HashSet::new(), 0);
        for pod in pods {
            let Some(owner) = meta::controller_of(&pod.metadata) else {
                return Ok(Err(format!("found no controllers for pod {:?}", meta::name(&pod.metadata))));
            };
            let Some((uid, replicas)) = self.scale(meta::namespace(&pod.metadata), &owner.kind, &owner.name)? else {
                return Ok(Err(format!("{} {:?} has no scale that is known", owner.kind, owner.name)));
            };
            if owners.insert(uid) {
                expected += replicas;
            }
        }
        Ok(Ok(expected))
    }

    /// Uid and replicas of what scales a pod's controller: the Deployment of a ReplicaSet, or the controller itself.
    fn scale(&self, namespace: &str, kind: &str, name: &str) -> Result<Option<(String, i32)>, Error> {
        Ok(match kind {
            "ReplicaSet" => {
                let Some(set) = self.sets.get_as::<ReplicaSet>(namespace, name)? else { return Ok(None) };
                let parent = meta::controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment");
                let deployment = match parent {
                    Some(owner) => self.deployments.get_as::<Deployment>(namespace, &owner.name)?,
                    None => None,
                };
                let (uid, replicas) = match deployment {
                    Some(d) => (d.metadata.uid.clone(), d.spec.as_ref().and_then(|spec| spec.replicas)),
                    None => (set.metadata.uid.clone(), set.spec.as_ref().and_then(|spec| spec.replicas)),
                };
                Some((uid.unwrap_or_default(), replicas.unwrap_or(1)))
            }
            "ReplicationController" => self.controllers.get_as::<ReplicationController>(namespace, name)?.map(|c| {
                (c.metadata.uid.clone().unwrap_or_default(), c.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1))
            }),
            "StatefulSet" => self.stateful.get_as::<StatefulSet>(namespace, name)?.map(|s| {
                (s.metadata.uid.clone().unwrap_or_default(), s.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1))
            }),
            _ => None,
        })
    }

    /// What can't be counted allows nothing.
    async fn fail(
        &self,
        budget: &PodDisruptionBudget,
        about: &k8s_openapi::api::core::v1::ObjectReference,
        why: String,
        context: &Context,
    ) -> Result<Action, Error> {
        let message = format!("Failed to calculate the number of expected pods: {why}");
        context.events.warning(about, "CalculateExpectedPodCountFailed", message);
        let status = PodDisruptionBudgetStatus {
            disruptions_allowed: Some(0),
            observed_generation: budget.metadata.generation,
            conditions: Some(conditions(budget, "False", "SyncFailed", why)),
            ..budget.status.clone().unwrap_or_default()
        };
        write(budget, status, context).await?;
        Ok(Action::await_change())
    }
}

/// Evictions that were allowed and whose pods have not begun to go; and when the first of them is given up.
fn still_disrupted(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    now: jiff::Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let (mut left, mut wait) = (BTreeMap::new(), None);
    let known = budget.status.as_ref().and_then(|status| status.disrupted_pods.clone()).unwrap_or_default();
    for (name, at) in known {
        let there = pods.iter().any(|pod| meta::name(&pod.metadata) == name && !meta::is_deleting(&pod.metadata));
        let age = u64::try_from(now.as_millisecond() - at.0.as_millisecond()).unwrap_or(0);
        let rest = DELETION_TIMEOUT.saturating_sub(Duration::from_millis(age));
        if there && !rest.is_zero() {
            wait = Some(wait.map_or(rest, |wait: Duration| wait.min(rest)));
            left.insert(name, at);
        }
    }
    (left, wait)
}

fn conditions(budget: &PodDisruptionBudget, status: &str, reason: &str, message: String) -> Vec<Condition> {
    let mut conditions = budget.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let old = conditions.iter().position(|condition| condition.type_ == "DisruptionAllowed");
    let old = old.map(|index| conditions.remove(index));
    let since = old.filter(|old| old.status == status).map_or_else(meta::now, |old| old.last_transition_time);
    conditions.push(Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since,
        observed_generation: budget.metadata.generation,
    });
    conditions
}

async fn write(
    budget: &PodDisruptionBudget,
    status: PodDisruptionBudgetStatus,
    context: &Context,
) -> Result<(), Error> {
    if budget.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let changed = PodDisruptionBudget { status: Some(status), ..budget.clone() };
    match context.api::<PodDisruptionBudget>(meta::namespace(&budget.metadata)).update_status(&changed).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}
