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

/// Why a pod found no node.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    /// How many nodes there were.
    pub nodes: usize,
    /// The answers of the nodes that were tried.
    pub tried: Vec<(NodeIndex, Status)>,
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
            tried: Vec::new(),
            others: Status::new(Code::UnschedulableAndUnresolvable),
            plugins: BTreeSet::new(),
            pending: BTreeSet::new(),
            pre_filter: String::new(),
            post_filter: String::new(),
        }
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
            for reason in self.tried.iter().flat_map(|(_, status)| status.reasons()) {
                *counts.entry(reason).or_default() += 1;
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
            diagnosis.tried.push((NodeIndex(node), Status::unschedulable("Insufficient cpu")));
        }
        for node in 3..5 {
            diagnosis.tried.push((NodeIndex(node), Status::unresolvable("node(s) had untolerated taint(s)")));
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
}
