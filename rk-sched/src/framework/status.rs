//! What plugins answer, and why no node would do.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::model::NodeIndex;

/// The kind of a plugin's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// Yes.
    Success,
    /// The plugin failed; the pod is tried again after its back-off.
    Error,
    /// No, but it could be yes once other pods are gone: preemption may help.
    Unschedulable,
    /// No, and other pods have nothing to do with it.
    UnschedulableAndUnresolvable,
    /// Permit: not yet.
    Wait,
    /// The plugin has nothing to do here (PreFilter, PreScore), or leaves it to the next (Bind).
    Skip,
    /// No, until something outside of the scheduler is done; the pod needs no back-off then.
    Pending,
}

/// A plugin's answer. Success and fixed reasons cost nothing to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    code: Code,
    first: Option<Cow<'static, str>>,
    more: Vec<Cow<'static, str>>,
    plugin: &'static str,
}

impl Status {
    /// A code without a reason.
    pub const fn new(code: Code) -> Self {
        Self { code, first: None, more: Vec::new(), plugin: "" }
    }

    /// Yes.
    pub const fn success() -> Self {
        Self::new(Code::Success)
    }

    /// Nothing to do.
    pub const fn skip() -> Self {
        Self::new(Code::Skip)
    }

    /// The plugin failed.
    pub fn error(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Error).because(reason)
    }

    /// No; preemption may help.
    pub fn unschedulable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unschedulable).because(reason)
    }

    /// No; preemption does not help.
    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::UnschedulableAndUnresolvable).because(reason)
    }

    /// Adds a reason.
    #[must_use]
    pub fn because(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        match self.first {
            None => self.first = Some(reason.into()),
            Some(_) => self.more.push(reason.into()),
        }
        self
    }

    /// The same reasons, but preemption does not help.
    #[must_use]
    pub fn made_unresolvable(mut self) -> Self {
        self.code = Code::UnschedulableAndUnresolvable;
        self
    }

    /// Names the plugin that answers; the framework does this for all answers that are no success.
    #[must_use]
    pub fn from_plugin(mut self, plugin: &'static str) -> Self {
        if self.plugin.is_empty() {
            self.plugin = plugin;
        }
        self
    }

    /// Names the plugin that answers, and where it failed says so in Kubernetes' words (those of `Run...Plugins` of
    /// `frameworkImpl`).
    #[must_use]
    pub(crate) fn failed_at(self, point: &str, plugin: &'static str) -> Self {
        let status = self.from_plugin(plugin);
        if status.code != Code::Error {
            return status;
        }
        let (plugin, text) = (status.plugin, status.message());
        let text = match point {
            "Filter" => format!("running {plugin:?} filter plugin: {text}"),
            "Score" => format!("running Score plugins: plugin {plugin:?} failed with: {text}"),
            "NormalizeScore" => format!("running Normalize on Score plugins: plugin {plugin:?} failed with: {text}"),
            point => format!("running {point} plugin {plugin:?}: {text}"),
        };
        Self::error(text).from_plugin(plugin)
    }

    /// The kind.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The plugin that answered, empty where it is not known.
    pub fn plugin(&self) -> &'static str {
        self.plugin
    }

    /// The reasons.
    pub fn reasons(&self) -> impl Iterator<Item = &str> {
        self.first.iter().chain(&self.more).map(Cow::as_ref)
    }

    /// All reasons as one text.
    pub fn message(&self) -> String {
        self.reasons().collect::<Vec<_>>().join(", ")
    }

    /// Whether it is yes.
    pub fn is_success(&self) -> bool {
        self.code == Code::Success
    }

    /// Whether it is [`Code::Skip`].
    pub fn is_skip(&self) -> bool {
        self.code == Code::Skip
    }

    /// Whether it is a no (and not a failure).
    pub fn is_rejected(&self) -> bool {
        matches!(self.code, Code::Unschedulable | Code::UnschedulableAndUnresolvable | Code::Pending)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.code)?;
        if self.first.is_some() { write!(f, ": {}", self.message()) } else { Ok(()) }
    }
}

/// Nodes that were refused, each with the answer it got. Equal answers are kept once: there are thousands of nodes, and few reasons.
#[derive(Debug, Clone, Default)]
pub struct Refusals {
    statuses: Vec<Status>,
    nodes: Vec<(NodeIndex, u32)>,
}

/// Answers further back than this are not looked at for an equal one.
const RECENT: usize = 16;

impl Refusals {
    /// Adds a node.
    pub fn push(&mut self, node: NodeIndex, status: Status) {
        let status = self.status(status);
        self.note(node, status);
    }

    /// The number of an answer.
    pub(super) fn status(&mut self, status: Status) -> u32 {
        let recent = self.statuses.iter().rev().take(RECENT).position(|known| *known == status);
        let at = recent.map_or(self.statuses.len(), |back| self.statuses.len() - 1 - back);
        if recent.is_none() {
            self.statuses.push(status);
        }
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// Adds a node with the answer of a number.
    pub(super) fn note(&mut self, node: NodeIndex, status: u32) {
        self.nodes.push((node, status));
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no node was refused.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The nodes with their answers.
    pub fn iter(&self) -> impl Iterator<Item = (NodeIndex, &Status)> {
        self.nodes.iter().map(|(node, status)| (*node, &self.statuses[*status as usize]))
    }

    /// The answer of a node.
    pub fn get(&self, node: NodeIndex) -> Option<&Status> {
        self.iter().find(|(known, _)| *known == node).map(|(_, status)| status)
    }

    /// The different answers, and how many nodes got each.
    pub fn counts(&self) -> impl Iterator<Item = (&Status, usize)> {
        let mut counts = vec![0; self.statuses.len()];
        self.nodes.iter().for_each(|(_, status)| counts[*status as usize] += 1);
        self.statuses.iter().zip(counts)
    }
}

/// Why a pod found no node.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    /// How many nodes there were.
    pub nodes: usize,
    /// The answers of the nodes that were tried.
    pub tried: Refusals,
    /// The answer for nodes that were left out.
    pub others: Status,
    /// The plugins that said no; events that may change their mind bring the pod back.
    pub plugins: BTreeSet<&'static str>,
    /// The plugins that said no until something outside is done ([`Code::Pending`]).
    pub pending: BTreeSet<&'static str>,
    /// What a PreFilter plugin said where it refused all nodes at once.
    pub pre_filter: String,
    /// What the PostFilter plugins said.
    pub post_filter: String,
}

impl Diagnosis {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            nodes,
            tried: Refusals::default(),
            others: Status::new(Code::UnschedulableAndUnresolvable),
            plugins: BTreeSet::new(),
            pending: BTreeSet::new(),
            pre_filter: String::new(),
            post_filter: String::new(),
        }
    }

    /// Of a pod that had a node, and that a Reserve, Permit or PreBind plugin refused there: the node is all that was tried
    /// (kube-scheduler's `FitError` with one node).
    pub(crate) fn of_chosen(status: Status) -> Self {
        let mut diagnosis = Self::new(1);
        diagnosis.blame(&status);
        diagnosis.others = status;
        diagnosis
    }

    /// Notes the plugins that refused the nodes that were tried.
    pub(crate) fn blame_tried(&mut self) {
        let statuses = std::mem::take(&mut self.tried.statuses);
        statuses.iter().for_each(|status| self.blame(status));
        self.tried.statuses = statuses;
    }

    /// Notes which plugin said no.
    pub(crate) fn blame(&mut self, status: &Status) {
        if status.plugin.is_empty() {
            return;
        }
        let set = if status.code == Code::Pending { &mut self.pending } else { &mut self.plugins };
        set.insert(status.plugin);
    }
}

impl fmt::Display for Diagnosis {
    /// Kubernetes' words (`FitError.Error`): `0/5 nodes are available: 3 Insufficient cpu, 2 node(s) ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if self.pre_filter.is_empty() {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for (status, nodes) in self.tried.counts() {
                for reason in status.reasons() {
                    *counts.entry(reason).or_default() += nodes;
                }
            }
            let left_out = self.nodes.saturating_sub(self.tried.len());
            if left_out > 0 {
                for reason in self.others.reasons() {
                    *counts.entry(reason).or_default() += left_out;
                }
            }
            // Sorted as texts, the number first, as Kubernetes has it.
            let mut parts: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            parts.sort();
            if !parts.is_empty() {
                write!(f, " {}.", parts.join(", "))?;
            }
        } else {
            write!(f, " {}.", self.pre_filter)?;
        }
        if self.post_filter.is_empty() { Ok(()) } else { write!(f, " {}", self.post_filter) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnosis_reads_as_in_kubernetes() {
        let mut diagnosis = Diagnosis::new(5);
        for node in 0..3 {
            diagnosis.tried.push(NodeIndex(node), Status::unschedulable("Insufficient cpu"));
        }
        for node in 3..5 {
            diagnosis.tried.push(NodeIndex(node), Status::unresolvable("node(s) had untolerated taint(s)"));
        }
        diagnosis.post_filter = "preemption: 0/5 nodes are available: 2 Preemption is not helpful for scheduling, \
             3 No preemption victims found for incoming pod."
            .to_owned();
        assert_eq!(
            diagnosis.to_string(),
            "0/5 nodes are available: 2 node(s) had untolerated taint(s), 3 Insufficient cpu. preemption: 0/5 nodes \
             are available: 2 Preemption is not helpful for scheduling, 3 No preemption victims found for incoming pod."
        );
        assert_eq!(Diagnosis::new(0).to_string(), "no nodes available to schedule pods");
    }

    #[test]
    fn equal_refusals_are_kept_once() {
        let mut refusals = Refusals::default();
        for node in 0..40 {
            refusals.push(NodeIndex(node), Status::unschedulable(format!("reason {}", node % 2)));
        }
        assert_eq!((refusals.len(), refusals.statuses.len()), (40, 2));
        assert_eq!(refusals.get(NodeIndex(7)), Some(&Status::unschedulable("reason 1")));
        assert_eq!(refusals.get(NodeIndex(40)), None);
        assert!(refusals.counts().all(|(_, nodes)| nodes == 20));
    }
}
