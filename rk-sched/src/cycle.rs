//! The scheduling cycle of one pod: from the pod and the snapshot to a node, or to why there is none.

mod explain;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use rand::{RngExt, rngs::StdRng};

use crate::{
    framework::{
        Candidates, Code, CycleState, Diagnosis, Filter, NodeScore, PostFilterContext, Profile, Refusals, Status,
    },
    model::{NodeIndex, NodeInfo, PodInfo, Snapshot},
    plugins::GangScheduling,
};

pub use self::explain::{Explanation, GroupExplanation, NodeExplanation, NodeRefusal, PluginScore};

/// A node for a pod.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) node: NodeIndex,
    pub(crate) state: CycleState,
}

/// The only nodes that are tried.
#[derive(Debug, Clone)]
pub(crate) struct Within {
    pub(crate) nodes: BTreeSet<NodeIndex>,
    /// What is said of the others.
    pub(crate) reason: String,
}

impl Within {
    /// Those of the nodes that are tried; `None` is all nodes.
    fn limit(&self, nodes: Option<Vec<NodeIndex>>) -> Vec<NodeIndex> {
        match nodes {
            Some(nodes) => nodes.into_iter().filter(|index| self.nodes.contains(index)).collect(),
            None => self.nodes.iter().copied().collect(),
        }
    }
}

/// The nodes that would do for a pod, before they are compared.
#[derive(Debug)]
pub(crate) struct Found {
    /// One at least.
    pub(crate) nodes: Vec<NodeIndex>,
    pub(crate) state: CycleState,
    pub(crate) diagnosis: Box<Diagnosis>,
}

/// Why a pod got no node.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No node would do; the state is for PostFilter.
    Unfit(Box<Diagnosis>, CycleState),
    /// A plugin failed.
    Error(Status),
}

/// A node on which there is room once these pods have gone.
pub(crate) type Room = (Arc<str>, Vec<Arc<PodInfo>>);

/// Kubernetes' bounds of how many nodes are enough: at least 100, and 5 percent.
const MIN_FEASIBLE: usize = 100;
const MIN_PERCENT: usize = 5;

/// How many nodes have to fit before no more are tried (`numFeasibleNodesToFind`). 0 percent is adaptive: 50 for small
/// clusters, 5 for those of thousands of nodes.
pub(crate) fn enough(nodes: usize, percent: u8) -> usize {
    if nodes < MIN_FEASIBLE {
        return nodes;
    }
    let percent = match usize::from(percent) {
        0 => 50_usize.saturating_sub(nodes / 125).max(MIN_PERCENT),
        percent => percent,
    };
    if percent >= 100 { nodes } else { (nodes * percent / 100).max(MIN_FEASIBLE) }
}

/// Pods that have been promised room on a node, where other pods are making it.
#[derive(Debug, Default)]
pub(crate) struct Nominated {
    by_node: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
    nodes: HashMap<Arc<str>, Arc<str>>,
    /// How many of the pods have each priority.
    priorities: BTreeMap<i32, usize>,
}

impl Nominated {
    /// Promises room; an earlier promise to the pod is void.
    pub(crate) fn insert(&mut self, pod: Arc<PodInfo>, node: Arc<str>) {
        self.remove(&pod.uid);
        self.nodes.insert(Arc::clone(&pod.uid), Arc::clone(&node));
        *self.priorities.entry(pod.priority).or_default() += 1;
        self.by_node.entry(node).or_default().push(pod);
    }

    /// The pod is placed or gone, or has no promise any more; answers the pod if it had one.
    pub(crate) fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let node = self.nodes.remove(uid)?;
        let pods = self.by_node.get_mut(&node)?;
        let pod = pods.remove(pods.iter().position(|pod| pod.uid.as_ref() == uid)?);
        if pods.is_empty() {
            self.by_node.remove(&node);
        }
        if let Some(count) = self.priorities.get_mut(&pod.priority) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&pod.priority);
            }
        }
        Some(pod)
    }

    /// The node promised to a pod.
    pub(crate) fn node_of(&self, uid: &str) -> Option<&Arc<str>> {
        self.nodes.get(uid)
    }

    /// The pod of this uid, if it is promised a node.
    pub(crate) fn pod(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.on(self.nodes.get(uid)?).iter().find(|pod| *pod.uid == *uid)
    }

    /// Whether room is promised, anywhere, to other pods that matter as much as this one.
    fn any_matters(&self, pod: &PodInfo) -> bool {
        let own = usize::from(self.nodes.contains_key(&pod.uid));
        let mut matter = 0;
        self.priorities.range(pod.priority..).any(|(_, count)| {
            matter += count;
            matter > own
        })
    }

    /// Whether room on a node is promised to other pods that matter as much as this one.
    fn is_contested(&self, node: &str, pod: &PodInfo) -> bool {
        self.on(node).iter().any(|other| matters(other, pod))
    }

    /// Pods promised room on a node.
    fn on(&self, node: &str) -> &[Arc<PodInfo>] {
        self.by_node.get(node).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Whether room that is promised to another pod is out of this one's reach.
fn matters(other: &PodInfo, pod: &PodInfo) -> bool {
    other.priority >= pod.priority && other.uid != pod.uid
}

/// What is tried against.
#[derive(Clone, Copy)]
pub(crate) struct Cluster<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) nominated: &'a Nominated,
}

impl Cluster<'_> {
    /// Runs the cycle. `start` is where the last one stopped trying nodes; it moves on.
    pub(crate) fn schedule(
        self,
        pod: &PodInfo,
        percent: u8,
        start: &mut usize,
        random: &mut StdRng,
    ) -> Result<Chosen, Failure> {
        let found = self.find(pod, percent, start, true, None)?;
        self.choose(pod, found, |_| 0, random)
    }

    /// Finds the nodes that would do, up to PreScore. A node that was promised to the pod is tried alone first, unless `promised` is false.
    pub(crate) fn find(
        self,
        pod: &PodInfo,
        percent: u8,
        start: &mut usize,
        promised: bool,
        within: Option<&Within>,
    ) -> Result<Found, Failure> {
        let mut state = CycleState::default();
        let mut diagnosis = Diagnosis::new(self.snapshot.len());
        if self.snapshot.is_empty() {
            return Err(Failure::Unfit(Box::new(diagnosis), state));
        }
        let nodes = match self.pre_filter(&mut state, pod, &mut diagnosis) {
            Ok(nodes) => match within {
                Some(within) => {
                    diagnosis.others = Status::unresolvable(within.reason.clone());
                    Some(within.limit(nodes))
                }
                None => nodes,
            },
            Err(Some(error)) => return Err(Failure::Error(error)),
            Err(None) => return Err(Failure::Unfit(Box::new(diagnosis), state)),
        };
        let promised = promised.then(|| self.promised(pod)).flatten();
        let feasible = self.filter(&state, pod, nodes, promised, (percent, start), &mut diagnosis);
        let nodes = feasible.map_err(Failure::Error)?;
        if nodes.is_empty() {
            diagnosis.blame_tried();
            return Err(Failure::Unfit(Box::new(diagnosis), state));
        }
        Ok(Found { nodes, state, diagnosis: Box::new(diagnosis) })
    }

    /// Chooses one of the nodes that would do. `more` is added to the scores of the plugins.
    pub(crate) fn choose(
        self,
        pod: &PodInfo,
        found: Found,
        more: impl Fn(NodeIndex) -> i64,
        random: &mut StdRng,
    ) -> Result<Chosen, Failure> {
        let Found { nodes, mut state, .. } = found;
        let node = match nodes[..] {
            [node] => node,
            _ => {
                let mut scores = self.score(&mut state, pod, &nodes).map_err(Failure::Error)?;
                for score in &mut scores {
                    score.score = score.score.saturating_add(more(score.node));
                }
                best(&scores, random)
            }
        };
        state.end_of_cycle();
        Ok(Chosen { node, state })
    }

    /// Runs PreFilter. The nodes to try, `None` for all.
    pub(crate) fn pre_filter(
        self,
        state: &mut CycleState,
        pod: &PodInfo,
        diagnosis: &mut Diagnosis,
    ) -> Result<Option<Vec<NodeIndex>>, Option<Status>> {
        let mut only: Option<BTreeSet<Arc<str>>> = None;
        let mut limiting = Vec::new();
        for (index, enabled) in self.profile.enabled().iter().enumerate() {
            let Some(plugin) = &enabled.points.pre_filter else { continue };
            match plugin.pre_filter(state, pod, self.snapshot) {
                Ok(None) => {}
                Ok(Some(names)) => {
                    limiting.push(plugin.name());
                    let names: BTreeSet<_> = names.into_iter().collect();
                    let both = only.map_or_else(|| names.clone(), |only| only.intersection(&names).cloned().collect());
                    if both.is_empty() {
                        return Err(none_left(limiting, diagnosis));
                    }
                    only = Some(both);
                }
                Err(status) if status.is_skip() => state.skip_filter.insert(index),
                Err(status) if status.is_rejected() => {
                    let status = status.from_plugin(plugin.name());
                    diagnosis.blame(&status);
                    diagnosis.pre_filter = status.message();
                    diagnosis.others = status;
                    return Err(None);
                }
                Err(status) => {
                    return Err(Some(status.failed_at("PreFilter", plugin.name())));
                }
            }
        }
        let Some(only) = only else { return Ok(None) };
        limiting.sort_unstable();
        diagnosis.others = Status::unresolvable(format!("node(s) didn't satisfy plugin(s) [{}]", limiting.join(" ")));
        diagnosis.plugins.extend(limiting);
        Ok(Some(only.iter().filter_map(|name| self.snapshot.find(name)).collect()))
    }

    /// The node that was promised to a pod.
    pub(crate) fn promised(self, pod: &PodInfo) -> Option<NodeIndex> {
        let name = self.nominated.node_of(&pod.uid).map(AsRef::as_ref).or(pod.nominated_node_name());
        name.and_then(|name| self.snapshot.find(name))
    }

    /// Runs Filter on nodes until enough fit.
    fn filter(
        self,
        state: &CycleState,
        pod: &PodInfo,
        only: Option<Vec<NodeIndex>>,
        promised: Option<NodeIndex>,
        (percent, start): (u8, &mut usize),
        diagnosis: &mut Diagnosis,
    ) -> Result<Vec<NodeIndex>, Status> {
        let filters = self.filters(state);
        let contested = self.nominated.any_matters(pod);
        let mut try_nodes = |nodes| self.try_nodes(&filters, state, pod, nodes, contested, &mut diagnosis.tried);
        // A promised node goes before all others, so that the room made is used.
        let promised = promised.filter(|index| only.as_ref().is_none_or(|only| only.contains(index)));
        if let Some(index) = promised {
            let feasible = try_nodes(vec![index])?;
            if !feasible.is_empty() {
                return Ok(feasible);
            }
        }
        let order = only.as_deref().unwrap_or(self.snapshot.order());
        if order.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = enough(order.len(), percent);
        let first = *start % order.len();
        let mut feasible = Vec::with_capacity(wanted);
        let mut tried = 0;
        // As many at once as could be enough: one by one would end no sooner.
        while tried < order.len() && feasible.len() < wanted {
            let from = (first + tried) % order.len();
            let most = (wanted - feasible.len()).min(order.len() - tried);
            let nodes = &order[from..order.len().min(from + most)];
            tried += nodes.len();
            if only.is_none() {
                // Where a plugin fails too, so that the next try begins with other nodes.
                *start = (first + tried) % order.len();
            }
            feasible.extend(try_nodes(nodes.iter().copied().filter(|index| Some(*index) != promised).collect())?);
        }
        Ok(feasible)
    }

    /// Runs Filter on these nodes: those that fit.
    fn try_nodes(
        self,
        filters: &[&dyn Filter],
        state: &CycleState,
        pod: &PodInfo,
        mut nodes: Vec<NodeIndex>,
        contested: bool,
        refusals: &mut Refusals,
    ) -> Result<Vec<NodeIndex>, Status> {
        let mut apart = Vec::new();
        if contested {
            nodes.retain(|index| {
                let alone = !self.nominated.is_contested(&self.snapshot.node(*index).name, pod);
                if !alone {
                    apart.push(*index);
                }
                alone
            });
        }
        let mut fitting = Vec::new();
        for index in apart {
            let status = self.fits_with(filters, state, pod, self.snapshot.node(index));
            if status.is_success() {
                fitting.push(index);
            } else if status.is_rejected() {
                refusals.push(index, status);
            } else {
                return Err(status);
            }
        }
        let mut candidates = Candidates::new(self.snapshot, nodes, refusals);
        for filter in filters {
            if candidates.nodes().is_empty() {
                break;
            }
            candidates.turn_of(filter.name());
            filter.filter_batch(state, pod, &mut candidates);
        }
        let mut feasible = candidates.finish()?;
        feasible.extend(fitting);
        Ok(feasible)
    }

    /// The filters that have something to do in this cycle.
    pub(crate) fn filters(&self, state: &CycleState) -> Vec<&dyn Filter> {
        let enabled = self.profile.enabled().iter().enumerate();
        enabled
            .filter(|(index, _)| !state.skip_filter.contains(*index))
            .filter_map(|(_, enabled)| enabled.points.filter.as_deref())
            .collect()
    }

    /// Whether the pod fits a node: with the pods that were promised room there if they matter as much as it does, and without
    /// them, as they may not come (`RunFilterPluginsWithNominatedPods`).
    pub(crate) fn fits_with(
        &self,
        filters: &[&dyn Filter],
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Status {
        let promised = self.nominated.on(&node.name);
        // Nobody knows when a pod is tried that its group holds back: until then the room is anybody's.
        let held = |other: &PodInfo| self.snapshot.groups.hold_back(other) && self.profile.has(GangScheduling::NAME);
        let counts = |other: &&Arc<PodInfo>| matters(other, pod) && !held(other);
        let mut matter = promised.iter().filter(counts).peekable();
        if matter.peek().is_some() {
            let (mut state, mut node) = (state.clone(), node.clone());
            for other in matter {
                node.add_pod(Arc::clone(other), crate::model::ClassId::MAX);
                self.add_pod(&mut state, pod, other, &node);
            }
            let status = run(filters, &state, pod, &node);
            if !status.is_success() {
                return status;
            }
        }
        run(filters, state, pod, node)
    }

    /// Tells the plugins that a pod is to be thought of as on the node.
    pub(crate) fn add_pod(&self, state: &mut CycleState, pod: &PodInfo, added: &PodInfo, node: &NodeInfo) {
        for plugin in self.profile.enabled().iter().filter_map(|enabled| enabled.points.pre_filter.as_ref()) {
            plugin.add_pod(state, pod, added, node);
        }
    }

    /// Tells the plugins that a pod is to be thought of as gone from the node.
    pub(crate) fn remove_pod(&self, state: &mut CycleState, pod: &PodInfo, removed: &PodInfo, node: &NodeInfo) {
        for plugin in self.profile.enabled().iter().filter_map(|enabled| enabled.points.pre_filter.as_ref()) {
            plugin.remove_pod(state, pod, removed, node);
        }
    }

    /// Runs PostFilter: a node with the pods to evict there, and what the plugins said that found none.
    pub(crate) fn post_filter(&self, context: &PostFilterContext<'_>) -> (Option<Room>, String) {
        let mut said = Vec::new();
        for plugin in self.profile.enabled().iter().filter_map(|enabled| enabled.points.post_filter.as_ref()) {
            let status = match plugin.post_filter(context) {
                Ok(room) => return (Some(room), String::new()),
                Err(status) => status,
            };
            if !status.message().is_empty() {
                said.push(status.message());
            }
            if status.code() == Code::UnschedulableAndUnresolvable {
                break;
            }
        }
        (None, said.join(", "))
    }

    /// Runs PreScore.
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, feasible: &[NodeIndex]) -> Result<(), Status> {
        for (index, enabled) in self.profile.enabled().iter().enumerate() {
            let Some(plugin) = &enabled.points.pre_score else { continue };
            let status = plugin.pre_score(state, pod, self.snapshot, feasible);
            if status.is_skip() {
                state.skip_score.insert(index);
            } else if !status.is_success() {
                return Err(status.failed_at("PreScore", plugin.name()));
            }
        }
        Ok(())
    }

    /// Runs PreScore and Score: the weighted sums.
    pub(crate) fn score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        feasible: &[NodeIndex],
    ) -> Result<Vec<NodeScore>, Status> {
        self.pre_score(state, pod, feasible)?;
        let mut totals: Vec<NodeScore> = feasible.iter().map(|node| NodeScore { node: *node, score: 0 }).collect();
        let mut scores = totals.clone();
        for (index, enabled) in self.profile.enabled().iter().enumerate() {
            let Some((plugin, weight)) = &enabled.points.score else { continue };
            if state.skip_score.contains(index) {
                continue;
            }
            let named = |status: Status| status.failed_at("Score", plugin.name());
            plugin.score_batch(state, pod, self.snapshot, &mut scores).map_err(named)?;
            let normalized = plugin.normalize(state, pod, &mut scores);
            normalized.map_err(|status| status.failed_at("NormalizeScore", plugin.name()))?;
            for (total, score) in totals.iter_mut().zip(&scores) {
                if !(crate::framework::MIN_SCORE..=crate::framework::MAX_SCORE).contains(&score.score) {
                    let reason = format!(
                        "applying score defaultWeights on Score plugins: plugin {:?} returns an invalid score {}, it \
                         should in the range of [0, 100] after normalizing",
                        plugin.name(),
                        score.score
                    );
                    return Err(Status::error(reason).from_plugin(plugin.name()));
                }
                total.score += score.score * weight;
            }
        }
        Ok(totals)
    }
}

/// PreFilter plugins that name nodes leave none together.
fn none_left(mut plugins: Vec<&'static str>, diagnosis: &mut Diagnosis) -> Option<Status> {
    plugins.sort_unstable();
    diagnosis.pre_filter = match plugins[..] {
        [plugin] => format!("node(s) didn't satisfy plugin {plugin}"),
        _ => format!("node(s) didn't satisfy plugin(s) [{}] simultaneously", plugins.join(" ")),
    };
    diagnosis.others = Status::unresolvable(diagnosis.pre_filter.clone());
    diagnosis.plugins.extend(plugins);
    None
}

fn run(filters: &[&dyn Filter], state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Status {
    for filter in filters {
        let status = filter.filter(state, pod, node);
        if !status.is_success() {
            return status.failed_at("Filter", filter.name());
        }
    }
    Status::success()
}

/// One of the nodes with the highest score, all alike likely.
fn best(scores: &[NodeScore], random: &mut StdRng) -> NodeIndex {
    let highest = scores.iter().map(|score| score.score).max().unwrap_or_default();
    let mut among = scores.iter().filter(|score| score.score == highest);
    let ties = among.clone().count();
    let at = if ties > 1 { random.random_range(0..ties) } else { 0 };
    among.nth(at).expect("the highest score is one of them").node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_clusters_try_fewer_nodes() {
        // The values of Kubernetes' TestNumFeasibleNodesToFind.
        let cases = [(0, 10, 10), (40, 10, 10), (0, 1000, 420), (40, 1000, 400), (0, 6000, 300), (40, 6000, 2400)];
        for (percent, nodes, found) in cases {
            assert_eq!(enough(nodes, percent), found, "{nodes} nodes, {percent} %");
        }
        assert_eq!(enough(100, 1), 100);
        assert_eq!(enough(5000, 100), 5000);
    }
}
