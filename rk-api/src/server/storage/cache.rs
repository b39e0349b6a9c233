//! The watch cache: every collection, fed by one watch of the store.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::StreamExt;
use parking_lot::RwLock;
use rk_store::{
    Event, EventKind, KeyRange, KeyValue, RangeRequest, Revision, Store, WatchBatch, WatchRequest, WatchStream,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    collection::{BUDGET, Change, Collection, Held},
    encode,
    encryption::Encryption,
    item::Item,
    items::Items,
    key,
    reached::Reached,
    store_error, too_large,
};
use crate::{Error, Object, status};

/// How long a reader waits for the cache to reach a revision, as kube-apiserver does.
const CATCH_UP: Duration = Duration::from_secs(3);
/// Keys read at once when the cache is loaded.
const PAGE: usize = 1000;
/// Revisions of the store that are taken over at once, at most.
const BATCHES: usize = 128;
/// Wait before the feed is set up anew after the store broke it.
const RETRY: Duration = Duration::from_millis(500);

/// All objects of a store, in memory.
pub(crate) struct Cache {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) encryption: Encryption,
    /// By plural names: kinds of other groups may have the same.
    collections: RwLock<HashMap<String, Vec<Arc<Collection>>>>,
    /// Bytes that the changes of a collection may hold, where that is not the usual.
    budgets: HashMap<String, usize>,
    reached: Reached,
    /// Why the feed is down; empty while it runs.
    broken: RwLock<String>,
    _feed: DropGuard,
}

impl Cache {
    /// Loads the store and follows it until the cache is dropped.
    ///
    /// # Errors
    /// The store fails, or holds something under the root that is no object.
    pub(crate) async fn start(
        store: Arc<dyn Store>,
        encryption: Encryption,
        budgets: HashMap<String, usize>,
    ) -> Result<Arc<Self>, Error> {
        let stop = CancellationToken::new();
        let cache = Arc::new(Self {
            store,
            encryption,
            collections: RwLock::default(),
            budgets,
            reached: Reached::default(),
            broken: RwLock::default(),
            _feed: stop.clone().drop_guard(),
        });
        let events = cache.load().await?;
        let weak = Arc::downgrade(&cache);
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow(weak, events) => {}
            }
        });
        Ok(cache)
    }

    /// Reads everything at one revision and starts to watch behind it.
    async fn load(&self) -> Result<WatchStream, Error> {
        let mut range = KeyRange::prefix(key::ROOT);
        let mut revision = 0;
        let mut loaded: HashMap<String, Items> = HashMap::new();
        loop {
            let request = RangeRequest { revision, limit: PAGE, ..RangeRequest::new(range.clone()) };
            let page = self.store.range(request).await.map_err(store_error)?;
            if revision == 0 {
                revision = page.revision;
            }
            for kv in &page.kvs {
                if let Some((collection, name)) = key::split(&kv.key) {
                    let object = self.decode(kv)?;
                    loaded.entry(collection.to_owned()).or_default().insert(Item::new(name, object));
                }
            }
            match page.kvs.last() {
                Some(last) if page.more => range.start = [&last.key[..], &[0]].concat().into(),
                _ => break,
            }
        }
        // Readers go on meanwhile: each collection goes from its old content to the new in one step.
        for collection in self.collections.read().values().flatten() {
            collection.reset(loaded.remove(&collection.name).unwrap_or_default(), revision);
        }
        for (name, items) in loaded {
            self.collection(&name).reset(items, revision);
        }
        self.reached.set(revision);
        let request =
            WatchRequest { prev_kv: false, progress: true, ..WatchRequest::new(KeyRange::all(), revision + 1) };
        self.store.watch(request).await.map_err(store_error)
    }

    /// The collection of this name; it comes to be when it is first asked for.
    pub(crate) fn collection(&self, name: &str) -> Arc<Collection> {
        let (group, plural) = name.rsplit_once('/').unwrap_or(("", name));
        self.collection_of(group, plural)
    }

    /// The same by group and plural name.
    pub(crate) fn collection_of(&self, group: &str, plural: &str) -> Arc<Collection> {
        let find = |same_name: &Vec<Arc<Collection>>| {
            same_name.iter().find(|collection| key::is_collection(&collection.name, group, plural)).cloned()
        };
        if let Some(found) = self.collections.read().get(plural).and_then(find) {
            return found;
        }
        let mut collections = self.collections.write();
        let same_name = collections.entry(plural.to_owned()).or_default();
        find(same_name).unwrap_or_else(|| {
            let name = key::collection(group, plural);
            let budget = self.budgets.get(&name).copied().unwrap_or(BUDGET);
            let new = Arc::new(Collection::new(&name, self.reached(), budget));
            same_name.push(Arc::clone(&new));
            new
        })
    }

    /// Every collection's name and what it holds.
    pub(crate) fn held(&self) -> Vec<(String, Held)> {
        self.collections
            .read()
            .values()
            .flatten()
            .map(|collection| (collection.name.clone(), collection.held()))
            .collect()
    }

    /// The revision up to which the cache holds every change.
    pub(crate) fn reached(&self) -> Revision {
        self.reached.get()
    }

    /// Why the cache does not follow the store; `None` while it does.
    pub(crate) fn broken(&self) -> Option<String> {
        let broken = self.broken.read();
        (!broken.is_empty()).then(|| broken.clone())
    }

    /// Waits until the cache has reached a revision.
    ///
    /// # Errors
    /// 504 if it takes too long: the revision is not there yet, or the store does not answer.
    pub(crate) async fn wait_for(&self, revision: Revision) -> Result<(), Error> {
        if self.reached() >= revision {
            return Ok(());
        }
        match tokio::time::timeout(CATCH_UP, self.reached.wait_for(revision)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(too_large(revision, self.reached()).into()),
        }
    }

    /// Waits until the cache shows everything that was acknowledged before this call.
    ///
    /// # Errors
    /// The store fails, or the cache does not catch up in time.
    pub(crate) async fn sync(&self) -> Result<Revision, Error> {
        let revision = self.store.revision().await.map_err(store_error)?;
        self.wait_for(revision).await?;
        Ok(revision)
    }

    /// The object of a value in the store.
    ///
    /// # Errors
    /// It is none, or is encrypted with a key that is not there.
    fn decode(&self, kv: &KeyValue) -> Result<Object, Error> {
        let collection = if self.encryption.is_in_use() { key::split(&kv.key) } else { None };
        let collection = collection.map_or("", |(collection, _)| collection);
        encode::decode(&kv.key, &self.encryption.open(collection, &kv.key, &kv.value)?, kv.mod_revision)
    }

    /// The same, as the cache keeps it.
    ///
    /// # Errors
    /// As [`Cache::decode`].
    pub(super) fn item(&self, kv: &KeyValue) -> Result<Arc<Item>, Error> {
        let name = key::split(&kv.key).map_or("", |(_, name)| name);
        self.decode(kv).map(|object| Item::new(name, object))
    }

    /// An event of the store as a change of the collection; `None` for the deletion of what was not there.
    pub(super) fn change_of(&self, event: &Event, previous: Option<Arc<Item>>) -> Result<Option<Change>, Error> {
        let revision = event.kv.mod_revision;
        match event.kind {
            EventKind::Put => Ok(Some(Change::new(revision, self.item(&event.kv)?, previous, false))),
            EventKind::Delete => {
                let Some(previous) = previous else { return Ok(None) };
                let name = key::split(&event.kv.key).map_or("", |(_, name)| name);
                let item = Item::new(name, encode::decode(&event.kv.key, previous.object.json(), revision)?);
                Ok(Some(Change::new(revision, item, Some(previous), true)))
            }
        }
    }

    /// Takes over what the store did; each collection is changed once.
    fn apply(&self, batches: &[WatchBatch]) -> Result<(), Error> {
        let mut changes: Vec<(Arc<Collection>, Vec<Change>)> = Vec::new();
        // What is done to a key here already, which the collection does not show yet.
        let mut fresh: HashMap<&[u8], Option<Arc<Item>>> = HashMap::new();
        let events = batches.iter().flat_map(|batch| batch.events.iter());
        let several = events.clone().nth(1).is_some();
        for event in events {
            let Some((collection, name)) = key::split(&event.kv.key) else { continue };
            let at = changes.iter().position(|(known, _)| known.name == collection).unwrap_or_else(|| {
                changes.push((self.collection(collection), Vec::new()));
                changes.len() - 1
            });
            let (collection, changes) = &mut changes[at];
            let previous = match fresh.get(&event.kv.key[..]) {
                Some(item) => item.clone(),
                None => collection.get(name),
            };
            let Some(change) = self.change_of(event, previous)? else { continue };
            if several {
                fresh.insert(&event.kv.key, (!change.deleted).then(|| Arc::clone(&change.item)));
            }
            changes.push(change);
        }
        for (collection, changes) in changes {
            collection.apply(changes);
        }
        if let Some(last) = batches.last() {
            self.reached.set(last.revision);
        }
        Ok(())
    }
}

/// Feeds the cache; when the store breaks the watch, the cache is loaded anew. Ends when the cache is dropped.
async fn follow(cache: Weak<Cache>, mut events: WatchStream) {
    loop {
        // What is there already is taken at once: who watches is then woken once.
        let mut ready = events.ready_chunks(BATCHES);
        let mut failure = loop {
            let next = ready.next().await;
            let Some(cache) = cache.upgrade() else { return };
            let Some(next) = next else { break Error::from(status::unavailable("the store ended its watch")) };
            let mut broken = None;
            let batches: Vec<_> =
                next.into_iter().map_while(|batch| batch.map_err(|e| broken = Some(e)).ok()).collect();
            if let Err(error) = cache.apply(&batches) {
                break error;
            }
            if let Some(error) = broken {
                break store_error(error);
            }
        };
        // A store that is closed for good ends the cache too, in a moment: nothing is wrong before loading fails as well.
        tracing::info!(error = %failure, "the watch cache lost the store, loading it anew");
        events = loop {
            let Some(alive) = cache.upgrade() else { return };
            *alive.broken.write() = failure.to_string();
            drop(alive);
            tokio::time::sleep(RETRY).await;
            let Some(alive) = cache.upgrade() else { return };
            match alive.load().await {
                Ok(events) => {
                    alive.broken.write().clear();
                    break events;
                }
                Err(error) => {
                    tracing::error!(%error, "the watch cache can't load from the store, trying again");
                    failure = error;
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use rk_store::MemoryStore;

    use super::*;
    use crate::server::storage::Selection;

    #[tokio::test]
    async fn loading_anew_shows_nobody_a_part() {
        let store = Arc::new(MemoryStore::new());
        for name in ["a", "b"] {
            let json = format!("{{\"metadata\":{{\"name\":\"{name}\"}}}}");
            store.put(key::full("pods", name), json.into()).await.unwrap();
        }
        let cache = Cache::start(store, Encryption::default(), HashMap::new()).await.unwrap();
        let (pods, done) = (cache.collection("pods"), CancellationToken::new());
        let reader = std::thread::spawn({
            let (pods, done) = (Arc::clone(&pods), done.clone());
            move || {
                while !done.is_cancelled() {
                    assert_eq!(pods.len(), 2);
                }
            }
        });
        let (_, revision, mut cursor) = pods.snapshot_to_watch(&Selection::default(), cache.reached());
        for _ in 0..200 {
            cache.load().await.unwrap();
        }
        done.cancel();
        reader.join().unwrap();
        assert!(pods.read(&mut cursor, 1).is_none(), "a watcher has to list again");
        assert!(pods.cursor_after(revision).is_some());
    }
}
