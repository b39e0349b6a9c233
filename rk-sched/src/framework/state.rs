//! What plugins keep for the length of one pod's cycle.

use std::any::{Any, TypeId};

use super::Status;

/// Data of plugins for one pod's cycle, by type: a plugin puts its own type in PreFilter or PreScore and finds it in
/// Filter or Score. Clones are independent (preemption tries on a clone).
#[derive(Default, Clone)]
pub struct CycleState {
    // A handful of entries: a scan beats a hash.
    slots: Vec<Entry>,
    /// The places in the profile of the plugins whose Filter, or Score, has nothing to do for this pod.
    pub(crate) skip_filter: PluginSet,
    pub(crate) skip_score: PluginSet,
    /// A plugin that failed where it could not say so; what it keeps here is not to be trusted any more.
    failure: Option<Status>,
}

/// Plugins of a profile by their places in it. The first 64 take no memory of their own.
#[derive(Debug, Default, Clone)]
pub(crate) struct PluginSet {
    first: u64,
    more: Vec<u64>,
}

impl PluginSet {
    const WORD: usize = 64;

    /// Adds the plugin at a place.
    pub(crate) fn insert(&mut self, place: usize) {
        let (word, bit) = (place / Self::WORD, 1 << (place % Self::WORD));
        match word.checked_sub(1) {
            None => self.first |= bit,
            Some(at) => {
                self.more.resize(self.more.len().max(at + 1), 0);
                self.more[at] |= bit;
            }
        }
    }

    /// Whether the plugin at a place is in it.
    pub(crate) fn contains(&self, place: usize) -> bool {
        let word = match (place / Self::WORD).checked_sub(1) {
            None => self.first,
            Some(at) => self.more.get(at).copied().unwrap_or(0),
        };
        word & (1 << (place % Self::WORD)) != 0
    }
}

#[derive(Clone)]
struct Entry {
    id: TypeId,
    data: Box<dyn Slot>,
    /// It goes once the pod has its node.
    brief: bool,
}

trait Slot: Any + Send + Sync {
    fn clone_slot(&self) -> Box<dyn Slot>;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<T: Any + Clone + Send + Sync> Slot for T {
    fn clone_slot(&self) -> Box<dyn Slot> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl Clone for Box<dyn Slot> {
    fn clone(&self) -> Self {
        (**self).clone_slot()
    }
}

impl CycleState {
    /// Puts data in, in place of earlier data of the type.
    pub fn insert<T: Any + Clone + Send + Sync>(&mut self, data: T) {
        self.put(data, false);
    }

    /// As [`CycleState::insert`], for data that Filter and Score alone need: it is dropped once the pod has its node, so that pods that are being
    /// bound don't hold it.
    pub fn insert_brief<T: Any + Clone + Send + Sync>(&mut self, data: T) {
        self.put(data, true);
    }

    fn put<T: Any + Clone + Send + Sync>(&mut self, data: T, brief: bool) {
        let id = TypeId::of::<T>();
        let entry = Entry { id, data: Box::new(data), brief };
        match self.slots.iter_mut().find(|known| known.id == id) {
            Some(old) => *old = entry,
            None => self.slots.push(entry),
        }
    }

    /// Drops what was put in for Filter and Score alone.
    pub(crate) fn end_of_cycle(&mut self) {
        self.slots.retain(|entry| !entry.brief);
    }

    /// Notes the failure of a plugin.
    pub(crate) fn fail(&mut self, status: Status) {
        self.failure.get_or_insert(status);
    }

    /// The failure of a plugin.
    pub(crate) fn failure(&self) -> Option<&Status> {
        self.failure.as_ref()
    }

    /// The data of a type.
    pub fn get<T: Any>(&self) -> Option<&T> {
        let id = TypeId::of::<T>();
        let entry = self.slots.iter().find(|known| known.id == id)?;
        (*entry.data).as_any().downcast_ref()
    }

    /// The data of a type, to change it.
    pub fn get_mut<T: Any>(&mut self) -> Option<&mut T> {
        let id = TypeId::of::<T>();
        let entry = self.slots.iter_mut().find(|known| known.id == id)?;
        (*entry.data).as_any_mut().downcast_mut()
    }
}

impl std::fmt::Debug for CycleState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CycleState").field("entries", &self.slots.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_independent() {
        let mut state = CycleState::default();
        state.insert(5_u32);
        state.insert("text");
        let mut other = state.clone();
        *other.get_mut::<u32>().unwrap() = 6;
        other.insert("another");
        assert_eq!((state.get::<u32>(), state.get::<&str>()), (Some(&5), Some(&"text")));
        assert_eq!((other.get::<u32>(), other.get::<&str>()), (Some(&6), Some(&"another")));
        assert_eq!(state.get::<i8>(), None);
    }

    #[test]
    fn sets_of_plugins_have_any_size() {
        let places = [0, 1, 63, 64, 127, 128, 1000];
        let mut set = PluginSet::default();
        places.iter().for_each(|place| set.insert(*place));
        let known: Vec<usize> = (0..2000).filter(|place| set.contains(*place)).collect();
        assert_eq!(known, places);
    }

    #[test]
    fn brief_data_goes_at_the_end_of_the_cycle() {
        let mut state = CycleState::default();
        state.insert(5_u32);
        state.insert_brief("text");
        state.end_of_cycle();
        assert_eq!((state.get::<u32>(), state.get::<&str>()), (Some(&5), None));
    }
}
