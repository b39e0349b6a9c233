//! One scheduler: an engine, its informers' copies, and its requests on the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rk_api::{Change, Object};
use rk_sched::{
    Profile, Registration, SchedulerConfig,
    engine::{Engine, Placement},
    model::PodInfo,
};
use tokio::time::Instant;

use crate::{
    api::{Api, Kind, Refused, ended, node_of},
    licences::{Licences, needs_one},
};

/// How far a binding has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// On its way to the API.
    Sent,
    /// The API has answered.
    Answered(Result<(), Refused>),
    /// The answer, or the request, was lost: the pod has to be looked at.
    Unknown,
}

pub struct Binding {
    pub placement: Placement,
    pub stage: Stage,
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
    /// Pods that are to leave: name and uid.
    pub evictions: Vec<(String, String)>,
    pub licences: Licences,
    copies: BTreeMap<Kind, Copy>,
    /// Pods that it knows to be bound or gone.
    pub done: BTreeSet<Arc<str>>,
}

impl Scheduler {
    /// A scheduler that has just become leader: it lists, nodes first, then starts.
    pub fn start(name: &'static str, seed: u64, licences: Licences, api: &Api, now: Instant) -> Self {
        let plugin = Registration::new(licences.clone()).filter().reserve();
        let profile = Profile::kubernetes(name).with(plugin);
        let config = SchedulerConfig { profiles: vec![profile], seed: Some(seed), ..SchedulerConfig::default() };
        let mut scheduler = Self {
            name,
            engine: Engine::new(&config, now).expect("the configuration is right"),
            bindings: Vec::new(),
            evictions: Vec::new(),
            licences,
            copies: BTreeMap::from([(Kind::Node, Copy::default()), (Kind::Pod, Copy::default())]),
            done: BTreeSet::new(),
        };
        scheduler.relist(Kind::Node, api, now, false);
        scheduler.relist(Kind::Pod, api, now, false);
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
        let object = object.filter(|object| kind == Kind::Node || !ended(&object.value().expect("it is JSON")));
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
}
