//! A [`Reader`] over a handful of objects, for the unit tests of what reads the server's objects.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;

use super::{Changes, Reader, Version};
use crate::{Error, LabelSelector, Object, Resource};

type Key = (String, String, String);

/// Objects by plural name, namespace and name, and how often they changed.
#[derive(Default)]
pub(crate) struct Objects(Mutex<(Version, BTreeMap<Key, Arc<Object>>)>, Mutex<Vec<(String, Arc<Object>, bool)>>);

impl Objects {
    /// These objects, each with its plural name.
    pub fn new(objects: impl IntoIterator<Item = (&'static str, Value)>) -> Arc<Self> {
        let all = Arc::new(Self::default());
        for (plural, object) in objects {
            all.put(plural, object);
        }
        all
    }

    /// Adds or replaces an object, at a new version.
    pub fn put(&self, plural: &str, mut object: Value) {
        let mut all = self.0.lock();
        all.0.set(all.0.get() + 1);
        object["metadata"]["resourceVersion"] = all.0.get().to_string().into();
        let object = Arc::new(Object::from_value(&object).unwrap());
        let key = (plural.to_owned(), object.meta().namespace.clone(), object.meta().name.clone());
        self.1.lock().push((plural.to_owned(), Arc::clone(&object), false));
        all.1.insert(key, object);
    }

    /// Removes an object.
    pub fn remove(&self, plural: &str, namespace: &str, name: &str) {
        let mut all = self.0.lock();
        all.0.set(all.0.get() + 1);
        if let Some(gone) = all.1.remove(&(plural.to_owned(), namespace.to_owned(), name.to_owned())) {
            let mut last = gone.value().unwrap();
            last["metadata"]["resourceVersion"] = all.0.get().to_string().into();
            self.1.lock().push((plural.to_owned(), Arc::new(Object::from_value(&last).unwrap()), true));
        }
    }
}

#[async_trait]
impl Reader for Objects {
    async fn get(&self, _: &str, plural: &str, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Error> {
        Ok(self.0.lock().1.get(&(plural.to_owned(), namespace.to_owned(), name.to_owned())).cloned())
    }

    async fn list(
        &self,
        _: &str,
        plural: &str,
        namespace: &str,
        labels: &LabelSelector,
    ) -> Result<Vec<Arc<Object>>, Error> {
        let all = self.0.lock();
        let chosen = all.1.iter().filter(|((p, ns, _), object)| {
            p == plural && (namespace.is_empty() || ns == namespace) && labels.matches(&object.meta().labels)
        });
        Ok(chosen.map(|(_, object)| Arc::clone(object)).collect())
    }

    fn version(&self, _: &str, _: &str) -> Result<Version, Error> {
        Ok(self.0.lock().0.clone())
    }

    fn resource_of(&self, api_version: &str, kind: &str) -> Option<Resource> {
        let rows = super::builtin::rows().into_iter().map(|row| row.resource);
        rows.into_iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
    }

    fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Resource> {
        let mut rows = super::builtin::rows().into_iter().map(|row| row.resource);
        rows.find(|resource| resource.group == group && resource.version == version && resource.plural == plural)
    }

    fn changes(&self, _: &str, plural: &str, after: u64) -> Result<Changes, Error> {
        let version = self.0.lock().0.get();
        let log = self.1.lock();
        let changed = log.iter().filter(|(p, object, _)| p == plural && object.revision() > after);
        let objects = changed.map(|(_, object, deleted)| (Arc::clone(object), *deleted)).collect();
        Ok(Changes { all: false, objects, version })
    }
}
