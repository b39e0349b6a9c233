//! A decision in full: what every plugin says of every node.

use std::{cmp::Reverse, fmt};

use serde::Serialize;

use super::Cluster;
use crate::{
    framework::{Code, CycleState, Diagnosis, Filter, NodeScore, Status},
    model::{NodeIndex, PodInfo},
    queue::Step,
};

/// Why a pod goes where it goes, or why it stays where it is: what the plugins of its profile say of each node, the nodes included
/// that its cycle had no need to look at.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Explanation {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The profile, by its `schedulerName`.
    pub profile: String,
    /// What was decided: `placed on NODE`, or the text of the pod's condition; empty where nothing was.
    pub decision: String,
    /// The word of a PreEnqueue plugin that keeps the pod from being tried.
    pub gate: Option<NodeRefusal>,
    /// The group that it is placed with, if there is one.
    pub group: Option<GroupExplanation>,
    /// The word of a PreFilter plugin that refused all nodes at once, or failed.
    pub refusal: Option<NodeRefusal>,
    /// Every node: first those that would do, the best before the others, then the rest by name.
    pub nodes: Vec<NodeExplanation>,
    /// What the pod went through in the queue, the oldest first.
    pub history: Vec<Step>,
}

/// A group of pods that are placed together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupExplanation {
    /// The PodGroup's name; it is in the pod's namespace.
    pub name: String,
    /// How many of its pods have to be on nodes for any to be; `None` for a group that is no gang.
    pub min_count: Option<usize>,
    /// How many pods it has.
    pub pods: usize,
    /// How many of those are on nodes.
    pub on_nodes: usize,
    /// What its condition `PodGroupScheduled` says: reason and message.
    pub condition: Option<String>,
}

/// What the plugins say of a node.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NodeExplanation {
    /// The node's name.
    pub node: String,
    /// Who refused it, the first to do so; `None` for a node that would do.
    pub refusal: Option<NodeRefusal>,
    /// The sum of the weighted scores, 0 for a node that would not do.
    pub total: i64,
    /// The score of each plugin that has a say on this pod.
    pub scores: Vec<PluginScore>,
}

/// A no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NodeRefusal {
    /// The plugin that said it.
    pub plugin: String,
    /// Why.
    pub reasons: Vec<String>,
    /// Whether it could be a yes once other pods are gone.
    pub preemption_may_help: bool,
    /// Whether the plugin failed, rather than refused.
    pub failed: bool,
}

/// What one plugin thinks of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PluginScore {
    /// The plugin.
    pub plugin: String,
    /// Its own score, on its own scale.
    pub raw: i64,
    /// The score on the common scale, from 0 to 100.
    pub score: i64,
    /// How many times it counts.
    pub weight: i64,
}

impl NodeRefusal {
    pub(crate) fn new(status: &Status) -> Self {
        Self {
            plugin: status.plugin().to_owned(),
            reasons: status.reasons().map(str::to_owned).collect(),
            preemption_may_help: status.code() == Code::Unschedulable,
            failed: !status.is_rejected(),
        }
    }
}

impl Cluster<'_> {
    /// Asks every plugin about every node, with no decision taken.
    pub(crate) fn explain(self, pod: &PodInfo) -> Explanation {
        let mut explanation = Explanation {
            namespace: pod.namespace.to_string(),
            name: pod.name.to_string(),
            profile: self.profile.scheduler_name().to_owned(),
            decision: String::new(),
            gate: None,
            group: None,
            refusal: None,
            nodes: Vec::new(),
            history: Vec::new(),
        };
        let mut state = CycleState::default();
        let mut diagnosis = Diagnosis::new(self.snapshot.len());
        let only = match self.pre_filter(&mut state, pod, &mut diagnosis) {
            Ok(only) => only,
            Err(failed) => {
                let status = failed.unwrap_or(diagnosis.others);
                explanation.refusal = Some(NodeRefusal::new(&status));
                return explanation;
            }
        };
        let filters = self.filters(&state);
        let (mut feasible, mut refused) = (Vec::new(), Vec::new());
        for (index, node) in self.snapshot.nodes() {
            let left_out = only.as_ref().is_some_and(|only| !only.contains(&index));
            let status = if left_out { diagnosis.others.clone() } else { self.verdict(&filters, &state, pod, index) };
            if status.is_success() {
                feasible.push(index);
            } else {
                let refusal = Some(NodeRefusal::new(&status));
                refused.push(NodeExplanation { node: node.name.to_string(), refusal, total: 0, scores: Vec::new() });
            }
        }
        match self.scores_by_plugin(&mut state, pod, &feasible) {
            Ok(scored) => explanation.nodes = scored,
            Err(status) => explanation.refusal = Some(NodeRefusal::new(&status)),
        }
        explanation.nodes.sort_by(|a, b| (Reverse(a.total), &a.node).cmp(&(Reverse(b.total), &b.node)));
        refused.sort_by(|a, b| a.node.cmp(&b.node));
        explanation.nodes.extend(refused);
        explanation
    }

    fn verdict(self, filters: &[&dyn Filter], state: &CycleState, pod: &PodInfo, index: NodeIndex) -> Status {
        self.fits_with(filters, state, pod, self.snapshot.node(index))
    }

    /// The nodes with what each Score plugin says of them.
    fn scores_by_plugin(
        self,
        state: &mut CycleState,
        pod: &PodInfo,
        feasible: &[NodeIndex],
    ) -> Result<Vec<NodeExplanation>, Status> {
        let named = |index: &NodeIndex| NodeExplanation {
            node: self.snapshot.node(*index).name.to_string(),
            refusal: None,
            total: 0,
            scores: Vec::new(),
        };
        let mut nodes: Vec<NodeExplanation> = feasible.iter().map(named).collect();
        self.pre_score(state, pod, feasible)?;
        for (at, enabled) in self.profile.enabled().iter().enumerate() {
            let Some((plugin, weight)) = &enabled.points.score else { continue };
            if state.skip_score.contains(at) {
                continue;
            }
            let mut scores = Vec::with_capacity(feasible.len());
            for index in feasible {
                let score = plugin.score(state, pod, self.snapshot.node(*index));
                scores.push(NodeScore {
                    node: *index,
                    score: score.map_err(|status| status.from_plugin(plugin.name()))?,
                });
            }
            let raw: Vec<i64> = scores.iter().map(|score| score.score).collect();
            plugin.normalize(state, pod, &mut scores).map_err(|status| status.from_plugin(plugin.name()))?;
            for ((node, score), raw) in nodes.iter_mut().zip(&scores).zip(raw) {
                node.total += score.score * weight;
                let plugin = plugin.name().to_owned();
                node.scores.push(PluginScore { plugin, raw, score: score.score, weight: *weight });
            }
        }
        Ok(nodes)
    }
}

impl fmt::Display for Explanation {
    /// A line for the pod, one for each step in the queue, and one for each node.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} (profile {})", self.namespace, self.name, self.profile)?;
        if !self.decision.is_empty() {
            write!(f, ": {}", self.decision)?;
        }
        if let Some(group) = &self.group {
            write!(f, "\n  {group}")?;
        }
        if let Some(gate) = &self.gate {
            write!(f, "\n  not tried: {gate}")?;
        }
        if let Some(refusal) = &self.refusal {
            write!(f, "\n  all nodes: {refusal}")?;
        }
        for step in &self.history {
            write!(f, "\n  {step}")?;
        }
        for node in &self.nodes {
            match &node.refusal {
                Some(refusal) => write!(f, "\n  {}: {refusal}", node.node)?,
                None => {
                    write!(f, "\n  {}: {} =", node.node, node.total)?;
                    let mut plus = " ";
                    for score in &node.scores {
                        write!(f, "{plus}{} {} × {}", score.plugin, score.score, score.weight)?;
                        plus = " + ";
                    }
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for GroupExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}: {} of {} pods on nodes", self.name, self.on_nodes, self.pods)?;
        if let Some(least) = self.min_count {
            write!(f, ", {least} together or none")?;
        }
        self.condition.as_ref().map_or(Ok(()), |condition| write!(f, "; {condition}"))
    }
}

impl fmt::Display for NodeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.failed { "failed" } else { "refused" };
        write!(f, "{} {verb}: {}", self.plugin, self.reasons.join(", "))
    }
}
