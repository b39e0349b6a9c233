//! Volumes that any claim of their class may have, by size and by where they can be used.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::VolumeInfo;

/// The available volumes of a class. A volume each of whose terms asks for values of some label, or for nodes by name, is found by these, so
/// that finding one for a node does not look through the volumes of other nodes. Whether the rest of the term holds is still to be seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Available {
    /// Usable on all nodes.
    anywhere: BTreeSet<Key>,
    /// Usable at most where a label has a value: by label, by value. The label without a name is for names of nodes.
    by_label: BTreeMap<String, HashMap<String, BTreeSet<Key>>>,
    /// Usable where some other condition holds.
    elsewhere: BTreeSet<Key>,
}

/// In place of a label: the node's name. No label is called so.
const NAME: &str = "";

/// Size, then name: the smallest comes first.
type Key = (i64, Arc<str>);

impl Available {
    pub(super) fn insert(&mut self, volume: &VolumeInfo) {
        let key = || (volume.capacity, Arc::clone(&volume.name));
        match Usable::of(volume) {
            Usable::Anywhere => drop(self.anywhere.insert(key())),
            Usable::Elsewhere => drop(self.elsewhere.insert(key())),
            Usable::Labelled(labels) => {
                for (label, value) in labels {
                    let values = self.by_label.entry(label.to_owned()).or_default();
                    values.entry(value.to_owned()).or_default().insert(key());
                }
            }
        }
    }

    pub(super) fn remove(&mut self, volume: &VolumeInfo) {
        let key = (volume.capacity, Arc::clone(&volume.name));
        match Usable::of(volume) {
            Usable::Anywhere => drop(self.anywhere.remove(&key)),
            Usable::Elsewhere => drop(self.elsewhere.remove(&key)),
            Usable::Labelled(labels) => {
                for (label, value) in labels {
                    let Some(values) = self.by_label.get_mut(label) else { continue };
                    if let Some(keys) = values.get_mut(value) {
                        keys.remove(&key);
                        if keys.is_empty() {
                            values.remove(value);
                        }
                    }
                    if values.is_empty() {
                        self.by_label.remove(label);
                    }
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.anywhere.is_empty() && self.by_label.is_empty() && self.elsewhere.is_empty()
    }

    /// Names of those of at least this size that can be used on all nodes, the smallest first.
    pub(crate) fn anywhere(&self, size: i64) -> impl Iterator<Item = &Arc<str>> {
        at_least(&self.anywhere, size)
    }

    /// Names of those of at least this size whose affinity has to be looked at, the smallest first.
    pub(crate) fn elsewhere(&self, size: i64) -> impl Iterator<Item = &Arc<str>> {
        at_least(&self.elsewhere, size)
    }

    /// Names of those of at least this size that may be usable on a node of this name and with these labels, by label, the smallest first.
    pub(crate) fn on<'a>(
        &'a self,
        name: &'a str,
        labels: &'a BTreeMap<String, String>,
        size: i64,
    ) -> impl Iterator<Item = impl Iterator<Item = &'a Arc<str>>> {
        let value = move |label: &str| if label == NAME { Some(name) } else { labels.get(label).map(String::as_str) };
        let sets = self.by_label.iter().filter_map(move |(label, values)| values.get(value(label)?));
        sets.map(move |set| at_least(set, size))
    }
}

fn at_least(set: &BTreeSet<Key>, size: i64) -> impl Iterator<Item = &Arc<str>> {
    set.range((size, Arc::from(""))..).map(|(_, name)| name)
}

/// Where a volume can be used.
enum Usable<'a> {
    Anywhere,
    /// At most where a label has a value: one of these.
    Labelled(Vec<(&'a str, &'a str)>),
    Elsewhere,
}

impl<'a> Usable<'a> {
    fn of(volume: &'a VolumeInfo) -> Self {
        let Some(terms) = &volume.affinity else { return Self::Anywhere };
        let mut all = Vec::new();
        for term in terms.terms() {
            let (label, values) = match (term.label(), term.name()) {
                (Some((label, values)), _) => (label, values),
                (None, Some(names)) => (NAME, names),
                (None, None) => return Self::Elsewhere,
            };
            all.extend(values.iter().map(|value| (label, value.as_str())));
        }
        Self::Labelled(all)
    }
}
