//! The workers of all pods of the node, and who tells them what.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;
use rk_api::{Change, FieldSelector, Informer, Informers, LabelSelector, Object, Resource};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    admission,
    static_pods::{self, MIRROR},
};
use crate::{
    fsutil,
    pod::{
        spec,
        status::is_terminal,
        worker::{Signal, Worker},
    },
    runtime::types::{ContainerState, Filter, PodSandboxState},
    shared::Shared,
};

/// The pods that have a worker, by uid: what the kubelet API serves.
pub(crate) type Index = Arc<RwLock<BTreeMap<String, Arc<Pod>>>>;

/// How often a runtime that does not tell events is looked at: the kubelet's relist period.
const RELIST: Duration = Duration::from_secs(1);
/// How long a pod is left alone whose worker broke: what broke it may come again.
const MEND: Duration = Duration::from_secs(1);

pub(super) struct Pods {
    shared: Arc<Shared>,
    informer: Informer,
    index: Index,
    workers: HashMap<String, mpsc::UnboundedSender<Signal>>,
    tasks: JoinSet<()>,
    /// The pod of each task, and whether it comes from a file.
    pods: HashMap<Id, (String, bool)>,
    /// Pods of the API whose worker is done, until their deletion is seen.
    finished: HashSet<String>,
    /// Static pods whose name is still that of an older one that is on its way out.
    arriving: Vec<Arc<Pod>>,
    /// Names of the pods of the API to their uids.
    names: HashMap<(String, String), String>,
}

/// States of everything in the runtime, by id.
type States = HashMap<String, (String, u8)>;

impl Pods {
    pub(super) fn new(shared: Arc<Shared>, informers: &Informers) -> Self {
        let own = FieldSelector::field("spec.nodeName", &shared.config.name);
        let informer = informers.selected(Resource::of::<Pod>(), "", LabelSelector::default(), own);
        Self {
            shared,
            informer,
            index: Index::default(),
            workers: HashMap::new(),
            tasks: JoinSet::new(),
            pods: HashMap::new(),
            finished: HashSet::new(),
            arriving: Vec::new(),
            names: HashMap::new(),
        }
    }

    pub(super) fn index(&self) -> Index {
        Arc::clone(&self.index)
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.informer.synced() => {}
        }
        let mut events = self.shared.config.runtime.container_events();
        let mut changes = self.informer.subscribe();
        let (mut files, _watching) = static_pods::watch(&self.shared);
        self.remove_orphans().await;
        let mut relist = tokio::time::interval(RELIST);
        relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut states = States::new();
        loop {
            let telling = events.is_some();
            let event = async {
                match &mut events {
                    Some(events) => events.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(change) = changes.recv() => self.on_change(change),
                Some(change) = files.recv() => self.on_static(change),
                event = event => match event {
                    Ok(event) => self.tell(&event.pod_uid, Signal::Runtime),
                    Err(RecvError::Lagged(_)) => self.tell_all(),
                    Err(RecvError::Closed) => events = None,
                },
                _ = relist.tick(), if !telling => states = self.relist(states).await,
                Some(done) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => match done {
                    Ok((task, ())) => self.over(task),
                    Err(error) => self.broken(&error),
                },
            }
        }
    }

    /// A worker has seen its pod to the end.
    fn over(&mut self, task: Id) {
        let Some((uid, is_static)) = self.pods.remove(&task) else { return };
        self.workers.remove(&uid);
        self.index.write().remove(&uid);
        if is_static {
            // The same file may come again, with the same uid.
            self.start_arriving();
        } else {
            self.finished.insert(uid);
        }
    }

    /// A worker panicked: another takes its pod over, as an agent that was restarted would.
    fn broken(&mut self, error: &JoinError) {
        let Some((uid, is_static)) = self.pods.remove(&error.id()) else { return };
        self.workers.remove(&uid);
        let pod = self.index.read().get(&uid).cloned();
        tracing::error!(%error, uid, "a pod's worker broke");
        if let Some(pod) = pod {
            self.start(pod, is_static, None, MEND);
        }
    }

    fn tell(&self, uid: &str, signal: Signal) {
        if let Some(worker) = self.workers.get(uid) {
            // A worker that is done takes its leave with `join_next`.
            let _ = worker.send(signal);
        }
    }

    fn tell_all(&self) {
        for uid in self.workers.keys() {
            self.tell(uid, Signal::Runtime);
        }
    }

    fn on_change(&mut self, change: Change) {
        let object = change.object();
        let key = (object.meta().namespace.clone(), object.meta().name.clone());
        let uid = object.meta().uid.clone();
        if object.meta().annotations.contains_key(MIRROR) {
            return self.on_mirror(object);
        }
        if let Change::Deleted(_) = change {
            self.finished.remove(&uid);
            self.names.remove(&key);
            return self.tell(&uid, Signal::Gone);
        }
        let pod = match object.typed::<Pod>() {
            Ok(pod) => pod,
            Err(error) => return tracing::warn!(?object, %error, "pod not understood"),
        };
        // Deleted and made again between two looks: the old one's end was not seen.
        if let Some(old) = self.names.insert(key, uid.clone()).filter(|old| *old != uid) {
            self.finished.remove(&old);
            self.tell(&old, Signal::Gone);
        }
        self.put(pod, false);
    }

    /// The mirror of a static pod is there, changed or gone: its worker puts its status right.
    fn on_mirror(&self, mirror: &Object) {
        if let Some(uid) = mirror.meta().annotations.get(MIRROR) {
            self.tell(uid, Signal::Mirror);
        }
    }

    fn on_static(&mut self, change: static_pods::StaticChange) {
        match change {
            static_pods::StaticChange::Put(pod) => {
                self.arriving.push(pod);
                self.start_arriving();
            }
            static_pods::StaticChange::Gone(uid) => {
                self.arriving.retain(|pod| spec::uid(pod) != uid);
                self.tell(&uid, Signal::Gone);
            }
        }
    }

    /// Starts the static pods that need not wait for another of their name.
    fn start_arriving(&mut self) {
        for pod in std::mem::take(&mut self.arriving) {
            let same =
                |other: &Pod| (spec::namespace(other), spec::name(other)) == (spec::namespace(&pod), spec::name(&pod));
            let mut from_files = self.pods.values().filter(|(_, is_static)| *is_static);
            let taken = from_files.any(|(uid, _)| self.index.read().get(uid).is_some_and(|other| same(other)));
            if taken { self.arriving.push(pod) } else { self.put(pod, true) }
        }
    }

    fn put(&mut self, pod: Arc<Pod>, is_static: bool) {
        let uid = spec::uid(&pod).to_owned();
        if self.finished.contains(&uid) {
            return;
        }
        if self.workers.contains_key(&uid) {
            self.index.write().insert(uid.clone(), Arc::clone(&pod));
            return self.tell(&uid, Signal::Pod(pod));
        }
        let refusal = self.refuse(&pod);
        self.index.write().insert(uid, Arc::clone(&pod));
        self.start(pod, is_static, refusal, Duration::ZERO);
    }

    /// Gives a pod a worker.
    fn start(&mut self, pod: Arc<Pod>, is_static: bool, refusal: Option<admission::Refusal>, after: Duration) {
        let uid = spec::uid(&pod).to_owned();
        let (sender, signals) = mpsc::unbounded_channel();
        if let Some((reason, message)) = refusal {
            // The receiver is still in our hands.
            let _ = sender.send(Signal::Evict { reason, message });
        }
        let worker = Worker::new(Arc::clone(&self.shared), pod, is_static, signals, sender.clone());
        self.workers.insert(uid.clone(), sender);
        let task = self.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            worker.run().await;
        });
        self.pods.insert(task.id(), (uid, is_static));
    }

    /// A pod that is new here must fit; one that ran before stays.
    fn refuse(&self, pod: &Pod) -> Option<admission::Refusal> {
        let started = pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        if started || is_terminal(pod) || pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let running: Vec<Arc<Pod>> = self.index.read().values().filter(|pod| !is_terminal(pod)).cloned().collect();
        admission::admit(pod, &running, &self.shared.allocatable).err()
    }

    /// Looks at a runtime that tells no events; answers what it saw.
    async fn relist(&self, before: States) -> States {
        let runtime = &self.shared.config.runtime;
        let filter = Filter::default();
        let listed = async {
            Ok::<_, crate::runtime::RuntimeError>((
                runtime.list_containers(&filter).await?,
                runtime.list_pod_sandbox(&filter).await?,
            ))
        };
        let (containers, sandboxes) = match listed.await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::debug!(%error, "runtime not listed");
                return before;
            }
        };
        let mut now = States::new();
        let uid = |labels: &crate::runtime::types::Map| labels.get(spec::POD_UID).cloned().unwrap_or_default();
        for container in containers {
            let state = match container.state {
                ContainerState::Created => 0,
                ContainerState::Running => 1,
                ContainerState::Exited => 2,
                ContainerState::Unknown => 3,
            };
            now.insert(container.id, (uid(&container.labels), state));
        }
        for sandbox in sandboxes {
            now.insert(sandbox.id, (uid(&sandbox.labels), u8::from(sandbox.state == PodSandboxState::Ready)));
        }
        let changed = now.iter().filter(|(id, state)| before.get(*id) != Some(state));
        let gone = before.iter().filter(|(id, _)| !now.contains_key(*id));
        let touched: HashSet<&String> = changed.chain(gone).map(|(_, (uid, _))| uid).collect();
        for uid in touched {
            self.tell(uid, Signal::Runtime);
        }
        now
    }

    /// Removes what the runtime has of pods that were deleted while the agent was away.
    async fn remove_orphans(&self) {
        let runtime = &self.shared.config.runtime;
        let labels = [(spec::NODE.to_owned(), self.shared.config.name.clone())].into();
        let sandboxes = match runtime.list_pod_sandbox(&Filter { labels, ..Filter::default() }).await {
            Ok(sandboxes) => sandboxes,
            Err(error) => return tracing::warn!(%error, "orphans not looked for"),
        };
        let known: HashSet<String> = self.informer.list().iter().map(|object| object.meta().uid.clone()).collect();
        let known: HashSet<String> = known.into_iter().chain(static_pods::uids(&self.shared)).collect();
        for sandbox in sandboxes.iter().filter(|sandbox| !known.contains(&sandbox.metadata.uid)) {
            if let Err(error) = runtime.remove_pod_sandbox(&sandbox.id).await {
                tracing::warn!(pod = sandbox.metadata.name, %error, "orphaned pod not removed");
            }
        }
        let folders = std::fs::read_dir(self.shared.config.data_dir.join("pods")).into_iter().flatten().flatten();
        for entry in folders.filter(|entry| !known.contains(&entry.file_name().to_string_lossy().into_owned())) {
            if let Err(error) = fsutil::remove_all(&entry.path()) {
                tracing::warn!(folder = %entry.path().display(), %error, "orphaned pod's folder not removed");
            }
        }
    }
}
