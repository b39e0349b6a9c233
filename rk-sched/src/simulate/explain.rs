//! The history of pods that somebody wants explained.

use std::{collections::HashMap, fmt::Write, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

use super::pods::{full_name, full_name_of};
use crate::engine::{Explanation, NodeExplanation, Placement, Refusal};

/// A decision on a pod.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explained {
    /// Seconds since the start.
    pub seconds: f64,
    /// What every plugin said of every node, and what the pod went through in the queue.
    pub decision: Explanation,
}

/// Of so many nodes that would do, the best ones, the scores are told in lines, and of so many others why they would not.
const NODES: usize = 8;

/// Lines of what happened, in order.
pub(super) struct History {
    pods: Vec<String>,
    lines: Vec<String>,
    decisions: Vec<Explained>,
    /// By pod: the time in the queue up to which its steps were told.
    told: HashMap<String, Duration>,
}

impl History {
    pub(super) fn new(pods: &[String]) -> Self {
        Self { pods: pods.to_vec(), lines: Vec::new(), decisions: Vec::new(), told: HashMap::new() }
    }

    /// Whether a pod is one of those, or in the place of one.
    pub(super) fn is_about(&self, pod: &Pod) -> bool {
        if self.pods.is_empty() {
            return false;
        }
        let name = full_name_of(pod);
        self.pods.iter().any(|wanted| {
            let behind = name.strip_prefix(wanted.as_str());
            behind.is_some_and(|behind| behind.is_empty() || is_restart(behind))
        })
    }

    pub(super) fn note(&mut self, now: Duration, pod: &Pod, what: &str) {
        self.line(now, &full_name_of(pod), what);
    }

    pub(super) fn refused(&mut self, now: Duration, refusal: &Refusal) {
        let mut what = format!("attempt {}: {}: {}", refusal.attempts, refusal.reason(), refusal.message());
        if let Some(eviction) = &refusal.eviction {
            let victims: Vec<&str> = eviction.victims.iter().map(|victim| victim.name.as_ref()).collect();
            // Writing to a String does not fail.
            let _ = write!(what, " Room is being made on {} by preempting {}.", eviction.node, victims.join(", "));
        }
        self.line(now, &full_name_of(&refusal.pod.pod), &what);
    }

    pub(super) fn placed(&mut self, now: Duration, placement: &Placement) {
        let what = format!("attempt {}: placed on {}", placement.attempts, placement.node);
        self.line(now, &full_name_of(&placement.pod.pod), &what);
    }

    fn line(&mut self, now: Duration, pod: &str, what: &str) {
        self.lines.push(format!("{:.3} s  {pod}  {what}", now.as_secs_f64()));
    }

    /// A decision in full: what has happened in the queue since the last one, and what the plugins say of the nodes.
    pub(super) fn decided(&mut self, now: Duration, decision: &Explanation) {
        let pod = full_name(&decision.namespace, &decision.name);
        let told = self.told.insert(pod, decision.history.last().map(|step| step.after).unwrap_or_default());
        let new = decision.history.iter().filter(|step| told.is_none_or(|told| step.after > told));
        self.lines.extend(new.map(|step| format!("{INDENT}in the queue {step}")));
        if let Some(refusal) = &decision.refusal {
            self.lines.push(format!("{INDENT}all nodes: {refusal}"));
        }
        let (fit, unfit): (Vec<_>, Vec<_>) = decision.nodes.iter().partition(|node| node.refusal.is_none());
        for nodes in [fit, unfit] {
            self.lines.extend(nodes.iter().take(NODES).map(|node| format!("{INDENT}{}", of_node(node))));
            if let Some(more @ 1..) = nodes.len().checked_sub(NODES) {
                let what = if nodes[0].refusal.is_none() { "would do" } else { "would not" };
                self.lines.push(format!("{INDENT}{more} more nodes {what}"));
            }
        }
        self.decisions.push(Explained { seconds: now.as_secs_f64(), decision: decision.clone() });
    }

    /// The lines, and the decisions in full.
    pub(super) fn finish(self) -> (Vec<String>, Vec<Explained>) {
        (self.lines, self.decisions)
    }
}

/// Before what belongs to the line above.
const INDENT: &str = "    ";

/// What the plugins say of a node: `n1: 265 = NodeResourcesFit 65 (raw 65, 65 × 1) + ...`.
fn of_node(node: &NodeExplanation) -> String {
    if let Some(refusal) = &node.refusal {
        return format!("{}: {refusal}", node.node);
    }
    let score = |of: &crate::engine::PluginScore| {
        format!("{} {} (raw {}, {} × {})", of.plugin, of.score * of.weight, of.raw, of.score, of.weight)
    };
    let scores: Vec<String> = node.scores.iter().map(score).collect();
    format!("{}: {} = {}", node.node, node.total, scores.join(" + "))
}

/// Whether this is what is added to the name of a pod that takes the place of another.
fn is_restart(text: &str) -> bool {
    text.strip_prefix("-r").is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}
