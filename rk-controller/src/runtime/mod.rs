//! Running a reconciler: the contract, and what feeds it.
//!
//! A [`Controller`] watches the reconciler's own kind and others, notes for each change which object's key that
//! concerns in a [`crate::WorkQueue`], and hands the object, as the informer has it, to [`Reconcile`]. Failures come
//! back later each time. Nothing but keys is kept, so a restart loses nothing.

mod controller;
mod expectations;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::NamespaceResourceScope;
use rk_api::{Api, Client, EventRecorder, Informers, Key, ResourceType, WriteOptions};

use crate::Error;

pub use controller::Controller;
pub(crate) use controller::controller_key;
pub use expectations::Expectations;

/// Brings the world to what one kind of object says.
///
/// # Contract
/// The runtime promises:
/// 1. After any change of the object, or of one that the controller watches for it, `reconcile` is called with the object as it
///    is at that time or later. Several changes may come as one call.
/// 2. Never two calls at a time for one object.
/// 3. A call that fails is made again, after a delay that grows with each failure in a row; so is one that panics.
/// 4. Every object there is at the start is reconciled once.
///
/// The reconciler promises to be idempotent: to compare what is with what should be, and to do only what is missing.
#[async_trait]
pub trait Reconcile: Send + Sync + 'static {
    /// The kind.
    type Object: ResourceType;

    /// Brings the world one step nearer to what the object says.
    async fn reconcile(&self, object: Arc<Self::Object>, context: &Context) -> Result<Action, Error>;

    /// Cleans up after an object that is gone; where others must not see it gone before, use a finalizer.
    async fn gone(&self, _key: &Key, _context: &Context) -> Result<Action, Error> {
        Ok(Action::await_change())
    }
}

/// When to look at the object again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    after: Option<Duration>,
}

impl Action {
    /// When something changes.
    pub fn await_change() -> Self {
        Self { after: None }
    }

    /// After this time, or sooner when something changes.
    pub fn requeue(after: Duration) -> Self {
        Self { after: Some(after) }
    }

    /// After how long, if not only on a change.
    pub fn after(self) -> Option<Duration> {
        self.after
    }

    /// The sooner of two.
    #[must_use]
    pub fn or_sooner(self, other: Self) -> Self {
        Self { after: [self.after, other.after].into_iter().flatten().min() }
    }
}

/// What a reconciler works with.
#[derive(Clone)]
pub struct Context {
    /// Current copies of collections, shared in the process.
    pub informers: Informers,
    /// Tells people what happened to an object.
    pub events: EventRecorder,
    manager: String,
}

impl Context {
    /// For a controller of this name, which is the name in its events and the manager of the fields it writes. Must
    /// be called in a tokio runtime.
    pub fn new(informers: &Informers, name: &str) -> Self {
        let events = EventRecorder::new(Arc::clone(informers.client()), name, "");
        Self { informers: informers.clone(), events, manager: name.to_owned() }
    }

    /// Writes fields as this manager.
    #[must_use]
    pub fn with_manager(mut self, manager: &str) -> Self {
        manager.clone_into(&mut self.manager);
        self
    }

    /// The client.
    pub fn client(&self) -> &Arc<dyn Client> {
        self.informers.client()
    }

    /// The objects of a namespace.
    pub fn api<K: ResourceType<Scope = NamespaceResourceScope>>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(Arc::clone(self.client()), namespace).with_options(WriteOptions::manager(&self.manager))
    }

    /// The objects of the whole cluster.
    pub fn api_all<K: ResourceType>(&self) -> Api<K> {
        Api::all(Arc::clone(self.client())).with_options(WriteOptions::manager(&self.manager))
    }
}
