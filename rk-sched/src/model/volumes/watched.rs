//! Who waits until claims and volumes change, or a pod goes: those who bind a pod's claims look again then, and not ever and again.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// A claim, by namespace and name.
    Claim(String, String),
    /// A volume, by name.
    Volume(String),
    /// A pod, by uid.
    Pod(String),
}

#[derive(Debug, Default)]
struct Waiting {
    by_subject: HashMap<Subject, Vec<(usize, Arc<Notify>)>>,
}

/// The waits of one scheduler.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    waiting: Mutex<Waiting>,
    next: AtomicUsize,
}

/// A wait; it ends as it is dropped.
pub(crate) struct Watch {
    watched: Arc<Watched>,
    number: usize,
    subjects: Vec<Subject>,
    changed: Arc<Notify>,
}

impl Watched {
    /// Waits for changes of these from now on.
    pub(crate) fn watch(self: &Arc<Self>, subjects: Vec<Subject>) -> Watch {
        let (number, changed) = (self.next.fetch_add(1, Ordering::Relaxed), Arc::new(Notify::new()));
        let mut waiting = self.waiting.lock();
        for subject in &subjects {
            waiting.by_subject.entry(subject.clone()).or_default().push((number, Arc::clone(&changed)));
        }
        Watch { watched: Arc::clone(self), number, subjects, changed }
    }

    /// Something has changed. The subject is asked for only if anybody waits.
    pub(crate) fn tell(&self, subject: impl FnOnce() -> Subject) {
        let waiting = self.waiting.lock();
        if waiting.by_subject.is_empty() {
            return;
        }
        for (_, changed) in waiting.by_subject.get(&subject()).into_iter().flatten() {
            changed.notify_one();
        }
    }
}

impl Watch {
    /// Ends once something has changed since it was asked last.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiting = self.watched.waiting.lock();
        for subject in &self.subjects {
            if let Some(all) = waiting.by_subject.get_mut(subject) {
                all.retain(|(number, _)| *number != self.number);
                if all.is_empty() {
                    waiting.by_subject.remove(subject);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_told(watch: &Watch) -> bool {
        tokio::time::timeout(Duration::from_secs(1), watch.changed()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told_of_what_it_waits_for() {
        let watched = Arc::new(Watched::default());
        let volume = |name: &str| Subject::Volume(name.to_owned());
        let (one, two) = (watched.watch(vec![volume("a"), volume("b")]), watched.watch(vec![volume("b")]));
        assert!(!is_told(&one).await);
        watched.tell(|| volume("a"));
        assert!(is_told(&one).await && !is_told(&two).await);
        // What changes before one asks again is told, and once.
        watched.tell(|| volume("b"));
        watched.tell(|| volume("b"));
        assert!(is_told(&one).await && is_told(&two).await);
        assert!(!is_told(&one).await);
        drop((one, two));
        assert!(watched.waiting.lock().by_subject.is_empty());
    }
}
