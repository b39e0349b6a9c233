//! Indexes of a collection: its objects by the value of a label or of a field that selectors ask for.
//!
//! Nobody declares them. One is made when a selector asks for the value of a key and would have to look through many objects, and from
//! then on every change keeps it; so what a write costs and what they hold grows with what is asked for, up to [`MOST`] of them.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Selection,
    item::Item,
    sorted::{Snapshot, Sorted},
};
use crate::Requirement;

/// Indexes of a collection, at most.
const MOST: usize = 8;
/// One that was not used for so long makes room for another.
const IDLE: Duration = Duration::from_secs(60);
/// What a value costs besides its items: its place in the map, a chunk and their allocations.
const VALUE_BYTES: usize = 160;

/// What an index is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// A label, by its name. Objects without it are in no value.
    Label(String),
    /// A field, by its path. It has a value in every object, if only the empty one.
    Field(String),
}

impl Key {
    /// The value of an object.
    pub(super) fn of<'a>(&self, item: &'a Item) -> Option<Cow<'a, str>> {
        match self {
            Self::Label(name) => item.object.meta().labels.get(name).map(|value| Cow::Borrowed(value.as_str())),
            Self::Field(path) => Some(Cow::Owned(item.field(path))),
        }
    }
}

/// The keys that must have one value each, with the value. Names and namespaces are found without an index.
fn required(selection: &Selection) -> impl Iterator<Item = (Key, &str)> {
    let labels = selection.labels.requirements.iter().filter_map(|requirement| match requirement {
        Requirement::In(name, values) => match values.as_slice() {
            [value] => Some((Key::Label(name.clone()), value.as_str())),
            _ => None,
        },
        _ => None,
    });
    let fields = selection.fields.terms.iter().filter(|(path, _, equal)| *equal && !path.starts_with("metadata."));
    fields.map(|(path, value, _)| (Key::Field(path.clone()), value.as_str())).chain(labels)
}

struct Index {
    key: Key,
    values: HashMap<Box<str>, Sorted>,
    /// When it was last used, in seconds since the first index of its collection could be.
    used: AtomicU64,
}

impl Index {
    fn put(&mut self, item: &Arc<Item>, value: &str, old: Option<&Arc<Item>>) {
        match self.values.get_mut(value) {
            Some(items) => items.insert(Arc::clone(item), old),
            None => {
                let mut items = Sorted::default();
                items.insert(Arc::clone(item), None);
                self.values.insert(value.into(), items);
            }
        }
    }

    /// Follows a change: what was there before, and what is there now.
    fn change(&mut self, before: Option<&Arc<Item>>, now: Option<&Arc<Item>>) {
        let old = before.and_then(|item| Some((item, self.key.of(item)?)));
        let new = now.and_then(|item| Some((item, self.key.of(item)?)));
        if let Some((item, value)) = &old
            && new.as_ref().is_none_or(|(_, new)| new != value)
            && let Some(items) = self.values.get_mut(&**value)
        {
            items.remove(item);
            if items.is_empty() {
                self.values.remove(&**value);
            }
        }
        if let Some((item, value)) = new {
            self.put(item, &value, before);
        }
    }
}

/// See the module's description.
pub(super) struct Indexes {
    all: Vec<Index>,
    since: Instant,
}

impl Default for Indexes {
    fn default() -> Self {
        Self { all: Vec::new(), since: Instant::now() }
    }
}

impl Indexes {
    fn now(&self) -> u64 {
        self.since.elapsed().as_secs()
    }

    /// What they are over.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.all.iter().map(|index| index.key.clone()).collect()
    }

    /// A key of a selection that has no index, if there is room for one.
    pub(super) fn missing(&self, selection: &Selection) -> Option<Key> {
        let room = self.all.len() < MOST || self.idle().is_some();
        let known = |key: &Key| self.all.iter().any(|index| index.key == *key);
        required(selection).map(|(key, _)| key).find(|key| room && !known(key))
    }

    /// The one that was not used for the longest time, if that is long.
    fn idle(&self) -> Option<usize> {
        let used = |at: &usize| self.all[*at].used.load(Ordering::Relaxed);
        let last = (0..self.all.len()).min_by_key(used)?;
        (used(&last) + IDLE.as_secs() < self.now()).then_some(last)
    }

    /// Makes an index of all items, in their order; none if there is no room for it.
    pub(super) fn add<'a>(&mut self, key: &Key, items: impl Iterator<Item = &'a Arc<Item>>) {
        if self.all.iter().any(|index| index.key == *key) {
            return;
        }
        if self.all.len() == MOST {
            let Some(idle) = self.idle() else { return };
            self.all.swap_remove(idle);
        }
        let mut index = Index { key: key.clone(), values: HashMap::new(), used: AtomicU64::new(self.now()) };
        for item in items {
            if let Some(value) = key.of(item) {
                index.put(item, &value, None);
            }
        }
        self.all.push(index);
    }

    /// Follows a change: what was there before, and what is there now.
    pub(super) fn change(&mut self, before: Option<&Arc<Item>>, now: Option<&Arc<Item>>) {
        for index in &mut self.all {
            index.change(before, now);
        }
    }

    /// The fewest items among which are all of a selection whose names begin with `prefix` and are greater than `behind`; `None` if no
    /// index tells.
    pub(super) fn fewest(&self, selection: &Selection, prefix: &str, behind: Option<&str>) -> Option<Snapshot> {
        if self.all.is_empty() {
            return None;
        }
        let told = required(selection).filter_map(|(key, value)| {
            let index = self.all.iter().find(|index| index.key == key)?;
            index.used.store(self.now(), Ordering::Relaxed);
            let items = index.values.get(value);
            Some(items.map_or_else(|| Snapshot::of(Vec::new()), |items| items.snapshot(prefix, behind)))
        });
        told.min_by_key(Snapshot::left)
    }

    /// About how many bytes they hold.
    pub(super) fn bytes(&self) -> usize {
        let values = self.all.iter().flat_map(|index| &index.values);
        values.map(|(value, items)| VALUE_BYTES + value.len() + items.len() * size_of::<Arc<Item>>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        LabelSelector, Object,
        server::storage::collection::{Change, Collection},
    };

    fn item(name: &str, version: u64, app: u8, node: u8) -> Arc<Item> {
        let (namespace, own) = name.split_once('/').unwrap();
        let labels = if app == 0 { String::new() } else { format!("\"app\":\"{app}\"") };
        let spec = if node == 0 { String::new() } else { format!("\"nodeName\":\"n{node}\"") };
        let json = format!(
            "{{\"metadata\":{{\"name\":\"{own}\",\"namespace\":\"{namespace}\",\"resourceVersion\":\"{version}\",\"labels\":{{{labels}}}}},\
             \"spec\":{{\"other\":[1,{{\"nodeName\":\"no\"}}],{spec}}}}}"
        )
        .replace(",}", "}");
        Item::new(name, Object::from_json(json).unwrap())
    }

    /// The versions of what a selection takes, through the indexes or by looking at all there is.
    fn selected(collection: &Collection, selection: &Selection, behind: Option<&str>, scan: bool) -> Vec<u64> {
        let state = collection.state.read();
        let prefix = super::super::collection::prefix(&selection.namespace);
        let mut items = if scan { state.items.snapshot(&prefix, behind) } else { state.candidates(selection, behind) };
        let mut versions = Vec::new();
        while let Some(item) = items.next_ref() {
            if selection.matches(item) {
                versions.push(item.object.revision());
            }
        }
        versions
    }

    fn selection(namespace: &str, labels: &str, fields: &str) -> Selection {
        Selection { namespace: namespace.to_owned(), labels: labels.parse().unwrap(), fields: fields.parse().unwrap() }
    }

    /// An object's name, what it is put with (`None` to delete it).
    type Op = (String, Option<(u8, u8)>);

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn they_tell_what_a_scan_tells(
            before in prop::collection::vec(("[ab]/[a-e]{1,2}", prop::option::weighted(0.8, (0..3u8, 0..4u8))), 0..200),
            after in prop::collection::vec(("[ab]/[a-e]{1,2}", prop::option::weighted(0.7, (0..3u8, 0..4u8))), 0..200),
        ) {
            let collection = Collection::new("pods", 0, 1 << 20);
            let mut version = 0;
            let mut apply = |ops: &[Op]| for (name, put) in ops {
                version += 1;
                let old = collection.get(name);
                let change = match (put, &old) {
                    (Some((app, node)), _) => Change::new(version, item(name, version, *app, *node), old.clone(), false),
                    (None, Some(last)) => Change::new(version, Arc::clone(last), old.clone(), true),
                    (None, None) => continue,
                };
                collection.apply(vec![change]);
            };
            apply(&before);
            for key in [Key::Field("spec.nodeName".to_owned()), Key::Label("app".to_owned())] {
                collection.add_index(&key);
            }
            apply(&after);
            for namespace in ["", "a", "b", "c"] {
                for (labels, fields) in [
                    ("", "spec.nodeName=n1"), ("", "spec.nodeName="), ("", "spec.nodeName!=n1"), ("", "spec.nodeName=n9"),
                    ("app=1", ""), ("app=1", "spec.nodeName=n2"), ("app in (1,2)", "spec.nodeName=n3"), ("!app", ""),
                    ("app=1,app=2", ""), ("app=7", ""), ("", "metadata.name=a"), ("app=2", "metadata.name=b"),
                ] {
                    let selection = selection(namespace, labels, fields);
                    for behind in [None, Some("a/c"), Some("b/a")] {
                        let (told, wanted) = (selected(&collection, &selection, behind, false), selected(&collection, &selection, behind, true));
                        prop_assert_eq!(told, wanted, "{:?} behind {:?}", selection, behind);
                    }
                }
            }
        }
    }

    /// A collection with so many objects on ten nodes.
    fn many(count: u64) -> Collection {
        let collection = Collection::new("pods", 0, 1 << 20);
        let put = |n: u64| Change::new(n, item(&format!("a/{n:05}"), n, 1, (n % 10) as u8 + 1), None, false);
        collection.apply((1..=count).map(put).collect());
        collection
    }

    #[tokio::test]
    async fn one_is_made_where_it_pays() {
        let on_node = selection("", "", "spec.nodeName=n3");
        let few = many(100);
        few.snapshot(&on_node, None, 0);
        assert_eq!(few.state.read().indexes.keys(), [], "few objects are looked through");
        let collection = many(3000);
        collection.snapshot(&Selection::default(), None, 0);
        collection.snapshot(&selection("", "app", "spec.nodeName!=n3"), None, 0);
        assert_eq!(collection.state.read().indexes.keys(), [], "nothing must have one value");
        let (mut found, _) = collection.snapshot(&on_node, None, 0);
        assert_eq!(found.left(), 300);
        assert!(found.next_ref().is_some_and(|item| item.field("spec.nodeName") == "n3"));
        assert_eq!(collection.state.read().indexes.keys(), [Key::Field("spec.nodeName".to_owned())]);
        // Where that leaves few, no other is made.
        collection.snapshot(&selection("", "app=1", "spec.nodeName=n3"), None, 0);
        assert_eq!(collection.state.read().indexes.keys().len(), 1);
        assert_eq!(
            collection.select("a", &LabelSelector::from_labels([(&"app".to_owned(), &"1".to_owned())])).len(),
            3000
        );
        assert_eq!(collection.state.read().indexes.keys().len(), 2);
        let bytes = collection.held().index_bytes;
        assert!((6000 * 8..6000 * 8 + 11 * 200).contains(&bytes), "{bytes}");
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_only_so_many() {
        let collection = many(2000);
        let ask = |key: &str| drop(collection.snapshot(&selection("", &format!("{key}=1"), ""), None, 0));
        (0..20).for_each(|number| ask(&format!("k{number}")));
        let keys = |collection: &Collection| collection.state.read().indexes.keys();
        assert_eq!(keys(&collection).len(), MOST);
        assert_eq!(keys(&collection)[0], Key::Label("k0".to_owned()));
        tokio::time::advance(IDLE + Duration::from_secs(2)).await;
        (1..MOST).for_each(|number| ask(&format!("k{number}")));
        ask("late");
        assert_eq!(keys(&collection).len(), MOST);
        assert!(keys(&collection).contains(&Key::Label("late".to_owned())));
        assert!(!keys(&collection).contains(&Key::Label("k0".to_owned())), "the one that nobody used");
    }
}
