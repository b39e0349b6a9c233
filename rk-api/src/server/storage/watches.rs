//! Who watches a collection, for what a change of it costs.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::Selection;

/// How many watch all objects, those of a namespace, or one, by `namespace/name` of what they watch.
#[derive(Default)]
pub(crate) struct Watches(Mutex<HashMap<String, usize>>);

/// A watch that is counted until this is dropped.
pub(super) struct Counted {
    watches: Arc<Watches>,
    of: String,
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// What stands for all, and this one, if it is one.
fn all_and(one: &str) -> impl Iterator<Item = &str> {
    [Some(""), Some(one).filter(|one| !one.is_empty())].into_iter().flatten()
}

impl Watches {
    /// Counts another one. Of what it selects by, only the name is looked at.
    pub(super) fn count(self: &Arc<Self>, selection: &Selection) -> Counted {
        let of = key(&selection.namespace, selection.fields.required("metadata.name").unwrap_or_default());
        *self.0.lock().entry(of.clone()).or_default() += 1;
        Counted { watches: Arc::clone(self), of }
    }

    /// How many are told when an object changes; without a name, those that do not watch a single one.
    pub(crate) fn interested(&self, namespace: &str, name: &str) -> usize {
        let (watches, mut count) = (self.0.lock(), 0);
        for namespace in all_and(namespace) {
            for name in all_and(name) {
                count += watches.get(&key(namespace, name)).copied().unwrap_or_default();
            }
        }
        count
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut watches = self.watches.0.lock();
        if let Some(count) = watches.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                watches.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_concerns_those_who_watch_its_object() {
        let watches = Arc::new(Watches::default());
        let count = |namespace: &str, fields: &str| {
            let fields = fields.parse().unwrap();
            watches.count(&Selection { namespace: namespace.to_owned(), fields, ..Selection::default() })
        };
        let mut held = vec![count("", ""), count("a", ""), count("a", "metadata.name=x"), count("", "metadata.name=x")];
        held.push(count("a", "spec.nodeName=n"));
        for (namespace, name, wanted) in
            [("a", "x", 5), ("a", "y", 3), ("a", "", 3), ("b", "x", 2), ("b", "", 1), ("", "x", 2), ("", "", 1)]
        {
            assert_eq!(watches.interested(namespace, name), wanted, "{namespace}/{name}");
        }
        drop(held);
        assert!(watches.0.lock().is_empty());
    }
}
