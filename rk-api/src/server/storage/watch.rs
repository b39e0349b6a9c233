//! Watches: a collection's changes from a version on, as one selection sees them.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Stream, StreamExt};
use rand::RngExt;
use rk_store::{KeyRange, Revision, WatchRequest, WatchStream};
use tokio::time::{Instant, Sleep};

use super::{
    Cache, Collection, Selection,
    collection::{Change, Cursor},
    encode,
    growth::Waiter,
    key, store_error,
    watches::Counted,
};
use crate::{Error, EventStream, WatchEvent, status};

/// How often an idle watch tells the version it has reached, if asked to.
const BOOKMARK: Duration = Duration::from_secs(60);
/// The shortest watch that the server chooses itself; the longest is twice that (`--min-request-timeout`).
const TIMEOUT: Duration = Duration::from_secs(1800);
/// Changes taken from the ring at once.
const BATCH: usize = 256;

/// Where a watch starts and what it tells.
#[derive(Debug, Clone, Default)]
pub(crate) struct WatchSpec {
    pub(crate) selection: Selection,
    /// Empty or `0`: from the current state.
    pub(crate) resource_version: String,
    pub(crate) bookmarks: bool,
    /// Whether what is there comes first; else the version says so.
    pub(crate) send_initial_events: Option<bool>,
    /// 0: the server's choice.
    pub(crate) timeout_seconds: u64,
}

/// Where the changes come from.
enum Source {
    /// The ring of recent changes.
    Ring(Cursor),
    /// The store's history, from which a watch of an old version catches up.
    History(WatchStream),
}

struct Watcher {
    cache: Arc<Cache>,
    collection: Arc<Collection>,
    selection: Selection,
    source: Source,
    waiter: Waiter,
    _counted: Counted,
    ready: VecDeque<WatchEvent>,
    /// Everything up to here was delivered (or does not concern this watch).
    reached: Revision,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    /// Set anew only when it went off: most waits end before.
    alarm: Pin<Box<Sleep>>,
    failed: bool,
}

/// Starts a watch.
///
/// # Errors
/// 400 for a bad version, 410 for one that was compacted, 504 for one that is not there yet.
pub(crate) async fn start(
    cache: &Arc<Cache>,
    collection: &Arc<Collection>,
    spec: WatchSpec,
) -> Result<EventStream, Error> {
    let asked: Revision = match spec.resource_version.as_str() {
        "" => 0,
        text => {
            text.parse().map_err(|_| Error::from(status::bad_request(format!("invalid resource version {text:?}"))))?
        }
    };
    let timeout = match spec.timeout_seconds {
        0 => TIMEOUT.mul_f64(rand::rng().random_range(1.0..2.0)),
        seconds => Duration::from_secs(seconds),
    };
    let mut ready = VecDeque::new();
    let (source, reached) = if spec.send_initial_events.unwrap_or(asked == 0) {
        if spec.resource_version.is_empty() {
            cache.sync().await?;
        } else {
            cache.wait_for(asked).await?;
        }
        let (mut items, revision, cursor) = collection.snapshot_to_watch(&spec.selection, cache.reached());
        while let Some(item) = items.next_ref() {
            if spec.selection.matches(item) {
                ready.push_back(WatchEvent::Added(Arc::clone(&item.object)));
            }
        }
        if spec.send_initial_events == Some(true) && spec.bookmarks {
            ready.push_back(WatchEvent::Bookmark { resource_version: revision.to_string(), initial_end: true });
        }
        (Source::Ring(cursor), revision)
    } else {
        let asked = match spec.resource_version.as_str() {
            "" => cache.sync().await?,
            "0" => cache.reached(),
            // One that this server has not seen yet is waited for by the changes themselves: none is older.
            _ => {
                cache.wait_for(asked).await?;
                asked
            }
        };
        match collection.cursor_after(asked) {
            Some(cursor) => (Source::Ring(cursor), asked),
            None => {
                let range = KeyRange::prefix(key::full(&collection.name, ""));
                let request = WatchRequest { prev_kv: true, progress: true, ..WatchRequest::new(range, asked + 1) };
                (Source::History(cache.store.watch(request).await.map_err(store_error)?), asked)
            }
        }
    };
    let now = Instant::now();
    let (next_bookmark, ends) = (now + BOOKMARK, now + timeout);
    let watcher = Watcher {
        cache: Arc::clone(cache),
        collection: Arc::clone(collection),
        _counted: collection.watches.count(&spec.selection),
        selection: spec.selection,
        source,
        waiter: collection.waiter(),
        ready,
        reached,
        bookmarks: spec.bookmarks,
        next_bookmark,
        ends,
        alarm: Box::pin(tokio::time::sleep_until(if spec.bookmarks { next_bookmark.min(ends) } else { ends })),
        failed: false,
    };
    Ok(watcher.boxed())
}

/// By hand, for it is what each change costs each who watches.
impl Stream for Watcher {
    type Item = Result<WatchEvent, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let watcher = self.get_mut();
        loop {
            if watcher.failed {
                return Poll::Ready(None);
            }
            if let Some(event) = watcher.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            match watcher.poll_fill(cx) {
                Poll::Ready(Ok(())) => continue,
                Poll::Ready(Err(error)) => {
                    watcher.failed = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Pending => ready!(watcher.alarm.as_mut().poll(cx)),
            }
            let now = watcher.wakes();
            if now == watcher.ends {
                return Poll::Ready(None);
            }
            watcher.next_bookmark = now + BOOKMARK;
            let next = watcher.wakes();
            watcher.alarm.as_mut().reset(next);
            if let Some(bookmark) = watcher.bookmark() {
                return Poll::Ready(Some(Ok(bookmark)));
            }
        }
    }
}

impl Watcher {
    /// When it has something to do by itself.
    fn wakes(&self) -> Instant {
        if self.bookmarks { self.next_bookmark.min(self.ends) } else { self.ends }
    }

    /// The version reached; `None` while there are changes to deliver first.
    fn bookmark(&mut self) -> Option<WatchEvent> {
        if let Source::Ring(cursor) = &mut self.source {
            // Read before the changes: all up to here are in the ring already.
            let reached = self.cache.reached();
            if !self.collection.is_read(cursor) {
                return None;
            }
            self.reached = self.reached.max(reached);
        }
        Some(WatchEvent::Bookmark { resource_version: self.reached.to_string(), initial_end: false })
    }

    /// Makes the events of the next changes, when there are some.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.source {
            Source::Ring(cursor) => {
                ready!(self.waiter.poll_unseen(cx));
                let count = self.waiter.count();
                let Some(changes) = self.collection.read(cursor, BATCH) else {
                    return Poll::Ready(Err(status::expired(format!(
                        "too old resource version: {}: the watch was too slow and the changes it lacks are gone",
                        self.reached
                    ))
                    .into()));
                };
                if changes.len() < BATCH {
                    self.waiter.see(count);
                }
                for change in changes {
                    self.reached = self.reached.max(change.revision);
                    self.ready.extend(event_of(&self.selection, &change));
                }
            }
            Source::History(batches) => {
                let batch = match ready!(batches.poll_next_unpin(cx)) {
                    Some(batch) => batch.map_err(store_error)?,
                    None => return Poll::Ready(Err(status::unavailable("the store ended the watch").into())),
                };
                for event in batch.events.iter() {
                    // Of a change at the compact revision the store has no state before: what it is to this watch, nobody knows.
                    if event.prev_kv.is_none() && event.kv.version != 1 {
                        let revision = event.kv.mod_revision;
                        let message = format!("too old resource version: the state before {revision} is compacted");
                        return Poll::Ready(Err(status::expired(message).into()));
                    }
                    let previous = event.prev_kv.as_ref().map(|kv| self.cache.item(kv)).transpose()?;
                    if let Some(change) = self.cache.change_of(event, previous)? {
                        self.ready.extend(event_of(&self.selection, &change));
                    }
                }
                self.reached = self.reached.max(batch.revision);
                if let Some(cursor) = self.collection.cursor_after(self.reached) {
                    self.source = Source::Ring(cursor);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A change as a selection sees it: what comes to match is added, what ceases to is deleted.
fn event_of(selection: &Selection, change: &Change) -> Option<WatchEvent> {
    let object = || Arc::clone(&change.item.object);
    let before = change.previous.as_ref().is_some_and(|previous| selection.covers(previous));
    if change.deleted {
        return before.then(|| WatchEvent::Deleted(object()));
    }
    match (before, selection.covers(&change.item)) {
        (true, true) => Some(WatchEvent::Modified(object())),
        (false, true) => Some(WatchEvent::Added(object())),
        // Kubernetes tells the state that last matched, at the version of the change.
        (true, false) => {
            let previous = change.previous.as_ref()?;
            let last = encode::decode(b"", previous.object.json(), change.revision).ok()?;
            Some(WatchEvent::Deleted(Arc::new(last)))
        }
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rk_store::{MemoryStore, Store};

    use super::*;
    use crate::server::Encryption;

    #[tokio::test]
    async fn a_change_whose_state_before_is_compacted_is_too_old() {
        let store = Arc::new(MemoryStore::new());
        let json = |label: &str| format!("{{\"metadata\":{{\"name\":\"a\",\"labels\":{{\"l\":\"{label}\"}}}}}}");
        let made = store.put(key::full("pods", "a"), json("1").into()).await.unwrap();
        let changed = store.put(key::full("pods", "a"), json("2").into()).await.unwrap();
        store.compact(changed).await.unwrap();
        let cache = Cache::start(store, Encryption::default(), HashMap::new()).await.unwrap();
        let spec = WatchSpec { resource_version: made.to_string(), ..WatchSpec::default() };
        let mut events = start(&cache, &cache.collection("pods"), spec).await.unwrap();
        assert!(events.next().await.unwrap().unwrap_err().is_expired());
    }
}
