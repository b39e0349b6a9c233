//! Parties outside of the scheduler that take part in its decisions.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;

use crate::model::PodInfo;

/// The highest score that an extender gives (`MaxExtenderPriority`); the lowest is 0.
pub const MAX_EXTENDER_SCORE: i64 = 10;

/// Takes part in decisions from outside: it is asked after the filters which of the nodes that fit do, beside the Score plugins for scores,
/// after preemption which of its proposals stand, and it may bind pods in place of the Bind plugins.
///
/// Kubernetes' extenders are HTTP servers (`HttpExtender`, feature `extender`). The scheduler waits for the answers between cycles,
/// as kube-scheduler does; pods that no extender is interested in wait for none.
#[async_trait]
pub trait Extender: Send + Sync + 'static {
    /// Its name, such as its URL.
    fn name(&self) -> &str;

    /// Whether it is asked about a pod at all.
    fn is_interested(&self, _pod: &PodInfo) -> bool {
        true
    }

    /// Whether scheduling goes on without it where it fails.
    fn is_ignorable(&self) -> bool {
        false
    }

    /// What it takes part in.
    fn parts(&self) -> ExtenderParts;

    /// Which of the nodes, that fit otherwise, do.
    ///
    /// # Errors
    /// It could not be asked, or failed. The pod is tried again, unless the extender is ignorable.
    async fn filter(&self, _pod: &PodInfo, nodes: &[Arc<Node>]) -> Result<ExtenderFilter, ExtenderError> {
        let names = nodes.iter().filter_map(|node| node.metadata.name.clone());
        Ok(ExtenderFilter { nodes: names.collect(), ..ExtenderFilter::default() })
    }

    /// Scores of nodes by name, from 0 to [`MAX_EXTENDER_SCORE`]. They are multiplied by [`Extender::weight`] and added to those of the plugins.
    ///
    /// # Errors
    /// It could not be asked, or failed. Then it has no say.
    async fn prioritize(&self, _pod: &PodInfo, _nodes: &[Arc<Node>]) -> Result<Vec<(String, i64)>, ExtenderError> {
        Ok(Vec::new())
    }

    /// What its scores are multiplied by.
    fn weight(&self) -> i64 {
        1
    }

    /// Which of the proposals, one per node, stand. It may leave nodes out and change who has to go there. It is not asked who goes for a
    /// group of pods, as in Kubernetes 1.36, but which nodes do for them once those have gone ([`Extender::filter`]).
    ///
    /// # Errors
    /// It could not be asked, or failed. No pod is preempted then, unless the extender is ignorable.
    async fn preempt(&self, _pod: &PodInfo, proposals: &[NodeVictims]) -> Result<Vec<VictimIds>, ExtenderError> {
        let ids = |proposal: &NodeVictims| VictimIds {
            node: proposal.node.to_string(),
            uids: proposal.pods.iter().map(|pod| pod.uid.to_string()).collect(),
            violations: proposal.violations,
        };
        Ok(proposals.iter().map(ids).collect())
    }

    /// Binds the pod to the node.
    ///
    /// # Errors
    /// It could not be asked, or failed. The node is given back.
    async fn bind(&self, _pod: &PodInfo, _node: &str) -> Result<(), ExtenderError> {
        Err(ExtenderError("unexpected empty bindVerb in extender".to_owned()))
    }
}

/// What an extender takes part in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExtenderParts {
    /// Filtering.
    pub filter: bool,
    /// Scoring.
    pub prioritize: bool,
    /// Preemption.
    pub preempt: bool,
    /// Binding.
    pub bind: bool,
}

/// The nodes that an extender leaves, and why not the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtenderFilter {
    /// The names of those that will do.
    pub nodes: Vec<String>,
    /// Why others won't; preemption may help there.
    pub failed: BTreeMap<String, String>,
    /// Why others won't; preemption does not help there. Goes before `failed`.
    pub unresolvable: BTreeMap<String, String>,
}

/// Pods that would have to leave a node.
#[derive(Debug, Clone)]
pub struct NodeVictims {
    /// The node's name.
    pub node: Arc<str>,
    /// The pods, the most important first.
    pub pods: Vec<Arc<PodInfo>>,
    /// How many of them a PodDisruptionBudget would have stay.
    pub violations: usize,
}

/// The same by uids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VictimIds {
    /// The node's name.
    pub node: String,
    /// The uids of the pods.
    pub uids: Vec<String>,
    /// How many of them a PodDisruptionBudget would have stay.
    pub violations: usize,
}

/// An extender could not be asked, or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtenderError(pub String);

impl fmt::Display for ExtenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ExtenderError {}
