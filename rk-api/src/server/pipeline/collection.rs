//! Requests about collections: list, watch, delete all.

use std::sync::Arc;

use futures::{StreamExt, stream};

use super::{Call, Core};
use crate::{
    DeleteOptions, Error, EventStream, FieldSelector, LabelSelector, List, ListOptions, WatchEvent, WatchOptions,
    server::storage::{Listed, Selection, WatchSpec, watch},
    status,
};

/// Deletions of one request that run at the same time.
const PARALLEL: usize = 64;

impl Core {
    /// Lists what an authorized call names.
    ///
    /// # Errors
    /// 400, 410, 504: see [`crate::server::storage`].
    pub(crate) async fn list(&self, call: &Call, options: &ListOptions) -> Result<List, Error> {
        let listed = self.listed(call, options).await?;
        self.read_list(call, listed).await
    }

    /// The objects of a page in the version of the call.
    ///
    /// # Errors
    /// They can't be converted.
    pub(crate) async fn read_list(&self, call: &Call, mut listed: Listed) -> Result<List, Error> {
        let mut items: Vec<_> = listed.by_ref().collect();
        call.served.read_all(&mut items).await?;
        Ok(List {
            items,
            resource_version: listed.revision.to_string(),
            continue_token: listed.continue_token,
            remaining: listed.remaining,
        })
    }

    /// What a list names, to be gone through as it is sent; the objects are as they are stored.
    ///
    /// # Errors
    /// As [`Core::list`].
    pub(crate) async fn listed(&self, call: &Call, options: &ListOptions) -> Result<Listed, Error> {
        let selection = selection(call, &options.labels, &options.fields)?;
        self.cache.list(&call.served.collection, &selection, options).await
    }

    /// Watches what an authorized call names.
    ///
    /// # Errors
    /// 400, 410, 504: see [`crate::server::storage`].
    pub(crate) async fn watch(&self, call: &Call, options: WatchOptions) -> Result<EventStream, Error> {
        let spec = WatchSpec {
            selection: selection(call, &options.labels, &options.fields)?,
            resource_version: options.resource_version,
            bookmarks: options.bookmarks,
            send_initial_events: options.send_initial_events,
            timeout_seconds: options.timeout_seconds,
        };
        let events = watch(&self.cache, &call.served.collection, spec).await?;
        if !call.served.custom && call.served.stored_as == call.served.api_version {
            return Ok(events);
        }
        let served = Arc::clone(&call.served);
        Ok(events
            .then(move |event| {
                let served = Arc::clone(&served);
                async move {
                    Ok(match event? {
                        WatchEvent::Added(object) => WatchEvent::Added(served.read(&object).await?),
                        WatchEvent::Modified(object) => WatchEvent::Modified(served.read(&object).await?),
                        WatchEvent::Deleted(object) => WatchEvent::Deleted(served.read(&object).await?),
                        bookmark @ WatchEvent::Bookmark { .. } => bookmark,
                    })
                }
            })
            .boxed())
    }

    /// Deletes everything that is listed; what is gone already is no failure. The objects are those deleted.
    ///
    /// # Errors
    /// As a list and as a delete. One object that can't be deleted does not save the others: they are deleted, and then
    /// the first failure is answered.
    pub(crate) async fn delete_collection(
        &self,
        call: &Call,
        delete: &DeleteOptions,
        list: &ListOptions,
    ) -> Result<List, Error> {
        let found = self.list(call, list).await?;
        let mut failure = None;
        // At the same time, so that a durable store can commit them together.
        let deletions = found.items.iter().map(|object| {
            let one = call.about(&object.meta().namespace, &object.meta().name, "");
            async move {
                let deleted = self.delete(&one, delete).await;
                call.warn(one.warnings.into_inner());
                deleted
            }
        });
        let mut deleted = stream::iter(deletions.collect::<Vec<_>>()).buffered(PARALLEL);
        while let Some(deleted) = deleted.next().await {
            if let Err(error) = deleted
                && !error.is_not_found()
            {
                failure.get_or_insert(error);
            }
        }
        drop(deleted);
        failure.map_or(Ok(found), Err)
    }
}

/// The selection of a request; the fields must be selectable.
fn selection(call: &Call, labels: &LabelSelector, fields: &FieldSelector) -> Result<Selection, Error> {
    for (path, ..) in &fields.terms {
        let known = matches!(path.as_str(), "metadata.name" | "metadata.namespace")
            || call.served.row.selectable_fields.iter().any(|field| field == path);
        if !known {
            // Kinds with no selectable fields of their own have apimachinery's rule, and its wording.
            let message = if call.served.custom || !call.served.row.selectable_fields.is_empty() {
                format!("field label not supported: {path}")
            } else {
                format!("{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
            };
            return Err(status::bad_request(message).into());
        }
    }
    Ok(Selection { namespace: call.namespace.clone(), labels: labels.clone(), fields: fields.clone() })
}
