//! One collection in memory: its objects now, and its recent changes.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use rk_store::Revision;
use tokio::{sync::watch, time::Instant};

use super::item::Item;
use crate::{LabelSelector, Object, server::Changes};

/// Changes that are always kept, and the most that are kept while they are young.
const RING: (usize, usize) = (256, 65_536);
/// Changes younger than this are kept (up to the most), as kube-apiserver's watch cache does.
const YOUNG: Duration = Duration::from_secs(75);

/// One change of an object.
pub(crate) struct Change {
    pub(crate) revision: Revision,
    /// The new version; for a deletion the last one, at the deletion's revision.
    pub(crate) item: Arc<Item>,
    pub(crate) previous: Option<Arc<Item>>,
    pub(crate) deleted: bool,
    at: Instant,
}

impl Change {
    pub(crate) fn new(revision: Revision, item: Arc<Item>, previous: Option<Arc<Item>>, deleted: bool) -> Self {
        Self { revision, item, previous, deleted, at: Instant::now() }
    }
}

/// Objects by `namespace/name`, in the store's order.
pub(super) type Items = BTreeMap<String, Arc<Item>>;

#[derive(Default)]
pub(super) struct State {
    pub(super) items: Items,
    ring: VecDeque<Arc<Change>>,
    /// How many changes have left the ring: the sequence number of its first.
    dropped: u64,
    /// The ring holds every change after this revision.
    complete_after: Revision,
    /// The revision of the last change (or of the load).
    last: Revision,
}

impl State {
    /// The objects of a namespace (empty for all) behind a name, in order.
    fn behind(&self, namespace: &str, behind: Option<&str>) -> impl Iterator<Item = &Arc<Item>> {
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let start = behind.map_or(Bound::Included(prefix.as_str()), Bound::Excluded);
        let items = self.items.range::<str, _>((start, Bound::Unbounded));
        items.take_while(move |(name, _)| name.starts_with(&prefix)).map(|(_, item)| item)
    }
}

/// A watcher's place among the changes: what it still has to read starts here.
pub(crate) struct Cursor(u64);

/// The objects and changes of one collection, shared by all who read it.
pub(crate) struct Collection {
    /// Below the root: `pods`, `apps/deployments`.
    pub(crate) name: String,
    pub(super) state: RwLock<State>,
    grown: watch::Sender<u64>,
}

impl Collection {
    /// An empty collection whose changes after `revision` will be told.
    pub(super) fn new(name: &str, revision: Revision) -> Self {
        let state = State { complete_after: revision, last: revision, ..State::default() };
        Self { name: name.to_owned(), state: RwLock::new(state), grown: watch::channel(0).0 }
    }

    /// Replaces the content by that of a revision, at the start or after the feed was interrupted: who watches has to list
    /// again.
    pub(super) fn reset(&self, items: Items, revision: Revision) {
        let mut state = self.state.write();
        let dropped = state.dropped + state.ring.len() as u64 + 1;
        *state = State { items, complete_after: revision, last: revision, dropped, ..State::default() };
        drop(state);
        self.grown.send_modify(|grown| *grown += 1);
    }

    /// Takes changes over, all of whole revisions.
    pub(super) fn apply(&self, changes: Vec<(String, Change)>) {
        let mut state = self.state.write();
        for (name, change) in changes {
            if change.deleted {
                state.items.remove(&name);
            } else {
                state.items.insert(name, Arc::clone(&change.item));
            }
            state.last = change.revision;
            state.ring.push_back(Arc::new(change));
        }
        while state.ring.len() > RING.0
            && (state.ring.len() > RING.1 || state.ring.front().is_some_and(|front| front.at.elapsed() > YOUNG))
        {
            if let Some(gone) = state.ring.pop_front() {
                state.complete_after = gone.revision;
                state.dropped += 1;
            }
        }
        drop(state);
        self.grown.send_modify(|grown| *grown += 1);
    }

    /// The object of this name now.
    pub(crate) fn get(&self, item: &str) -> Option<Arc<Item>> {
        self.state.read().items.get(item).cloned()
    }

    /// The current objects of a namespace (empty for all) with such labels.
    pub(crate) fn select(&self, namespace: &str, labels: &LabelSelector) -> Vec<Arc<Object>> {
        let (items, ..) = self.snapshot(namespace, 0);
        let matching = items.iter().filter(|item| labels.matches(&item.object.meta().labels));
        matching.map(|item| Arc::clone(&item.object)).collect()
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.state.read().items.len()
    }

    /// Told whenever there are new changes.
    pub(crate) fn grown(&self) -> watch::Receiver<u64> {
        self.grown.subscribe()
    }

    /// The current objects of a namespace (empty for all), and the version of this snapshot: `reached` is the
    /// revision that the feed had reached before.
    pub(super) fn snapshot(&self, namespace: &str, reached: Revision) -> (Vec<Arc<Item>>, Revision, Cursor) {
        let state = self.state.read();
        let items = state.behind(namespace, None).cloned().collect();
        (items, state.last.max(reached), Cursor(state.dropped + state.ring.len() as u64))
    }

    /// What `read` makes of the current objects of a namespace (empty for all) behind a name, and the version of what it saw.
    /// It holds writers up, so it does not take long.
    pub(super) fn read_behind<T>(
        &self,
        namespace: &str,
        behind: Option<&str>,
        reached: Revision,
        read: impl FnOnce(&mut dyn Iterator<Item = &Arc<Item>>) -> T,
    ) -> (T, Revision) {
        let state = self.state.read();
        (read(&mut state.behind(namespace, behind)), state.last.max(reached))
    }

    /// The revision of the last change.
    pub(crate) fn last(&self) -> Revision {
        self.state.read().last
    }

    /// A place from which every change after `revision` is still in the ring.
    pub(super) fn cursor_after(&self, revision: Revision) -> Option<Cursor> {
        let state = self.state.read();
        (revision >= state.complete_after).then(|| {
            let at = state.ring.partition_point(|change| change.revision <= revision);
            Cursor(state.dropped + at as u64)
        })
    }

    /// What changed after a revision; everything there is if the ring does not go back so far.
    pub(crate) fn changes_after(&self, after: Revision) -> Changes {
        let state = self.state.read();
        if after < state.complete_after {
            let objects = state.items.values().map(|item| (Arc::clone(&item.object), false)).collect();
            return Changes { all: true, objects, version: state.last };
        }
        let at = state.ring.partition_point(|change| change.revision <= after);
        let objects = state.ring.iter().skip(at).map(|change| (Arc::clone(&change.item.object), change.deleted));
        Changes { all: false, objects: objects.collect(), version: state.last }
    }

    /// The next changes, at most `limit`; `None` if the cursor's place has left the ring.
    pub(super) fn read(&self, cursor: &mut Cursor, limit: usize) -> Option<Vec<Arc<Change>>> {
        let state = self.state.read();
        let at = usize::try_from(cursor.0.checked_sub(state.dropped)?).ok()?;
        let changes: Vec<_> = state.ring.iter().skip(at).take(limit).cloned().collect();
        cursor.0 += changes.len() as u64;
        Some(changes)
    }

    /// Whether nothing is left to read.
    pub(super) fn is_read(&self, cursor: &Cursor) -> bool {
        let state = self.state.read();
        cursor.0 == state.dropped + state.ring.len() as u64
    }
}
