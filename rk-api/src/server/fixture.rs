//! A [`Reader`] over a handful of objects, for the unit tests of what reads the server's objects.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;

use super::Reader;
use crate::{Error, LabelSelector, Object, Resource};

type Key = (String, String, String);

/// Objects by plural name, namespace and name, and how often they changed.
#[derive(Default)]
pub(crate) struct Objects(Mutex<(u64, BTreeMap<Key, Arc<Object>>)>);

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
        all.0 += 1;
        object["metadata"]["resourceVersion"] = all.0.to_string().into();
        let object = Object::from_value(&object).unwrap();
        let key = (plural.to_owned(), object.meta().namespace.clone(), object.meta().name.clone());
        all.1.insert(key, Arc::new(object));
    }

    /// Removes an object.
    pub fn remove(&self, plural: &str, namespace: &str, name: &str) {
        let mut all = self.0.lock();
        all.0 += 1;
        all.1.remove(&(plural.to_owned(), namespace.to_owned(), name.to_owned()));
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

    fn version(&self, _: &str, _: &str) -> Result<u64, Error> {
        Ok(self.0.lock().0)
    }

    fn resource_of(&self, api_version: &str, kind: &str) -> Option<Resource> {
        let rows = super::builtin::rows().into_iter().map(|row| row.resource);
        rows.into_iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
    }
}
