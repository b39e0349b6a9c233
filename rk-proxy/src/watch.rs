//! The component: watches services and endpoint slices and tells a backend what changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{ObjectReference, Service},
    discovery::v1::EndpointSlice,
};
use rk_api::{Change, Client, EventRecorder, Informers, Object, ResourceType};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{PortKey, ProxyBackend, ServiceChange, ServiceKey, ServicePort, Tracker, Unserved};

/// Settings of a [`ServiceProxy`].
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// How long until ports that could not be served are tried again although nothing changed.
    pub retry: Duration,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self { retry: Duration::from_secs(30) }
    }
}

/// Keeps a backend in step with the cluster's services.
pub struct ServiceProxy {
    client: Arc<dyn Client>,
    backend: Arc<dyn ProxyBackend>,
    config: ProxyConfig,
}

/// The object as its type; one that does not fit is said aloud and left out.
pub(crate) fn typed<K: ResourceType>(object: &Object) -> Option<Arc<K>> {
    object.typed().inspect_err(|error| tracing::error!(%error, ?object, "object left out of proxying")).ok()
}

/// Takes a change of a Service into account.
pub(crate) fn service_changed(tracker: &mut Tracker, change: &Change) {
    let meta = change.object().meta();
    match (change, typed::<Service>(change.object())) {
        (Change::Added(_) | Change::Updated { .. }, Some(service)) => tracker.set_service(service),
        _ => tracker.remove_service(&ServiceKey::new(&meta.namespace, &meta.name)),
    }
}

/// Takes a change of an EndpointSlice into account.
pub(crate) fn slice_changed(tracker: &mut Tracker, change: &Change) {
    if let Change::Updated { old, new } = change
        && old.meta().labels != new.meta().labels
        && let Some(old) = typed::<EndpointSlice>(old)
    {
        // It may have moved to another service.
        tracker.remove_slice(&old);
    }
    let Some(slice) = typed::<EndpointSlice>(change.object()) else { return };
    match change {
        Change::Deleted(_) => tracker.remove_slice(&slice),
        Change::Added(_) | Change::Updated { .. } => tracker.set_slice(slice),
    }
}

impl ServiceProxy {
    /// A proxy of the cluster behind `client`.
    pub fn new(client: Arc<dyn Client>, backend: Arc<dyn ProxyBackend>, config: ProxyConfig) -> Self {
        Self { client, backend, config }
    }

    /// Proxies until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(self) {
        let informers = Informers::new(Arc::clone(&self.client));
        let (services, slices) = (informers.of::<Service>(), informers.of::<EndpointSlice>());
        services.synced().await;
        slices.synced().await;
        let (mut services, mut slices) = (services.subscribe(), slices.subscribe());
        let mut tracker = Tracker::default();
        let mut applier = Applier::new(&self);
        loop {
            drain(&mut services, |change| service_changed(&mut tracker, &change));
            drain(&mut slices, |change| slice_changed(&mut tracker, &change));
            applier.apply(tracker.take_change()).await;
            let retry = applier.retry_at;
            tokio::select! {
                Some(change) = services.recv() => service_changed(&mut tracker, &change),
                Some(change) = slices.recv() => slice_changed(&mut tracker, &change),
                () = wait_until(retry) => applier.retry(),
            }
        }
    }
}

pub(crate) fn drain(changes: &mut mpsc::UnboundedReceiver<Change>, mut take: impl FnMut(Change)) {
    while let Ok(change) = changes.try_recv() {
        take(change);
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Hands changes to the backend, and again what it could not do.
struct Applier<'a> {
    proxy: &'a ServiceProxy,
    events: EventRecorder,
    /// What the backend has not taken yet.
    waiting: BTreeMap<PortKey, Option<Arc<ServicePort>>>,
    /// Ports that were served in part at most.
    unserved: BTreeMap<PortKey, Arc<ServicePort>>,
    /// Failures told of already.
    told: BTreeSet<(PortKey, String)>,
    backend_rests: bool,
    retry_at: Option<Instant>,
}

/// How long a backend that failed as a whole is not asked.
const BACKEND_RESTS: Duration = Duration::from_secs(1);

impl<'a> Applier<'a> {
    fn new(proxy: &'a ServiceProxy) -> Self {
        Self {
            proxy,
            events: EventRecorder::new(Arc::clone(&proxy.client), "kube-proxy", ""),
            waiting: BTreeMap::new(),
            unserved: BTreeMap::new(),
            told: BTreeSet::new(),
            backend_rests: false,
            retry_at: None,
        }
    }

    /// Lines up what failed for the next `apply`.
    fn retry(&mut self) {
        let unserved = std::mem::take(&mut self.unserved);
        self.waiting.extend(unserved.into_iter().map(|(key, port)| (key, Some(port))));
        (self.backend_rests, self.retry_at) = (false, None);
    }

    async fn apply(&mut self, change: ServiceChange) {
        for key in &change.removals {
            self.unserved.remove(key);
            self.told.retain(|(known, _)| known != key);
        }
        for port in &change.upserts {
            self.unserved.remove(&port.key);
        }
        self.waiting.extend(change.removals.into_iter().map(|key| (key, None)));
        self.waiting.extend(change.upserts.into_iter().map(|port| (port.key.clone(), Some(port))));
        // After a failure of the backend as a whole it is left in peace for a while.
        if self.waiting.is_empty() || self.backend_rests {
            return;
        }
        let mut change = ServiceChange::default();
        for (key, port) in &self.waiting {
            match port {
                Some(port) => change.upserts.push(Arc::clone(port)),
                None => change.removals.push(key.clone()),
            }
        }
        match self.proxy.backend.apply(change).await {
            Ok(unserved) => self.note(unserved),
            Err(error) => {
                tracing::warn!(%error, "services not applied, trying again");
                self.backend_rests = true;
                self.retry_at = Some(Instant::now() + BACKEND_RESTS);
            }
        }
    }

    fn note(&mut self, unserved: Vec<Unserved>) {
        let mut ports = std::mem::take(&mut self.waiting);
        self.told.retain(|(key, _)| !ports.contains_key(key) || unserved.iter().any(|failure| failure.key == *key));
        for failure in unserved {
            let message = failure.to_string();
            let port = ports.remove(&failure.key).flatten().or_else(|| self.unserved.remove(&failure.key));
            let Some(port) = port else { continue };
            if self.told.insert((failure.key.clone(), message.clone())) {
                tracing::warn!(service = %failure.key, message, "service not fully served");
                self.events.warning(&reference(&port), "FailedToServe", message);
            }
            self.unserved.insert(failure.key, port);
        }
        self.retry_at = (!self.unserved.is_empty()).then(|| Instant::now() + self.proxy.config.retry);
    }
}

fn reference(port: &ServicePort) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some(port.key.service.namespace.to_string()),
        name: Some(port.key.service.name.to_string()),
        uid: Some(port.uid.to_string()),
        ..ObjectReference::default()
    }
}
