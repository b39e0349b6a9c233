//! The groups of watchers, found by the keys that concern them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::Group;
use crate::{Event, KeyRange, Revision, WatchBatch, WatchRequest};

/// What all watchers of a group want: a request without what is each watcher's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wanted(WatchRequest);

impl Wanted {
    pub(super) fn of(request: &WatchRequest) -> Self {
        Self(WatchRequest { start_revision: 0, progress: false, ..request.clone() })
    }

    /// Whether the pairs before the changes are wanted.
    pub(super) fn before(&self) -> bool {
        self.0.prev_kv
    }

    /// Those of a revision's changes that the group wants; groups that want all of them share one list.
    pub(super) fn batch(&self, revision: Revision, all: &Arc<[Event]>) -> WatchBatch {
        let events = if all.iter().all(|event| self.0.wants(event)) {
            all.clone()
        } else {
            all.iter().filter(|event| self.0.wants(event)).cloned().collect()
        };
        WatchBatch { revision, events }
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Groups {
    all: HashMap<Wanted, Arc<Group>>,
    by_key: HashMap<Bytes, Vec<Arc<Group>>>,
    by_prefix: HashMap<Bytes, Vec<Arc<Group>>>,
    /// How many groups there are of prefixes of each length.
    prefix_lengths: BTreeMap<usize, usize>,
    /// Groups of any other range.
    others: Vec<Arc<Group>>,
}

/// The kinds of ranges, by how their groups are found.
enum Shape {
    Key,
    Prefix,
    Other,
}

fn shape(range: &KeyRange) -> Shape {
    if range.as_key().is_some() {
        Shape::Key
    } else if *range == KeyRange::prefix(range.start.clone()) {
        Shape::Prefix
    } else {
        Shape::Other
    }
}

impl Groups {
    /// The group of those who want this, made if it is the first.
    pub(super) fn group(&mut self, wanted: Wanted) -> Arc<Group> {
        if let Some(group) = self.all.get(&wanted) {
            return group.clone();
        }
        let group = Arc::new(Group { wanted: wanted.clone(), ring: Mutex::default(), wake: Arc::default() });
        let start = wanted.0.range.start.clone();
        match shape(&wanted.0.range) {
            Shape::Key => self.by_key.entry(start).or_default().push(group.clone()),
            Shape::Prefix => {
                *self.prefix_lengths.entry(start.len()).or_default() += 1;
                self.by_prefix.entry(start).or_default().push(group.clone());
            }
            Shape::Other => self.others.push(group.clone()),
        }
        self.all.insert(wanted, group.clone());
        group
    }

    /// Forgets a group.
    pub(super) fn remove(&mut self, group: &Arc<Group>) {
        let range = &group.wanted.0.range;
        self.all.remove(&group.wanted);
        let drop_from = |groups: &mut HashMap<Bytes, Vec<Arc<Group>>>| {
            if let Some(same) = groups.get_mut(&range.start) {
                same.retain(|other| !Arc::ptr_eq(other, group));
                if same.is_empty() {
                    groups.remove(&range.start);
                }
            }
        };
        match shape(range) {
            Shape::Key => drop_from(&mut self.by_key),
            Shape::Prefix => {
                drop_from(&mut self.by_prefix);
                if let Some(count) = self.prefix_lengths.get_mut(&range.start.len()) {
                    *count -= 1;
                    if *count == 0 {
                        self.prefix_lengths.remove(&range.start.len());
                    }
                }
            }
            Shape::Other => self.others.retain(|other| !Arc::ptr_eq(other, group)),
        }
    }

    /// Every group.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.all.values()
    }

    /// The groups that want one of these events, each once.
    pub(super) fn touched(&self, events: &[Event]) -> Vec<Arc<Group>> {
        let mut touched: Vec<Arc<Group>> = Vec::new();
        if self.all.is_empty() {
            return touched;
        }
        for event in events {
            let key = &event.kv.key;
            let prefixes =
                self.prefix_lengths.range(..=key.len()).filter_map(|(&len, _)| self.by_prefix.get(&key[..len]));
            let found = self.by_key.get(key).into_iter().chain(prefixes).flatten().chain(&self.others);
            touched.extend(found.filter(|group| group.wanted.0.wants(event)).cloned());
        }
        if events.len() > 1 {
            touched.sort_by_key(Arc::as_ptr);
            touched.dedup_by(|a, b| Arc::ptr_eq(a, b));
        }
        touched
    }
}
