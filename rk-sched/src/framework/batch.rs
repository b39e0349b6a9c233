//! What the batch form of a filter works on.

use super::{Refusals, Status};
use crate::model::{Columns, NodeIndex, NodeInfo, Snapshot};

/// Nodes that may do for a pod. Each filter takes those out that don't, and says why.
#[derive(Debug)]
pub struct Candidates<'a> {
    snapshot: &'a Snapshot,
    nodes: Vec<NodeIndex>,
    refusals: &'a mut Refusals,
    plugin: &'static str,
    failure: Option<Status>,
}

impl<'a> Candidates<'a> {
    /// Candidates of a snapshot; refusals are added to those there are.
    pub fn new(snapshot: &'a Snapshot, nodes: Vec<NodeIndex>, refusals: &'a mut Refusals) -> Self {
        Self { snapshot, nodes, refusals, plugin: "", failure: None }
    }

    /// The nodes that are left, in the order in which they are tried.
    pub fn nodes(&self) -> &[NodeIndex] {
        &self.nodes
    }

    /// The cluster.
    pub fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// The state of all nodes by columns.
    pub fn columns(&self) -> &'a Columns {
        self.snapshot.columns()
    }

    /// Keeps the nodes for which `filter` answers success, and notes its answer for the others.
    pub fn keep(&mut self, mut filter: impl FnMut(&NodeInfo) -> Status) {
        let Self { snapshot, nodes, refusals, plugin, failure } = self;
        nodes.retain(|index| {
            if failure.is_some() {
                return false;
            }
            let status = filter(snapshot.node(*index));
            if status.is_success() {
                return true;
            }
            if status.is_rejected() {
                refusals.push(*index, status.from_plugin(plugin));
            } else {
                *failure = Some(status.failed_at("Filter", plugin));
            }
            false
        });
    }

    /// Keeps the nodes for which `code` answers 0. Every other code is a reason that `explain` puts into words, once for all
    /// nodes that have it.
    pub fn keep_coded(&mut self, mut code: impl FnMut(NodeIndex) -> u32, mut explain: impl FnMut(u32) -> Status) {
        let Self { nodes, refusals, plugin, .. } = self;
        let mut known: Vec<(u32, u32)> = Vec::new();
        nodes.retain(|index| {
            let code = code(*index);
            if code == 0 {
                return true;
            }
            let status = match known.iter().find(|(seen, _)| *seen == code) {
                Some((_, status)) => *status,
                None => {
                    let status = refusals.status(explain(code).from_plugin(plugin));
                    known.push((code, status));
                    status
                }
            };
            refusals.note(*index, status);
            false
        });
    }

    /// Notes that the plugin failed; no node is left.
    pub(crate) fn fail(&mut self, status: Status) {
        self.failure.get_or_insert(status.failed_at("Filter", self.plugin));
        self.nodes.clear();
    }

    /// Names the plugin whose turn it is.
    pub(crate) fn turn_of(&mut self, plugin: &'static str) {
        self.plugin = plugin;
    }

    /// The nodes that are left.
    ///
    /// # Errors
    /// A plugin failed.
    pub(crate) fn finish(self) -> Result<Vec<NodeIndex>, Status> {
        self.failure.map_or(Ok(self.nodes), Err)
    }
}
