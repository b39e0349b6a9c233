//! The protobuf forms of a collection's objects, which all who read an object share. They are kept beside its JSON, as many as there is room
//! for.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{Error, Object, server::schema::protobuf::Encoded};

/// Places in the queue that may be of forms that are gone, besides as many as there are forms.
const GONE: usize = 64;

/// For whom a form is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// One who reads what is there: it is kept if there is room.
    Reader,
    /// Those who watch, all of whom want it now: others go for it.
    Watchers,
}

/// See the module's description.
#[derive(Default)]
pub(crate) struct Forms {
    /// Bytes that forms may hold.
    room: AtomicUsize,
    held: Arc<Totals>,
    /// Those that are kept, the oldest first.
    kept: Mutex<VecDeque<Weak<Slot>>>,
}

#[derive(Default)]
struct Totals {
    bytes: AtomicUsize,
    count: AtomicUsize,
}

/// Where an object has its form. Who makes it holds the lock, so that no other makes it too.
#[derive(Default)]
struct Slot(Mutex<Option<Kept>>);

struct Kept {
    form: Arc<Encoded>,
    bytes: usize,
    held: Arc<Totals>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.held.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Forms {
    /// How many bytes are held.
    pub(super) fn bytes(&self) -> usize {
        self.held.bytes.load(Ordering::Relaxed)
    }

    /// Sees to it that forms hold no more bytes from now on.
    pub(super) fn fit(&self, room: usize) {
        self.room.store(room, Ordering::Relaxed);
        self.make_room();
    }

    fn make_room(&self) {
        while self.bytes() > self.room.load(Ordering::Relaxed) {
            let Some(oldest) = self.kept.lock().pop_front() else { return };
            if let Some(slot) = oldest.upgrade() {
                drop(slot.0.lock().take());
            }
        }
    }

    /// The form of an object, which `encode` makes if it is not kept.
    ///
    /// # Errors
    /// Those of `encode`.
    pub(crate) fn of(
        &self,
        object: &Object,
        wanted: For,
        encode: impl FnOnce() -> Result<Encoded, Error>,
    ) -> Result<Arc<Encoded>, Error> {
        let slot = object.cached(|| Ok(Slot::default()))?;
        let mut place = slot.0.lock();
        if let Some(kept) = &*place {
            return Ok(Arc::clone(&kept.form));
        }
        let form = Arc::new(encode()?);
        let bytes = form.envelope().len();
        if wanted == For::Reader && self.bytes() + bytes > self.room.load(Ordering::Relaxed) {
            return Ok(form);
        }
        self.held.bytes.fetch_add(bytes, Ordering::Relaxed);
        let count = 1 + self.held.count.fetch_add(1, Ordering::Relaxed);
        *place = Some(Kept { form: Arc::clone(&form), bytes, held: Arc::clone(&self.held) });
        drop(place);
        let mut kept = self.kept.lock();
        kept.push_back(Arc::downgrade(&slot));
        if kept.len() > 2 * count + GONE {
            kept.retain(|slot| slot.strong_count() > 0);
        }
        drop(kept);
        self.make_room();
        Ok(form)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::server::schema::protobuf;

    fn object(number: usize) -> Arc<Object> {
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{number:03}")},
            "data": {"filling": "x".repeat(1000)}});
        Arc::new(Object::from_value(&value).unwrap())
    }

    fn form(forms: &Forms, object: &Object, wanted: For) -> Arc<Encoded> {
        forms.of(object, wanted, || Ok(protobuf::encode(&object.value()?).unwrap())).unwrap()
    }

    /// Whether an object's form is kept.
    fn is_kept(object: &Object) -> bool {
        object.cached(|| Ok(Slot::default())).unwrap().0.lock().is_some()
    }

    #[test]
    fn they_keep_within_their_room() {
        let forms = Forms::default();
        forms.fit(10_000);
        let objects: Vec<_> = (0..20).map(object).collect();
        let bytes = form(&forms, &objects[0], For::Reader).envelope().len();
        assert!(Arc::ptr_eq(&form(&forms, &objects[0], For::Reader), &form(&forms, &objects[0], For::Watchers)));
        objects.iter().for_each(|object| drop(form(&forms, object, For::Reader)));
        let kept = 10_000 / bytes;
        assert_eq!(forms.bytes(), kept * bytes);
        let are_kept = || objects.iter().map(|object| is_kept(object)).collect::<Vec<_>>();
        assert!(are_kept().iter().enumerate().all(|(at, is)| *is == (at < kept)), "those that came first");
        form(&forms, &objects[19], For::Watchers);
        assert!(forms.bytes() == kept * bytes && is_kept(&objects[19]) && !is_kept(&objects[0]));
        forms.fit(2 * bytes);
        assert!(forms.bytes() == 2 * bytes && is_kept(&objects[19]));
        drop(objects);
        assert_eq!(forms.bytes(), 0);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let forms = Forms::default();
        forms.fit(1 << 20);
        let stays = object(0);
        form(&forms, &stays, For::Watchers);
        (1..1000).for_each(|number| drop(form(&forms, &object(number), For::Watchers)));
        assert!(forms.kept.lock().len() <= 2 + GONE + 1 && is_kept(&stays));
    }
}
