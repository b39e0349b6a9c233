//! Custom resources: definitions become rows while the server runs.
//!
//! A task follows the stored CustomResourceDefinitions. It accepts their names, says so in their status, puts a row for
//! every served version into the catalog, and when a definition is deleted deletes its objects first.

pub(crate) mod columns;
mod conversion;
mod jsonpath;
mod rows;
mod shape;
mod status;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use futures::StreamExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    Reader, UserInfo,
    pipeline::{Call, Change, Core},
    storage::{WatchSpec, watch},
};
use crate::{DeleteOptions, Error, ListOptions, Object, Resource, WatchEvent, WriteOptions};

pub(crate) use conversion::Converter;
pub(crate) use rows::Definition;
pub(crate) use shape::Shape;

/// Keeps a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// The definitions' group and plural name.
pub(crate) const GROUP: &str = "apiextensions.k8s.io";
pub(crate) const PLURAL: &str = "customresourcedefinitions";
/// Pause between looks at the objects of a definition that is being deleted.
const CLEANUP_PERIOD: std::time::Duration = std::time::Duration::from_secs(1);

/// The resource of the definitions themselves.
pub(crate) fn definitions() -> Resource {
    Resource::new(GROUP, "v1", "CustomResourceDefinition", PLURAL, false)
}

impl Core {
    /// Puts all stored definitions in service and follows them until `stop`.
    pub(crate) fn serve_definitions(self: &Arc<Self>, stop: CancellationToken) {
        let collection = self.cache.collection("apiextensions.k8s.io/customresourcedefinitions");
        for object in collection.select("", &crate::LabelSelector::everything()) {
            self.define(&object, false);
        }
        let follow = follow(Arc::downgrade(self));
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow => {}
            }
        });
    }

    async fn definition_changed(self: &Arc<Self>, event: WatchEvent) {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let (wanted, terminating) = self.define(&object, true);
                if let Some(status) = wanted {
                    if let Err(error) = self.set_definition_status(&object, status).await {
                        tracing::warn!(definition = %object.meta().name, %error, "can't write the definition's status");
                    }
                } else if terminating && object.meta().finalizers.iter().any(|finalizer| finalizer == CLEANUP) {
                    tokio::spawn(clean_up(Arc::downgrade(self), object));
                }
            }
            WatchEvent::Deleted(object) => {
                if let Ok(value) = object.value() {
                    let names = &value["spec"];
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    let (group, plural) = (text(&names["group"]), text(&names["names"]["plural"]));
                    self.change_catalog(|catalog| catalog.remove(&group, &plural));
                }
            }
            WatchEvent::Bookmark { .. } => {}
        }
    }

    /// Puts a definition in service if it may be. The status that it should have, if that is another, and whether it is
    /// being deleted.
    fn define(self: &Arc<Self>, object: &Object, judge: bool) -> (Option<Value>, bool) {
        let (name, terminating) = (&object.meta().name, object.meta().deletion_timestamp.is_some());
        let value = match object.value() {
            Ok(value) => value,
            Err(error) => {
                tracing::error!(definition = %name, %error, "a definition can't be read");
                return (None, false);
            }
        };
        let catalog = self.catalog.load_full();
        let (definition, before) = (Definition::of(object), catalog.defined(name).collect::<Vec<_>>());
        let schemas = rows::schemas(&value, before.iter().copied());
        let status = status::of(&value, &schemas, &catalog);
        let accepted = status::is(&status, "Established");
        // What was established stays so, whatever names others take since.
        let established = accepted || status::is(&value["status"], "Established");
        // Its rows, documents and compiled rules stay as they are where only its status changed.
        if established && !before.iter().any(|row| definition.made(row)) {
            let reader: Weak<dyn Reader> = Arc::<Self>::downgrade(self);
            match rows::of(&value, schemas, definition, &self.cache, &reader) {
                Ok(rows) => self.change_catalog(|catalog| {
                    let (group, plural) = (&value["spec"]["group"], &value["spec"]["names"]["plural"]);
                    catalog.remove(group.as_str().unwrap_or_default(), plural.as_str().unwrap_or_default());
                    for row in &rows {
                        catalog.insert(Arc::clone(row));
                    }
                }),
                Err(error) => tracing::error!(definition = %name, error, "a definition can't be served"),
            }
        }
        (Some(status).filter(|status| judge && *status != value["status"]), terminating)
    }

    pub(crate) fn change_catalog(&self, change: impl Fn(&mut super::catalog::Catalog)) {
        self.catalog.rcu(|catalog| {
            let mut catalog = super::catalog::Catalog::clone(catalog);
            change(&mut catalog);
            catalog
        });
        self.catalog_changed.send_modify(|changes| *changes += 1);
    }

    async fn set_definition_status(&self, object: &Object, status: Value) -> Result<(), Error> {
        let name = &object.meta().name;
        let call = self.own_call(&definitions(), "", name, "status")?;
        let version = object.meta().resource_version.clone();
        let change = move |current: &Value| {
            let mut new = current.clone();
            if current["metadata"]["resourceVersion"] == version.as_str() {
                new["status"] = status.clone();
            }
            Ok(new)
        };
        match self.update(&call, Change::With(&change), &WriteOptions::default()).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// A call of the server itself.
    ///
    /// # Errors
    /// The resource is not served.
    pub(crate) fn own_call(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        subresource: &str,
    ) -> Result<Call, Error> {
        let catalog = self.catalog.load();
        let served = catalog
            .get(&resource.group, &resource.version, &resource.plural)
            .ok_or_else(crate::status::no_such_path)?;
        Ok(Call {
            user: Arc::new(UserInfo::loopback()),
            served: Arc::clone(served),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
            warnings: parking_lot::Mutex::default(),
        })
    }
}

/// Follows the definitions until the server is dropped.
async fn follow(core: Weak<Core>) {
    let spec =
        WatchSpec { resource_version: "0".to_owned(), timeout_seconds: u64::from(u32::MAX), ..WatchSpec::default() };
    loop {
        let Some(alive) = core.upgrade() else { return };
        let collection = alive.cache.collection("apiextensions.k8s.io/customresourcedefinitions");
        let watched = watch(&alive.cache, &collection, spec.clone()).await;
        drop(alive);
        let mut events = watched.unwrap_or_else(|error| futures::stream::once(async { Err(error) }).boxed());
        while let Some(event) = events.next().await {
            match (event, core.upgrade()) {
                (Ok(event), Some(core)) => core.definition_changed(event).await,
                (Err(error), _) => tracing::warn!(%error, "the watch of the definitions broke, starting anew"),
                (Ok(_), None) => return,
            }
        }
        tokio::time::sleep(CLEANUP_PERIOD).await;
    }
}

/// Deletes the objects of a definition that is being deleted, then lets it go.
async fn clean_up(core: Weak<Core>, object: Arc<Object>) {
    let (name, uid) = (object.meta().name.clone(), object.meta().uid.clone());
    let Ok(value) = object.value() else { return };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&value["spec"]["group"]), text(&value["spec"]["names"]["plural"]));
    loop {
        let Some(core) = core.upgrade() else { return };
        match clean_up_once(&core, &name, &uid, &group, &plural).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::warn!(definition = %name, %error, "can't delete the objects of a definition yet"),
        }
        drop(core);
        tokio::time::sleep(CLEANUP_PERIOD).await;
    }
}

/// Whether nothing is left to do.
async fn clean_up_once(core: &Core, name: &str, uid: &str, group: &str, plural: &str) -> Result<bool, Error> {
    let resource = core.catalog.load().any_version(group, plural).map(|served| served.resource().clone());
    if let Some(resource) = resource {
        let call = core.own_call(&resource, "", "", "")?;
        core.delete_collection(&call, &DeleteOptions::default(), &ListOptions::default()).await?;
        if call.served.collection.len() > 0 {
            return Ok(false);
        }
    }
    let call = core.own_call(&definitions(), "", name, "")?;
    let change = |current: &Value| {
        let mut new = current.clone();
        if current["metadata"]["uid"] == uid
            && let Some(finalizers) = new["metadata"]["finalizers"].as_array_mut()
        {
            finalizers.retain(|finalizer| finalizer != CLEANUP);
        }
        Ok(new)
    };
    match core.update(&call, Change::With(&change), &WriteOptions::default()).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(true),
    }
}
