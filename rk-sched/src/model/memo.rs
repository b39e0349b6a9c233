//! What was found out about the snapshot for one pod and holds for the next.

use std::{
    any::{Any, TypeId},
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use super::{ClassKey, NodeIndex};

/// A pod came to a node or went.
#[derive(Debug, Clone)]
pub(crate) struct Placement {
    pub(crate) class: Arc<ClassKey>,
    pub(crate) node: NodeIndex,
    /// 1 or -1.
    pub(crate) by: i64,
}

/// The last placements, numbered.
#[derive(Debug, Default)]
pub(super) struct Placements {
    last: VecDeque<Placement>,
    /// The number of the first that is kept.
    first: u64,
}

/// So many placements are kept; who comes back later counts anew.
const KEPT: usize = 4096;

impl Placements {
    fn next(&self) -> u64 {
        self.first + self.last.len() as u64
    }

    pub(super) fn note(&mut self, placement: Placement) {
        if self.last.len() == KEPT {
            self.last.pop_front();
            self.first += 1;
        }
        self.last.push_back(placement);
    }

    /// Those from a number on; `None` if some of them were forgotten.
    fn since(&self, number: u64) -> Option<impl Iterator<Item = &Placement>> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        Some(self.last.range(at.min(self.last.len())..))
    }
}

/// A value that a plugin found for a key.
struct Entry<K, V> {
    key: K,
    value: Arc<V>,
    /// The number of the first placement that the value does not know.
    seen: u64,
    /// The layout of the nodes that it was found on.
    layout: u64,
    used: u64,
}

/// So many values of a kind are kept, those that were used last.
const VALUES: usize = 32;

type Shelf<K, V> = Vec<Entry<K, V>>;

/// Values by the types of their keys and their own.
#[derive(Default)]
pub(super) struct Memos {
    shelves: HashMap<TypeId, Box<dyn Any + Send>>,
    uses: u64,
}

impl fmt::Debug for Memos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memos").field("kinds", &self.shelves.len()).finish_non_exhaustive()
    }
}

impl Memos {
    /// The value of the key that `is` knows, brought up to date by `follow`, or built and kept under `key`.
    pub(super) fn recall<K: Send + 'static, V: Clone + Send + Sync + 'static>(
        &mut self,
        layout: u64,
        placements: &Placements,
        is: impl Fn(&K) -> bool,
        key: impl FnOnce() -> K,
        build: impl FnOnce() -> V,
        mut follow: impl FnMut(&mut V, &Placement),
    ) -> Arc<V> {
        self.uses += 1;
        let used = self.uses;
        let shelf = self.shelves.entry(TypeId::of::<(K, V)>()).or_insert_with(|| Box::new(Shelf::<K, V>::new()));
        let shelf = shelf.downcast_mut::<Shelf<K, V>>().expect("the shelf of these types");
        // Out of the shelf while it changes: should that panic, there is no half of it.
        let known = shelf.iter().position(|entry| is(&entry.key)).map(|at| shelf.swap_remove(at));
        if let Some(mut entry) = known.filter(|entry| entry.layout == layout)
            && let Some(mut news) = placements.since(entry.seen).map(Iterator::peekable)
        {
            if news.peek().is_some() {
                let value = Arc::make_mut(&mut entry.value);
                news.for_each(|placement| follow(value, placement));
            }
            (entry.seen, entry.used) = (placements.next(), used);
            let value = Arc::clone(&entry.value);
            shelf.push(entry);
            return value;
        }
        let value = Arc::new(build());
        shelf.retain(|entry| entry.layout == layout);
        if shelf.len() == VALUES {
            let oldest = shelf.iter().enumerate().min_by_key(|(_, entry)| entry.used).map(|(at, _)| at);
            oldest.map(|at| shelf.swap_remove(at));
        }
        shelf.push(Entry { key: key(), value: Arc::clone(&value), seen: placements.next(), layout, used });
        value
    }
}

/// A number per node that is found out when it is first asked for.
#[derive(Debug)]
pub(crate) struct Lazily(Vec<AtomicI64>);

const UNKNOWN: i64 = i64::MIN;

impl Clone for Lazily {
    fn clone(&self) -> Self {
        Self(self.0.iter().map(|number| AtomicI64::new(number.load(Ordering::Relaxed))).collect())
    }
}

impl Lazily {
    pub(crate) fn new(slots: usize) -> Self {
        Self((0..slots).map(|_| AtomicI64::new(UNKNOWN)).collect())
    }

    pub(crate) fn get(&self, node: NodeIndex, find: impl FnOnce() -> i64) -> i64 {
        let Some(cell) = self.0.get(node.slot()) else { return find() };
        let known = cell.load(Ordering::Relaxed);
        if known != UNKNOWN {
            return known;
        }
        let found = find();
        cell.store(found, Ordering::Relaxed);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(node: u32) -> Placement {
        let pod = crate::model::PodInfo::new(Arc::default());
        Placement { class: Arc::new(ClassKey::of(&pod)), node: NodeIndex(node), by: 1 }
    }

    fn recall(memos: &mut Memos, layout: u64, placements: &Placements, key: &'static str) -> (Arc<Vec<u32>>, bool) {
        let mut built = false;
        let build = || {
            built = true;
            Vec::new()
        };
        let follow = |seen: &mut Vec<u32>, placement: &Placement| seen.push(placement.node.0);
        (memos.recall(layout, placements, |known: &&str| *known == key, || key, build, follow), built)
    }

    #[test]
    fn a_value_follows_what_happened_since() {
        let (mut memos, mut placements) = (Memos::default(), Placements::default());
        assert!(recall(&mut memos, 0, &placements, "a").1);
        placements.note(placement(1));
        placements.note(placement(2));
        let (seen, built) = recall(&mut memos, 0, &placements, "a");
        assert_eq!((seen.as_slice(), built), (&[1, 2][..], false));
        // Another key knows what is there when it is built.
        assert!(recall(&mut memos, 0, &placements, "b").1);
        placements.note(placement(3));
        assert_eq!(*recall(&mut memos, 0, &placements, "a").0, [1, 2, 3]);
        assert_eq!(*recall(&mut memos, 0, &placements, "b").0, [3]);
        assert_eq!(*seen, [1, 2], "who holds an older value keeps it");
        assert!(recall(&mut memos, 1, &placements, "a").1, "of another layout nothing holds");
    }

    #[test]
    fn who_was_away_too_long_counts_anew() {
        let (mut memos, mut placements) = (Memos::default(), Placements::default());
        recall(&mut memos, 0, &placements, "a");
        (0..KEPT).for_each(|_| placements.note(placement(0)));
        assert!(!recall(&mut memos, 0, &placements, "a").1);
        (0..=KEPT).for_each(|_| placements.note(placement(0)));
        assert!(recall(&mut memos, 0, &placements, "a").1);
    }

    #[test]
    fn a_number_is_found_once() {
        let numbers = Lazily::new(2);
        assert_eq!(numbers.get(NodeIndex(1), || 7), 7);
        assert_eq!(numbers.get(NodeIndex(1), || unreachable!("it is known")), 7);
        assert_eq!(numbers.get(NodeIndex(5), || 3), 3);
    }
}
