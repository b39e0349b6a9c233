//! One collection in memory: its objects now, and its recent changes.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::RwLock;
use rk_store::Revision;
use tokio::time::Instant;

use super::{
    Selection,
    forms::Forms,
    growth::{Growth, Waiter},
    index::{Indexes, Key},
    item::Item,
    items::Items,
    sorted::Snapshot,
    watches::Watches,
};
use crate::{
    LabelSelector, Object,
    server::{Changes, Version},
};

/// Changes that are always kept, and the most that are kept while they are young.
const RING: (usize, usize) = (256, 65_536);
/// Changes younger than this are kept (up to the most), as kube-apiserver's watch cache does.
const YOUNG: Duration = Duration::from_secs(75);
/// Bytes that changes and protobuf forms may hold besides the current objects, unless the server was told another budget for the resource.
pub(super) const BUDGET: usize = 64 << 20;
/// The part of the budget that forms have in any case: those that watchers are being sent.
const FORMS: usize = 8;

/// A selector gets an index of its own where it would look through at least so many objects, and through more than one of so many of all.
const INDEX: (usize, usize) = (1024, 8);

/// What a collection holds in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) objects: usize,
    /// Of their JSON.
    pub(crate) object_bytes: usize,
    /// Of the JSON of versions that only recent changes hold.
    pub(crate) change_bytes: usize,
    /// Of the protobuf forms of both.
    pub(crate) form_bytes: usize,
    /// Of indexes, about.
    pub(crate) index_bytes: usize,
}

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

    /// Bytes that nobody would hold without this change.
    fn bytes(&self) -> usize {
        let of = |item: &Arc<Item>| item.object.json().len();
        self.previous.as_ref().map_or(0, of) + if self.deleted { of(&self.item) } else { 0 }
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) items: Items,
    pub(super) indexes: Indexes,
    ring: VecDeque<Arc<Change>>,
    /// How many changes have left the ring: the sequence number of its first.
    dropped: u64,
    /// The ring holds every change after this revision.
    complete_after: Revision,
    object_bytes: usize,
    change_bytes: usize,
}

impl State {
    /// Objects behind a name among which are all of a selection.
    pub(super) fn candidates(&self, selection: &Selection, behind: Option<&str>) -> Snapshot {
        let prefix = prefix(&selection.namespace);
        if let Some(name) = selection.fields.required("metadata.name") {
            let found = self.items.get(&format!("{prefix}{name}"));
            // Without a namespace it is an object of the cluster, or there may be one in each namespace.
            if found.is_some() || !prefix.is_empty() {
                let found = found.filter(|item| behind.is_none_or(|behind| *item.name > *behind));
                return Snapshot::of(found.cloned().into_iter().collect());
            }
        }
        let indexed = self.indexes.fewest(selection, &prefix, behind);
        indexed.unwrap_or_else(|| self.items.snapshot(&prefix, behind))
    }

    /// Drops changes, but not the last `new` ones, which no watcher has had the time to read.
    fn trim(&mut self, budget: usize, new: usize) {
        let old = |change: &Arc<Change>| change.at.elapsed() > YOUNG;
        while self.ring.len() > new
            && (self.ring.len() > RING.1
                || self.change_bytes > budget
                || self.ring.len() > RING.0 && self.ring.front().is_some_and(old))
        {
            let Some(gone) = self.ring.pop_front() else { return };
            self.complete_after = gone.revision;
            self.dropped += 1;
            self.change_bytes -= gone.bytes();
        }
    }
}

/// What the names of a namespace's objects begin with; empty for all.
pub(super) fn prefix(namespace: &str) -> String {
    if namespace.is_empty() { String::new() } else { format!("{namespace}/") }
}

/// A watcher's place among the changes: what it still has to read starts here.
pub(crate) struct Cursor {
    at: u64,
    /// It has everything up to here. It may have more than the collection, from the store itself.
    after: Revision,
}

/// The objects and changes of one collection, shared by all who read it.
pub(crate) struct Collection {
    /// Below the root: `pods`, `apps/deployments`.
    pub(crate) name: String,
    pub(super) state: RwLock<State>,
    /// The revision of the last change (or of the load); it goes on under the lock of `state`.
    pub(crate) version: Version,
    /// Bytes that changes and forms may hold.
    budget: usize,
    pub(crate) forms: Forms,
    growth: Arc<Growth>,
    pub(crate) watches: Arc<Watches>,
}

impl Collection {
    /// An empty collection whose changes after `revision` will be told.
    pub(super) fn new(name: &str, revision: Revision, budget: usize) -> Self {
        let state = State { complete_after: revision, ..State::default() };
        let version = Version::new(revision);
        let (name, state) = (name.to_owned(), RwLock::new(state));
        let forms = Forms::default();
        forms.fit(budget);
        Self { name, state, version, budget, forms, growth: Arc::default(), watches: Arc::default() }
    }

    /// Replaces the content by that of a revision, at the start or after the feed was interrupted: who watches has to list
    /// again.
    pub(super) fn reset(&self, items: Items, revision: Revision) {
        let mut state = self.state.write();
        let dropped = state.dropped + state.ring.len() as u64 + 1;
        let object_bytes = items.values().map(|item| item.object.json().len()).sum();
        *state = State { items, complete_after: revision, dropped, object_bytes, ..State::default() };
        self.version.set(revision);
        drop(state);
        self.forms.fit(self.budget);
        self.growth.grow();
    }

    /// Takes changes over, all of whole revisions.
    pub(super) fn apply(&self, changes: Vec<Change>) {
        // The values of the indexes are read from the objects before everybody waits.
        let keys = self.state.read().indexes.keys();
        for key in keys {
            changes.iter().for_each(|change| drop(key.of(&change.item)));
        }
        let (mut state, new) = (self.state.write(), changes.len());
        for change in changes {
            let old = if change.deleted {
                state.items.remove(&change.item.name)
            } else {
                state.object_bytes += change.item.object.json().len();
                state.items.insert(Arc::clone(&change.item))
            };
            let now = (!change.deleted).then_some(&change.item);
            state.indexes.change(old.as_ref(), now);
            state.object_bytes -= old.map_or(0, |old| old.object.json().len());
            self.version.set(change.revision);
            state.change_bytes += change.bytes();
            state.ring.push_back(Arc::new(change));
        }
        let least = self.budget / FORMS;
        state.trim(self.budget - self.forms.bytes().min(least), new);
        let left = self.budget.saturating_sub(state.change_bytes).max(least);
        drop(state);
        self.forms.fit(left);
        self.growth.grow();
    }

    /// The object of this name now.
    pub(crate) fn get(&self, item: &str) -> Option<Arc<Item>> {
        self.state.read().items.get(item).cloned()
    }

    /// The current objects of a namespace (empty for all) with such labels.
    pub(crate) fn select(&self, namespace: &str, labels: &LabelSelector) -> Vec<Arc<Object>> {
        let selection = Selection { namespace: namespace.to_owned(), labels: labels.clone(), ..Selection::default() };
        let (mut items, _) = self.snapshot(&selection, None, 0);
        let mut selected = Vec::new();
        while let Some(item) = items.next_ref() {
            if selection.matches(item) {
                selected.push(Arc::clone(&item.object));
            }
        }
        selected
    }

    /// What it holds in memory.
    pub(crate) fn held(&self) -> Held {
        let state = self.state.read();
        let State { object_bytes, change_bytes, .. } = *state;
        let (form_bytes, index_bytes) = (self.forms.bytes(), state.indexes.bytes());
        Held { objects: state.items.len(), object_bytes, change_bytes, form_bytes, index_bytes }
    }

    /// How many objects there are, and the bytes of their JSON.
    pub(crate) fn size(&self) -> (usize, usize) {
        let state = self.state.read();
        (state.items.len(), state.object_bytes)
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.state.read().items.len()
    }

    /// What waits for new changes.
    pub(crate) fn waiter(&self) -> Waiter {
        self.growth.waiter()
    }

    /// Current objects behind a name, among which are all of a selection, and the version of this snapshot: `reached` is the revision that
    /// the feed had reached before.
    pub(super) fn snapshot(
        &self,
        selection: &Selection,
        behind: Option<&str>,
        reached: Revision,
    ) -> (Snapshot, Revision) {
        self.index_for(selection);
        let state = self.state.read();
        (state.candidates(selection, behind), self.last().max(reached))
    }

    /// The same, and the place from which the changes go on.
    pub(super) fn snapshot_to_watch(&self, selection: &Selection, reached: Revision) -> (Snapshot, Revision, Cursor) {
        self.index_for(selection);
        let state = self.state.read();
        let revision = self.last().max(reached);
        let cursor = Cursor { at: state.dropped + state.ring.len() as u64, after: revision };
        (state.candidates(selection, None), revision, cursor)
    }

    /// Makes an index if a selection would have to look through many objects without it.
    fn index_for(&self, selection: &Selection) {
        let missing = {
            let state = self.state.read();
            let (least, share) = INDEX;
            let few = |left: usize| left < least || left <= state.items.len() / share;
            let missing = state.indexes.missing(selection);
            missing.filter(|_| !few(state.items.len()) && !few(state.candidates(selection, None).left()))
        };
        if let Some(key) = missing {
            self.add_index(&key);
        }
    }

    /// Makes an index.
    pub(super) fn add_index(&self, key: &Key) {
        // As much as can be is read from the objects before everybody waits.
        let mut items = self.state.read().items.snapshot("", None);
        while let Some(item) = items.next_ref() {
            drop(key.of(item));
        }
        let mut state = self.state.write();
        let State { items, indexes, .. } = &mut *state;
        indexes.add(key, items.values());
    }

    /// The revision of the last change.
    pub(crate) fn last(&self) -> Revision {
        self.version.get()
    }

    /// A place from which every change after `revision`, which may be one to come, is still in the ring.
    pub(super) fn cursor_after(&self, revision: Revision) -> Option<Cursor> {
        let state = self.state.read();
        (revision >= state.complete_after).then(|| {
            let at = state.ring.partition_point(|change| change.revision <= revision);
            Cursor { at: state.dropped + at as u64, after: revision }
        })
    }

    /// What changed after a revision; everything there is if the ring does not go back so far.
    pub(crate) fn changes_after(&self, after: Revision) -> Changes {
        let state = self.state.read();
        if after < state.complete_after {
            let objects = state.items.values().map(|item| (Arc::clone(&item.object), false)).collect();
            return Changes { all: true, objects, version: self.last() };
        }
        let at = state.ring.partition_point(|change| change.revision <= after);
        let objects = state.ring.iter().skip(at).map(|change| (Arc::clone(&change.item.object), change.deleted));
        Changes { all: false, objects: objects.collect(), version: self.last() }
    }

    /// The next changes, at most `limit`; `None` if the cursor's place has left the ring.
    pub(super) fn read(&self, cursor: &mut Cursor, limit: usize) -> Option<Vec<Arc<Change>>> {
        let state = self.state.read();
        let mut at = usize::try_from(cursor.at.checked_sub(state.dropped)?).ok()?;
        at += state.ring.iter().skip(at).take_while(|change| change.revision <= cursor.after).count();
        let changes: Vec<_> = state.ring.iter().skip(at).take(limit).cloned().collect();
        cursor.at = state.dropped + (at + changes.len()) as u64;
        Some(changes)
    }

    /// Whether nothing is left to read.
    pub(super) fn is_read(&self, cursor: &Cursor) -> bool {
        let state = self.state.read();
        cursor.at == state.dropped + state.ring.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::storage::For;

    fn item(name: &str, version: u64, filling: usize) -> Arc<Item> {
        let filling = "x".repeat(filling);
        let json = format!("{{\"metadata\":{{\"resourceVersion\":\"{version}\"}},\"filling\":\"{filling}\"}}");
        Item::new(name, Object::from_json(json).unwrap())
    }

    #[test]
    fn who_has_read_ahead_in_the_store_reads_nothing_twice() {
        let collection = Collection::new("things", 0, 10_000);
        let change = |version| Change::new(version, item("a", version, 0), None, false);
        collection.apply(vec![change(1)]);
        let mut cursor = collection.cursor_after(3).unwrap();
        let mut read = |limit| -> Vec<u64> {
            collection.read(&mut cursor, limit).unwrap().iter().map(|change| change.revision).collect()
        };
        collection.apply(vec![change(2)]);
        assert!(read(1).is_empty());
        collection.apply(vec![change(3), change(4), change(4), change(5)]);
        assert_eq!((read(2), read(2)), (vec![4, 4], vec![5]));
    }

    #[test]
    fn changes_keep_within_their_budget() {
        let collection = Collection::new("things", 0, 10_000);
        let mut previous = None;
        for version in 1..=100 {
            let now = item("a", version, 1000);
            collection.apply(vec![Change::new(version, Arc::clone(&now), previous.replace(now), false)]);
        }
        let held = collection.held();
        assert_eq!(held.objects, 1);
        assert_eq!(held.object_bytes, collection.get("a").unwrap().object.json().len());
        assert!((9_000..=10_000).contains(&held.change_bytes), "{held:?}");
        assert!(collection.cursor_after(99).is_some() && collection.cursor_after(10).is_none());
        collection.apply(vec![Change::new(101, item("a", 101, 1000), previous, true)]);
        assert_eq!((collection.held().objects, collection.held().object_bytes), (0, 0));
        // Forms take their part.
        let value = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"},
            "data": {"filling": "x".repeat(1000)}});
        let forms: Vec<_> = (0..20).map(|_| Arc::new(Object::from_value(&value).unwrap())).collect();
        let mut previous = Some(item("a", 101, 1000));
        for (version, object) in (102..).zip(&forms) {
            let encode = || Ok(crate::server::schema::protobuf::encode(&value).unwrap());
            drop(collection.forms.of(object, For::Watchers, encode).unwrap());
            let now = item("a", version, 1000);
            collection.apply(vec![Change::new(version, Arc::clone(&now), previous.replace(now), false)]);
            let held = collection.held();
            assert!(held.form_bytes >= 1000 && held.form_bytes + held.change_bytes <= 10_000, "{held:?}");
        }
        // However many come at once, those who watch can read them.
        let mut cursor = collection.cursor_after(121).unwrap();
        let one = |version| Change::new(version, item("b", version, 1000), Some(item("b", 1, 1000)), false);
        collection.apply((122..=221).map(one).collect());
        assert_eq!(collection.read(&mut cursor, 1000).map(|changes| changes.len()), Some(100));
    }
}
