//! A reader for those who are made before the server that they read.

use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Changes, Decision, Reader, Version, schema::Schema};
use crate::{Error, LabelSelector, Object, Resource};

/// Stands for the [`Reader`] of a server that is yet to be built: authenticators and authorizers that read the server's
/// own objects are parts of that server.
///
/// It holds the server weakly, so that a server that nobody uses any more ends.
#[derive(Default)]
pub struct LateReader(OnceLock<Weak<dyn Reader>>);

impl LateReader {
    /// Reads nothing yet: every read fails until [`LateReader::bind`].
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Reads through `reader` from now on; only the first one counts.
    pub fn bind(&self, reader: &Arc<dyn Reader>) {
        // A second reader is ignored, as documented.
        let _ = self.0.set(Arc::downgrade(reader));
    }

    fn reader(&self) -> Result<Arc<dyn Reader>, Error> {
        let reader = self.0.get().and_then(Weak::upgrade);
        reader.ok_or_else(|| Error::Transport("the server is not running".to_owned()))
    }
}

#[async_trait]
impl Reader for LateReader {
    async fn reach(&self, revision: u64) -> Result<(), Error> {
        self.reader()?.reach(revision).await
    }

    async fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Error> {
        self.reader()?.get(group, plural, namespace, name).await
    }

    async fn list(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        labels: &LabelSelector,
    ) -> Result<Vec<Arc<Object>>, Error> {
        self.reader()?.list(group, plural, namespace, labels).await
    }

    fn version(&self, group: &str, plural: &str) -> Result<Version, Error> {
        self.reader()?.version(group, plural)
    }

    fn resource_of(&self, api_version: &str, kind: &str) -> Option<Resource> {
        self.reader().ok()?.resource_of(api_version, kind)
    }

    fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Resource> {
        self.reader().ok()?.resource(group, version, plural)
    }

    fn other_versions(&self, resource: &Resource) -> Vec<Resource> {
        self.reader().map(|reader| reader.other_versions(resource)).unwrap_or_default()
    }

    async fn convert(&self, object: Value, from: &Resource, to: &Resource) -> Result<Value, Error> {
        self.reader()?.convert(object, from, to).await
    }

    fn schema(&self, resource: &Resource) -> Option<Arc<Schema>> {
        self.reader().ok()?.schema(resource)
    }

    async fn authorize(&self, attributes: &Attributes) -> Decision {
        match self.reader() {
            Ok(reader) => reader.authorize(attributes).await,
            Err(error) => Decision::Failed(error.to_string()),
        }
    }

    fn changes(&self, group: &str, plural: &str, after: u64) -> Result<Changes, Error> {
        self.reader()?.changes(group, plural, after)
    }
}
