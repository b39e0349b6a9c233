//! One scheduler: an engine, its informers' copies, and its requests on the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use rk_api::{Change, Client, EventRecorder, Object, Request};
use rk_sched::{
    Profile, Registration, SchedulerConfig,
    engine::{Engine, Placement},
    framework::{Bind, BindContext, PreBind, Status, WaitingPods},
    model::PodInfo,
    plugins::{DefaultBinder, VolumeBinding},
};
use tokio::time::Instant;

use crate::{
    api::{Api, Kind, ended, node_of},
    plugins::{Gate, Licences, needs_one},
    wire::Wire,
    world::Bug,
};

/// How far a binding has come.
pub enum Stage {
    /// At work.
    Running(Pin<Box<dyn Future<Output = Status>>>),
    /// It has ended, and the engine has not heard of it.
    Ended(Status),
}

pub struct Binding {
    pub placement: Arc<Placement>,
    pub stage: Stage,
}

/// What a client has given up, and what arrives all the same.
pub enum Late {
    Request(Request),
    /// A pod's nominated node, by its name and uid.
    Nominated(String, String, Option<String>),
}

/// A pod that is to leave for another.
pub struct Eviction {
    pub name: String,
    pub uid: String,
    pub preemptor: Arc<str>,
}

/// An informer's copy of a kind and how far it has read the log.
#[derive(Default)]
struct Copy {
    objects: BTreeMap<String, Arc<Object>>,
    read: usize,
}

pub struct Scheduler {
    pub name: &'static str,
    pub engine: Engine,
    pub bindings: Vec<Binding>,
    pub wire: Wire,
    pub late: Vec<Late>,
    pub evictions: Vec<Eviction>,
    pub licences: Licences,
    pub waiting: WaitingPods,
    copies: BTreeMap<Kind, Copy>,
    /// Pods that it knows to be bound or gone.
    pub done: BTreeSet<Arc<str>>,
}

/// So long that nothing is tried again for want of an event.
const NEVER: Duration = Duration::from_secs(1_000_000);

impl Scheduler {
    /// A scheduler that has just become leader: it lists, pods last, then starts.
    pub fn start(name: &'static str, seed: u64, licences: Licences, bug: Option<Bug>, api: &Api, now: Instant) -> Self {
        let mut profile = Profile::kubernetes(name)
            .with(Registration::new(licences.clone()).filter().reserve())
            .with(Registration::new(Gate).permit());
        if bug != Some(Bug::NoGangs) {
            profile = profile.with_gangs();
        }
        let waiting = WaitingPods::default();
        let config = SchedulerConfig {
            profiles: vec![profile],
            seed: Some(seed),
            waiting: waiting.clone(),
            unschedulable_timeout: NEVER,
            ..SchedulerConfig::default()
        };
        let mut scheduler = Self {
            name,
            engine: Engine::new(&config, now).expect("the configuration is right"),
            bindings: Vec::new(),
            wire: Wire::default(),
            late: Vec::new(),
            evictions: Vec::new(),
            licences,
            waiting,
            copies: Kind::ALL.into_iter().map(|kind| (kind, Copy::default())).collect(),
            done: BTreeSet::new(),
        };
        for kind in Kind::ALL {
            scheduler.relist(kind, api, now, false);
        }
        scheduler
    }

    /// What it has not read yet.
    pub fn behind(&self, kind: Kind, api: &Api) -> bool {
        self.next_of(kind, api).is_some()
    }

    fn next_of(&self, kind: Kind, api: &Api) -> Option<usize> {
        let from = self.copies[&kind].read;
        api.log[from..].iter().position(|entry| entry.kind == kind).map(|at| from + at)
    }

    /// One change comes by the watch.
    pub fn hear(&mut self, kind: Kind, api: &Api, now: Instant) {
        let Some(at) = self.next_of(kind, api) else { return };
        if let Some(copy) = self.copies.get_mut(&kind) {
            copy.read = at + 1;
        }
        let entry = &api.log[at];
        self.take(kind, &entry.name, entry.object.clone(), now);
    }

    /// The watch broke: what it missed is seen as the difference between two lists; but for what has gone if that is missed.
    pub fn relist(&mut self, kind: Kind, api: &Api, now: Instant, miss_deletions: bool) {
        let mut names: BTreeSet<String> = api.all(kind).map(|(name, _)| name.to_owned()).collect();
        if !miss_deletions {
            names.extend(self.copies[&kind].objects.keys().cloned());
        }
        for name in &names {
            let object = api.get(kind, name).map(|object| Arc::new(Object::from_value(object).expect("it is one")));
            self.take(kind, name, object, now);
        }
        if let Some(copy) = self.copies.get_mut(&kind) {
            copy.read = api.log.len();
        }
    }

    fn take(&mut self, kind: Kind, name: &str, object: Option<Arc<Object>>, now: Instant) {
        // Pods that have ended are left out by the informer's field selector.
        let object = object.filter(|object| kind != Kind::Pod || !ended(&object.value().expect("it is JSON")));
        let Some(copy) = self.copies.get_mut(&kind) else { return };
        let change = match (copy.objects.get(name).cloned(), object) {
            (None, None) => return,
            (Some(old), Some(new)) if old.revision() == new.revision() => return,
            (None, Some(new)) => Change::Added(new),
            (Some(old), Some(new)) => Change::Updated { old, new },
            (Some(old), None) => Change::Deleted(old),
        };
        match &change {
            Change::Deleted(_) => copy.objects.remove(name),
            Change::Added(new) | Change::Updated { new, .. } => copy.objects.insert(name.to_owned(), Arc::clone(new)),
        };
        if kind == Kind::Pod {
            self.account(&change);
        }
        self.engine.apply(&change, now);
    }

    /// What the licences' owner would hear of the pods: those on nodes hold theirs, those that are gone don't.
    fn account(&mut self, change: &Change) {
        let mut gone = Vec::new();
        match change {
            Change::Deleted(old) => gone.push(old),
            Change::Updated { old, new } if old.meta().uid != new.meta().uid => gone.push(old),
            _ => {}
        }
        for object in gone {
            let uid: Arc<str> = Arc::from(object.meta().uid.as_str());
            self.licences.held.lock().remove(&uid);
            self.done.insert(uid);
        }
        if let Change::Added(new) | Change::Updated { new, .. } = change
            && !node_of(&new.value().expect("it is JSON")).is_empty()
        {
            let pod = PodInfo::new(new.typed().expect("it is a pod"));
            if needs_one(&pod) {
                self.licences.held.lock().insert(Arc::clone(&pod.uid));
            }
            self.done.insert(pod.uid);
        }
    }

    /// Begins to bind a placed pod, as the binding cycle of the real scheduler does; or as a careless one would.
    pub fn bind(&mut self, mut placement: Placement, events: &EventRecorder, bug: Option<Bug>) {
        let waited = placement.waited.take();
        let placement = Arc::new(placement);
        let (of, client, events) = (Arc::clone(&placement), self.wire.clone(), events.clone());
        let client: Arc<dyn Client> = Arc::new(client);
        let work = async move {
            if let Some(waited) = waited.filter(|_| bug != Some(Bug::NoWait)) {
                let permitted = waited.decided().await;
                if !permitted.is_success() {
                    return permitted;
                }
            }
            let context =
                BindContext { client: &client, events: &events, state: &of.state, pod: &of.pod, node: &of.node };
            let volumes = VolumeBinding { bind_timeout: Duration::from_secs(60) };
            let ready = volumes.pre_bind(&context).await;
            if !ready.is_success() && !ready.is_skip() {
                return ready;
            }
            match bug {
                Some(Bug::BelieveSilence) => once(&context).await,
                _ => DefaultBinder.bind(&context).await,
            }
        };
        self.bindings.push(Binding { placement, stage: Stage::Running(Box::pin(work)) });
    }
}

/// Binds by one request, and where no answer comes thinks that it was not done.
async fn once(context: &BindContext<'_>) -> Status {
    let pods = rk_api::Api::<k8s_openapi::api::core::v1::Pod>::namespaced(context.client.clone(), "default");
    let body = serde_json::json!({
        "apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": context.node},
        "metadata": {"name": &*context.pod.name, "namespace": "default", "uid": &*context.pod.uid},
    });
    match pods.create_subresource(&context.pod.name, "binding", body).await {
        Ok(_) => Status::success(),
        Err(error) => Status::error(error.to_string()),
    }
}
