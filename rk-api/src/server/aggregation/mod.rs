//! Other API servers behind this one (<https://kubernetes.io/docs/concepts/extend-kubernetes/api-extension/apiserver-aggregation/>).
//!
//! ```text
//! APIService -> Backend: where, whom to believe -> looked at: available or not, what it serves -> catalog
//! request of its group and version -> authorize -> the backend, with the caller's identity in headers
//! ```
//! A task follows the APIServices, looks at the backends and writes what it finds into their status. What a backend serves
//! becomes a part of the [`Catalog`](super::catalog::Catalog), so discovery and OpenAPI show it. Groups that this server serves
//! itself have APIServices too, which say so.

mod backend;
mod document;
mod local;
mod status;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::{StreamExt, future::join_all};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    TlsError,
    outbound::{Trust, client_tls},
    pipeline::Core,
    storage::{WatchSpec, watch},
};
use crate::{Object, Resource, WatchEvent};

pub(crate) use backend::{Backend, identify};
pub(crate) use document::RemoteVersion;

/// How this server shows itself to those behind it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Aggregation {
    /// The front proxy's client certificate and key in PEM: with it a server behind this one believes who a request is from.
    pub identity: Option<(String, String)>,
}

impl fmt::Debug for Aggregation {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.identity.as_ref().map(|(certificate, _)| certificate);
        f.debug_struct("Aggregation").field("certificate", &certificate).finish_non_exhaustive()
    }
}

/// How often a backend is looked at that is available, and one that is not.
const LOOK: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(2));

/// How long after a request that could not be sent.
const SOON: Duration = Duration::from_millis(500);

/// The backends, by group and version.
pub(crate) struct Aggregator {
    identity: Option<(String, String)>,
    backends: ArcSwap<HashMap<(String, String), Arc<Backend>>>,
    /// Told when a backend could not be reached.
    missed: Notify,
}

/// The resource of APIServices.
fn api_services() -> Resource {
    Resource::new("apiregistration.k8s.io", "v1", "APIService", "apiservices", false)
}

impl Aggregator {
    /// Has no backends yet.
    ///
    /// # Errors
    /// The identity can't be used.
    pub(crate) fn new(config: Aggregation) -> Result<Arc<Self>, TlsError> {
        if let Some((certificate, key)) = &config.identity {
            client_tls(Trust::Anybody, Some((certificate, key)))?;
        }
        Ok(Arc::new(Self { identity: config.identity, backends: ArcSwap::default(), missed: Notify::new() }))
    }

    /// Who serves a group and version, if not this server.
    pub(crate) fn backend(&self, group: &str, version: &str) -> Option<Arc<Backend>> {
        let backends = self.backends.load();
        if backends.is_empty() {
            return None;
        }
        backends.get(&(group.to_owned(), version.to_owned())).cloned()
    }

    /// A request could not be sent to its backend: it is to be looked at soon.
    pub(crate) fn missed(&self) {
        self.missed.notify_one();
    }

    /// Takes an APIService over; whether something has to be looked at.
    fn change(&self, object: &Object, deleted: bool) -> bool {
        let Ok(value) = object.value() else { return false };
        let text = |field: &str| value["spec"][field].as_str().unwrap_or_default().to_owned();
        let key = (text("group"), text("version"));
        let known = self.backends.load().get(&key).cloned();
        let backend = if deleted || value["spec"]["service"].is_null() {
            None
        } else if let Some(known) = known.as_ref().filter(|known| known.spec == value["spec"]) {
            // A change of the status, most often by this server.
            Some(Arc::clone(known))
        } else {
            let identity = self.identity.as_ref().map(|(certificate, key)| (certificate.as_str(), key.as_str()));
            Some(Arc::new(Backend::new(&object.meta().name, &value["spec"], identity)))
        };
        let same = match (&known, &backend) {
            (Some(known), Some(backend)) => Arc::ptr_eq(known, backend),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.backends.rcu(|backends| {
                let mut backends = HashMap::clone(backends);
                match &backend {
                    Some(backend) => _ = backends.insert(key.clone(), Arc::clone(backend)),
                    None => _ = backends.remove(&key),
                }
                backends
            });
        }
        !same
    }
}

impl Core {
    /// Follows the APIServices until `stop`.
    pub(crate) fn serve_aggregated(self: &Arc<Self>, aggregator: &Arc<Aggregator>, stop: CancellationToken) {
        let collection = self.cache.collection("apiregistration.k8s.io/apiservices");
        for object in collection.select("", &crate::LabelSelector::everything()) {
            aggregator.change(&object, false);
        }
        let follow = follow(Arc::downgrade(self), Arc::clone(aggregator));
        let local = local::keep(Arc::downgrade(self));
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow => {}
                () = local => {}
            }
        });
    }

    /// Looks at all backends, writes what was found into their APIServices, and shows what they serve.
    async fn look_at_backends(self: &Arc<Self>, aggregator: &Aggregator) -> Duration {
        let backends: Vec<_> = aggregator.backends.load().values().cloned().collect();
        let looked = join_all(backends.iter().map(|backend| backend.look(self))).await;
        let mut remote = BTreeMap::new();
        let mut pause = LOOK.0;
        for (backend, version) in backends.iter().zip(looked) {
            if let Some(version) = version {
                remote.insert((backend.group.clone(), backend.version.clone()), Arc::new(version));
            }
            let condition = backend.condition();
            if condition.status != "True" {
                pause = LOOK.1;
            }
            if let Err(error) = status::write(self, &backend.name, &condition).await {
                tracing::warn!(service = backend.name, %error, "can't write the status of an APIService");
            }
        }
        let shown = self.catalog.load();
        let same = |version: &Arc<RemoteVersion>| {
            remote.get(&(version.group.clone(), version.version.clone())).is_some_and(|new| new == version)
        };
        if shown.remote().len() != remote.len() || !shown.remote().iter().all(same) {
            self.change_catalog(|catalog| catalog.set_remote(remote.values().cloned().collect()));
        }
        pause
    }
}

/// Follows the APIServices until the server is dropped, and looks at the backends from time to time.
async fn follow(core: Weak<Core>, aggregator: Arc<Aggregator>) {
    let spec =
        WatchSpec { resource_version: "0".to_owned(), timeout_seconds: u64::from(u32::MAX), ..WatchSpec::default() };
    loop {
        let Some(alive) = core.upgrade() else { return };
        let collection = alive.cache.collection("apiregistration.k8s.io/apiservices");
        let watched = watch(&alive.cache, &collection, spec.clone()).await;
        drop(alive);
        let mut events = watched.unwrap_or_else(|error| futures::stream::once(async { Err(error) }).boxed());
        let mut next = Instant::now();
        loop {
            let none = aggregator.backends.load().is_empty();
            let event = tokio::select! {
                biased;
                event = events.next() => Some(event),
                () = tokio::time::sleep_until(next), if !none => None,
                () = aggregator.missed.notified() => {
                    next = next.min(Instant::now() + SOON);
                    continue;
                }
            };
            let Some(core) = core.upgrade() else { return };
            match event {
                None => next = Instant::now() + core.look_at_backends(&aggregator).await,
                Some(Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)))) => {
                    if aggregator.change(&object, false) {
                        next = Instant::now();
                    }
                }
                Some(Some(Ok(WatchEvent::Deleted(object)))) => {
                    if aggregator.change(&object, true) {
                        core.look_at_backends(&aggregator).await;
                    }
                }
                Some(Some(Ok(WatchEvent::Bookmark { .. }))) => {}
                Some(Some(Err(error))) => {
                    tracing::warn!(%error, "the watch of the APIServices broke, starting anew");
                    break;
                }
                Some(None) => break,
            }
        }
        tokio::time::sleep(LOOK.1).await;
    }
}
