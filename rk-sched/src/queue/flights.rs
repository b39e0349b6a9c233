//! What happens while pods are in flight: a plugin that refuses one of them late did not see it.

use std::collections::{BTreeMap, VecDeque};

use crate::framework::ClusterEvent;

#[derive(Default)]
pub(super) struct Flights {
    /// The events since the oldest of the flights began.
    events: VecDeque<ClusterEvent>,
    /// The number of the first of them.
    first: u64,
    /// How many of the pods in flight took off before the event of that number.
    starts: BTreeMap<u64, usize>,
}

impl Flights {
    fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// A pod takes off; answers the number of the first event that it misses.
    pub(super) fn take_off(&mut self) -> u64 {
        let start = self.next();
        *self.starts.entry(start).or_default() += 1;
        start
    }

    pub(super) fn note(&mut self, event: &ClusterEvent) {
        if !self.starts.is_empty() {
            self.events.push_back(event.clone());
        }
    }

    /// A pod that took off at `start` lands; answers what it missed if `wanted`.
    pub(super) fn land(&mut self, start: u64, wanted: bool) -> Vec<ClusterEvent> {
        let known = usize::try_from(start.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let missed = if wanted { self.events.iter().skip(known).cloned().collect() } else { Vec::new() };
        if let Some(count) = self.starts.get_mut(&start) {
            *count -= 1;
            if *count == 0 {
                self.starts.remove(&start);
            }
        }
        let oldest = self.starts.first_key_value().map_or_else(|| self.next(), |(oldest, _)| *oldest);
        while self.first < oldest {
            self.events.pop_front();
            self.first += 1;
        }
        missed
    }
}
