//! What will do for a pod's claims on one node (`FindPodVolumes`).

use std::sync::Arc;

use super::claims::{PodClaims, Unbound};
use crate::{
    framework::Status,
    model::{
        NodeInfo, VolumeInfo,
        volumes::{CsiNode, Tables, class_of},
    },
};

/// The reason where a claim can't be bound on a node.
pub(super) const BIND_CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
const NO_SPACE: &str = "node(s) did not have enough free storage";
const NO_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// What will do on a node for the claims that wait for one; they are given by their places in [`PodClaims::unbound`].
pub(super) struct Found {
    /// Volumes to bind them to.
    pub(super) volumes: Vec<(usize, Arc<VolumeInfo>)>,
    /// Those whose volumes are to be provided.
    pub(super) provided: Vec<usize>,
    /// The node's CSI drivers.
    pub(super) csi: Option<CsiNode>,
}

/// Finds volumes on a node.
///
/// # Errors
/// A rejection with all reasons.
pub(super) fn find(claims: &PodClaims, node: &NodeInfo, tables: &Tables) -> Result<Found, Status> {
    // Drivers matter to volumes only.
    let csi = || tables.csi_node(&node.name);
    let bound = if claims.bound.is_empty() { None } else { in_the_way(claims, node, csi()) };
    let mut found = Found { volumes: Vec::new(), provided: Vec::new(), csi: None };
    let unbound = find_unbound(&claims.unbound, node, tables, &mut found).err();
    let reasons =
        [bound.filter(|reason| *reason == NODE_CONFLICT), unbound, bound.filter(|reason| *reason == NO_VOLUME)];
    let mut reasons = reasons.into_iter().flatten();
    if let Some(first) = reasons.next() {
        return Err(reasons.fold(Status::unresolvable(first), Status::because));
    }
    if !claims.unbound.is_empty() {
        found.csi = csi().cloned();
    }
    Ok(found)
}

/// Why bound claims can't be used on a node: what the first of them that can't says.
fn in_the_way(claims: &PodClaims, node: &NodeInfo, csi: Option<&CsiNode>) -> Option<&'static str> {
    claims.bound.iter().find_map(|volume| match volume {
        None => Some(NO_VOLUME),
        Some(volume) => (!volume.is_usable_with(csi, &node.name, node.labels())).then_some(NODE_CONFLICT),
    })
}

fn find_unbound(unbound: &[Unbound], node: &NodeInfo, tables: &Tables, found: &mut Found) -> Result<(), &'static str> {
    let elsewhere = |claim: &Unbound| claim.selected.as_deref().is_some_and(|name| name != node.name.as_ref());
    if unbound.iter().any(elsewhere) {
        return Err(BIND_CONFLICT);
    }
    for (index, claim) in unbound.iter().enumerate() {
        let volume = if claim.selected.is_some() { None } else { pick(claim, node, tables, &found.volumes) };
        match volume {
            Some(volume) => found.volumes.push((index, volume)),
            None => found.provided.push(index),
        }
    }
    found.provided.iter().try_for_each(|index| can_provide(&unbound[*index], node, tables))
}

/// The volume that is kept for a claim, or else the smallest that will do (`FindMatchingVolume`).
fn pick(
    claim: &Unbound,
    node: &NodeInfo,
    tables: &Tables,
    chosen: &[(usize, Arc<VolumeInfo>)],
) -> Option<Arc<VolumeInfo>> {
    if let Some(kept) = &claim.kept {
        return kept.is_usable_on(&node.name, node.labels()).then(|| Arc::clone(kept));
    }
    let free = |volume: &&Arc<VolumeInfo>| !chosen.iter().any(|(_, other)| other.name == volume.name);
    let usable = |volume: &&Arc<VolumeInfo>| volume.is_usable_on(&node.name, node.labels());
    let anywhere = claim.anywhere.iter().find(free);
    let elsewhere = claim.elsewhere.iter().filter(free).find(usable);
    let available = tables.available(class_of(&claim.claim));
    let labelled = available.into_iter().flat_map(|all| all.on(&node.name, node.labels(), claim.size.unwrap_or(0)));
    let labelled = labelled.filter_map(|mut names| {
        let takes = |volume: &&Arc<VolumeInfo>| usable(volume) && claim.takes(volume, tables);
        names.find_map(|name| tables.volume(name).filter(free).filter(takes))
    });
    let best =
        labelled.chain(anywhere).chain(elsewhere).min_by_key(|volume| (volume.capacity, Arc::clone(&volume.name)));
    best.cloned()
}

/// Whether a claim's volume can be provided for a node (`checkVolumeProvisions`).
fn can_provide(claim: &Unbound, node: &NodeInfo, tables: &Tables) -> Result<(), &'static str> {
    let provisioner = claim.class.provisioner.as_str();
    let allows = || {
        claim.topologies.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(&node.name, node.labels())))
    };
    if provisioner.is_empty() || provisioner == "kubernetes.io/no-provisioner" || !allows() {
        return Err(BIND_CONFLICT);
    }
    match claim.size {
        Some(size) if !tables.has_room(&claim.class, size, node.labels()) => Err(NO_SPACE),
        _ => Ok(()),
    }
}
