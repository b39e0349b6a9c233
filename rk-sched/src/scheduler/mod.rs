//! The scheduler as a component: one task that owns the queue and the snapshot.
//!
//! Changes of pods and nodes come from informers and are applied between cycles (`events`); cycles run one
//! by one on this task; each placed pod is bound by a task of its own (`binding`), whose outcome comes back here. What
//! was refused is written to the pod (`report`).

mod binding;
mod config;
mod events;
mod report;

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{ReplicaSet, StatefulSet},
    core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service},
    policy::v1::PodDisruptionBudget,
    storage::v1::StorageClass,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_api::{Change, Client, EventRecorder, FieldSelector, Informers, LabelSelector, Resource};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

pub use config::{ConfigError, SchedulerConfig};

use self::binding::{Binding, Outcome};
use crate::{
    cycle::{Cluster, Failure, Nominated},
    framework::{Diagnosis, PermitAnswer, PostFilterContext, Profile, Status},
    model::{PodInfo, Snapshot},
    queue::{Queue, QueuedPod, Waits},
};

/// Binds pods to nodes.
pub struct Scheduler {
    client: Arc<dyn Client>,
    config: SchedulerConfig,
}

impl Scheduler {
    /// A scheduler of the cluster behind `client`.
    ///
    /// # Errors
    /// The configuration contradicts itself.
    pub fn new(client: Arc<dyn Client>, config: SchedulerConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self { client, config })
    }

    /// Schedules until `shutdown`. It keeps nothing that a later run could not rebuild from the API.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut running = Running::new(self.client, self.config, shutdown.clone());
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = running.run() => {}
        }
    }
}

/// A placed pod that the API has not confirmed yet.
struct Assumed {
    queued: QueuedPod,
}

/// How often pods that have been unschedulable for too long are looked for.
const FLUSH: std::time::Duration = std::time::Duration::from_secs(30);
/// Cycles before other tasks get their turn.
const BATCH: u32 = 16;

struct Running {
    client: Arc<dyn Client>,
    config: SchedulerConfig,
    profiles: Arc<HashMap<String, Arc<Profile>>>,
    recorders: HashMap<String, EventRecorder>,
    queue: Queue,
    snapshot: Snapshot,
    nominated: Nominated,
    assumed: HashMap<Arc<str>, Assumed>,
    random: StdRng,
    /// Where the last cycle stopped trying nodes.
    start: usize,
    outcomes: (mpsc::UnboundedSender<Outcome>, mpsc::UnboundedReceiver<Outcome>),
    shutdown: CancellationToken,
}

impl Running {
    fn new(client: Arc<dyn Client>, config: SchedulerConfig, shutdown: CancellationToken) -> Self {
        let named = |profile: &Profile| (profile.scheduler_name().to_owned(), Arc::new(profile.clone()));
        let profiles: Arc<HashMap<_, _>> = Arc::new(config.profiles.iter().map(named).collect());
        let recorder = |name: &String| (name.clone(), EventRecorder::new(Arc::clone(&client), name, ""));
        let recorders = profiles.keys().map(recorder).collect();
        let waits = Waits {
            initial_backoff: config.initial_backoff,
            max_backoff: config.max_backoff,
            unschedulable: config.unschedulable_timeout,
        };
        let sort = Arc::clone(config.profiles[0].queue_sort());
        Self {
            queue: Queue::new(Arc::clone(&profiles), sort, waits),
            random: config.seed.map_or_else(|| StdRng::from_rng(&mut rand::rng()), StdRng::seed_from_u64),
            client,
            config,
            profiles,
            recorders,
            snapshot: Snapshot::default(),
            nominated: Nominated::default(),
            assumed: HashMap::new(),
            start: 0,
            outcomes: mpsc::unbounded_channel(),
            shutdown,
        }
    }

    async fn run(&mut self) {
        let informers = Informers::new(Arc::clone(&self.client));
        let fields = FieldSelector {
            terms: ["Succeeded", "Failed"].map(|phase| ("status.phase".to_owned(), phase.to_owned(), false)).into(),
        };
        let pods = informers.selected(Resource::of::<Pod>(), "", LabelSelector::everything(), fields);
        let nodes = informers.of::<Node>();
        let others = OTHERS.map(|resource| informers.resource(resource()));
        for informer in [&nodes, &pods].into_iter().chain(&others) {
            informer.synced().await;
        }
        let (tell, told) = mpsc::unbounded_channel();
        for informer in &others {
            let mut changes = informer.subscribe();
            while let Ok(change) = changes.try_recv() {
                self.on_other(&change);
            }
            forward(changes, tell.clone());
        }
        let mut changes = Changes { nodes: nodes.subscribe(), others: told, pods: pods.subscribe() };
        let mut cycles = 0;
        let mut flush = Instant::now() + FLUSH;
        loop {
            self.drain(&mut changes);
            if flush <= Instant::now() {
                self.queue.flush_unschedulable();
                flush = Instant::now() + FLUSH;
            }
            if let Some(queued) = self.queue.pop() {
                self.schedule(queued);
                cycles += 1;
                if cycles % BATCH == 0 {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            let (_, _, unschedulable) = self.queue.counts();
            let wake = [self.queue.next_backoff(), (unschedulable > 0).then_some(flush)].into_iter().flatten().min();
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => {}
                Some(outcome) = self.outcomes.1.recv() => self.bound(outcome),
                Some(change) = changes.nodes.recv() => self.on_node(&change),
                Some(change) = changes.others.recv() => self.on_other(&change),
                Some(change) = changes.pods.recv() => self.on_pod(&change),
            }
        }
    }

    /// Applies all changes that are there; nodes before the pods on them.
    fn drain(&mut self, changes: &mut Changes) {
        while let Ok(change) = changes.nodes.try_recv() {
            self.on_node(&change);
        }
        while let Ok(change) = changes.others.try_recv() {
            self.on_other(&change);
        }
        while let Ok(change) = changes.pods.try_recv() {
            self.on_pod(&change);
        }
        while let Ok(outcome) = self.outcomes.1.try_recv() {
            self.bound(outcome);
        }
    }

    /// One pod's scheduling cycle.
    fn schedule(&mut self, queued: QueuedPod) {
        let pod = Arc::clone(&queued.pod);
        let Some(profile) = self.profiles.get(pod.scheduler_name()).map(Arc::clone) else {
            self.queue.remove(&pod.uid);
            return;
        };
        if pod.terminating() {
            self.queue.remove(&pod.uid);
            let message = format!("skip schedule deleting pod: {}/{}", pod.namespace, pod.name);
            self.event(&pod, true, "FailedScheduling", &message);
            return;
        }
        let percent = profile.percentage_of_nodes_to_score.unwrap_or(self.config.percentage_of_nodes_to_score);
        let cluster = Cluster { profile: &profile, snapshot: &self.snapshot, nominated: &self.nominated };
        match cluster.schedule(&pod, percent, &mut self.start, &mut self.random) {
            Ok(chosen) => {
                let node = Arc::clone(&self.snapshot.node(chosen.node).name);
                self.place(queued, &profile, node, chosen.state);
            }
            Err(Failure::Unfit(mut diagnosis, state)) => {
                self.make_room(&pod, &profile, &state, &mut diagnosis);
                self.refused(queued, &diagnosis);
            }
            Err(Failure::Error(status)) => self.failed(queued, &status),
        }
    }

    /// Runs PostFilter: room on a node for the pod, at the cost of other pods.
    fn make_room(
        &mut self,
        pod: &Arc<PodInfo>,
        profile: &Profile,
        state: &crate::framework::CycleState,
        diagnosis: &mut Diagnosis,
    ) {
        if diagnosis.nodes == 0 {
            return;
        }
        let offset = self.random.random_range(0..diagnosis.nodes);
        let cluster = Cluster { profile, snapshot: &self.snapshot, nominated: &self.nominated };
        let (room, said) = cluster.post_filter(&PostFilterContext { pod, state, diagnosis, offset, cluster });
        diagnosis.post_filter = said;
        match room {
            Some((node, victims)) => {
                self.evict(pod, &node, victims);
                self.nominated.insert(Arc::clone(pod), node);
            }
            // The promise stands for as long as pods that had to go for it are on their way.
            None if self.room_is_being_made(pod) => {}
            None => self.nominated.remove(&pod.uid),
        }
    }

    /// Whether pods are leaving the node that was promised to this one.
    fn room_is_being_made(&self, pod: &PodInfo) -> bool {
        let node = self.nominated.node_of(&pod.uid).and_then(|name| self.snapshot.find(name));
        node.is_some_and(|index| {
            let leaving = |other: &PodInfo| other.priority < pod.priority && other.terminating();
            self.snapshot.node(index).pods.iter().any(|entry| leaving(&entry.pod))
        })
    }

    /// The pod has a node: assumes it there, then Reserve and Permit, then binds beside the next cycles.
    fn place(
        &mut self,
        queued: QueuedPod,
        profile: &Arc<Profile>,
        node: Arc<str>,
        mut state: crate::framework::CycleState,
    ) {
        let pod = Arc::clone(&queued.pod);
        self.snapshot.set_pod(Arc::clone(&pod), &node);
        self.nominated.remove(&pod.uid);
        let mut verdict = Status::success();
        for plugin in profile.enabled().iter().filter_map(|enabled| enabled.points.reserve.as_ref()) {
            let status = plugin.reserve(&mut state, &pod, &node);
            if !status.is_success() {
                verdict = status.from_plugin(plugin.name());
                break;
            }
        }
        let mut waits = Vec::new();
        for plugin in profile.enabled().iter().filter_map(|enabled| enabled.points.permit.as_ref()) {
            if !verdict.is_success() {
                break;
            }
            match plugin.permit(&state, &pod, &node) {
                PermitAnswer::Allow => {}
                PermitAnswer::Wait(patience) => waits.push((plugin.name(), patience)),
                PermitAnswer::Deny(status) => verdict = status.from_plugin(plugin.name()),
            }
        }
        self.assumed.insert(Arc::clone(&pod.uid), Assumed { queued });
        if !verdict.is_success() {
            binding::unreserve(profile, &state, &pod, &node);
            self.bound(Outcome { uid: Arc::clone(&pod.uid), status: verdict });
            return;
        }
        let waited =
            (!waits.is_empty()).then(|| self.config.waiting.insert(Arc::clone(&pod), Arc::clone(&node), waits));
        let binding = Binding {
            client: Arc::clone(&self.client),
            events: self.recorder(&pod),
            profile: Arc::clone(profile),
            state,
            pod,
            node,
            waited,
            outcome: self.outcomes.0.clone(),
        };
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = binding.run() => {}
            }
        });
    }

    /// A binding cycle ended.
    fn bound(&mut self, outcome: Outcome) {
        // Confirmed or deleted meanwhile: nothing is left to do.
        let Some(assumed) = self.assumed.get(&outcome.uid) else { return };
        let pod = Arc::clone(&assumed.queued.pod);
        if outcome.status.is_success() {
            self.queue.remove(&outcome.uid);
            return;
        }
        let Some(assumed) = self.assumed.remove(&outcome.uid) else { return };
        self.snapshot.remove_pod(&outcome.uid);
        // The room it held is free again for others.
        self.queue.on_event(&crate::framework::ClusterEvent::AssignedPodDelete(pod));
        if outcome.status.is_rejected() {
            let mut diagnosis = Diagnosis::new(self.snapshot.len().max(1));
            diagnosis.blame(&outcome.status);
            self.refused_because(assumed.queued, &diagnosis, &outcome.status.message());
        } else {
            self.failed(assumed.queued, &outcome.status);
        }
    }

    fn recorder(&self, pod: &PodInfo) -> EventRecorder {
        self.recorders[pod.scheduler_name()].clone()
    }
}

/// What the informers tell.
struct Changes {
    nodes: mpsc::UnboundedReceiver<Change>,
    others: mpsc::UnboundedReceiver<Change>,
    pods: mpsc::UnboundedReceiver<Change>,
}

/// The kinds besides nodes and pods that scheduling looks at.
const OTHERS: [fn() -> Resource; 9] = [
    Resource::of::<Namespace>,
    Resource::of::<Service>,
    Resource::of::<ReplicaSet>,
    Resource::of::<StatefulSet>,
    Resource::of::<ReplicationController>,
    Resource::of::<PodDisruptionBudget>,
    Resource::of::<PersistentVolumeClaim>,
    Resource::of::<PersistentVolume>,
    Resource::of::<StorageClass>,
];

/// Passes an informer's changes on, until one of the two ends is gone.
fn forward(mut from: mpsc::UnboundedReceiver<Change>, to: mpsc::UnboundedSender<Change>) {
    tokio::spawn(async move {
        while let Some(change) = from.recv().await {
            if to.send(change).is_err() {
                return;
            }
        }
    });
}
