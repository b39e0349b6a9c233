//! Placing pods one by one, in memory.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{Node, Pod},
    resource::v1::ResourceClaim,
};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    cycle::{Chosen, Cluster, Failure, Nominated},
    framework::{Diagnosis, PostFilterContext, Profile, Status},
    model::{PodInfo, Snapshot},
};

/// Why a pod was not placed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Unplaced {
    /// No node would do; the text is that of the `FailedScheduling` event.
    #[error("{0}")]
    Unschedulable(Box<Diagnosis>),
    /// A plugin failed.
    #[error("{0}")]
    Failed(Status),
}

/// Nodes and pods in memory, and a profile that places pods.
///
/// Filters and scores run as in the cluster, Reserve and Permit do not: a placed pod is on its node at once. What a PostFilter
/// plugin wants to evict is evicted at once, and the pod tried again.
pub struct Simulator {
    profile: Profile,
    snapshot: Snapshot,
    nominated: Nominated,
    random: StdRng,
    start: usize,
    uids: u64,
    evicted: Vec<Arc<PodInfo>>,
}

impl Simulator {
    /// An empty cluster. The seed decides between equal nodes: the same seed and the same calls give the same placements.
    pub fn new(profile: Profile, seed: u64) -> Self {
        Self {
            profile,
            snapshot: Snapshot::default(),
            nominated: Nominated::default(),
            random: StdRng::seed_from_u64(seed),
            start: 0,
            uids: 0,
            evicted: Vec::new(),
        }
    }

    /// The cluster as it is.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// To change namespaces' labels, workloads, or anything else of the cluster by hand.
    pub fn snapshot_mut(&mut self) -> &mut Snapshot {
        &mut self.snapshot
    }

    /// Adds a node or replaces the one of its name.
    pub fn set_node(&mut self, node: Node) {
        self.snapshot.set_node(Arc::new(node));
    }

    /// Removes a node with its pods.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(index) = self.snapshot.find(name) {
            let pods: Vec<_> = self.snapshot.node(index).pods.iter().map(|entry| Arc::clone(&entry.pod.uid)).collect();
            for uid in pods {
                self.snapshot.remove_pod(&uid);
            }
        }
        self.snapshot.remove_node(name);
    }

    /// Places a pod; one whose `nodeName` is set goes there unasked. Answers the node's name.
    ///
    /// # Errors
    /// No node would do, or a plugin failed; the pod is not kept.
    pub fn schedule(&mut self, mut pod: Pod) -> Result<Arc<str>, Unplaced> {
        if pod.metadata.uid.is_none() {
            self.uids += 1;
            pod.metadata.uid = Some(format!("simulated-{}", self.uids));
        }
        let pod = Arc::new(PodInfo::new(Arc::new(pod)));
        if let Some(node) = pod.node_name() {
            let node: Arc<str> = Arc::from(node);
            self.snapshot.set_pod(pod, &node);
            return Ok(node);
        }
        let placed = match self.cycle(&pod) {
            Err(Failure::Unfit(mut diagnosis, state)) => match self.make_room(&pod, &state, &mut diagnosis) {
                true => self.cycle(&pod),
                false => Err(Failure::Unfit(diagnosis, state)),
            },
            other => other,
        };
        self.nominated.remove(&pod.uid);
        match placed {
            Ok(chosen) => {
                let node = Arc::clone(&self.snapshot.node(chosen.node).name);
                self.snapshot.set_pod(pod, &node);
                Ok(node)
            }
            Err(Failure::Unfit(diagnosis, _)) => Err(Unplaced::Unschedulable(diagnosis)),
            Err(Failure::Error(status)) => Err(Unplaced::Failed(status)),
        }
    }

    fn cycle(&mut self, pod: &PodInfo) -> Result<Chosen, Failure> {
        let cluster = Cluster { profile: &self.profile, snapshot: &self.snapshot, nominated: &self.nominated };
        let percent = self.profile.percentage_of_nodes_to_score.unwrap_or(0);
        cluster.schedule(pod, percent, &mut self.start, &mut self.random)
    }

    /// Runs PostFilter and evicts at once; whether there is room now.
    fn make_room(
        &mut self,
        pod: &Arc<PodInfo>,
        state: &crate::framework::CycleState,
        diagnosis: &mut Diagnosis,
    ) -> bool {
        if diagnosis.nodes == 0 {
            return false;
        }
        let offset = self.random.random_range(0..diagnosis.nodes);
        let cluster = Cluster { profile: &self.profile, snapshot: &self.snapshot, nominated: &self.nominated };
        let deallocated = Mutex::default();
        let context =
            PostFilterContext { pod, state, diagnosis, offset, cluster, proposals: None, deallocated, preempts: true };
        let (room, said) = cluster.post_filter(&context);
        self.deallocate(context.deallocated.into_inner());
        diagnosis.post_filter = said;
        let Some((node, victims)) = room else { return false };
        for victim in victims {
            self.snapshot.remove_pod(&victim.uid);
            self.evicted.push(victim);
        }
        self.nominated.insert(Arc::clone(pod), node);
        true
    }

    /// Takes back the allocation of a claim.
    fn deallocate(&mut self, claim: Option<Arc<ResourceClaim>>) {
        let Some(mut claim) = claim else { return };
        let name = |field: &Option<String>| field.clone().unwrap_or_default();
        let (namespace, name) = (name(&claim.metadata.namespace), name(&claim.metadata.name));
        if let Some(status) = &mut Arc::make_mut(&mut claim).status {
            (status.allocation, status.reserved_for) = (None, None);
        }
        self.snapshot.devices.set_claim(&namespace, &name, Some(claim));
    }

    /// The pods evicted since the last call.
    pub fn take_evicted(&mut self) -> Vec<Arc<PodInfo>> {
        std::mem::take(&mut self.evicted)
    }

    /// Removes a pod, by its uid.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        self.snapshot.remove_pod(uid)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, cpu: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}},
        }))
        .unwrap()
    }

    fn pod(name: &str, cpu: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        }))
        .unwrap()
    }

    #[test]
    fn pods_go_to_the_emptiest_node_until_all_are_full() {
        let mut cluster = Simulator::new(Profile::kubernetes("default-scheduler"), 1);
        cluster.set_node(node("small", "2"));
        cluster.set_node(node("big", "4"));
        assert_eq!(&*cluster.schedule(pod("a", "1")).unwrap(), "big");
        for i in 0..5 {
            cluster.schedule(pod(&i.to_string(), "1")).unwrap();
        }
        let refused = cluster.schedule(pod("late", "1")).unwrap_err().to_string();
        assert!(refused.starts_with("0/2 nodes are available: 2 Insufficient cpu."), "{refused}");
    }

    #[test]
    fn every_reason_is_counted() {
        let mut cluster = Simulator::new(Profile::kubernetes("default-scheduler"), 1);
        cluster.set_node(node("full", "100m"));
        let mut cordoned = node("cordoned", "8");
        cordoned.spec = serde_json::from_value(json!({"unschedulable": true})).unwrap();
        cluster.set_node(cordoned);
        for i in 0..2 {
            let mut tainted = node(&format!("tainted-{i}"), "8");
            tainted.spec = serde_json::from_value(json!({"taints": [{"key": "k", "effect": "NoSchedule"}]})).unwrap();
            cluster.set_node(tainted);
        }
        let refused = cluster.schedule(pod("a", "1")).unwrap_err().to_string();
        let said = "0/4 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable, \
                    2 node(s) had untolerated taint(s).";
        assert!(refused.starts_with(said), "{refused}");
    }
}
