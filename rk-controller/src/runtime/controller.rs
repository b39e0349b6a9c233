//! From changes to keys to calls of the reconciler.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use rk_api::{Change, Informer, Informers, Key, Object, Resource, ResourceType};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{Action, Context, Reconcile};
use crate::{
    Error,
    workqueue::{Metrics, Priority, RateLimiter, WorkQueue},
};

/// Which keys a change concerns.
type Map = Box<dyn Fn(&Change) -> Vec<Key> + Send + Sync>;

/// A reconciler and what it watches.
///
/// ```
/// # use std::sync::Arc;
/// # use rk_api::Informers;
/// # use rk_controller::{Action, Context, Controller, Error, Reconcile};
/// # use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
/// struct Greeter;
///
/// #[async_trait::async_trait]
/// impl Reconcile for Greeter {
///     type Object = Namespace;
///
///     async fn reconcile(&self, namespace: Arc<Namespace>, context: &Context) -> Result<Action, Error> {
///         let name = namespace.metadata.name.as_deref().unwrap_or_default();
///         let greetings = context.api::<ConfigMap>(name);
///         if greetings.get_opt("greeting").await?.is_none() {
///             let mut greeting = ConfigMap::default();
///             greeting.metadata.name = Some("greeting".to_owned());
///             greetings.create(&greeting).await?;
///         }
///         Ok(Action::await_change())
///     }
/// }
///
/// # async fn run(client: Arc<dyn rk_api::Client>, shutdown: tokio_util::sync::CancellationToken) {
/// Controller::new("greeter", Greeter, &Informers::new(client))
///     .watches::<ConfigMap>(|greeting| {
///         vec![(String::new(), greeting.metadata.namespace.clone().unwrap_or_default())]
///     })
///     .run(shutdown)
///     .await;
/// # }
/// ```
pub struct Controller<R: Reconcile> {
    name: String,
    reconciler: Arc<R>,
    context: Context,
    primary: Informer,
    watches: Vec<(Informer, Map)>,
    workers: usize,
    limiter: RateLimiter<Key>,
    metrics: Arc<dyn Metrics>,
}

impl<R: Reconcile> Controller<R> {
    /// A controller of this name that watches the reconciler's own kind. Must be called in a tokio runtime.
    pub fn new(name: &str, reconciler: R, informers: &Informers) -> Self {
        Self::with_context(name, reconciler, Context::new(informers, name))
    }

    /// A controller in a context made before.
    pub fn with_context(name: &str, reconciler: R, context: Context) -> Self {
        let primary = context.informers.of::<R::Object>();
        Self::over(name, reconciler, primary, context)
    }

    /// A controller that sees those objects of its kind only that an informer has.
    pub fn from_informer(name: &str, reconciler: R, primary: Informer, informers: &Informers) -> Self {
        Self::over(name, reconciler, primary, Context::new(informers, name))
    }

    fn over(name: &str, reconciler: R, primary: Informer, context: Context) -> Self {
        let own: Map = Box::new(|change| vec![key_of(change.object())]);
        Self {
            name: name.to_owned(),
            reconciler: Arc::new(reconciler),
            watches: vec![(primary.clone(), own)],
            primary,
            context,
            workers: 4,
            limiter: RateLimiter::default(),
            metrics: Arc::new(crate::workqueue::NoMetrics),
        }
    }

    /// Watches objects that the reconciler's objects control (`ownerReferences` with `controller: true`).
    #[must_use]
    pub fn owns<K: ResourceType>(self) -> Self {
        let owner = Resource::of::<R::Object>();
        self.watches_changes::<K>(move |change| {
            // A change of the owner concerns both the old one and the new.
            let mut keys: Vec<Key> = versions(change).filter_map(|object| controller_key(object, &owner)).collect();
            keys.dedup();
            keys
        })
    }

    /// Watches another kind; `map` says which of the reconciler's objects one object concerns, and is asked about the
    /// version before a change too. An object that does not decode is reported and concerns none.
    #[must_use]
    pub fn watches<K: ResourceType>(self, map: impl Fn(&K) -> Vec<Key> + Send + Sync + 'static) -> Self {
        self.watches_changes::<K>(move |change| {
            let mut keys = Vec::new();
            for object in versions(change) {
                match object.typed::<K>() {
                    Ok(typed) => keys.extend(map(&typed)),
                    Err(error) => tracing::warn!(?object, %error, "can't read a watched object"),
                }
            }
            keys.sort_unstable();
            keys.dedup();
            keys
        })
    }

    /// Watches another kind; `map` sees each change itself.
    #[must_use]
    pub fn watches_changes<K: ResourceType>(self, map: impl Fn(&Change) -> Vec<Key> + Send + Sync + 'static) -> Self {
        let informer = self.context.informers.of::<K>();
        self.watches_informer(informer, map)
    }

    /// Watches what an informer has.
    #[must_use]
    pub fn watches_informer(
        mut self,
        informer: Informer,
        map: impl Fn(&Change) -> Vec<Key> + Send + Sync + 'static,
    ) -> Self {
        self.watches.push((informer, Box::new(map)));
        self
    }

    /// How many objects are reconciled at a time; 4 unless said.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// The delays after failures.
    #[must_use]
    pub fn rate_limiter(mut self, limiter: RateLimiter<Key>) -> Self {
        self.limiter = limiter;
        self
    }

    /// Who is told of the queue's load.
    #[must_use]
    pub fn metrics(mut self, metrics: Arc<dyn Metrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// Runs until `shutdown`; then finishes the calls that have begun.
    pub async fn run(self, shutdown: CancellationToken) {
        let queue = WorkQueue::new(self.limiter, self.metrics);
        let mut tasks = JoinSet::new();
        let synced = futures::future::join_all(
            self.watches.iter().map(|(informer, _)| informer.clone()).map(|i| async move { i.synced().await }),
        );
        let synced = tokio::select! {
            _ = synced => true,
            () = shutdown.cancelled() => false,
        };
        if !synced {
            return;
        }
        let feeders = shutdown.child_token();
        for (informer, map) in self.watches {
            tasks.spawn(feed(informer, map, queue.clone(), feeders.clone()));
        }
        let worker = Arc::new(Worker {
            reconciler: self.reconciler,
            context: self.context,
            informer: self.primary,
            queue: queue.clone(),
            resource: Resource::of::<R::Object>(),
        });
        for _ in 0..self.workers {
            let worker = Arc::clone(&worker);
            let span = tracing::info_span!("controller", name = self.name);
            tasks.spawn(async move { worker.run().await }.instrument(span));
        }
        drop(worker);
        shutdown.cancelled().await;
        queue.shut_down();
        while tasks.join_next().await.is_some() {}
    }
}

fn key_of(object: &Object) -> Key {
    (object.meta().namespace.clone(), object.meta().name.clone())
}

/// The versions that a change is about: both sides of an update.
fn versions(change: &Change) -> impl Iterator<Item = &Arc<Object>> {
    let (old, new) = match change {
        Change::Updated { old, new } => (Some(old), new),
        Change::Added(object) | Change::Deleted(object) => (None, object),
    };
    old.into_iter().chain([new])
}

/// The key of the controller of `object`, if it is of this resource (in any version of its group).
pub(crate) fn controller_key(object: &Object, owner: &Resource) -> Option<Key> {
    let reference = object.meta().owner_references.iter().find(|reference| reference.controller == Some(true))?;
    let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
    if reference.kind != owner.kind || group != owner.group {
        return None;
    }
    let namespace = if owner.namespaced { object.meta().namespace.clone() } else { String::new() };
    Some((namespace, reference.name.clone()))
}

/// Notes what each change of an informer concerns; what is there at the start comes after what changes.
async fn feed(informer: Informer, map: Map, queue: WorkQueue<Key>, stop: CancellationToken) {
    let mut changes = informer.subscribe();
    let mut initial: BTreeMap<Key, ()> = BTreeMap::new();
    while let Ok(change) = changes.try_recv() {
        initial.extend(map(&change).into_iter().map(|key| (key, ())));
    }
    for key in initial.into_keys() {
        queue.add_with(key, Priority::LOW);
    }
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = stop.cancelled() => return,
        };
        let Some(change) = change else { return };
        for key in map(&change) {
            queue.add(key);
        }
    }
}

struct Worker<R: Reconcile> {
    reconciler: Arc<R>,
    context: Context,
    informer: Informer,
    queue: WorkQueue<Key>,
    resource: Resource,
}

impl<R: Reconcile> Worker<R> {
    async fn run(&self) {
        while let Some(item) = self.queue.next().await {
            let object = self.informer.get(&item.0, &item.1);
            match self.call(&item, object.as_deref()).await {
                Ok(action) => {
                    self.queue.forget(&item);
                    if let Some(after) = action.after() {
                        self.queue.add_after(item.clone(), after);
                    }
                }
                Err(error) => self.failed(&item, object.as_deref(), &error),
            }
        }
    }

    async fn call(&self, key: &Key, object: Option<&Object>) -> Result<Action, Error> {
        let call = async {
            match object {
                Some(object) => self.reconciler.reconcile(object.typed()?, &self.context).await,
                None => self.reconciler.gone(key, &self.context).await,
            }
        };
        AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            Err(Error::Panic(text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()))
        })
    }

    fn failed(&self, key: &Key, object: Option<&Object>, error: &Error) {
        let retry = self.queue.retry(key.clone());
        let (namespace, name, kind) = (&key.0, &key.1, &self.resource.kind);
        if error.is_expected() {
            tracing::debug!(%kind, %namespace, %name, %error, ?retry, "trying again");
            return;
        }
        tracing::warn!(%kind, %namespace, %name, %error, ?retry, "reconciliation failed");
        if let Some(object) = object.filter(|_| !matches!(error, Error::Told(_))) {
            self.context.events.warning(&object.reference(), "ReconcileFailed", error.to_string());
        }
    }
}
