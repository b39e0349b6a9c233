//! What plugins keep for the length of one pod's cycle.

use std::any::{Any, TypeId};

use super::Status;

/// Data of plugins for one pod's cycle, by type: a plugin puts its own type in PreFilter or PreScore and finds it in
/// Filter or Score. Clones are independent (preemption tries on a clone).
#[derive(Default, Clone)]
pub struct CycleState {
    // A handful of entries: a scan beats a hash.
    slots: Vec<Entry>,
    /// Bits of the plugins whose Filter, or Score, has nothing to do for this pod.
    pub(crate) skip_filter: u64,
    pub(crate) skip_score: u64,
    /// A plugin that failed where it could not say so; what it keeps here is not to be trusted any more.
    failure: Option<Status>,
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
    fn brief_data_goes_at_the_end_of_the_cycle() {
        let mut state = CycleState::default();
        state.insert(5_u32);
        state.insert_brief("text");
        state.end_of_cycle();
        assert_eq!((state.get::<u32>(), state.get::<&str>()), (Some(&5), None));
    }
}
