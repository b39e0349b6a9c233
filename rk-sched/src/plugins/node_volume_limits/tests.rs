//! What was counted as pods came, what is counted anew once pods are thought of as moved, and a naive count say the same.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::{CSINode, VolumeAttachment},
};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Brought, NodeVolumeLimits};
use crate::{
    framework::{CycleState, Filter, PreFilter},
    model::{PodInfo, Snapshot},
};

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Claims `0` to `7`, each with a volume; two of them are of one handle.
const CLAIMS: u8 = 8;

fn handle(claim: u8) -> u8 {
    claim.min(CLAIMS - 2)
}

fn pod(name: &str, claims: &BTreeSet<u8>) -> Arc<PodInfo> {
    let volume =
        |claim: &u8| json!({"name": claim.to_string(), "persistentVolumeClaim": {"claimName": claim.to_string()}});
    let pod: Pod = object(json!({
        "metadata": {"namespace": "d", "name": name, "uid": name},
        "spec": {"containers": [], "volumes": claims.iter().map(volume).collect::<Vec<_>>()},
    }));
    Arc::new(PodInfo::new(Arc::new(pod)))
}

fn cluster(limits: &[Option<i32>], pods: &[(usize, BTreeSet<u8>)], attached: &[(usize, u8)]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (number, limit) in limits.iter().enumerate() {
        let name = number.to_string();
        snapshot.set_node(Arc::new(object::<Node>(json!({"metadata": {"name": name}}))));
        let drivers = json!([{"name": "x", "nodeID": "n", "allocatable": {"count": limit}}]);
        let node = object::<CSINode>(json!({"metadata": {"name": name}, "spec": {"drivers": drivers}}));
        snapshot.volumes.set_csi_node(&name, Some(&node));
    }
    for claim in 0..CLAIMS {
        let name = claim.to_string();
        let csi = json!({"driver": "x", "volumeHandle": handle(claim).to_string()});
        let volume: PersistentVolume = object(json!({"metadata": {"name": name}, "spec": {"csi": csi}}));
        snapshot.volumes.set_volume(&name, Some(Arc::new(volume)));
        let claim: PersistentVolumeClaim =
            object(json!({"metadata": {"namespace": "d", "name": name, "uid": name}, "spec": {"volumeName": name}}));
        snapshot.volumes.set_claim("d", &name, Some(Arc::new(claim)));
    }
    for (number, (node, claims)) in pods.iter().enumerate() {
        snapshot.set_pod(pod(&format!("p{number}"), claims), &(node % limits.len()).to_string());
    }
    for (number, (node, claim)) in attached.iter().enumerate() {
        let spec = json!({
            "attacher": "x", "nodeName": (node % limits.len()).to_string(),
            "source": {"persistentVolumeName": claim.to_string()},
        });
        let name = number.to_string();
        let attachment = object::<VolumeAttachment>(json!({"metadata": {"name": name}, "spec": spec}));
        snapshot.volumes.set_attachment(&name, Some(&attachment));
    }
    snapshot
}

proptest! {
    #[test]
    fn counts_agree(
        limits in proptest::collection::vec(proptest::option::weighted(0.8, 0_i32..6), 1..4),
        pods in proptest::collection::vec((0_usize..4, proptest::collection::btree_set(0..CLAIMS, 0..3)), 0..8),
        attached in proptest::collection::vec((0_usize..4, 0..CLAIMS), 0..4),
        wanted in proptest::collection::btree_set(0..CLAIMS, 1..4),
    ) {
        let snapshot = cluster(&limits, &pods, &attached);
        let new = pod("new", &wanted);
        let mut state = CycleState::default();
        let skipped = NodeVolumeLimits.pre_filter(&mut state, &new, &snapshot).is_err();
        let mut moved = state.clone();
        if let Some(brought) = moved.get_mut::<Brought>() {
            brought.moved = true;
        }
        for (number, limit) in limits.iter().enumerate() {
            let node = snapshot.node(snapshot.find(&number.to_string()).unwrap());
            let here = |at: &usize| at % limits.len() == number;
            let of_pods = pods.iter().filter(|(at, _)| here(at)).flat_map(|(_, claims)| claims.iter().copied());
            let used: BTreeSet<u8> = of_pods.map(handle).collect();
            let also = attached.iter().filter(|(at, _)| here(at)).map(|(_, claim)| handle(*claim));
            let all: BTreeSet<u8> = used.iter().copied().chain(also).collect();
            let more: BTreeSet<u8> = wanted.iter().map(|claim| handle(*claim)).filter(|id| !used.contains(id)).collect();
            let over = limit.is_some_and(|limit| all.len() + more.len() > usize::try_from(limit).unwrap());
            let fits = more.is_empty() || !over;
            prop_assert!(fits || !skipped);
            prop_assert_eq!(NodeVolumeLimits.filter(&state, &new, node).is_success(), fits);
            prop_assert_eq!(NodeVolumeLimits.filter(&moved, &new, node).is_success(), fits);
        }
    }
}
