//! What is served now: the registry's rows, joined with the collections that hold their objects.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use serde_json::Value;

use super::{
    Row, convert,
    custom::{Converter, Definition, Shape, columns::PrinterColumn},
    http::Documents,
    openapi,
    schema::Schema,
    storage::Collection,
};
use crate::{Error, Object, Resource};

/// Where a kind keeps what its `scale` subresource shows, as dotted paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScalePaths {
    pub(crate) spec_replicas: String,
    pub(crate) status_replicas: String,
    /// Empty if there is none.
    pub(crate) selector: String,
}

/// A row in service.
pub(crate) struct Served {
    pub(crate) row: Row,
    /// The row's group and version.
    pub(crate) api_version: String,
    pub(crate) collection: Arc<Collection>,
    /// The `apiVersion` in which objects are stored.
    pub(crate) stored_as: String,
    /// What objects look like; `None` for anything.
    pub(crate) schema: Option<Arc<Schema>>,
    pub(crate) scale: Option<ScalePaths>,
    /// Whether a CustomResourceDefinition (or the embedder) brought it.
    pub(crate) custom: bool,
    /// The columns of a custom resource behind its name; others have theirs in the row.
    pub(crate) printer: Vec<PrinterColumn>,
    /// What is said to those who use a version that has a successor.
    pub(crate) deprecation: Option<String>,
    /// What converts a custom resource's versions, if they differ in more than their names.
    pub(crate) converter: Option<Arc<Converter>>,
    /// What stored objects of this version are read as; `None` where schemas do not change.
    pub(crate) shape: Option<Shape>,
    /// What the row was made of, if a CustomResourceDefinition brought it.
    pub(crate) definition: Option<Arc<Definition>>,
}

impl Served {
    pub(crate) fn resource(&self) -> &Resource {
        &self.row.resource
    }

    /// Whether there is a subresource of this name (`""` is the object itself).
    pub(crate) fn has(&self, subresource: &str) -> bool {
        subresource.is_empty() || self.row.subresources.iter().any(|sub| sub.name == subresource)
    }

    /// Whether discovery names this verb for the object or a subresource.
    pub(crate) fn allows(&self, subresource: &str, verb: &str) -> bool {
        let verbs = match self.row.subresources.iter().find(|sub| sub.name == subresource) {
            Some(sub) => &sub.verbs,
            None => &self.row.verbs,
        };
        verbs.iter().any(|v| v == verb)
    }

    /// A stored object in the version of this row.
    ///
    /// # Errors
    /// The object can't be converted.
    pub(crate) async fn read(&self, stored: &Arc<Object>) -> Result<Arc<Object>, Error> {
        if self.reads_alone(stored) {
            return self.read_alone(stored);
        }
        Ok(Arc::new(Object::from_value(&self.read_value(stored.value()?).await?)?))
    }

    /// Whether nobody else is asked when a stored object is read.
    pub(crate) fn reads_alone(&self, stored: &Object) -> bool {
        self.converter.is_none() || stored.api_version() == self.api_version
    }

    /// Whether a stored object is read just as it is.
    pub(crate) fn reads_as_stored(&self, stored: &Object) -> bool {
        self.shape.is_none() && stored.api_version() == self.api_version
    }

    /// A stored object in the version of this row, if that takes nobody else.
    ///
    /// # Errors
    /// The object can't be read.
    pub(crate) fn read_alone(&self, stored: &Arc<Object>) -> Result<Arc<Object>, Error> {
        if stored.api_version() == self.api_version {
            return self.shaped(Arc::clone(stored));
        }
        let mut value = stored.value()?;
        convert::convert(&mut value, &self.api_version);
        if let Some(shape) = &self.shape {
            shape.apply(&mut value);
        }
        Ok(Arc::new(Object::from_value(&value)?))
    }

    /// An object of this version as its schema is now.
    fn shaped(&self, stored: Arc<Object>) -> Result<Arc<Object>, Error> {
        match &self.shape {
            Some(shape) => shape.read(stored),
            None => Ok(stored),
        }
    }

    /// The same for a tree.
    ///
    /// # Errors
    /// The object can't be converted.
    pub(crate) async fn read_value(&self, stored: Value) -> Result<Value, Error> {
        if stored["apiVersion"] == self.api_version.as_str() {
            return Ok(stored);
        }
        let mut value = Box::pin(self.converted(stored, &self.api_version)).await?;
        if let Some(shape) = &self.shape {
            shape.apply(&mut value);
        }
        Ok(value)
    }

    /// Stored objects in the version of this row.
    ///
    /// # Errors
    /// The objects can't be converted.
    pub(crate) async fn read_all(&self, objects: &mut [Arc<Object>]) -> Result<(), Error> {
        /// So many are converted by one call of a webhook.
        const AT_ONCE: usize = 500;
        let mut others = Vec::new();
        for object in objects {
            if self.reads_as_stored(object) {
                continue;
            }
            if object.api_version() == self.api_version {
                *object = self.shaped(Arc::clone(object))?;
            } else {
                others.push(object);
            }
        }
        for some in others.chunks_mut(AT_ONCE) {
            let Some(converter) = &self.converter else {
                some.iter_mut().try_for_each(|object| self.read_alone(object).map(|read| **object = read))?;
                continue;
            };
            let values = some.iter().map(|object| object.value()).collect::<Result<_, _>>()?;
            let values = converter.convert(values, &self.api_version).await?;
            for (object, mut value) in some.iter_mut().zip(values) {
                if let Some(shape) = &self.shape {
                    shape.apply(&mut value);
                }
                **object = Arc::new(Object::from_value(&value)?);
            }
        }
        Ok(())
    }

    /// An object of this row's version in the stored one.
    ///
    /// # Errors
    /// The object can't be converted.
    pub(crate) async fn stored<'a>(&self, value: &'a Value) -> Result<Cow<'a, Value>, Error> {
        if value["apiVersion"] == self.stored_as.as_str() {
            return Ok(Cow::Borrowed(value));
        }
        Box::pin(self.converted(value.clone(), &self.stored_as)).await.map(Cow::Owned)
    }

    async fn converted(&self, mut value: Value, to: &str) -> Result<Value, Error> {
        if let Some(converter) = &self.converter {
            return Ok(converter.convert(vec![value], to).await?.pop().unwrap_or_default());
        }
        convert::convert(&mut value, to);
        Ok(value)
    }
}

/// The versions of a group by preference, with their rows.
pub(crate) type Versions = Vec<(String, Vec<Arc<Served>>)>;

/// Every row in service. It never changes: a change makes another.
#[derive(Default)]
pub(crate) struct Catalog {
    /// By plural name, for which few have the same.
    served: HashMap<String, Vec<Arc<Served>>>,
    /// In discovery's order: group, then version, then its resources.
    groups: Vec<(String, Versions)>,
    /// What servers behind this one serve.
    #[cfg(feature = "serve")]
    remote: Vec<Arc<super::aggregation::RemoteVersion>>,
    documents: OnceLock<Documents>,
    openapi: OnceLock<openapi::Documents>,
}

impl Clone for Catalog {
    /// A copy to be changed: its documents are yet to be made.
    fn clone(&self) -> Self {
        Self {
            served: self.served.clone(),
            groups: self.groups.clone(),
            #[cfg(feature = "serve")]
            remote: self.remote.clone(),
            documents: OnceLock::new(),
            openapi: OnceLock::new(),
        }
    }
}

impl Catalog {
    /// The discovery documents.
    pub(crate) fn documents(&self) -> &Documents {
        self.documents.get_or_init(|| Documents::of(self))
    }

    /// The OpenAPI documents.
    pub(crate) fn openapi(&self) -> &openapi::Documents {
        self.openapi.get_or_init(|| {
            let rows: Vec<Row> = self.rows().map(|served| served.row.clone()).collect();
            let custom =
                self.rows().filter_map(|served| Some((served.resource().clone(), served.schema.as_ref()?.source()?)));
            #[cfg_attr(not(feature = "serve"), expect(unused_mut, reason = "there are no other servers"))]
            let mut documents = openapi::Documents::new(&rows, &custom.collect::<Vec<_>>());
            #[cfg(feature = "serve")]
            documents.set_remote(&self.remote);
            documents
        })
    }

    /// What servers behind this one serve.
    #[cfg(feature = "serve")]
    pub(crate) fn remote(&self) -> &Vec<Arc<super::aggregation::RemoteVersion>> {
        &self.remote
    }

    /// Shows what servers behind this one serve: the groups with the highest priority first, and in a group the versions.
    #[cfg(feature = "serve")]
    pub(crate) fn set_remote(&mut self, mut remote: Vec<Arc<super::aggregation::RemoteVersion>>) {
        remote.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.group.cmp(&b.group)));
        self.remote = remote;
    }

    /// Adds or replaces a row.
    pub(crate) fn insert(&mut self, served: Arc<Served>) {
        let resource = served.resource().clone();
        let (group, version, plural) = (resource.group.as_ref(), resource.version.as_ref(), resource.plural.as_ref());
        let same_name = self.served.entry(plural.to_owned()).or_default();
        same_name.retain(|row| row.resource().group != group || row.resource().version != version);
        same_name.push(Arc::clone(&served));
        let at = self.groups.iter().position(|(g, _)| g == group).unwrap_or_else(|| {
            self.groups.push((group.to_owned(), Vec::new()));
            self.groups.len() - 1
        });
        let versions = &mut self.groups[at].1;
        let at = versions.iter().position(|(v, _)| v == version).unwrap_or_else(|| {
            versions.push((version.to_owned(), Vec::new()));
            if served.custom {
                versions.sort_by_key(|(version, _)| std::cmp::Reverse(version_priority(version)));
            }
            versions.iter().position(|(v, _)| v == version).unwrap_or_default()
        });
        let rows = &mut versions[at].1;
        match rows.iter_mut().find(|row| row.resource().plural == plural) {
            Some(row) => *row = served,
            None => rows.push(served),
        }
    }

    /// Takes every version of a resource out of service.
    pub(crate) fn remove(&mut self, group: &str, plural: &str) {
        if let Some(same_name) = self.served.get_mut(plural) {
            same_name.retain(|row| row.resource().group != group);
        }
        for (g, versions) in &mut self.groups {
            if g == group {
                for (_, rows) in versions.iter_mut() {
                    rows.retain(|row| row.resource().plural != plural);
                }
                versions.retain(|(_, rows)| !rows.is_empty());
            }
        }
        self.groups.retain(|(_, versions)| !versions.is_empty());
    }

    /// The row of a resource.
    pub(crate) fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        let mut same_name = self.served.get(plural)?.iter();
        same_name.find(|row| row.resource().group == group && row.resource().version == version)
    }

    /// The row that shows the same objects as another one in this version.
    pub(crate) fn sibling(&self, of: &Served, api_version: &str) -> Option<&Arc<Served>> {
        let mut same_name = self.served.get(of.resource().plural.as_ref())?.iter();
        same_name.find(|row| row.api_version == api_version && row.collection.name == of.collection.name)
    }

    /// A row of a resource in any version, the one it is stored in if that is served.
    pub(crate) fn any_version(&self, group: &str, plural: &str) -> Option<&Arc<Served>> {
        let mut rows = self.rows().filter(|row| row.resource().group == group && row.resource().plural == plural);
        let first = rows.next()?;
        if first.stored_as == first.api_version {
            return Some(first);
        }
        rows.find(|row| row.stored_as == row.api_version).or(Some(first))
    }

    /// The rows of a definition, which is named after what it defines.
    pub(crate) fn defined(&self, definition: &str) -> impl Iterator<Item = &Arc<Served>> {
        let (plural, group) = definition.split_once('.').unwrap_or((definition, ""));
        let same_name = self.served.get(plural).into_iter().flatten();
        same_name.filter(move |row| row.custom && row.resource().group == group)
    }

    /// Every row, in discovery's order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.groups.iter().flat_map(|(_, versions)| versions.iter().flat_map(|(_, rows)| rows))
    }

    /// Groups, their versions by preference, and their rows.
    pub(crate) fn groups(&self) -> &[(String, Versions)] {
        &self.groups
    }
}

/// Orders versions as Kubernetes does: `v2` before `v1` before `v1beta2` before `v1alpha1` before anything else
/// (apimachinery's `CompareKubeAwareVersionStrings`).
pub(crate) fn version_priority(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let other = (0, 0, 0, std::cmp::Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else { return other };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let Ok(major) = rest[..digits].parse::<u64>() else { return other };
    let none = std::cmp::Reverse(String::new());
    let (stage, number) = match &rest[digits..] {
        "" => return (3, major, 0, none),
        tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(number), _) => (2, number),
            (_, Some(number)) => (1, number),
            _ => return other,
        },
    };
    number.parse().map_or(other, |number| (stage, major, number, none))
}

#[cfg(test)]
mod tests {
    use super::version_priority;

    #[test]
    fn versions_are_ordered_as_kubernetes_does() {
        let mut versions =
            ["v1", "v11alpha2", "foo1", "v3beta1", "v12alpha1", "v2", "v10", "v10beta3", "foo10", "v11beta2"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_priority(version)));
        let wanted = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
        assert_eq!(versions, wanted);
    }
}
