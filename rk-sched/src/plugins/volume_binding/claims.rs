//! A pod's claims, and what will do for them, as far as that is one for all nodes.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::{core::v1::PersistentVolumeClaim, storage::v1::StorageClass};
use parking_lot::Mutex;
use rk_api::LabelSelector;

use super::{super::claims, bind::Task, find::Found};
use crate::{
    framework::Status,
    model::{
        ClaimUse, NodeTerm, PodInfo, VolumeInfo, Volumes, claims_of,
        volumes::{
            Assumed, ClaimKey, Tables, TablesView, check_owner, class_of, is_bound, selected_node, selector_of,
            size_of, volume_of,
        },
    },
};

/// The claims of a pod in its cycle.
#[derive(Clone)]
pub(super) struct PodClaims {
    /// The volumes of claims that are bound; `None` for one that is not there.
    pub(super) bound: Arc<[Option<Arc<VolumeInfo>>]>,
    /// The claims that wait for a node: those with a chosen node first, then by size.
    pub(super) unbound: Arc<[Unbound]>,
    pub(super) tables: TablesView,
    pub(super) assumed: Arc<Assumed>,
    /// What Filter found, by node.
    pub(super) found: Arc<Mutex<HashMap<Arc<str>, Found>>>,
    /// What is to be done before the pod is bound, once it has its node.
    pub(super) tasks: Arc<[Task]>,
}

/// A claim that waits for a node.
pub(super) struct Unbound {
    pub(super) claim: Arc<PersistentVolumeClaim>,
    pub(super) key: ClaimKey,
    /// Bytes that it asks for.
    pub(super) size: Option<i64>,
    /// The node for which its volume is to be provided.
    pub(super) selected: Option<String>,
    /// The volume that is kept for it.
    pub(super) kept: Option<Arc<VolumeInfo>>,
    /// Volumes that will do on all nodes, the smallest first, as many as the pod might need.
    pub(super) anywhere: Vec<Arc<VolumeInfo>>,
    /// Volumes that will do where their affinity allows, but for those that are found by labels, the smallest first.
    pub(super) elsewhere: Vec<Arc<VolumeInfo>>,
    /// Labels of the volumes that it takes; `None` for none.
    pub(super) selector: Option<LabelSelector>,
    pub(super) class: Arc<StorageClass>,
    /// Where the class allows volumes to be provided; `None` for all nodes.
    pub(super) topologies: Option<Vec<NodeTerm>>,
    assumed: Arc<Assumed>,
}

impl PodClaims {
    /// The claims of a pod.
    ///
    /// # Errors
    /// One that is not there or can't be used, or one that is to be bound first, by others.
    pub(super) fn new(pod: &PodInfo, volumes: &Volumes) -> Result<Self, Status> {
        let claims = claims_of(pod).map(|claim| usable(pod, &claim, volumes)).collect::<Result<Vec<_>, _>>()?;
        let mut bound = Vec::new();
        let mut waiting = Vec::new();
        for claim in claims {
            match volume_of(claim) {
                Some(volume) if is_bound(claim) => bound.push(volumes.volume(volume).cloned()),
                volume => {
                    let class = volumes.class(class_of(claim)).filter(|class| claims::waits_for_consumer(class));
                    // One that names its volume is the controller's to bind, whatever its class.
                    let Some(class) = class.filter(|_| volume.is_none()) else {
                        return Err(Status::unresolvable("pod has unbound immediate PersistentVolumeClaims"));
                    };
                    if !waiting.iter().any(|(other, _)| Arc::ptr_eq(*other, claim)) {
                        waiting.push((claim, class));
                    }
                }
            }
        }
        let (tables, assumed, many) = (volumes.tables(), volumes.assumed(), waiting.len());
        let waiting = waiting.into_iter().map(|(claim, class)| Unbound::new(claim, class, tables, assumed, many));
        let mut unbound: Vec<Unbound> = waiting.collect();
        unbound.sort_by_key(|unbound| (unbound.selected.is_none(), unbound.size));
        Ok(Self {
            bound: bound.into(),
            unbound: unbound.into(),
            tables: volumes.view(),
            assumed: Arc::clone(assumed),
            found: Arc::default(),
            tasks: Arc::default(),
        })
    }

    /// Whether no node is better or worse than another, and nothing is to be done.
    pub(super) fn suit_every_node(&self) -> bool {
        self.unbound.is_empty()
            && self.bound.iter().all(|volume| volume.as_ref().is_some_and(|volume| !volume.is_bound_to_nodes()))
    }
}

/// A claim of a pod that is not about to go, nor another pod's (`podHasPVCs`).
fn usable<'a>(
    pod: &PodInfo,
    claim: &ClaimUse<'_>,
    volumes: &'a Volumes,
) -> Result<&'a Arc<PersistentVolumeClaim>, Status> {
    let name = &claim.name;
    let Some(found) = volumes.claim(&pod.namespace, name) else {
        return Err(if claim.own {
            let text = "waiting for ephemeral volume controller to create the persistentvolumeclaim";
            Status::unresolvable(format!("{text} \"{name}\""))
        } else {
            claims::not_found(name)
        });
    };
    if found.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
        let volume = volume_of(found).unwrap_or_default();
        let text = format!("persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\"");
        return Err(Status::unresolvable(text));
    }
    if found.metadata.deletion_timestamp.is_some() {
        return Err(Status::unresolvable(format!("persistentvolumeclaim \"{name}\" is being deleted")));
    }
    if claim.own {
        check_owner(found, pod).map_err(Status::unresolvable)?;
    }
    Ok(found)
}

impl Unbound {
    fn new(
        claim: &Arc<PersistentVolumeClaim>,
        class: &Arc<StorageClass>,
        tables: &Tables,
        assumed: &Arc<Assumed>,
        many: usize,
    ) -> Self {
        let key = ClaimKey::of(claim);
        let size = size_of(claim);
        let least = size.unwrap_or(0);
        let selector = selector_of(claim);
        let suits = |volume: &&Arc<VolumeInfo>| {
            selector.as_ref().is_some_and(|selector| volume.suits(claim, selector))
                && !assumed.is_anothers(volume, &key, tables)
        };
        let promise = assumed.volume_for(&key, tables);
        let promise = promise.as_deref().and_then(|name| tables.volume(name));
        let kept = promise.into_iter().chain(tables.kept_for(claim)).find(|volume| {
            !assumed.is_anothers(volume, &key, tables)
                && volume.capacity >= least
                && volume.is_alike(claim)
                && volume.volume.metadata.deletion_timestamp.is_none()
        });
        let available = tables.available(class_of(claim));
        let anywhere = available.into_iter().flat_map(|available| available.anywhere(least));
        let elsewhere = available.into_iter().flat_map(|available| available.elsewhere(least));
        let topologies = class.allowed_topologies.as_deref().filter(|terms| !terms.is_empty());
        Self {
            selected: assumed.node_for(&key, tables).or_else(|| selected_node(claim).map(str::to_owned)),
            kept: kept.cloned(),
            anywhere: anywhere.filter_map(|name| tables.volume(name)).filter(suits).take(many).cloned().collect(),
            elsewhere: elsewhere.filter_map(|name| tables.volume(name)).filter(suits).cloned().collect(),
            topologies: topologies.map(NodeTerm::of_topologies),
            class: Arc::clone(class),
            claim: Arc::clone(claim),
            assumed: Arc::clone(assumed),
            selector,
            size,
            key,
        }
    }

    /// Whether a volume that was found by a node's labels will do.
    pub(super) fn takes(&self, volume: &VolumeInfo, tables: &Tables) -> bool {
        self.selector.as_ref().is_some_and(|selector| volume.suits(&self.claim, selector))
            && !self.assumed.is_anothers(volume, &self.key, tables)
    }
}
