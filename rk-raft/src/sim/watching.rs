//! The group's log as its members show it, and whether watchers were told all of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_store::{Error, Event, EventKind, KeyRange, Revision, Store, WatchRequest};

use super::{kv::Call, linear::Operation, scene::Scene, trace::Trace};
use crate::MemberId;

/// What each revision changed, as seen at whichever member showed it first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    revisions: Arc<Mutex<BTreeMap<Revision, Seen>>>,
}

#[derive(Debug, Clone)]
struct Seen {
    events: Vec<Event>,
    member: MemberId,
    /// Milliseconds of the run.
    at: u64,
}

fn plain(event: &Event) -> Event {
    Event { prev_kv: None, ..event.clone() }
}

impl Log {
    /// Takes down all that a member shows, from the oldest revision that it has, until it refuses watches.
    pub(crate) async fn follow(self, member: MemberId, store: Arc<dyn Store>, trace: Trace) {
        let mut from = 1;
        loop {
            let told = match store.watch(WatchRequest::new(KeyRange::all(), from)).await {
                Ok(mut watch) => loop {
                    match watch.next().await {
                        Some(Ok(batch)) => {
                            self.note(member, &batch.events, &trace);
                            from = batch.revision + 1;
                        }
                        Some(Err(error)) => break Ok(Some(error)),
                        None => break Ok(None),
                    }
                },
                Err(error) => Err(error),
            };
            match told {
                Ok(Some(Error::Compacted { compacted, .. })) | Err(Error::Compacted { compacted, .. }) => {
                    from = compacted + 1;
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn note(&self, member: MemberId, events: &[Event], trace: &Trace) {
        let mut revisions = self.revisions.lock();
        for events in events.chunk_by(|a, b| a.kv.mod_revision == b.kv.mod_revision) {
            let events: Vec<_> = events.iter().map(plain).collect();
            let revision = events[0].kv.mod_revision;
            match revisions.get(&revision) {
                Some(seen) if seen.events != events => trace.violation(format!(
                    "revision {revision} is {events:?} at member {member} and {:?} at member {}",
                    seen.events, seen.member
                )),
                Some(_) => {}
                None => {
                    revisions.insert(revision, Seen { events, member, at: trace.now() });
                }
            }
        }
    }

    /// The first and the last revision not seen at any member, with how many there are, out of those up to `last`.
    pub(crate) fn missing(&self, last: Revision) -> u64 {
        let seen = self.revisions.lock().range(2..=last).count() as u64;
        (last - 1).saturating_sub(seen)
    }

    /// When a key's deletion was first seen, if it was deleted.
    pub(crate) fn deleted_at(&self, key: &[u8]) -> Option<u64> {
        let deletes = |seen: &&Seen| seen.events.iter().any(|e| e.kind == EventKind::Delete && e.kv.key == key);
        self.revisions.lock().values().find(deletes).map(|seen| seen.at)
    }

    /// Checks that every change that a client was told of is there at its revision, and each value only once. Up to `compacted`
    /// revisions may have been forgotten before anyone has seen them.
    pub(crate) fn check_writes(&self, history: &[Operation<Call>], compacted: Revision, trace: &Trace) {
        let revisions = self.revisions.lock();
        let mut values = BTreeMap::new();
        for event in revisions.values().flat_map(|seen| &seen.events).filter(|event| event.kind == EventKind::Put) {
            if let Some(earlier) = values.insert(&event.kv.value, event) {
                trace.violation(format!("one put was done twice: {earlier:?} and {event:?}"));
            }
        }
        for operation in history {
            let Call { txn, answer: Some(answer) } = &operation.call else { continue };
            if answer.revision <= compacted && !revisions.contains_key(&answer.revision) {
                continue;
            }
            let ops = if answer.succeeded { &txn.success } else { &txn.failure };
            for op in ops {
                if let rk_store::Op::Put(put) = op
                    && values.get(&put.value).is_none_or(|event| event.kv.mod_revision != answer.revision)
                {
                    let found = values.get(&put.value);
                    trace.violation(format!("{operation:?} was acknowledged, and the log has {found:?}"));
                }
            }
        }
    }

    /// Checks that a stretch of a watch holds exactly what the log does.
    fn check_stretch(&self, watched: &Stretch, trace: &Trace) {
        let Stretch { range, from, reached, events } = watched;
        if reached < from {
            return;
        }
        let revisions = self.revisions.lock();
        let known = |revision: Revision| revisions.contains_key(&revision);
        let wanted = revisions.range(*from..=*reached).flat_map(|(_, seen)| &seen.events);
        let wanted = wanted.filter(|event| range.contains(&event.kv.key)).cloned();
        let wanted: Vec<Event> = wanted.collect();
        // What no member was seen to show can't be compared.
        let found: Vec<Event> = events.iter().map(plain).filter(|event| known(event.kv.mod_revision)).collect();
        if wanted != found {
            let differs = wanted.iter().zip(&found).position(|(a, b)| a != b).unwrap_or(wanted.len().min(found.len()));
            trace.violation(format!(
                "a watch of {range:?} over revisions {from} to {reached} was told of {} events instead of {}; it should go on with \
                 {:?} and does with {:?}",
                found.len(),
                wanted.len(),
                wanted.get(differs),
                found.get(differs)
            ));
        }
        for event in events {
            let Some(previous) = &event.prev_kv else { continue };
            let before = revisions.range(..event.kv.mod_revision).rev().flat_map(|(_, seen)| &seen.events);
            if known(previous.mod_revision)
                && let Some(before) = before.into_iter().find(|before| before.kv.key == event.kv.key)
                && before.kv != *previous
            {
                trace.violation(format!("{event:?} does not come after {before:?}"));
            }
        }
    }
}

/// What one watch has delivered.
#[derive(Debug)]
struct Stretch {
    range: KeyRange,
    from: Revision,
    reached: Revision,
    events: Vec<Event>,
}

/// A client that watches until `until` in milliseconds, at one member and then at another, and goes on where it was. Then what it was
/// told is compared with the log.
pub(crate) async fn watcher(group: Arc<Scene>, range: KeyRange, prev_kv: bool, seed: u64, until: u64) -> Watched {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut from, mut stretches) = (1, Vec::new());
    while group.trace.now() < until {
        let Some(store) = group.any(&mut random) else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Some stay long, so that they watch what happens now, and some come back late, so that they watch what happened before.
        let leave = tokio::time::sleep(Duration::from_millis(random.random_range(50..4000)));
        let request = WatchRequest { prev_kv, ..WatchRequest::new(range.clone(), from) };
        let mut stretch = Stretch { range: range.clone(), from, reached: from - 1, events: Vec::new() };
        let error = tokio::select! {
            biased;
            error = watch(&*store, request, &mut stretch, &group.trace) => Some(error),
            () = leave => None,
        };
        from = stretch.reached + 1;
        stretches.push(stretch);
        if let Some(Error::Compacted { compacted, .. }) = error {
            if compacted < from || compacted > group.compacted() {
                let asked = group.compacted();
                group.trace.violation(format!(
                    "a watch from {from} is refused for a compaction at {compacted}; at most {asked} was asked for"
                ));
            }
            from = from.max(compacted + 1);
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(1..1500))).await;
    }
    Watched(stretches)
}

/// What a watcher was told.
#[derive(Debug)]
pub(crate) struct Watched(Vec<Stretch>);

impl Watched {
    pub(crate) fn check(&self, log: &Log, trace: &Trace) {
        self.0.iter().for_each(|stretch| log.check_stretch(stretch, trace));
    }

    /// How many events there were.
    pub(crate) fn events(&self) -> usize {
        self.0.iter().map(|stretch| stretch.events.len()).sum()
    }
}

async fn watch(store: &dyn Store, request: WatchRequest, stretch: &mut Stretch, trace: &Trace) -> Error {
    let mut watch = match store.watch(request).await {
        Ok(watch) => watch,
        Err(error) => return error,
    };
    loop {
        match watch.next().await {
            Some(Ok(batch)) => {
                let in_order = batch
                    .events
                    .iter()
                    .all(|event| (stretch.reached + 1..=batch.revision).contains(&event.kv.mod_revision))
                    && batch.events.is_sorted_by_key(|event| event.kv.mod_revision);
                if !in_order {
                    trace.violation(format!("a watch that had reached {} was told {batch:?}", stretch.reached));
                }
                trace.note(("watched", batch.revision, batch.events.len()));
                stretch.reached = batch.revision;
                stretch.events.extend(batch.events.iter().cloned());
            }
            Some(Err(error)) => return error,
            None => return Error::Unavailable("the watch has ended".into()),
        }
    }
}
