//! Config maps and secrets that pods of this node use, each watched alone for as long as a pod needs it.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use rk_api::{Client, FieldSelector, Informer, Informers, LabelSelector, Resource, ResourceType};

/// One object, kept current.
pub(crate) struct Watched {
    informer: Informer,
    namespace: String,
    name: String,
}

/// How long the first sight of an object may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl Watched {
    /// The object now; `None` if there is none.
    pub(crate) async fn get<K: ResourceType>(&self) -> Result<Option<Arc<K>>, String> {
        tokio::time::timeout(PATIENCE, self.informer.synced()).await.map_err(|_| {
            format!("failed to sync {} {}/{}: timed out", K::kind(&()).to_lowercase(), self.namespace, self.name)
        })?;
        self.informer.get_as(&self.namespace, &self.name).map_err(|error| error.to_string())
    }

    pub(crate) fn informer(&self) -> &Informer {
        &self.informer
    }
}

/// The objects that are watched now.
pub(crate) struct Objects {
    client: Arc<dyn Client>,
    watched: Mutex<HashMap<(Resource, String, String), Weak<Watched>>>,
}

impl Objects {
    pub(crate) fn new(client: Arc<dyn Client>) -> Self {
        Self { client, watched: Mutex::default() }
    }

    /// Watches an object until the answer and its clones are dropped.
    pub(crate) fn watch<K: ResourceType>(&self, namespace: &str, name: &str) -> Arc<Watched> {
        let mut watched = self.watched.lock();
        watched.retain(|_, object| object.strong_count() > 0);
        let key = (Resource::of::<K>(), namespace.to_owned(), name.to_owned());
        if let Some(known) = watched.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let only = FieldSelector::field("metadata.name", name);
        let informers = Informers::new(Arc::clone(&self.client));
        let informer = informers.selected(key.0.clone(), namespace, LabelSelector::default(), only);
        let object = Arc::new(Watched { informer, namespace: namespace.to_owned(), name: name.to_owned() });
        watched.insert(key, Arc::downgrade(&object));
        object
    }
}
