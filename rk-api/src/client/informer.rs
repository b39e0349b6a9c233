//! Shared, always current copies of collections.
//!
//! An [`Informer`] lists a collection once and follows its watch; readers get the very objects of
//! the server's cache (`Arc`), and subscribers every change. [`Informers`] shares one informer
//! among all who ask for the same collection.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use parking_lot::{Mutex, RwLock};
use rand::RngExt;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Client, ListOptions, Projection, WatchEvent, WatchOptions};
use crate::{Error, FieldSelector, LabelSelector, Object, Resource, ResourceType};

/// Namespace (empty for objects of the cluster) and name.
pub type Key = (String, String);

/// One change of an informer's copy.
#[derive(Debug, Clone)]
pub enum Change {
    /// The object is new in the copy; also each object there is when one subscribes.
    Added(Arc<Object>),
    /// The object has another version.
    Updated {
        /// The version before.
        old: Arc<Object>,
        /// The version now.
        new: Arc<Object>,
    },
    /// The object is gone: its last known version.
    Deleted(Arc<Object>),
}

impl Change {
    /// The newest version known.
    pub fn object(&self) -> &Arc<Object> {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Updated { new: object, .. } => object,
        }
    }
}

/// What an informer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Of which resource.
    pub resource: Resource,
    /// Of which namespace; empty for all.
    pub namespace: String,
    /// Objects.
    pub objects: usize,
    /// Bytes of their JSON.
    pub bytes: usize,
}

/// Which part of which collection an informer follows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Scope {
    resource: Resource,
    namespace: String,
    labels: LabelSelector,
    fields: FieldSelector,
    projection: Projection,
}

#[derive(Default)]
struct Copy {
    objects: BTreeMap<Key, Arc<Object>>,
    /// Keys by the uid of the object's controller; empty for objects without one.
    controlled: HashMap<String, BTreeSet<Key>>,
    /// Bytes of the objects' JSON.
    bytes: usize,
    subscribers: Vec<mpsc::UnboundedSender<Change>>,
}

impl Copy {
    fn tell(&mut self, change: &Change) {
        self.subscribers.retain(|subscriber| subscriber.send(change.clone()).is_ok());
    }

    fn put(&mut self, object: Arc<Object>) {
        let key = key_of(&object);
        self.bytes += object.json().len();
        let replaced = self.objects.insert(key.clone(), Arc::clone(&object));
        self.bytes -= replaced.as_ref().map_or(0, |old| old.json().len());
        let change = match replaced {
            Some(old) if old.meta().resource_version == object.meta().resource_version => return,
            Some(old) => {
                self.unindex(&key, &old);
                Change::Updated { old, new: object }
            }
            None => Change::Added(object),
        };
        self.controlled.entry(controller_uid(change.object()).to_owned()).or_default().insert(key);
        self.tell(&change);
    }

    /// Removes an object; `last` is its final state, where the deletion was seen.
    fn remove(&mut self, key: &Key, last: Option<Arc<Object>>) {
        if let Some(known) = self.objects.remove(key) {
            self.bytes -= known.json().len();
            self.unindex(key, &known);
            self.tell(&Change::Deleted(last.unwrap_or(known)));
        }
    }

    fn unindex(&mut self, key: &Key, object: &Object) {
        let uid = controller_uid(object);
        if let Some(keys) = self.controlled.get_mut(uid) {
            keys.remove(key);
            if keys.is_empty() {
                self.controlled.remove(uid);
            }
        }
    }

    /// The objects with this controller, of a namespace or (empty) of all.
    fn controlled_by(&self, uid: &str, namespace: &str) -> impl Iterator<Item = Arc<Object>> {
        let keys = self.controlled.get(uid).into_iter();
        let keys = keys.flat_map(move |keys| keys.range((namespace.to_owned(), String::new())..));
        let within = keys.take_while(move |key| namespace.is_empty() || key.0 == namespace);
        within.filter_map(|key| self.objects.get(key).cloned())
    }

    /// Takes a fresh list for the truth: what it lacks was deleted unseen.
    fn replace(&mut self, items: Vec<Arc<Object>>) {
        let mut gone: BTreeSet<Key> = self.objects.keys().cloned().collect();
        for object in items {
            gone.remove(&key_of(&object));
            self.put(object);
        }
        for key in gone {
            self.remove(&key, None);
        }
    }
}

fn key_of(object: &Object) -> Key {
    (object.meta().namespace.clone(), object.meta().name.clone())
}

fn controller_uid(object: &Object) -> &str {
    let controller = object.meta().owner_references.iter().find(|owner| owner.controller == Some(true));
    controller.map_or("", |owner| &owner.uid)
}

/// A current copy of a collection. It follows the API until the last handle is dropped.
#[derive(Clone)]
pub struct Informer {
    copy: Arc<RwLock<Copy>>,
    synced: watch::Receiver<bool>,
    _guard: Arc<DropGuard>,
}

impl Informer {
    fn start(client: Arc<dyn Client>, scope: Scope) -> Self {
        let stop = CancellationToken::new();
        let copy = Arc::new(RwLock::new(Copy::default()));
        let (tell_synced, synced) = watch::channel(false);
        let follower = Follower { client, scope, copy: Arc::clone(&copy), synced: tell_synced };
        let until = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = until.cancelled() => {}
                () = follower.run() => {}
            }
        });
        Self { copy, synced, _guard: Arc::new(stop.drop_guard()) }
    }

    /// Waits until the first list has arrived.
    pub async fn synced(&self) {
        // The sender lives as long as the follower, which this handle's guard keeps alive.
        let _ = self.synced.clone().wait_for(|synced| *synced).await;
    }

    /// Whether the first list has arrived.
    pub fn has_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// The object of this name; the namespace is empty for objects of the cluster.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.copy.read().objects.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// The object of this name as a Rust type.
    ///
    /// # Errors
    /// [`Error::Decode`] if it does not fit the type.
    pub fn get_as<K: ResourceType>(&self, namespace: &str, name: &str) -> Result<Option<Arc<K>>, Error> {
        self.get(namespace, name).map(|object| object.typed()).transpose()
    }

    /// Every object, by namespace and name.
    pub fn list(&self) -> Vec<Arc<Object>> {
        self.copy.read().objects.values().cloned().collect()
    }

    /// Every object of a namespace, by name.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<Object>> {
        let copy = self.copy.read();
        let from = (namespace.to_owned(), String::new());
        copy.objects
            .range(from..)
            .take_while(|(key, _)| key.0 == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// Every object that the object of this uid controls (`ownerReferences` with `controller: true`), by namespace
    /// and name.
    pub fn controlled_by(&self, uid: &str) -> Vec<Arc<Object>> {
        self.copy.read().controlled_by(uid, "").collect()
    }

    /// The objects of a namespace that nobody controls, by name.
    pub fn orphans(&self, namespace: &str) -> Vec<Arc<Object>> {
        self.copy.read().controlled_by("", namespace).collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.copy.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every change from now on, after an `Added` for each object there is. The channel has no bound:
    /// take changes promptly (a controller only notes the key).
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Change> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut copy = self.copy.write();
        for object in copy.objects.values() {
            // The receiver is still in our hands, so this can't fail.
            let _ = sender.send(Change::Added(Arc::clone(object)));
        }
        copy.subscribers.push(sender);
        receiver
    }
}

/// Lists, then watches, then lists again when the watch can't go on.
struct Follower {
    client: Arc<dyn Client>,
    scope: Scope,
    copy: Arc<RwLock<Copy>>,
    synced: watch::Sender<bool>,
}

/// First and longest wait between tries, as client-go's reflector has them.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(30));

/// A watch that ends sooner and tells nothing has failed, as for client-go: else a server that ends all watches would be
/// asked without a pause.
const SHORT: Duration = Duration::from_secs(1);

impl Follower {
    async fn run(self) {
        let mut wait = BACKOFF.0;
        let mut version: Option<String> = None;
        loop {
            let started = tokio::time::Instant::now();
            match self.follow(&mut version).await {
                Ok(()) => wait = BACKOFF.0,
                Err(error) => {
                    if error.is_expired() {
                        version = None;
                    } else {
                        tracing::warn!(resource = %self.scope.resource.group_resource(), %error, "watch broke, trying again");
                    }
                    if started.elapsed() > BACKOFF.1 {
                        wait = BACKOFF.0;
                    }
                    let jitter = rand::rng().random_range(1.0..2.0);
                    tokio::time::sleep(wait.mul_f64(jitter)).await;
                    wait = (wait * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// One list (where no version is known) and one watch, to the watch's end.
    async fn follow(&self, version: &mut Option<String>) -> Result<(), Error> {
        let Scope { resource, namespace, labels, fields, projection } = &self.scope;
        let mut reached = match version.take() {
            Some(known) => known,
            None => {
                let options = ListOptions { labels: labels.clone(), fields: fields.clone(), ..ListOptions::default() };
                let list = self.client.list(resource, namespace, options).await?;
                let items = list.items.into_iter().map(|object| projection.apply(object)).collect::<Result<_, _>>()?;
                self.copy.write().replace(items);
                self.synced.send_replace(true);
                list.resource_version
            }
        };
        *version = Some(reached.clone());
        let options = WatchOptions {
            labels: labels.clone(),
            fields: fields.clone(),
            resource_version: reached.clone(),
            bookmarks: true,
            ..WatchOptions::default()
        };
        let started = tokio::time::Instant::now();
        let mut events = self.client.watch(resource, namespace, options).await?;
        let mut told = false;
        while let Some(event) = events.next().await {
            told = true;
            let event = event?;
            reached.clear();
            reached.push_str(event.resource_version());
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let object = projection.apply(object)?;
                    self.copy.write().put(object);
                }
                WatchEvent::Deleted(object) => {
                    let object = projection.apply(object)?;
                    self.copy.write().remove(&key_of(&object), Some(object));
                }
                WatchEvent::Bookmark { .. } => {}
            }
            version.get_or_insert_default().clone_from(&reached);
        }
        if !told && started.elapsed() < SHORT {
            return Err(Error::Transport("the watch ended at once and told nothing".to_owned()));
        }
        Ok(())
    }
}

/// Informers of one client, shared by all parts of a process.
#[derive(Clone)]
pub struct Informers {
    client: Arc<dyn Client>,
    running: Arc<Mutex<HashMap<Scope, Informer>>>,
}

impl Informers {
    /// No informers yet; each starts when it is first asked for and runs while `self` or a handle is alive.
    pub fn new(client: Arc<dyn Client>) -> Self {
        Self { client, running: Arc::default() }
    }

    /// The client that the informers use.
    pub fn client(&self) -> &Arc<dyn Client> {
        &self.client
    }

    /// All objects of a type. Must be called in a tokio runtime.
    pub fn of<K: ResourceType>(&self) -> Informer {
        self.resource(Resource::of::<K>())
    }

    /// All objects of a resource. Must be called in a tokio runtime.
    pub fn resource(&self, resource: Resource) -> Informer {
        self.selected(resource, "", LabelSelector::default(), FieldSelector::default())
    }

    /// All objects of a resource, of each only what the projection keeps. Must be called in a tokio runtime.
    pub fn projected(&self, resource: Resource, projection: Projection) -> Informer {
        let (labels, fields) = (LabelSelector::default(), FieldSelector::default());
        self.scoped(Scope { resource, namespace: String::new(), labels, fields, projection })
    }

    /// A part of a resource: a namespace (empty for all) and selectors. Must be called in a tokio runtime.
    pub fn selected(
        &self,
        resource: Resource,
        namespace: &str,
        labels: LabelSelector,
        fields: FieldSelector,
    ) -> Informer {
        let namespace = namespace.to_owned();
        self.scoped(Scope { resource, namespace, labels, fields, projection: Projection::Whole })
    }

    /// What each running informer holds.
    pub fn held(&self) -> Vec<Held> {
        let running = self.running.lock();
        let held = running.iter().map(|(scope, informer)| {
            let copy = informer.copy.read();
            let (resource, namespace) = (scope.resource.clone(), scope.namespace.clone());
            Held { resource, namespace, objects: copy.objects.len(), bytes: copy.bytes }
        });
        held.collect()
    }

    fn scoped(&self, scope: Scope) -> Informer {
        let mut running = self.running.lock();
        running
            .entry(scope)
            .or_insert_with_key(|scope| Informer::start(Arc::clone(&self.client), scope.clone()))
            .clone()
    }

    /// Lets go of the informers of a resource that is served no more; they end with the handles that others have.
    pub fn forget(&self, resource: &Resource) {
        self.running.lock().retain(|scope, _| scope.resource != *resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, version: u32, controller: Option<&str>) -> Arc<Object> {
        let owners = controller.map(|uid| serde_json::json!({"uid": uid, "controller": true}));
        let meta = serde_json::json!({
            "name": name, "resourceVersion": version.to_string(), "ownerReferences": Vec::from_iter(owners)
        });
        Arc::new(Object::from_value(&serde_json::json!({"metadata": meta})).unwrap())
    }

    #[test]
    fn the_index_by_controller_follows_every_change() {
        let mut copy = Copy::default();
        let names = |copy: &Copy, uid: &str| -> Vec<String> {
            copy.controlled_by(uid, "").map(|object| object.meta().name.clone()).collect()
        };
        copy.put(pod("a", 1, Some("u1")));
        copy.put(pod("b", 2, Some("u1")));
        copy.put(pod("c", 3, None));
        assert_eq!((names(&copy, "u1"), names(&copy, "")), (vec!["a".into(), "b".into()], vec!["c".to_owned()]));
        copy.put(pod("a", 4, None));
        copy.put(pod("c", 5, Some("u2")));
        assert_eq!((names(&copy, "u1"), names(&copy, "")), (vec!["b".into()], vec!["a".to_owned()]));
        copy.replace(vec![pod("a", 4, None)]);
        assert_eq!(copy.controlled.len(), 1, "{:?}", copy.controlled);
    }

    #[test]
    fn bytes_are_counted() {
        let mut copy = Copy::default();
        copy.put(pod("a", 1, None));
        let newer = pod("a", 1000, Some("u1"));
        copy.put(Arc::clone(&newer));
        assert_eq!(copy.bytes, newer.json().len());
        copy.remove(&key_of(&newer), None);
        assert_eq!(copy.bytes, 0);
    }

    #[test]
    fn orphans_are_found_by_namespace() {
        let mut copy = Copy::default();
        for (namespace, name) in [("a", "x"), ("a-b", "y"), ("b", "z")] {
            let meta = serde_json::json!({"name": name, "namespace": namespace, "resourceVersion": "1"});
            copy.put(Arc::new(Object::from_value(&serde_json::json!({"metadata": meta})).unwrap()));
        }
        let found = |namespace| copy.controlled_by("", namespace).count();
        assert_eq!((found("a"), found("a-b"), found("c"), found("")), (1, 1, 0, 3));
    }
}
