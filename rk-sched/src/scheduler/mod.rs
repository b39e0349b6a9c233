//! The scheduler as a component: one task that drives an [`Engine`] against an API.
//!
//! Changes of pods and nodes come from informers and are applied between cycles; cycles run one by one on this task; each
//! placed pod is bound by a task of its own (`binding`), whose outcome comes back here. What was refused is written to the
//! pod (`report`).

mod binding;
mod config;
mod report;
mod statuses;

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{ReplicaSet, StatefulSet},
    core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service},
    policy::v1::PodDisruptionBudget,
    resource::{
        v1::{DeviceClass, ResourceClaim, ResourceSlice},
        v1beta2::DeviceTaintRule,
    },
    scheduling::v1alpha2::PodGroup,
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment},
};
use rk_api::{Change, Client, EventRecorder, FieldSelector, Informers, LabelSelector, ListOptions, Resource};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

pub use config::{ConfigError, SchedulerConfig};

use self::{
    binding::{Binding, Outcome},
    report::NotEvicted,
    statuses::Statuses,
};
use crate::{
    engine::{Decision, Engine, Placement},
    model::PodInfo,
};

/// Binds pods to nodes.
pub struct Scheduler {
    client: Arc<dyn Client>,
    engine: Engine,
    /// The profiles' names.
    names: Vec<String>,
}

impl Scheduler {
    /// A scheduler of the cluster behind `client`.
    ///
    /// # Errors
    /// The configuration contradicts itself.
    pub fn new(client: Arc<dyn Client>, config: SchedulerConfig) -> Result<Self, ConfigError> {
        let engine = Engine::new(&config, Instant::now())?;
        let names = config.profiles.iter().map(|profile| profile.scheduler_name().to_owned()).collect();
        Ok(Self { client, engine, names })
    }

    /// Schedules until `shutdown`. It keeps nothing that a later run could not rebuild from the API.
    pub async fn run(self, shutdown: CancellationToken) {
        let recorder =
            |name: String| (name.clone(), EventRecorder::with_queue(Arc::clone(&self.client), &name, "", EVENTS));
        let mut running = Running {
            recorders: self.names.into_iter().map(recorder).collect(),
            statuses: Statuses::new(Arc::clone(&self.client)),
            client: self.client,
            engine: self.engine,
            outcomes: mpsc::unbounded_channel(),
            failures: mpsc::unbounded_channel(),
            shutdown: shutdown.clone(),
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = running.run() => {}
        }
    }
}

/// Events that may wait for the API: pods are placed faster than their events are written, thousands of them at once where a cluster starts.
const EVENTS: usize = 100_000;

/// Cycles before other tasks get their turn.
const BATCH: u32 = 16;

struct Running {
    client: Arc<dyn Client>,
    engine: Engine,
    recorders: HashMap<String, EventRecorder>,
    statuses: Statuses,
    outcomes: (mpsc::UnboundedSender<Outcome>, mpsc::UnboundedReceiver<Outcome>),
    failures: (mpsc::UnboundedSender<NotEvicted>, mpsc::UnboundedReceiver<NotEvicted>),
    shutdown: CancellationToken,
}

impl Running {
    async fn run(&mut self) {
        let informers = Informers::new(Arc::clone(&self.client));
        let fields = FieldSelector {
            terms: ["Succeeded", "Failed"].map(|phase| ("status.phase".to_owned(), phase.to_owned(), false)).into(),
        };
        let pods = informers.selected(Resource::of::<Pod>(), "", LabelSelector::everything(), fields);
        let nodes = informers.of::<Node>();
        let mut others: Vec<_> = OTHERS.map(|resource| informers.resource(resource())).into();
        for resource in OPTIONAL.map(|resource| resource()) {
            if is_served(&self.client, &resource).await {
                others.push(informers.resource(resource));
            }
        }
        for informer in [&nodes, &pods].into_iter().chain(&others) {
            informer.synced().await;
        }
        let (tell, told) = mpsc::unbounded_channel();
        for informer in &others {
            let mut changes = informer.subscribe();
            while let Ok(change) = changes.try_recv() {
                self.changed(&change);
            }
            forward(changes, tell.clone());
        }
        let mut changes = Changes { nodes: nodes.subscribe(), others: told, pods: pods.subscribe() };
        let mut cycles = 0;
        loop {
            self.drain(&mut changes);
            if let Some(mut decision) = self.engine.next(Instant::now()) {
                while let Decision::Ask(question) = decision {
                    let answer = question.ask().await;
                    decision = self.engine.answer(*question, answer, Instant::now());
                }
                self.carry_out(decision);
                cycles += 1;
                if cycles % BATCH == 0 {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            let wake = self.engine.wake_at();
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => {}
                Some(outcome) = self.outcomes.1.recv() => self.bound(&outcome),
                Some(failure) = self.failures.1.recv() => self.not_evicted(&failure),
                Some(change) = changes.nodes.recv() => self.changed(&change),
                Some(change) = changes.others.recv() => self.changed(&change),
                Some(change) = changes.pods.recv() => self.changed(&change),
            }
        }
    }

    /// Applies all changes that are there; nodes before the pods on them.
    fn drain(&mut self, changes: &mut Changes) {
        for changes in [&mut changes.nodes, &mut changes.others, &mut changes.pods] {
            while let Ok(change) = changes.try_recv() {
                self.changed(&change);
            }
        }
        while let Ok(outcome) = self.outcomes.1.try_recv() {
            self.bound(&outcome);
        }
        while let Ok(failure) = self.failures.1.try_recv() {
            self.not_evicted(&failure);
        }
    }

    fn changed(&mut self, change: &Change) {
        if let Change::Deleted(object) = change {
            self.statuses.forget(&object.meta().uid);
        }
        self.engine.apply(change, Instant::now());
    }

    /// A binding cycle ended.
    fn bound(&mut self, outcome: &Outcome) {
        if outcome.status.is_success() {
            self.statuses.forget(&outcome.uid);
        }
        if let Some(refusal) = self.engine.bound(&outcome.uid, outcome.status.clone(), Instant::now()) {
            self.refused(&refusal);
        }
    }

    fn carry_out(&mut self, decision: Decision) {
        match decision {
            Decision::Place(placement) => self.bind(placement),
            Decision::Refused(refusal) => self.refused(&refusal),
            Decision::Skip(pod) => self.skipped(&pod),
            Decision::Group(outcome) => self.grouped(&outcome),
            // What extenders are asked is asked before.
            Decision::Ask(_) => {}
        }
    }

    /// Binds a pod beside the next cycles.
    fn bind(&self, placement: Placement) {
        let binding = Binding {
            client: Arc::clone(&self.client),
            events: self.recorder(&placement.pod),
            placement,
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
const OTHERS: [fn() -> Resource; 13] = [
    Resource::of::<Namespace>,
    Resource::of::<Service>,
    Resource::of::<ReplicaSet>,
    Resource::of::<StatefulSet>,
    Resource::of::<ReplicationController>,
    Resource::of::<PodDisruptionBudget>,
    Resource::of::<PersistentVolumeClaim>,
    Resource::of::<PersistentVolume>,
    Resource::of::<StorageClass>,
    Resource::of::<CSINode>,
    Resource::of::<CSIDriver>,
    Resource::of::<CSIStorageCapacity>,
    Resource::of::<VolumeAttachment>,
];

/// The kinds that not every API serves: dynamic resource allocation, which came with Kubernetes 1.34, rules that taint devices, and groups of
/// pods.
const OPTIONAL: [fn() -> Resource; 5] = [
    Resource::of::<ResourceClaim>,
    Resource::of::<DeviceClass>,
    Resource::of::<ResourceSlice>,
    Resource::of::<DeviceTaintRule>,
    Resource::of::<PodGroup>,
];

/// Whether the API has the kind; where that can't be told, it is waited for.
async fn is_served(client: &Arc<dyn Client>, resource: &Resource) -> bool {
    let options = ListOptions { limit: 1, ..ListOptions::default() };
    let served = !matches!(client.list(resource, "", options).await, Err(error) if error.is_not_found());
    if !served {
        tracing::info!(resource = %resource.group_resource(), "not served by the API, left out of scheduling");
    }
    served
}

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
