//! What a profile decides about a pod, point by point: for tables of decisions.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use crate::{
    cycle::{Cluster, Failure, Nominated},
    framework::{ClusterEvent, CycleState, Diagnosis, PostFilterContext, Profile, Status},
    model::{NodeIndex, PodInfo, Snapshot},
    queue::{Queue, Waits},
};

/// A profile and a cluster, to ask for decisions. Nothing changes by being asked.
///
/// ```
/// use std::sync::Arc;
///
/// use rk_sched::{Profile, model::{PodInfo, Snapshot}, testing::Decisions};
///
/// let mut cluster = Snapshot::default();
/// let node = serde_json::from_value(serde_json::json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true}}))?;
/// cluster.set_node(Arc::new(node));
/// let profile = Profile::kubernetes("default-scheduler");
/// let pod = PodInfo::new(Arc::default());
/// let answers = Decisions::new(&profile, &cluster).filter(&pod).unwrap();
/// assert_eq!(answers["n"].message(), "node(s) were unschedulable");
/// # Ok::<(), serde_json::Error>(())
/// ```
pub struct Decisions<'a> {
    profile: &'a Profile,
    snapshot: &'a Snapshot,
    nominated: Nominated,
}

/// How a pod's scheduling cycle ends.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Decision {
    /// The pod gets this node.
    Node(Arc<str>),
    /// The pod gets this node once these pods have gone.
    Room(Arc<str>, Vec<Arc<PodInfo>>),
    /// No node would do.
    Unschedulable(Box<Diagnosis>),
    /// A plugin failed.
    Failed(Status),
}

impl<'a> Decisions<'a> {
    /// Decisions of a profile on a cluster.
    pub fn new(profile: &'a Profile, snapshot: &'a Snapshot) -> Self {
        Self { profile, snapshot, nominated: Nominated::default() }
    }

    /// Room on a node is promised to a pod that is not there yet (`status.nominatedNodeName`).
    pub fn promise(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.nominated.insert(pod, Arc::from(node));
    }

    fn cluster(&self) -> Cluster<'_> {
        Cluster { profile: self.profile, snapshot: self.snapshot, nominated: &self.nominated }
    }

    fn names<T>(&self, of: impl IntoIterator<Item = (NodeIndex, T)>) -> BTreeMap<Arc<str>, T> {
        of.into_iter().map(|(index, value)| (Arc::clone(&self.snapshot.node(index).name), value)).collect()
    }

    /// What PreEnqueue says: the first word against the pod, or success.
    pub fn pre_enqueue(&self, pod: &PodInfo) -> Status {
        let plugins = self.profile.enabled().iter().filter_map(|enabled| enabled.points.pre_enqueue.as_ref());
        plugins
            .map(|plugin| plugin.pre_enqueue(pod, self.snapshot))
            .find(|status| !status.is_success())
            .unwrap_or(Status::success())
    }

    /// What PreFilter and Filter say of each node, by its name: success, or the first word against it. Where PreFilter refuses
    /// all nodes, each has its word.
    ///
    /// # Errors
    /// A plugin failed.
    pub fn filter(&self, pod: &PodInfo) -> Result<BTreeMap<Arc<str>, Status>, Status> {
        let cluster = self.cluster();
        let (mut state, mut diagnosis) = (CycleState::default(), Diagnosis::new(self.snapshot.len()));
        let only = match cluster.pre_filter(&mut state, pod, &mut diagnosis) {
            Ok(only) => only,
            Err(Some(failure)) => return Err(failure),
            Err(None) => {
                return Ok(self.names(self.snapshot.nodes().map(|(index, _)| (index, diagnosis.others.clone()))));
            }
        };
        let filters = cluster.filters(&state);
        let answer = |index: NodeIndex| match &only {
            Some(only) if !only.contains(&index) => diagnosis.others.clone(),
            _ => cluster.fits_with(&filters, &state, pod, self.snapshot.node(index)),
        };
        let answers = self.names(self.snapshot.nodes().map(|(index, _)| (index, answer(index))));
        match answers.values().find(|status| !status.is_success() && !status.is_rejected()) {
            Some(failure) => Err(failure.clone()),
            None => Ok(answers),
        }
    }

    /// The weighted sums of the scores of these nodes after normalizing, by name. Unknown names have none.
    ///
    /// # Errors
    /// A plugin failed.
    pub fn score(&self, pod: &PodInfo, nodes: &[&str]) -> Result<BTreeMap<Arc<str>, i64>, Status> {
        let cluster = self.cluster();
        let (mut state, mut diagnosis) = (CycleState::default(), Diagnosis::new(self.snapshot.len()));
        match cluster.pre_filter(&mut state, pod, &mut diagnosis) {
            Ok(_) => {}
            Err(status) => return Err(status.unwrap_or(diagnosis.others)),
        }
        let feasible: Vec<NodeIndex> = nodes.iter().filter_map(|name| self.snapshot.find(name)).collect();
        // Some plugins score what their Filter found.
        let filters = cluster.filters(&state);
        for index in &feasible {
            cluster.fits_with(&filters, &state, pod, self.snapshot.node(*index));
        }
        let scores = cluster.score(&mut state, pod, &feasible)?;
        Ok(self.names(scores.into_iter().map(|score| (score.node, score.score))))
    }

    /// The whole cycle, PostFilter included. The seed decides between equals.
    pub fn schedule(&self, pod: &Arc<PodInfo>, seed: u64) -> Decision {
        let cluster = self.cluster();
        let mut random = StdRng::seed_from_u64(seed);
        match cluster.schedule(pod, 100, &mut 0, &mut random) {
            Ok(chosen) => Decision::Node(Arc::clone(&self.snapshot.node(chosen.node).name)),
            Err(Failure::Error(status)) => Decision::Failed(status),
            Err(Failure::Unfit(mut diagnosis, state)) => {
                if diagnosis.nodes == 0 {
                    return Decision::Unschedulable(diagnosis);
                }
                let offset = random.random_range(0..diagnosis.nodes);
                let deallocated = Default::default();
                let context = PostFilterContext {
                    pod,
                    state: &state,
                    diagnosis: &diagnosis,
                    offset,
                    cluster,
                    proposals: None,
                    deallocated,
                    preempts: true,
                };
                let (room, said) = cluster.post_filter(&context);
                diagnosis.post_filter = said;
                room.map_or(Decision::Unschedulable(diagnosis), |(node, victims)| Decision::Room(node, victims))
            }
        }
    }

    /// Whether a pod that the plugins of this profile refused is tried again after an event.
    pub fn wakes(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        self.profile.hint(self.profile.enabled().iter().map(|enabled| enabled.plugin.name()), pod, event)
    }
}

/// A profile with only one of the plugins of another.
pub fn only(profile: &Profile, plugin: &str) -> Profile {
    let names = profile.enabled().iter().map(|enabled| enabled.plugin.name()).filter(|name| *name != plugin);
    names.fold(profile.clone(), |profile, name| profile.without(name))
}

/// The names of pods in the order in which a profile tries them, where they arrived in the order given; those that PreEnqueue keeps
/// out are left out.
pub fn queued(profile: &Profile, pods: Vec<Arc<PodInfo>>) -> Vec<String> {
    let profile = Arc::new(profile.clone());
    let sort = Arc::clone(profile.queue_sort());
    let never = Duration::from_secs(u64::from(u32::MAX));
    let waits = Waits { initial_backoff: never, max_backoff: never, unschedulable: never };
    let profiles = HashMap::from([(profile.scheduler_name().to_owned(), profile)]);
    let mut queue = Queue::new(Arc::new(profiles), sort, waits);
    let (mut now, nothing) = (Instant::now(), Snapshot::default());
    for pod in pods {
        now += Duration::from_millis(1);
        queue.add(pod, &nothing, now);
    }
    std::iter::from_fn(|| queue.pop(&nothing, now)).map(|queued| queued.pod.name.to_string()).collect()
}
