//! A heap ordered by a QueueSort plugin, from which any pod can be removed.

use std::{collections::HashMap, sync::Arc};

use super::QueuedPod;
use crate::framework::QueueSort;

pub(super) struct Heap {
    sort: Arc<dyn QueueSort>,
    /// Pods with the number of their arrival, which decides where the plugin does not.
    items: Vec<(u64, QueuedPod)>,
    at: HashMap<Arc<str>, usize>,
    arrivals: u64,
}

impl Heap {
    pub(super) fn new(sort: Arc<dyn QueueSort>) -> Self {
        Self { sort, items: Vec::new(), at: HashMap::new(), arrivals: 0 }
    }

    pub(super) fn sort(&self) -> &dyn QueueSort {
        self.sort.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    fn before(&self, a: usize, b: usize) -> bool {
        let ((arrived_a, a), (arrived_b, b)) = (&self.items[a], &self.items[b]);
        self.sort.less(a, b) || (arrived_a < arrived_b && !self.sort.less(b, a))
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.items.swap(a, b);
        for index in [a, b] {
            if let Some(at) = self.at.get_mut(&self.items[index].1.pod.uid) {
                *at = index;
            }
        }
    }

    fn up(&mut self, mut index: usize) {
        while index > 0 {
            let parent = (index - 1) / 2;
            if !self.before(index, parent) {
                break;
            }
            self.swap(index, parent);
            index = parent;
        }
    }

    fn down(&mut self, mut index: usize) {
        loop {
            let mut first = index;
            for child in [2 * index + 1, 2 * index + 2] {
                if child < self.items.len() && self.before(child, first) {
                    first = child;
                }
            }
            if first == index {
                break;
            }
            self.swap(index, first);
            index = first;
        }
    }

    pub(super) fn push(&mut self, pod: QueuedPod) {
        self.arrivals += 1;
        self.at.insert(Arc::clone(&pod.pod.uid), self.items.len());
        self.items.push((self.arrivals, pod));
        self.up(self.items.len() - 1);
    }

    pub(super) fn pop(&mut self) -> Option<QueuedPod> {
        if self.items.is_empty() { None } else { self.take(0) }
    }

    pub(super) fn get(&self, uid: &str) -> Option<&QueuedPod> {
        self.at.get(uid).map(|at| &self.items[*at].1)
    }

    /// To change what the order does not depend on.
    pub(super) fn get_mut(&mut self, uid: &str) -> Option<&mut QueuedPod> {
        self.at.get(uid).map(|at| &mut self.items[*at].1)
    }

    pub(super) fn remove(&mut self, uid: &str) -> Option<QueuedPod> {
        let index = *self.at.get(uid)?;
        self.take(index)
    }

    fn take(&mut self, index: usize) -> Option<QueuedPod> {
        self.swap(index, self.items.len() - 1);
        let (_, pod) = self.items.pop()?;
        self.at.remove(&pod.pod.uid);
        if index < self.items.len() {
            self.up(index);
            self.down(index);
        }
        Some(pod)
    }
}
