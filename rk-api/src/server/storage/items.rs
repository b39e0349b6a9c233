//! The objects of a collection, in the store's order, of which a snapshot costs next to nothing.
//!
//! They lie in chunks that snapshots share: a change of a chunk that a snapshot holds copies that chunk and no other. Single objects
//! are found by a hash of their name, so what that costs does not grow with their number.

use std::{
    borrow::Borrow,
    collections::HashSet,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::item::Item;

/// The most objects of a chunk, and the fewest, below which it joins its neighbour.
const CHUNK: (usize, usize) = (256, 64);

type Chunk = Vec<Arc<Item>>;

/// An item that is known by its name.
struct Named(Arc<Item>);

impl Borrow<str> for Named {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Named {}

/// See the module's description.
#[derive(Default)]
pub(super) struct Items {
    /// None is empty.
    chunks: Vec<Arc<Chunk>>,
    by_name: HashSet<Named>,
}

impl Items {
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Item>> {
        self.by_name.get(name).map(|named| &named.0)
    }

    /// Puts an item in its place; the one of the same name that was there.
    pub(super) fn insert(&mut self, item: Arc<Item>) -> Option<Arc<Item>> {
        let replaced = self.by_name.replace(Named(Arc::clone(&item))).map(|named| named.0);
        let at = self.chunk_of(&item.name);
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(Arc::new(vec![item]));
            return replaced;
        };
        let chunk = Arc::make_mut(chunk);
        match chunk.binary_search_by(|other| other.name.cmp(&item.name)) {
            Ok(place) => chunk[place] = item,
            Err(place) => chunk.insert(place, item),
        }
        if chunk.len() > CHUNK.0 {
            // Names that grow fill their chunks.
            let last = at + 1 == self.chunks.len();
            let keep = if last { CHUNK.0 } else { CHUNK.0 / 2 };
            let rest = Arc::make_mut(&mut self.chunks[at]).split_off(keep);
            self.chunks.insert(at + 1, Arc::new(rest));
        }
        replaced
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<Item>> {
        let removed = self.by_name.take(name)?.0;
        let at = self.chunk_of(name);
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        if let Ok(place) = chunk.binary_search_by(|other| (*other.name).cmp(name)) {
            chunk.remove(place);
        }
        if chunk.is_empty() {
            self.chunks.remove(at);
        } else if chunk.len() < CHUNK.1 && at + 1 < self.chunks.len() && self.chunks[at + 1].len() < CHUNK.0 / 2 {
            let next = self.chunks.remove(at + 1);
            Arc::make_mut(&mut self.chunks[at]).extend(next.iter().cloned());
        }
        Some(removed)
    }

    /// The chunk that has a name, or should have it: 0 if there are none.
    fn chunk_of(&self, name: &str) -> usize {
        self.chunks.partition_point(|chunk| *chunk[0].name <= *name).saturating_sub(1)
    }

    /// All items, in order.
    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Item>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The items whose names begin with `prefix` and are greater than `behind`, as they are now.
    pub(super) fn snapshot(&self, prefix: &str, behind: Option<&str>) -> Snapshot {
        let behind = behind.filter(|behind| *behind >= prefix);
        // Those before the first one.
        let is_before = |item: &Arc<Item>| match behind {
            Some(behind) => *item.name <= *behind,
            None => *item.name < *prefix,
        };
        let is_within = |item: &Arc<Item>| is_before(item) || item.name.starts_with(prefix);
        let from = self.chunks.partition_point(|chunk| chunk.last().is_some_and(is_before));
        let to = from + self.chunks[from..].partition_point(|chunk| is_within(&chunk[0]));
        let chunks = self.chunks[from..to].to_vec();
        let next = chunks.first().map_or(0, |chunk| chunk.partition_point(is_before));
        // The names that begin with the prefix lie together.
        let end = chunks.last().map_or(0, |chunk| chunk.partition_point(is_within));
        Snapshot { chunks, chunk: 0, next, end }
    }
}

/// Items as they were at one moment, one after the other.
#[derive(Clone)]
pub(crate) struct Snapshot {
    chunks: Vec<Arc<Chunk>>,
    chunk: usize,
    next: usize,
    /// Behind the last item of the last chunk.
    end: usize,
}

impl Snapshot {
    /// Of these items.
    pub(super) fn of(items: Vec<Arc<Item>>) -> Self {
        let end = items.len();
        Self { chunks: vec![Arc::new(items)], chunk: 0, next: 0, end }
    }

    /// The next item, without taking it out of its chunk.
    pub(super) fn next_ref(&mut self) -> Option<&Arc<Item>> {
        loop {
            let chunk = self.chunks.get(self.chunk)?;
            let end = if self.chunk + 1 == self.chunks.len() { self.end } else { chunk.len() };
            if self.next < end {
                self.next += 1;
                return self.chunks[self.chunk].get(self.next - 1);
            }
            self.chunk += 1;
            self.next = 0;
        }
    }

    /// How many are left.
    pub(crate) fn left(&self) -> usize {
        let rest = self.chunks.get(self.chunk..).unwrap_or_default();
        let Some((_, whole)) = rest.split_last() else { return 0 };
        whole.iter().map(|chunk| chunk.len()).sum::<usize>() + self.end - self.next
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::Object;

    fn item(name: &str, version: usize) -> Arc<Item> {
        let json = format!("{{\"metadata\":{{\"name\":\"x\",\"resourceVersion\":\"{version}\"}}}}");
        Item::new(name, Object::from_json(json).unwrap())
    }

    fn names(mut snapshot: Snapshot) -> Vec<(String, u64)> {
        let mut all = Vec::with_capacity(snapshot.left());
        while let Some(item) = snapshot.next_ref() {
            all.push((item.name.to_string(), item.object.revision()));
        }
        assert_eq!(snapshot.left(), 0);
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn it_is_a_map_in_order(ops in prop::collection::vec((any::<bool>(), "[ab]/[a-f]{1,3}|c"), 0..2500)) {
            let (mut items, mut model) = (Items::default(), BTreeMap::new());
            let mut before = None;
            for (version, (put, name)) in ops.iter().enumerate() {
                if *put {
                    let old = items.insert(item(name, version));
                    prop_assert_eq!(old.map(|item| item.object.revision()), model.insert(name.clone(), version as u64));
                } else {
                    let old = items.remove(name);
                    prop_assert_eq!(old.map(|item| item.object.revision()), model.remove(name));
                }
                if version == ops.len() / 2 {
                    before = Some((items.snapshot("", None), model.clone()));
                }
            }
            prop_assert_eq!(items.len(), model.len());
            for (prefix, behind) in [("", None), ("a/", None), ("b/", Some("b/c")), ("", Some("b")), ("b/", Some("a/c")), ("d", None)] {
                let wanted: Vec<_> = model
                    .iter()
                    .filter(|(name, _)| name.starts_with(prefix) && behind.is_none_or(|behind| name.as_str() > behind))
                    .map(|(name, version)| (name.clone(), *version))
                    .collect();
                let snapshot = items.snapshot(prefix, behind);
                prop_assert_eq!(snapshot.left(), wanted.len());
                prop_assert_eq!(names(snapshot), wanted);
            }
            if let Some((snapshot, model)) = before {
                prop_assert_eq!(names(snapshot), model.into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn many_stay_in_few_chunks() {
        let mut items = Items::default();
        (0..10_000).for_each(|number| drop(items.insert(item(&format!("{number:05}"), 1))));
        assert!(items.chunks.len() <= 10_000 / CHUNK.0 + 1, "{}", items.chunks.len());
        (0..9_990).for_each(|number| drop(items.remove(&format!("{number:05}"))));
        assert_eq!((items.chunks.len(), items.len()), (1, 10));
        assert!(items.get("09995").is_some() && items.get("00001").is_none());
    }
}
