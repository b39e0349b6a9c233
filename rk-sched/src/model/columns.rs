//! The state of all nodes by columns.

use super::{NodeIndex, NodeInfo};

/// Figures of all nodes, a list each with an entry per slot of the snapshot ([`NodeIndex::slot`]), so that the batch form of a
/// plugin reads of many nodes only what it needs. Entries of slots that are free are 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// Thousandths of a core that pods can have.
    pub allocatable_milli_cpu: Vec<i64>,
    /// Bytes of memory that pods can have.
    pub allocatable_memory: Vec<i64>,
    /// Thousandths of a core that the node's pods ask for.
    pub requested_milli_cpu: Vec<i64>,
    /// Bytes of memory that they ask for.
    pub requested_memory: Vec<i64>,
    /// Thousandths of a core that they are scored with.
    pub nonzero_milli_cpu: Vec<i64>,
    /// Bytes of memory that they are scored with.
    pub nonzero_memory: Vec<i64>,
    /// Bytes of local storage that are left.
    pub free_ephemeral_storage: Vec<i64>,
    /// How many more pods the node takes.
    pub free_pods: Vec<i64>,
    marks: Vec<u8>,
    /// How many nodes have each mark.
    marked: [usize; MARKS.len()],
}

/// What a node may be, apart from its resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It is cordoned.
    Unschedulable,
    /// It has a taint of effect `NoSchedule` or `NoExecute`.
    Repelling,
    /// It has a taint of effect `PreferNoSchedule`.
    Avoided,
}

const MARKS: [Mark; 3] = [Mark::Unschedulable, Mark::Repelling, Mark::Avoided];

impl Mark {
    fn bit(self) -> u8 {
        1 << self as u8
    }

    fn is_on(self, node: &NodeInfo) -> bool {
        let tainted = |effects: &[&str]| node.taints().iter().any(|taint| effects.contains(&taint.effect.as_str()));
        match self {
            Self::Unschedulable => node.unschedulable(),
            Self::Repelling => tainted(&["NoSchedule", "NoExecute"]),
            Self::Avoided => tainted(&["PreferNoSchedule"]),
        }
    }
}

impl Columns {
    /// Whether a node has the mark.
    pub fn has(&self, node: NodeIndex, mark: Mark) -> bool {
        self.marks[node.slot()] & mark.bit() != 0
    }

    /// How many nodes have the mark.
    pub fn count(&self, mark: Mark) -> usize {
        self.marked[mark as usize]
    }

    fn amounts(&mut self) -> [&mut Vec<i64>; 8] {
        [
            &mut self.allocatable_milli_cpu,
            &mut self.allocatable_memory,
            &mut self.requested_milli_cpu,
            &mut self.requested_memory,
            &mut self.nonzero_milli_cpu,
            &mut self.nonzero_memory,
            &mut self.free_ephemeral_storage,
            &mut self.free_pods,
        ]
    }

    /// One more slot.
    pub(super) fn grow(&mut self) {
        self.amounts().into_iter().for_each(|column| column.push(0));
        self.marks.push(0);
    }

    /// Takes over what changes with the pods on a node.
    pub(super) fn set_pods(&mut self, node: &NodeInfo) {
        let slot = node.index.slot();
        self.requested_milli_cpu[slot] = node.requested.milli_cpu;
        self.requested_memory[slot] = node.requested.memory;
        self.nonzero_milli_cpu[slot] = node.nonzero_milli_cpu;
        self.nonzero_memory[slot] = node.nonzero_memory;
        self.free_ephemeral_storage[slot] =
            node.allocatable.ephemeral_storage.saturating_sub(node.requested.ephemeral_storage);
        self.free_pods[slot] = node.allowed_pods.saturating_sub(node.pods.len() as i64);
    }

    /// Takes over all of a node.
    pub(super) fn set_node(&mut self, node: &NodeInfo) {
        let slot = node.index.slot();
        self.allocatable_milli_cpu[slot] = node.allocatable.milli_cpu;
        self.allocatable_memory[slot] = node.allocatable.memory;
        self.set_pods(node);
        let on = MARKS.into_iter().filter(|mark| mark.is_on(node)).fold(0, |marks, mark| marks | mark.bit());
        self.mark(slot, on);
    }

    /// A slot has no node any more.
    pub(super) fn clear(&mut self, slot: usize) {
        self.amounts().into_iter().for_each(|column| column[slot] = 0);
        self.mark(slot, 0);
    }

    fn mark(&mut self, slot: usize, marks: u8) {
        for mark in MARKS {
            let count = &mut self.marked[mark as usize];
            *count += usize::from(marks & mark.bit() != 0);
            *count -= usize::from(self.marks[slot] & mark.bit() != 0);
        }
        self.marks[slot] = marks;
    }
}
