//! Volumes promised to claims, and nodes chosen for them, before the API shows it.
//!
//! A promise stands until its pod gives it back, or, once it is written, until the informers show what was written or something newer.
//! So a volume is never promised twice, and a claim that pods share is bound once.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::{api::core::v1::PersistentVolumeClaim, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use parking_lot::Mutex;

use super::{
    VolumeInfo,
    tables::Tables,
    watched::{Subject, Watched},
};

/// A claim, for sure: by namespace, name and uid.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ClaimKey {
    namespace: String,
    name: String,
    uid: String,
}

impl ClaimKey {
    /// The key of a claim.
    pub(crate) fn of(claim: &PersistentVolumeClaim) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let meta = &claim.metadata;
        Self { namespace: text(&meta.namespace), name: text(&meta.name), uid: text(&meta.uid) }
    }

    /// Where it is told of in changes.
    pub(crate) fn subject(&self) -> Subject {
        Subject::Claim(self.namespace.clone(), self.name.clone())
    }

    /// Whether the claim is there.
    fn is_there(&self, tables: &Tables) -> bool {
        tables.claim(&self.namespace, &self.name).is_some_and(|claim| Self::of(claim) == *self)
    }
}

#[derive(Debug, Clone)]
struct Promise<T> {
    what: T,
    /// The uid of the pod that it was made for.
    pod: String,
    /// The resource version that was written.
    written: Option<String>,
}

/// Where a promise is.
#[derive(Debug)]
enum Promised {
    Volume(String),
    Node(ClaimKey),
}

#[derive(Debug, Default)]
struct Promises {
    /// Claims, by the volume that each will have.
    volumes: HashMap<String, Promise<ClaimKey>>,
    /// The same, the other way round.
    of_claims: HashMap<ClaimKey, String>,
    /// Nodes for which volumes will be provided, by claim.
    nodes: HashMap<ClaimKey, Promise<String>>,
    /// What was promised for each pod, by its uid; some of that may not stand any more.
    of_pods: HashMap<String, Vec<Promised>>,
    /// With so many promises those that do not stand any more are looked for.
    sweep_at: usize,
}

/// What is promised in one scheduler, whatever its profiles.
#[derive(Debug, Default)]
pub(crate) struct Assumed {
    promises: Mutex<Promises>,
    watched: Arc<Watched>,
}

/// Whether an object as it is shown is at least as new as what was written. Resource versions are numbers that grow
/// (KEP-5504).
fn shows(meta: &ObjectMeta, written: &str) -> bool {
    let seen = meta.resource_version.as_deref().unwrap_or_default();
    match (seen.parse::<u128>(), written.parse::<u128>()) {
        (Ok(seen), Ok(written)) => seen >= written,
        _ => seen == written,
    }
}

/// At the least so many promises are kept before they are looked through.
const FEW: usize = 64;

impl Promises {
    /// Forgets the promise of a volume if it does not stand any more.
    fn check_volume(&mut self, volume: &str, tables: &Tables) {
        if self.volumes.get(volume).is_some_and(|promise| !volume_stands(volume, promise, tables)) {
            self.remove_volume(volume);
        }
    }

    /// Notes a promise for a pod.
    fn note(&mut self, pod: &str, promised: Promised) {
        self.of_pods.entry(pod.to_owned()).or_default().push(promised);
    }

    fn remove_volume(&mut self, volume: &str) {
        if let Some(promise) = self.volumes.remove(volume) {
            self.of_claims.remove(&promise.what);
        }
    }

    /// How many there are, or pods for which there were some.
    fn len(&self) -> usize {
        (self.volumes.len() + self.nodes.len()).max(self.of_pods.len())
    }

    /// Forgets all promises that do not stand any more.
    fn sweep(&mut self, tables: &Tables) {
        let Self { volumes, of_claims, nodes, of_pods, sweep_at } = self;
        volumes.retain(|volume, promise| volume_stands(volume, promise, tables));
        of_claims.retain(|_, volume| volumes.contains_key(volume));
        nodes.retain(|claim, promise| node_stands(claim, promise, tables));
        of_pods.retain(|pod, promised| {
            promised.retain(|promised| match promised {
                Promised::Volume(volume) => volumes.get(volume).is_some_and(|promise| promise.pod == *pod),
                Promised::Node(claim) => nodes.get(claim).is_some_and(|promise| promise.pod == *pod),
            });
            !promised.is_empty()
        });
        *sweep_at = 2 * (volumes.len() + nodes.len()).max(FEW);
    }
}

/// Whether a promise is more than what the tables show, and its claim there.
fn volume_stands(volume: &str, promise: &Promise<ClaimKey>, tables: &Tables) -> bool {
    let shown = promise
        .written
        .as_deref()
        .is_some_and(|written| tables.volume(volume).is_none_or(|info| shows(&info.volume.metadata, written)));
    !shown && promise.what.is_there(tables)
}

fn node_stands(key: &ClaimKey, promise: &Promise<String>, tables: &Tables) -> bool {
    let Some(claim) = tables.claim(&key.namespace, &key.name) else { return false };
    ClaimKey::of(claim) == *key && !promise.written.as_deref().is_some_and(|written| shows(&claim.metadata, written))
}

impl Assumed {
    /// Who waits for what was promised to be done.
    pub(crate) fn watched(&self) -> &Arc<Watched> {
        &self.watched
    }

    /// Looks for promises that do not stand any more, if it is time to.
    pub(super) fn tidy(&self, tables: &Tables) {
        let mut promises = self.promises.lock();
        if promises.len() > promises.sweep_at {
            promises.sweep(tables);
        }
    }

    /// Whether a volume is promised to another claim.
    pub(crate) fn is_anothers(&self, volume: &VolumeInfo, claim: &ClaimKey, tables: &Tables) -> bool {
        let mut promises = self.promises.lock();
        if promises.volumes.get(volume.name.as_ref()).is_none_or(|promise| promise.what == *claim) {
            return false;
        }
        promises.check_volume(&volume.name, tables);
        promises.volumes.contains_key(volume.name.as_ref())
    }

    /// The volume that is promised to a claim.
    pub(crate) fn volume_for(&self, claim: &ClaimKey, tables: &Tables) -> Option<String> {
        let mut promises = self.promises.lock();
        let volume = promises.of_claims.get(claim)?.clone();
        promises.check_volume(&volume, tables);
        promises.volumes.contains_key(&volume).then_some(volume)
    }

    /// The node for which a claim's volume will be provided.
    pub(crate) fn node_for(&self, claim: &ClaimKey, tables: &Tables) -> Option<String> {
        let mut promises = self.promises.lock();
        let promise = promises.nodes.get(claim)?;
        if node_stands(claim, promise, tables) {
            return Some(promise.what.clone());
        }
        promises.nodes.remove(claim);
        None
    }

    /// Promises a volume to a claim, for a pod. What does not stand any more was forgotten when the volume was looked at.
    pub(crate) fn promise_volume(&self, volume: &str, claim: &ClaimKey, pod: &str) -> Given {
        let mut promises = self.promises.lock();
        match promises.volumes.get(volume) {
            Some(promise) if promise.what == *claim => Given::Already,
            Some(_) => Given::Refused,
            None if promises.of_claims.contains_key(claim) => Given::Refused,
            None => {
                let promise = Promise { what: claim.clone(), pod: pod.to_owned(), written: None };
                promises.volumes.insert(volume.to_owned(), promise);
                promises.of_claims.insert(claim.clone(), volume.to_owned());
                promises.note(pod, Promised::Volume(volume.to_owned()));
                Given::Now
            }
        }
    }

    /// Promises that a claim's volume will be provided for a node.
    pub(crate) fn promise_node(&self, claim: &ClaimKey, node: &str, pod: &str) -> Given {
        let mut promises = self.promises.lock();
        match promises.nodes.get(claim) {
            Some(promise) if promise.what == node => Given::Already,
            Some(_) => Given::Refused,
            None => {
                let promise = Promise { what: node.to_owned(), pod: pod.to_owned(), written: None };
                promises.nodes.insert(claim.clone(), promise);
                promises.note(pod, Promised::Node(claim.clone()));
                Given::Now
            }
        }
    }

    /// The promise of a volume was written.
    pub(crate) fn wrote_volume(&self, volume: &str, version: Option<&str>) {
        if let Some(promise) = self.promises.lock().volumes.get_mut(volume) {
            promise.written = Some(version.unwrap_or_default().to_owned());
        }
    }

    /// The choice of a node was written.
    pub(crate) fn wrote_node(&self, claim: &ClaimKey, version: Option<&str>) {
        if let Some(promise) = self.promises.lock().nodes.get_mut(claim) {
            promise.written = Some(version.unwrap_or_default().to_owned());
        }
    }

    /// Whether a volume is still to be written for a claim, by whomever.
    pub(crate) fn is_pending(&self, volume: &str, claim: &ClaimKey) -> bool {
        let promises = self.promises.lock();
        promises.volumes.get(volume).is_some_and(|promise| promise.what == *claim && promise.written.is_none())
    }

    /// Whether a node is still to be written to a claim, by whomever.
    pub(crate) fn is_node_pending(&self, claim: &ClaimKey) -> bool {
        self.promises.lock().nodes.get(claim).is_some_and(|promise| promise.written.is_none())
    }

    /// A pod gives back what was promised for it and is not written.
    pub(crate) fn give_back(&self, pod: &str) {
        let mut promises = self.promises.lock();
        let Some(mut all) = promises.of_pods.remove(pod) else { return };
        all.retain(|promised| match promised {
            Promised::Volume(volume) => match promises.volumes.get(volume) {
                Some(promise) if promise.pod != pod => false,
                Some(promise) if promise.written.is_some() => true,
                Some(_) => {
                    promises.remove_volume(volume);
                    false
                }
                None => false,
            },
            Promised::Node(claim) => match promises.nodes.get(claim) {
                Some(promise) if promise.pod != pod => false,
                Some(promise) if promise.written.is_some() => true,
                Some(_) => {
                    promises.nodes.remove(claim);
                    false
                }
                None => false,
            },
        });
        if !all.is_empty() {
            promises.of_pods.insert(pod.to_owned(), all);
        }
    }
}

/// Whether a promise was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// Now.
    Now,
    /// It had been, and whoever it was made for will write it.
    Already,
    /// No: another one stands.
    Refused,
}
