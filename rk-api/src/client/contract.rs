//! The contract: requests, answers, and the trait that joins them.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::Value;

use crate::{Error, FieldSelector, LabelSelector, Object, Patch, Resource};

/// Anything that answers Kubernetes' API verbs.
///
/// # Guarantees
/// 1. Every verb means what it means in Kubernetes' API, and fails with the same `Status`.
/// 2. A returned [`Object`] is complete: `apiVersion`, `kind` and `resourceVersion` are set, in lists and events too.
/// 3. A list is one consistent snapshot; its `resource_version` is where a watch may start.
/// 4. A watch from `resource_version` delivers every later change of the collection in order, exactly once, or
///    fails with an expired error ([`Error::is_expired`]).
/// 5. Dropping a stream ends its watch.
#[async_trait]
pub trait Client: Send + Sync + 'static {
    /// One object: get, create, update, patch, delete, and the same on subresources. A delete answers the object
    /// as it was last seen, or a `Status` object.
    async fn request(&self, request: Request) -> Result<Arc<Object>, Error>;

    /// A collection, or one page of it.
    async fn list(&self, resource: &Resource, namespace: &str, options: ListOptions) -> Result<List, Error>;

    /// The changes of a collection.
    async fn watch(&self, resource: &Resource, namespace: &str, options: WatchOptions) -> Result<EventStream, Error>;

    /// Deletes every object of a collection that `list` selects.
    async fn delete_collection(
        &self,
        resource: &Resource,
        namespace: &str,
        delete: DeleteOptions,
        list: ListOptions,
    ) -> Result<(), Error>;
}

/// A request about one object.
#[derive(Debug, Clone)]
pub struct Request {
    /// The collection.
    pub resource: Resource,
    /// The object's namespace; empty for objects of the cluster.
    pub namespace: String,
    /// The object's name; empty in a create that takes it from the body.
    pub name: String,
    /// `status`, `scale`, `binding`, ...; empty for the object itself.
    pub subresource: String,
    /// What is asked.
    pub verb: Verb,
}

/// What is asked of one object.
#[derive(Debug, Clone)]
pub enum Verb {
    /// Read it.
    Get,
    /// Make it.
    Create(Value, WriteOptions),
    /// Replace it. A body with a `resourceVersion` only replaces that version.
    Update(Value, WriteOptions),
    /// Change parts of it.
    Patch(Patch, WriteOptions),
    /// Delete it.
    Delete(DeleteOptions),
}

/// Options of create, update and patch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Do everything but store.
    pub dry_run: bool,
    /// Whose fields these are; empty for the client's own name.
    pub field_manager: String,
    /// `Strict`, `Warn` or `Ignore`; empty for the server's default.
    pub field_validation: String,
}

impl WriteOptions {
    /// Writing as this field manager.
    pub fn manager(name: &str) -> Self {
        Self { field_manager: name.to_owned(), ..Self::default() }
    }
}

/// What becomes of an object's dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// The object goes first, the garbage collector deletes the dependents.
    Background,
    /// The dependents go first.
    Foreground,
    /// The dependents stay.
    Orphan,
}

impl Propagation {
    /// The word in `DeleteOptions`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// What must hold of an object for a delete to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// Its uid.
    pub uid: Option<String>,
    /// Its version.
    pub resource_version: Option<String>,
}

/// Options of a delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Do everything but store.
    pub dry_run: bool,
    /// Seconds to end in; `None` for the kind's default.
    pub grace_period_seconds: Option<i64>,
    /// What becomes of the dependents; `None` for the kind's default.
    pub propagation: Option<Propagation>,
    /// What must hold.
    pub preconditions: Preconditions,
}

/// Options of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Only objects with such labels.
    pub labels: LabelSelector,
    /// Only objects with such fields.
    pub fields: FieldSelector,
    /// At most this many; 0 for all.
    pub limit: usize,
    /// The token of the page before.
    pub continue_token: String,
    /// Empty: the newest. `0`: whatever the server has at hand. Otherwise see `resource_version_match`.
    pub resource_version: String,
    /// `Exact` or `NotOlderThan`; empty for the default.
    pub resource_version_match: String,
}

impl ListOptions {
    /// Only objects with such labels.
    pub fn labels(labels: LabelSelector) -> Self {
        Self { labels, ..Self::default() }
    }
}

/// A page of a collection.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// The objects, in key order (namespace, then name).
    pub items: Vec<Arc<Object>>,
    /// The snapshot's version: where a watch may start.
    pub resource_version: String,
    /// The token for the next page; empty at the end.
    pub continue_token: String,
    /// How many more there are, where the server knows.
    pub remaining: Option<u64>,
}

/// Options of a watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// Only objects with such labels; an object that comes to match is ADDED, one that ceases to is DELETED.
    pub labels: LabelSelector,
    /// Only objects with such fields.
    pub fields: FieldSelector,
    /// Changes after this version. Empty or `0`: first an ADDED event for each object there is, unless `send_initial_events` says otherwise.
    pub resource_version: String,
    /// Whether bookmarks are wanted.
    pub bookmarks: bool,
    /// Ends after so many seconds; 0 for the server's choice.
    pub timeout_seconds: u64,
    /// Whether the state there is comes first, as ADDED events, whatever the version says; after it comes a bookmark with the annotation
    /// `k8s.io/initial-events-end`, so that this is a streaming list (KEP-3157). `Some(false)` and no version: changes from now on.
    pub send_initial_events: Option<bool>,
}

/// One change of a collection.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    /// It is new, or came to match.
    Added(Arc<Object>),
    /// It changed.
    Modified(Arc<Object>),
    /// It went, or ceased to match: its last state, at the version of the deletion.
    Deleted(Arc<Object>),
    /// Everything up to this version has been delivered. `initial_end` marks the end of a streaming list.
    Bookmark {
        /// The version reached.
        resource_version: String,
        /// Whether this ends the initial events.
        initial_end: bool,
    },
}

impl WatchEvent {
    /// The object, if the event has one.
    pub fn object(&self) -> Option<&Arc<Object>> {
        match self {
            Self::Added(object) | Self::Modified(object) | Self::Deleted(object) => Some(object),
            Self::Bookmark { .. } => None,
        }
    }

    /// The version that the watch has reached with this event.
    pub fn resource_version(&self) -> &str {
        match self {
            Self::Added(object) | Self::Modified(object) | Self::Deleted(object) => &object.meta().resource_version,
            Self::Bookmark { resource_version, .. } => resource_version,
        }
    }
}

/// The changes of a collection; it ends after an error.
pub type EventStream = BoxStream<'static, Result<WatchEvent, Error>>;
