//! The task of one pod.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodStatus, Secret};
use rk_api::{Api, DeleteOptions, Patch, Preconditions};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    backoff::Backoff,
    env::Sources,
    prober::{ProbeKind, Probes},
    sources::{gather, references},
    spec::{self, Member},
    start::StartError,
    status,
};
use crate::{
    fsutil,
    objects::Watched,
    runtime::{
        RuntimeError,
        types::{ContainerStatus, Filter, LinuxContainerResources, PodSandbox, PodSandboxState},
    },
    shared::{Shared, about},
    volume::{self, token::Tokens},
};

/// What wakes a worker.
#[derive(Debug)]
pub(crate) enum Signal {
    /// The pod has another version.
    Pod(Arc<Pod>),
    /// The pod is gone from its source.
    Gone,
    /// The runtime did something with a container of the pod.
    Runtime,
    /// The mirror of the static pod is new, or was changed.
    Mirror,
    /// A config map or secret that the pod uses changed.
    Sources,
    /// A probe changed its mind.
    Probe { container_id: String, kind: ProbeKind, good: bool },
    /// The node puts the pod out.
    Evict { reason: String, message: String },
}

/// An operation ended.
pub(super) enum Done {
    Setup { tokens: Tokens, sources: Arc<Sources>, result: Result<volume::Places, String> },
    Sandbox(Result<PodSandbox, RuntimeError>),
    Started { name: String, result: Result<String, StartError> },
    Stopped { name: String, result: Result<(), RuntimeError> },
    Resized { name: String, result: Result<(), RuntimeError> },
    AllStopped(Result<(), RuntimeError>),
    SandboxStopped(Result<(), RuntimeError>),
}

/// Why the whole pod ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// All containers ended and none is started again.
    Completed,
    /// It failed as a whole: the status's reason and message.
    Failed { reason: String, message: String },
    /// It was deleted.
    Deleted,
}

/// How far the end of the pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    Containers,
    Sandbox,
    Over,
}

pub(crate) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    /// The pod comes from a file; the API has a mirror of it.
    pub(super) is_static: bool,
    pub(super) members: Vec<Member>,
    signals: mpsc::UnboundedReceiver<Signal>,
    pub(super) myself: mpsc::UnboundedSender<Signal>,
    pub(super) ops: JoinSet<Done>,
    /// Containers with an operation under way; the empty name stands for the sandbox.
    pub(super) busy: BTreeSet<String>,
    pub(super) sandbox: Option<PodSandbox>,
    pub(super) sandbox_attempts: u32,
    /// Instances of each container, newest first.
    pub(super) instances: BTreeMap<String, Vec<ContainerStatus>>,
    /// What the API knew of containers that the runtime has lost.
    pub(super) lost: BTreeMap<String, ContainerStatus>,
    pub(super) backoff: Backoff,
    /// Why containers wait.
    pub(super) waiting: BTreeMap<String, StartError>,
    /// When the last start of a container failed before there was a container.
    pub(super) failed_start: BTreeMap<String, jiff::Timestamp>,
    pub(super) probes: HashMap<String, Probes>,
    /// The limits that containers have, by id; a container that was found running is given its limits once.
    pub(super) limits: HashMap<String, LinuxContainerResources>,
    pub(super) tokens: Option<Tokens>,
    pub(super) sources: Arc<Sources>,
    watched: Vec<(Arc<Watched>, tokio_util::task::AbortOnDropHandle<()>)>,
    pub(super) volumes: Option<volume::Places>,
    /// Volumes have to be made or brought up to date.
    pub(super) setup_due: bool,
    pub(super) setup_retry: Option<Instant>,
    pub(super) end: Option<(End, Ending)>,
    /// When the containers have to be gone.
    pub(super) deadline: watch::Sender<Instant>,
    pub(super) wake: Option<Instant>,
    gone: bool,
    reported: Option<PodStatus>,
    /// First trouble with the runtime or the API is logged, not each repetition.
    trouble: String,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        pod: Arc<Pod>,
        is_static: bool,
        signals: mpsc::UnboundedReceiver<Signal>,
        myself: mpsc::UnboundedSender<Signal>,
    ) -> Self {
        Self {
            members: spec::members(&pod),
            lost: status::lost(&pod),
            shared,
            pod,
            is_static,
            signals,
            myself,
            ops: JoinSet::new(),
            busy: BTreeSet::new(),
            sandbox: None,
            sandbox_attempts: 0,
            instances: BTreeMap::new(),
            backoff: Backoff::default(),
            waiting: BTreeMap::new(),
            failed_start: BTreeMap::new(),
            probes: HashMap::new(),
            limits: HashMap::new(),
            tokens: Some(Tokens::default()),
            sources: Arc::default(),
            watched: Vec::new(),
            volumes: None,
            setup_due: true,
            setup_retry: None,
            end: None,
            deadline: watch::channel(Instant::now()).0,
            wake: None,
            gone: false,
            reported: None,
            trouble: String::new(),
        }
    }

    /// Works until the pod is gone.
    pub(crate) async fn run(mut self) {
        self.watch_sources();
        loop {
            self.wake = None;
            match self.refresh().await {
                Ok(()) => {
                    self.decide();
                    self.report().await;
                    if self.is_over() && self.clean_up().await {
                        return;
                    }
                }
                Err(error) => self.troubled("runtime", &error.to_string()),
            }
            self.wait().await;
        }
    }

    /// Notes a failure that is tried again soon.
    fn troubled(&mut self, what: &str, error: &str) {
        let text = format!("{what}: {error}");
        if self.trouble != text {
            tracing::warn!(pod = spec::name(&self.pod), namespace = spec::namespace(&self.pod), what, error);
            self.trouble = text;
        }
        self.wake_in(Duration::from_secs(1));
    }

    pub(super) fn wake_in(&mut self, after: Duration) {
        let at = Instant::now() + after;
        self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
    }

    /// Looks at what the runtime has of the pod.
    async fn refresh(&mut self) -> Result<(), RuntimeError> {
        let runtime = Arc::clone(&self.shared.config.runtime);
        let labels = [(spec::POD_UID.to_owned(), spec::uid(&self.pod).to_owned())].into();
        let filter = Filter { labels, ..Filter::default() };
        let sandboxes = runtime.list_pod_sandbox(&filter).await?;
        self.sandbox_attempts = sandboxes.iter().map(|sandbox| sandbox.metadata.attempt + 1).max().unwrap_or(0);
        let newest = sandboxes.into_iter().max_by_key(|sandbox| sandbox.metadata.attempt);
        self.sandbox = match newest.filter(|sandbox| sandbox.state == PodSandboxState::Ready) {
            Some(ready) => Some(runtime.pod_sandbox_status(&ready.id).await?),
            None => None,
        };
        let mut instances: BTreeMap<String, Vec<ContainerStatus>> = BTreeMap::new();
        for container in runtime.list_containers(&filter).await? {
            match runtime.container_status(&container.id).await {
                Ok(status) => instances.entry(container.metadata.name.clone()).or_default().push(status),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        for list in instances.values_mut() {
            list.sort_by_key(|status| std::cmp::Reverse(status.container.metadata.attempt));
        }
        for (name, lost) in &self.lost {
            instances.entry(name.clone()).or_insert_with(|| vec![lost.clone()]);
        }
        self.limits.retain(|id, _| instances.values().flatten().any(|status| status.container.id == *id));
        self.instances = instances;
        Ok(())
    }

    /// Waits for the next thing to happen.
    async fn wait(&mut self) {
        let wake = self.wake.unwrap_or_else(|| Instant::now() + Duration::from_secs(600));
        tokio::select! {
            Some(signal) = self.signals.recv() => self.take(signal),
            Some(done) = self.ops.join_next(), if !self.ops.is_empty() => match done {
                Ok(done) => self.finish(done),
                Err(error) if error.is_cancelled() => {}
                Err(error) => {
                    // An operation that panicked must not leave its container locked for ever.
                    self.busy.clear();
                    self.troubled("operation", &error.to_string());
                }
            },
            () = tokio::time::sleep_until(wake) => {}
        }
        while let Ok(signal) = self.signals.try_recv() {
            self.take(signal);
        }
    }

    fn take(&mut self, signal: Signal) {
        match signal {
            Signal::Pod(pod) => {
                let newer = |pod: &Pod| pod.metadata.resource_version.as_ref().and_then(|v| v.parse::<u64>().ok());
                if newer(&pod) < newer(&self.pod) {
                    return;
                }
                let changed = pod.spec != self.pod.spec;
                let fields = pod.metadata.labels != self.pod.metadata.labels
                    || pod.metadata.annotations != self.pod.metadata.annotations;
                self.pod = pod;
                if changed {
                    self.members = spec::members(&self.pod);
                    self.watch_sources();
                }
                self.setup_due |= changed || fields;
            }
            Signal::Gone => self.gone = true,
            Signal::Runtime => {}
            Signal::Mirror => self.reported = None,
            Signal::Sources => {
                self.setup_due = true;
                self.setup_retry = None;
            }
            Signal::Probe { container_id, kind, good } => {
                let probed = self.probes.values_mut().find(|probes| probes.container_id == container_id);
                if let Some(probes) = probed {
                    probes.found(kind, good);
                }
            }
            Signal::Evict { reason, message } => {
                if self.end.is_none() {
                    let about = about(&self.pod);
                    self.shared.recorder.warning(&about, &reason, message.clone());
                    self.begin_end(End::Failed { reason, message }, Duration::ZERO);
                }
            }
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Setup { tokens, sources, result } => {
                self.busy.remove("volumes/");
                self.tokens = Some(tokens);
                self.sources = sources;
                match result {
                    Ok(places) => {
                        self.volumes = Some(places);
                        self.setup_retry = None;
                    }
                    Err(message) => {
                        self.shared.recorder.warning(&about(&self.pod), "FailedMount", message);
                        self.setup_due = true;
                        let again = self.backoff.remaining("volumes/", rk_api::now(), rk_api::now());
                        self.backoff.next("volumes/", rk_api::now(), rk_api::now());
                        let wait = again.map_or(Duration::from_secs(2), |(left, _)| left);
                        self.setup_retry = Some(Instant::now() + wait);
                    }
                }
            }
            Done::Sandbox(result) => {
                self.busy.remove("");
                if let Err(error) = result {
                    let message = format!("Failed to create pod sandbox: {error}");
                    self.shared.recorder.warning(&about(&self.pod), "FailedCreatePodSandBox", message);
                    self.failed_start.insert(String::new(), rk_api::now());
                }
            }
            Done::Started { name, result } => {
                self.busy.remove(&name);
                match result {
                    Ok(id) => {
                        if let Some(member) = self.members.iter().find(|member| member.container.name == name) {
                            let limits = spec::resources(&self.pod, &member.container, self.shared.memory());
                            self.limits.insert(id, limits);
                        }
                        self.waiting.remove(&name);
                        self.failed_start.remove(&name);
                    }
                    Err(error) => {
                        self.failed_start.insert(name.clone(), rk_api::now());
                        self.waiting.insert(name, error);
                    }
                }
            }
            Done::Stopped { name, result } => {
                self.busy.remove(&name);
                self.probes.remove(&name);
                if let Err(error) = result {
                    self.troubled("stop container", &error.to_string());
                }
            }
            Done::Resized { name, result } => {
                self.busy.remove(&name);
                if let Err(error) = result {
                    let message = format!("Error resizing container {name}: {error}");
                    self.shared.recorder.warning(&about(&self.pod), "ResizeError", message);
                }
            }
            Done::AllStopped(result) => match result {
                Ok(()) => self.advance(Ending::Sandbox),
                Err(error) => {
                    self.busy.clear();
                    self.troubled("stop containers", &error.to_string());
                }
            },
            Done::SandboxStopped(result) => match result {
                Ok(()) => self.advance(Ending::Over),
                Err(error) => {
                    self.busy.remove("");
                    self.troubled("stop sandbox", &error.to_string());
                }
            },
        }
    }

    fn advance(&mut self, to: Ending) {
        self.busy.clear();
        if let Some((_, ending)) = &mut self.end {
            *ending = to;
        }
    }

    /// The time the pod's deletion leaves its containers, if it is being deleted.
    pub(super) fn deletion(&self) -> Option<Duration> {
        let meta = &self.pod.metadata;
        let default = spec::spec(&self.pod).termination_grace_period_seconds.unwrap_or(30);
        let seconds = match (&meta.deletion_timestamp, self.gone) {
            (Some(_), _) => meta.deletion_grace_period_seconds.unwrap_or(default),
            (None, true) => default.max(1),
            (None, false) => return None,
        };
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }

    /// Starts the end of the pod, or hastens it.
    pub(super) fn begin_end(&mut self, end: End, grace: Duration) {
        let deadline = Instant::now() + grace;
        match &mut self.end {
            Some((known, _)) => {
                if end == End::Deleted {
                    *known = End::Deleted;
                }
                self.deadline.send_if_modified(|known| {
                    let sooner = deadline < *known;
                    *known = if sooner { deadline } else { *known };
                    sooner
                });
            }
            None => {
                self.deadline.send_replace(deadline);
                self.end = Some((end, Ending::Containers));
                self.probes.values_mut().for_each(Probes::wind_down);
                // What was about to start is not wanted any more; what it left is found and stopped.
                self.ops.abort_all();
                self.busy.clear();
            }
        }
    }

    /// Nothing of the pod runs any more and nobody wants it back.
    fn is_over(&self) -> bool {
        matches!(&self.end, Some((End::Deleted, Ending::Over)))
    }

    /// Writes the pod's status if it changed.
    async fn report(&mut self) {
        if self.gone && !self.is_static {
            return;
        }
        let wanted = status::pod_status(self);
        if self.reported.as_ref() == Some(&wanted) {
            return;
        }
        let api = Api::<Pod>::namespaced(Arc::clone(&self.shared.client), spec::namespace(&self.pod));
        let name = spec::name(&self.pod);
        let current = if self.is_static {
            match api.get_opt(name).await {
                Ok(Some(mirror)) => mirror,
                // The mirror is made by the one who watches the folder; it is told when it is there.
                Ok(None) => return,
                // To a node, a pod that is not there is a pod that is not its own (Kubernetes' Node authorizer).
                Err(error) if error.is_forbidden() => return,
                Err(error) => return self.troubled("read the mirror pod", &error.to_string()),
            }
        } else {
            Arc::clone(&self.pod)
        };
        let Some(patch) = status::patch(&current, &wanted) else {
            self.reported = Some(wanted);
            return;
        };
        match api.patch_status(name, Patch::merge(patch)).await {
            Ok(stored) => {
                self.trouble.clear();
                self.reported = Some(wanted);
                if self.is_static {
                    // Times of transitions are kept here, too.
                    Arc::make_mut(&mut self.pod).status.clone_from(&stored.status);
                } else if stored.metadata.uid == self.pod.metadata.uid {
                    self.pod = stored;
                }
            }
            Err(error) if error.is_not_found() => {
                self.gone = !self.is_static;
                self.wake_in(Duration::ZERO);
            }
            Err(error) if error.is_conflict() => match api.get(name).await {
                Ok(fresh) if fresh.metadata.uid == self.pod.metadata.uid => {
                    self.take(Signal::Pod(fresh));
                    self.wake_in(Duration::from_millis(10));
                }
                Ok(_) => self.gone = true,
                Err(error) if error.is_not_found() => {
                    self.gone = !self.is_static;
                    self.wake_in(Duration::ZERO);
                }
                // One that may not be read may be another node's by now; if so, the source of pods tells.
                Err(error) => self.troubled("read the pod", &error.to_string()),
            },
            Err(error) => self.troubled("write the pod's status", &error.to_string()),
        }
    }

    /// Removes what is left of a deleted pod, and lets the API forget it; answers whether all is done.
    async fn clean_up(&mut self) -> bool {
        if let Err(error) = remove_pod(&self.shared, &self.pod).await {
            self.troubled("remove the pod's remains", &error);
            return false;
        }
        if self.gone || self.is_static {
            return true;
        }
        let api = Api::<Pod>::namespaced(Arc::clone(&self.shared.client), spec::namespace(&self.pod));
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Preconditions { uid: self.pod.metadata.uid.clone(), resource_version: None },
            ..DeleteOptions::default()
        };
        match api.delete(spec::name(&self.pod), options).await {
            Ok(_) => true,
            Err(error) if error.is_not_found() || error.is_conflict() => true,
            Err(error) => {
                self.troubled("delete the pod", &error.to_string());
                false
            }
        }
    }

    /// Watches the config maps and secrets that the pod uses now.
    fn watch_sources(&mut self) {
        let namespace = spec::namespace(&self.pod);
        let (maps, secrets) = references(&self.pod);
        let objects = &self.shared.objects;
        let maps = maps.iter().map(|name| objects.watch::<ConfigMap>(namespace, name));
        let secrets = secrets.iter().map(|name| objects.watch::<Secret>(namespace, name));
        let watched = maps.chain(secrets).map(|watched| {
            let mut changes = watched.informer().subscribe();
            let signals = self.myself.clone();
            let told = tokio::spawn(async move {
                while changes.recv().await.is_some() && signals.send(Signal::Sources).is_ok() {}
            });
            (watched, tokio_util::task::AbortOnDropHandle::new(told))
        });
        self.watched = watched.collect();
    }

    /// The operation that makes the volumes, or brings them up to date.
    pub(super) fn set_up(&mut self) {
        let Some(mut tokens) = self.tokens.take() else { return };
        self.setup_due = false;
        self.busy.insert("volumes/".to_owned());
        let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&self.pod));
        let watched: Vec<_> = self.watched.iter().map(|(watched, _)| Arc::clone(watched)).collect();
        let ips = self.pod_ips();
        let known = Arc::clone(&self.sources);
        self.ops.spawn(async move {
            let (sources, result) = match gather(&pod, &watched).await {
                Err(error) => (known, Err(error)),
                Ok(sources) => {
                    let place = shared.place(ips);
                    let folder = spec::pod_folder(&shared.config, spec::uid(&pod)).join("volumes");
                    let client = &shared.client;
                    let mut setup = volume::Setup {
                        client,
                        pod: &pod,
                        place: &place,
                        sources: &sources,
                        tokens: &mut tokens,
                        folder,
                    };
                    let result = setup.run().await;
                    (Arc::new(sources), result)
                }
            };
            Done::Setup { tokens, sources, result }
        });
    }

    /// The pod's addresses: the sandbox's, or the node's with the host's network.
    pub(super) fn pod_ips(&self) -> Vec<String> {
        let Some(sandbox) = &self.sandbox else { return Vec::new() };
        if spec::spec(&self.pod).host_network == Some(true) {
            return vec![self.shared.config.address.to_string()];
        }
        sandbox.ips.iter().map(ToString::to_string).collect()
    }
}

/// Removes a pod's sandboxes, containers, folder and logs.
///
/// # Errors
/// In words for the log.
pub(crate) async fn remove_pod(shared: &Shared, pod: &Pod) -> Result<(), String> {
    let runtime = &shared.config.runtime;
    let labels = [(spec::POD_UID.to_owned(), spec::uid(pod).to_owned())].into();
    let filter = Filter { labels, ..Filter::default() };
    for sandbox in runtime.list_pod_sandbox(&filter).await.map_err(|error| error.to_string())? {
        runtime.remove_pod_sandbox(&sandbox.id).await.map_err(|error| error.to_string())?;
    }
    crate::cgroups::remove(&spec::cgroup_parent(pod));
    let folders: [PathBuf; 2] =
        [spec::pod_folder(&shared.config, spec::uid(pod)), spec::log_folder(&shared.config, pod)];
    // An emptyDir may hold much.
    let removed = tokio::task::spawn_blocking(move || {
        folders
            .iter()
            .try_for_each(|folder| fsutil::remove_all(folder).map_err(|error| format!("{}: {error}", folder.display())))
    });
    removed.await.map_err(|error| error.to_string())?
}
