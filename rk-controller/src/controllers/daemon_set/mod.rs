//! DaemonSets: one pod on every node that fits.
//!
//! `placement` says which nodes those are. A reconciliation makes what is missing (bound to its node by affinity, so
//! that the scheduler places it), deletes what is too much, and replaces pods of old templates by the update strategy.

mod placement;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus},
    core::v1::{Node, ObjectReference, Pod},
};
use rk_api::{Change, DeleteOptions, Informer, Informers, Key, LabelSelector, Object, Resource, object_reference};
use tokio_util::sync::CancellationToken;

use super::deployment::scaled;
use crate::{
    Action, Context, Controller, Error, Expectations, Reconcile,
    common::{
        batch, claim,
        history::{self, History},
        meta, pod,
    },
    error::is_terminating,
};
use placement::{node_of, place};

/// Pods created or deleted in one reconciliation at most.
const BURST: usize = 250;

/// Keeps DaemonSets.
pub struct DaemonSetController {
    pods: Informer,
    nodes: Informer,
    revisions: Informer,
    expectations: Arc<Expectations>,
}

/// Runs the DaemonSet controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    let (pods, nodes) = (informers.of::<Pod>(), informers.of::<Node>());
    let (sets, revisions) = (informers.of::<DaemonSet>(), informers.of::<ControllerRevision>());
    let expectations = Arc::new(Expectations::default());
    let reconciler = DaemonSetController {
        pods: pods.clone(),
        nodes: nodes.clone(),
        revisions,
        expectations: Arc::clone(&expectations),
    };
    let resource = Resource::of::<DaemonSet>();
    let observe = move |change: &Change| expectations.observe(change, &resource);
    let of_node = move |change: &Change| {
        if let Change::Updated { old, new } = change
            && !fits_differently(old, new)
        {
            return Vec::new();
        }
        let all = sets.list();
        all.iter().map(|set| (set.meta().namespace.clone(), set.meta().name.clone())).collect::<Vec<Key>>()
    };
    Controller::new("daemonset-controller", reconciler, informers)
        .watches_informer(pods, observe)
        .watches_informer(nodes, of_node)
        .owns::<ControllerRevision>()
        .run(shutdown)
        .await;
}

/// Whether a node changed in what decides where pods go.
fn fits_differently(old: &Object, new: &Object) -> bool {
    let (Ok(a), Ok(b)) = (old.typed::<Node>(), new.typed::<Node>()) else { return true };
    let shown = |node: &Node| {
        let spec = node.spec.clone().unwrap_or_default();
        (node.metadata.labels.clone(), spec.taints, spec.unschedulable)
    };
    shown(&a) != shown(&b)
}

#[async_trait]
impl Reconcile for DaemonSetController {
    type Object = DaemonSet;

    async fn reconcile(&self, set: Arc<DaemonSet>, context: &Context) -> Result<Action, Error> {
        let spec = set.spec.clone().ok_or_else(|| Error::invalid("a DaemonSet without spec"))?;
        let selector = LabelSelector::from_spec(&spec.selector)?;
        if selector.requirements.is_empty() || meta::is_deleting(&set.metadata) {
            return Ok(Action::await_change());
        }
        let key = meta::key(&set.metadata);
        let pending = self.expectations.pending(&key);
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let history =
            history::sync(context, set.as_ref(), &selector, &spec.template, collisions, &self.revisions).await?;
        let pods: Vec<Arc<Pod>> = claim::claim(context, set.as_ref(), &selector, &self.pods).await?;
        let nodes = self.nodes.list().iter().map(|node| node.typed()).collect::<Result<Vec<Arc<Node>>, _>>()?;
        let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in pods {
            by_node.entry(node_of(&pod)).or_default().push(pod);
        }
        let sync = Sync {
            context,
            expectations: &self.expectations,
            about: object_reference(set.as_ref()),
            key: &key,
            set: &set,
            spec: &spec,
            history: &history,
            nodes: &nodes,
            by_node: &by_node,
        };
        let result = if pending.is_none() { sync.manage().await } else { Ok(()) };
        sync.write_status().await?;
        result?;
        let in_use = by_node.values().flatten();
        let in_use: BTreeSet<String> =
            in_use.filter_map(|pod| meta::labels(&pod.metadata).get(history::HASH).cloned()).collect();
        history.truncate(context, spec.revision_history_limit.unwrap_or(10), &in_use, |_| false).await?;
        let (now, min_ready) = (rk_api::now(), spec.min_ready_seconds.unwrap_or(0));
        let waits = by_node.values().flatten().filter_map(|pod| pod::until_available(pod, min_ready, now));
        let soonest = waits.filter(|wait| !wait.is_zero()).chain(pending).min();
        Ok(soonest.map_or_else(Action::await_change, Action::requeue))
    }

    async fn gone(&self, key: &Key, _: &Context) -> Result<Action, Error> {
        self.expectations.forget(key);
        Ok(Action::await_change())
    }
}

/// One reconciliation of one DaemonSet.
struct Sync<'a> {
    context: &'a Context,
    expectations: &'a Expectations,
    about: ObjectReference,
    key: &'a Key,
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    history: &'a History,
    nodes: &'a [Arc<Node>],
    by_node: &'a BTreeMap<String, Vec<Arc<Pod>>>,
}

impl Sync<'_> {
    fn pods_on(&self, node: &Node) -> &[Arc<Pod>] {
        self.by_node.get(meta::name(&node.metadata)).map_or(&[], Vec::as_slice)
    }

    fn is_current(&self, pod: &Pod) -> bool {
        meta::labels(&pod.metadata).get(history::HASH).is_some_and(|hash| hash == history::hash(&self.history.update))
    }

    fn template(&self) -> k8s_openapi::api::core::v1::PodTemplateSpec {
        let mut template = self.spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(history::HASH.to_owned(), history::hash(&self.history.update).to_owned());
        template
    }

    async fn manage(&self) -> Result<(), Error> {
        let (mut create, mut delete): (Vec<&str>, Vec<Arc<Pod>>) = (Vec::new(), Vec::new());
        for node in self.nodes {
            let (should_run, should_stay) = place(&self.spec.template, node);
            let pods = self.pods_on(node);
            let (failed, alive): (Vec<_>, Vec<_>) = pods.iter().cloned().partition(|pod| pod::is_terminal(pod));
            if should_run && pods.is_empty() {
                create.push(meta::name(&node.metadata));
            } else if should_stay {
                // An ended pod makes room for a new one; of several the oldest stays.
                for pod in failed.iter().filter(|pod| !meta::is_deleting(&pod.metadata)) {
                    let message = format!(
                        "Found failed daemon pod {} on node {}, will try to kill it",
                        meta::name(&pod.metadata),
                        meta::name(&node.metadata)
                    );
                    self.context.events.warning(&self.about, "FailedDaemonPod", message);
                    delete.push(Arc::clone(pod));
                }
                let mut running: Vec<_> = alive.into_iter().filter(|pod| !meta::is_deleting(&pod.metadata)).collect();
                running.sort_by_key(|pod| (!self.is_current(pod), meta::created(&pod.metadata)));
                let keep = if self.surge() > 0 { 2 } else { 1 };
                delete.extend(running.into_iter().skip(keep));
            } else {
                delete.extend(pods.iter().filter(|pod| !meta::is_deleting(&pod.metadata)).cloned());
            }
        }
        // Pods of nodes that are gone are left to the pod garbage collector.
        let (more, old) = self.update();
        create.extend(more);
        delete.extend(old);
        create.truncate(BURST);
        delete.truncate(BURST);
        delete.sort_by(|a, b| a.metadata.uid.cmp(&b.metadata.uid));
        delete.dedup_by(|a, b| a.metadata.uid == b.metadata.uid);
        self.create(&create).await?;
        self.delete(&delete).await
    }

    fn wanted(&self) -> i32 {
        let wanted = self.nodes.iter().filter(|node| place(&self.spec.template, node).0).count();
        i32::try_from(wanted).unwrap_or(i32::MAX)
    }

    fn surge(&self) -> i32 {
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        scaled(rolling.and_then(|rolling| rolling.max_surge.as_ref()), self.wanted(), true)
    }

    /// Nodes that get a pod of the new template beside the old one, and pods of old templates that go.
    fn update(&self) -> (Vec<&str>, Vec<Arc<Pod>>) {
        let strategy = self.spec.update_strategy.clone().unwrap_or_default();
        if strategy.type_.as_deref() == Some("OnDelete") {
            return (Vec::new(), Vec::new());
        }
        let (now, min_ready) = (rk_api::now(), self.spec.min_ready_seconds.unwrap_or(0));
        let surge = usize::try_from(self.surge()).unwrap_or(0);
        let rolling = strategy.rolling_update.unwrap_or_default();
        let unavailable = match (&rolling.max_unavailable, surge) {
            (None, 0) => 1,
            (unavailable, _) => usize::try_from(scaled(unavailable.as_ref(), self.wanted(), true)).unwrap_or(0),
        };
        let most = if surge == 0 { unavailable.max(1) } else { unavailable };
        let (mut missing, mut surging) = (0, 0);
        let (mut broken, mut good, mut grow) = (Vec::new(), Vec::new(), Vec::new());
        for node in self.nodes.iter().filter(|node| place(&self.spec.template, node).0) {
            let alive = self.pods_on(node).iter().filter(|pod| pod::is_active(pod));
            let (new, old): (Vec<_>, Vec<_>) = alive.partition(|pod| self.is_current(pod));
            let available = |pods: &[&Arc<Pod>]| pods.iter().any(|pod| pod::is_available(pod, min_ready, now));
            let any = available(&new) || available(&old);
            missing += usize::from(!any);
            if let [old, ..] = old[..] {
                if !new.is_empty() {
                    surging += 1;
                    // The new one works: the old one has done its part.
                    if available(&new) {
                        broken.push(Arc::clone(old));
                    }
                } else if !any {
                    broken.push(Arc::clone(old));
                } else if surge > 0 {
                    grow.push(meta::name(&node.metadata));
                } else {
                    good.push(Arc::clone(old));
                }
            }
        }
        grow.truncate(surge.saturating_sub(surging));
        broken.extend(good.into_iter().take(most.saturating_sub(missing)));
        (grow, broken)
    }

    async fn create(&self, nodes: &[&str]) -> Result<(), Error> {
        let api = self.context.api::<Pod>(&self.key.0);
        let template = self.template();
        let base = pod::from_template(&template, &self.key.0, meta::controller_reference(self.set));
        self.expectations.expect_creations(self.key, nodes.len());
        let create = async |index: usize| {
            let mut pod = base.clone();
            placement::bind(&mut pod, nodes[index]);
            match api.create(&pod).await {
                Ok(pod) => {
                    let message = format!("Created pod: {}", meta::name(&pod.metadata));
                    self.context.events.normal(&self.about, "SuccessfulCreate", message);
                    Ok(())
                }
                Err(error) => {
                    if !is_terminating(&error) {
                        let message = format!("Error creating: {error}");
                        self.context.events.warning(&self.about, "FailedCreate", message);
                    }
                    Err(error)
                }
            }
        };
        let (done, result) = batch::slow_start(nodes.len(), create).await;
        for _ in done..nodes.len() {
            self.expectations.created(self.key);
        }
        match result {
            Err(error) if is_terminating(&error) => Ok(()),
            other => other.map_err(Error::told),
        }
    }

    async fn delete(&self, doomed: &[Arc<Pod>]) -> Result<(), Error> {
        let api = self.context.api::<Pod>(&self.key.0);
        self.expectations.expect_deletions(self.key, doomed.iter().map(|pod| meta::uid(&pod.metadata).to_owned()));
        let delete = async |pod: &Arc<Pod>| {
            let name = meta::name(&pod.metadata);
            match api.delete(name, DeleteOptions::default()).await {
                Ok(_) => {
                    let message = format!("Deleted pod: {name}");
                    self.context.events.normal(&self.about, "SuccessfulDelete", message);
                    Ok(())
                }
                Err(error) => {
                    self.expectations.deleted(self.key, meta::uid(&pod.metadata));
                    if error.is_not_found() { Ok(()) } else { Err(Error::from(error)) }
                }
            }
        };
        batch::all(doomed.iter().map(delete)).await
    }

    async fn write_status(&self) -> Result<(), Error> {
        let (now, min_ready) = (rk_api::now(), self.spec.min_ready_seconds.unwrap_or(0));
        let mut status =
            DaemonSetStatus { observed_generation: self.set.metadata.generation, ..DaemonSetStatus::default() };
        let (mut updated, mut available) = (0, 0);
        for node in self.nodes {
            let (should_run, _) = place(&self.spec.template, node);
            let pods = self.pods_on(node);
            if !should_run {
                status.number_misscheduled += i32::from(!pods.is_empty());
                continue;
            }
            status.desired_number_scheduled += 1;
            // One pod speaks for the node: the ready one, where there are two.
            let speaks = pods.iter().max_by_key(|pod| (pod::is_ready(pod), self.is_current(pod)));
            let Some(pod) = speaks else { continue };
            status.current_number_scheduled += 1;
            status.number_ready += i32::from(pod::is_ready(pod));
            available += i32::from(pod::is_available(pod, min_ready, now));
            updated += i32::from(self.is_current(pod));
        }
        let some = |count: i32| (count != 0).then_some(count);
        let old = self.set.status.clone().unwrap_or_default();
        status.updated_number_scheduled = some(updated);
        status.number_available = some(available);
        status.number_unavailable = some(status.desired_number_scheduled - available);
        (status.collision_count, status.conditions) = (old.collision_count, old.conditions);
        if self.set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = DaemonSet { status: Some(status), ..self.set.clone() };
        match self.context.api::<DaemonSet>(&self.key.0).update_status(&changed).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}
