//! What plugins keep for the length of one pod's cycle.

use std::any::{Any, TypeId};

/// Data of plugins for one pod's cycle, by type: a plugin puts its own type in PreFilter or PreScore and finds it in
/// Filter or Score. Clones are independent (preemption tries on a clone).
#[derive(Default, Clone)]
pub struct CycleState {
    // A handful of entries: a scan beats a hash.
    slots: Vec<(TypeId, Box<dyn Slot>)>,
    /// Bits of the plugins whose Filter, or Score, has nothing to do for this pod.
    pub(crate) skip_filter: u64,
    pub(crate) skip_score: u64,
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
        let id = TypeId::of::<T>();
        let slot: Box<dyn Slot> = Box::new(data);
        match self.slots.iter_mut().find(|(known, _)| *known == id) {
            Some((_, old)) => *old = slot,
            None => self.slots.push((id, slot)),
        }
    }

    /// The data of a type.
    pub fn get<T: Any>(&self) -> Option<&T> {
        let id = TypeId::of::<T>();
        let (_, slot) = self.slots.iter().find(|(known, _)| *known == id)?;
        (**slot).as_any().downcast_ref()
    }

    /// The data of a type, to change it.
    pub fn get_mut<T: Any>(&mut self) -> Option<&mut T> {
        let id = TypeId::of::<T>();
        let (_, slot) = self.slots.iter_mut().find(|(known, _)| *known == id)?;
        (**slot).as_any_mut().downcast_mut()
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
}
