//! Items in the store's order, of which a snapshot costs next to nothing.
//!
//! They lie in chunks that snapshots share: a change of a chunk that a snapshot holds copies that chunk and no other.

use std::sync::Arc;

use super::item::Item;

/// The most items of a chunk, and the fewest, below which it joins its neighbour.
const CHUNK: (usize, usize) = (256, 64);

type Chunk = Vec<Arc<Item>>;

struct Part {
    /// The first item's name: a search for a chunk looks at these and at no item, most of which lie apart.
    first: Box<str>,
    /// Never empty.
    items: Arc<Chunk>,
}

impl Part {
    fn new(items: Chunk) -> Option<Self> {
        Some(Self { first: items.first()?.name.clone(), items: Arc::new(items) })
    }
}

/// See the module's description.
#[derive(Default)]
pub(super) struct Sorted {
    parts: Vec<Part>,
}

/// Where a name is, or should be; `item`, if it is there, is found without a look at any other.
fn place(chunk: &Chunk, name: &str, item: Option<&Arc<Item>>) -> Result<usize, usize> {
    if let Some(place) = item.and_then(|item| chunk.iter().position(|other| Arc::ptr_eq(other, item))) {
        return Ok(place);
    }
    // Names that grow come last.
    match chunk.last() {
        Some(last) if *last.name < *name => Err(chunk.len()),
        _ => chunk.binary_search_by(|other| (*other.name).cmp(name)),
    }
}

impl Sorted {
    /// Puts an item in its place, which may be that of an older version: of `old`, where that is known.
    pub(super) fn insert(&mut self, item: Arc<Item>, old: Option<&Arc<Item>>) {
        let at = self.part_of(&item.name);
        let Some(part) = self.parts.get_mut(at) else {
            return self.parts.extend(Part::new(vec![item]));
        };
        let chunk = Arc::make_mut(&mut part.items);
        match place(chunk, &item.name, old) {
            Ok(place) => chunk[place] = item,
            Err(place) => {
                if place == 0 {
                    part.first = item.name.clone();
                }
                chunk.insert(place, item);
            }
        }
        if chunk.len() > CHUNK.0 {
            let last = at + 1 == self.parts.len();
            let keep = if last { CHUNK.0 } else { CHUNK.0 / 2 };
            let rest = Arc::make_mut(&mut self.parts[at].items).split_off(keep);
            self.parts.splice(at + 1..at + 1, Part::new(rest));
        }
    }

    /// Takes an item out, if it is there.
    pub(super) fn remove(&mut self, item: &Arc<Item>) {
        let at = self.part_of(&item.name);
        let Some(part) = self.parts.get_mut(at) else { return };
        let Ok(place) = place(&part.items, &item.name, Some(item)) else { return };
        let chunk = Arc::make_mut(&mut part.items);
        chunk.remove(place);
        let Some(first) = chunk.first() else {
            self.parts.remove(at);
            return;
        };
        if place == 0 {
            part.first = first.name.clone();
        }
        let few = chunk.len() < CHUNK.1;
        if few && self.parts.get(at + 1).is_some_and(|next| next.items.len() < CHUNK.0 / 2) {
            let next = self.parts.remove(at + 1);
            Arc::make_mut(&mut self.parts[at].items).extend(next.items.iter().cloned());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.items.len()).sum()
    }

    /// The part that has a name, or should have it: 0 if there are none.
    fn part_of(&self, name: &str) -> usize {
        self.parts.partition_point(|part| *part.first <= *name).saturating_sub(1)
    }

    /// All items, in order.
    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Item>> {
        self.parts.iter().flat_map(|part| part.items.iter())
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
        let from = self.parts.partition_point(|part| part.items.last().is_some_and(is_before));
        let to = from + self.parts[from..].partition_point(|part| is_within(&part.items[0]));
        let chunks: Vec<_> = self.parts[from..to].iter().map(|part| Arc::clone(&part.items)).collect();
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

    /// The item that was next before.
    pub(super) fn last_ref(&self) -> Option<&Arc<Item>> {
        self.chunks.get(self.chunk)?.get(self.next.checked_sub(1)?)
    }

    /// The next items, but no more than lie together.
    pub(super) fn coming(&self) -> &[Arc<Item>] {
        self.chunks.get(self.chunk).and_then(|chunk| chunk.get(self.next..)).unwrap_or_default()
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
    use super::*;
    use crate::Object;

    #[test]
    fn many_stay_in_few_chunks() {
        let item = |name: &str| Item::new(name, Object::from_json("{\"metadata\":{\"name\":\"x\"}}").unwrap());
        let mut items = Sorted::default();
        (0..10_000).for_each(|number| items.insert(item(&format!("{number:05}")), None));
        assert!(items.parts.len() <= 10_000 / CHUNK.0 + 1, "{}", items.parts.len());
        (0..9_990).for_each(|number| items.remove(&item(&format!("{number:05}"))));
        assert_eq!((items.parts.len(), items.values().count()), (1, 10));
    }
}
