//! The objects of a collection: in the store's order, and single ones by a hash of their name, so that what it costs to find one does not
//! grow with their number.

use std::{
    borrow::Borrow,
    collections::HashSet,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::{
    item::Item,
    sorted::{Snapshot, Sorted},
};

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
    sorted: Sorted,
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
        self.sorted.insert(item, replaced.as_ref());
        replaced
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<Item>> {
        let removed = self.by_name.take(name)?.0;
        self.sorted.remove(&removed);
        Some(removed)
    }

    /// All items, in order.
    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Item>> {
        self.sorted.values()
    }

    /// The items whose names begin with `prefix` and are greater than `behind`, as they are now.
    pub(super) fn snapshot(&self, prefix: &str, behind: Option<&str>) -> Snapshot {
        self.sorted.snapshot(prefix, behind)
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
}
