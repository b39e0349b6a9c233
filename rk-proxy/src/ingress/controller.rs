//! The component: follows the objects and keeps the router up to date.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice, networking::v1::Ingress};
use rk_api::{Api, Change, Client, Informers, Key, Patch};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Router, forward::Shared, serve::serve};
use crate::{
    ServiceKey, Tracker, service_of,
    watch::{drain, service_changed, slice_changed, typed},
};

/// Settings of an [`IngressController`].
#[derive(Debug, Clone)]
pub struct IngressConfig {
    /// Where plain HTTP is served.
    pub http: Vec<SocketAddr>,
    /// The class it serves, besides Ingresses without one.
    pub class: String,
    /// The addresses that are written to the Ingresses' status; none to leave the status alone.
    pub addresses: Vec<IpAddr>,
    /// How long connecting to an endpoint may take before the next one is tried.
    pub connect_timeout: Duration,
}

impl Default for IngressConfig {
    fn default() -> Self {
        Self {
            http: Vec::new(),
            class: "rk".to_owned(),
            addresses: Vec::new(),
            connect_timeout: Duration::from_secs(3),
        }
    }
}

/// Serves HTTP by the rules of the cluster's Ingresses.
pub struct IngressController {
    client: Arc<dyn Client>,
    config: IngressConfig,
    http: Vec<TcpListener>,
}

impl IngressController {
    /// A router of the cluster behind `client`. Its listeners are open when this returns, and served by
    /// [`IngressController::run`].
    ///
    /// # Errors
    /// An address can't be listened at.
    pub async fn new(client: Arc<dyn Client>, config: IngressConfig) -> io::Result<Self> {
        let http = listen(&config.http).await?;
        Ok(Self { client, config, http })
    }

    /// Where plain HTTP is served: as configured, with the ports that the system chose for those given as 0.
    pub fn http_addresses(&self) -> Vec<SocketAddr> {
        self.http.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until `shutdown`, then lets open requests finish.
    pub async fn run(self, shutdown: CancellationToken) {
        let shared = Arc::new(Shared::new(self.config.connect_timeout));
        let mut listeners = JoinSet::new();
        for listener in self.http {
            listeners.spawn(serve(listener, None, Arc::clone(&shared), shutdown.clone()));
        }
        let follower = Follower { client: self.client, config: self.config, shared };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follower.run() => {}
        }
        listeners.join_all().await;
    }
}

async fn listen(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await;
        listeners.push(listener.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?);
    }
    Ok(listeners)
}

struct Follower {
    client: Arc<dyn Client>,
    config: IngressConfig,
    shared: Arc<Shared>,
}

/// What changed since the last update.
#[derive(Default)]
struct Dirty {
    services: BTreeSet<ServiceKey>,
    ingresses: BTreeSet<Key>,
}

impl Follower {
    async fn run(self) {
        let informers = Informers::new(Arc::clone(&self.client));
        let of_services = informers.of::<Service>();
        let (of_slices, of_ingresses) = (informers.of::<EndpointSlice>(), informers.of::<Ingress>());
        of_services.synced().await;
        of_slices.synced().await;
        of_ingresses.synced().await;
        let (mut services, mut slices) = (of_services.subscribe(), of_slices.subscribe());
        let mut changes = of_ingresses.subscribe();
        let mut tracker = Tracker::default();
        let mut ingresses: BTreeMap<Key, Arc<Ingress>> = BTreeMap::new();
        let mut dirty = Dirty::default();
        let on_service = |tracker: &mut Tracker, dirty: &mut Dirty, change: &Change| {
            service_changed(tracker, change);
            let meta = change.object().meta();
            dirty.services.insert(ServiceKey::new(&meta.namespace, &meta.name));
        };
        let on_slice = |tracker: &mut Tracker, dirty: &mut Dirty, change: &Change| {
            slice_changed(tracker, change);
            dirty.services.extend(typed::<EndpointSlice>(change.object()).and_then(|slice| service_of(&slice)));
        };
        loop {
            drain(&mut services, |change| on_service(&mut tracker, &mut dirty, &change));
            drain(&mut slices, |change| on_slice(&mut tracker, &mut dirty, &change));
            drain(&mut changes, |change| self.on_ingress(&mut ingresses, &mut dirty, &change));
            self.update(&tracker, &ingresses, std::mem::take(&mut dirty), &of_services).await;
            tokio::select! {
                Some(change) = services.recv() => on_service(&mut tracker, &mut dirty, &change),
                Some(change) = slices.recv() => on_slice(&mut tracker, &mut dirty, &change),
                Some(change) = changes.recv() => self.on_ingress(&mut ingresses, &mut dirty, &change),
            }
        }
    }

    fn on_ingress(&self, ingresses: &mut BTreeMap<Key, Arc<Ingress>>, dirty: &mut Dirty, change: &Change) {
        let meta = change.object().meta();
        let key = (meta.namespace.clone(), meta.name.clone());
        let ours = |ingress: &Ingress| self.serves(ingress);
        let ingress = typed::<Ingress>(change.object()).filter(|ingress| ours(ingress));
        match (change, ingress) {
            (Change::Added(_) | Change::Updated { .. }, Some(ingress)) => ingresses.insert(key.clone(), ingress),
            _ => ingresses.remove(&key),
        };
        dirty.ingresses.insert(key);
    }

    /// Whether an Ingress is for this router: of its class, or of none.
    fn serves(&self, ingress: &Ingress) -> bool {
        let annotation = ingress.metadata.annotations.as_ref().and_then(|a| a.get("kubernetes.io/ingress.class"));
        let class = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_ref()).or(annotation);
        class.is_none_or(|class| *class == self.config.class)
    }

    async fn update(
        &self,
        tracker: &Tracker,
        ingresses: &BTreeMap<Key, Arc<Ingress>>,
        dirty: Dirty,
        services: &rk_api::Informer,
    ) {
        for key in &dirty.services {
            let object = services.get(&key.namespace, &key.name);
            let service = object.and_then(|object| typed::<Service>(&object));
            self.shared.directory.set(key, service.as_deref(), tracker);
        }
        if dirty.ingresses.is_empty() {
            return;
        }
        let mut oldest_first: Vec<&Arc<Ingress>> = ingresses.values().collect();
        oldest_first.sort_by_key(|ingress| ingress.metadata.creation_timestamp.clone());
        *self.shared.router.write() = Arc::new(Router::new(oldest_first.into_iter().map(AsRef::as_ref)));
        for key in &dirty.ingresses {
            if let Some(ingress) = ingresses.get(key) {
                self.publish(ingress).await;
            }
        }
    }

    /// Writes the router's addresses to an Ingress's status.
    async fn publish(&self, ingress: &Ingress) {
        let wanted: Vec<String> = self.config.addresses.iter().map(ToString::to_string).collect();
        let status = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let points = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
        let known: Vec<&str> = points.iter().filter_map(|point| point.ip.as_deref()).collect();
        if wanted.is_empty() || known == wanted {
            return;
        }
        let points: Vec<_> = wanted.iter().map(|ip| json!({"ip": ip})).collect();
        let namespace = ingress.metadata.namespace.as_deref().unwrap_or_default();
        let name = ingress.metadata.name.as_deref().unwrap_or_default();
        let api = Api::<Ingress>::namespaced(Arc::clone(&self.client), namespace);
        let patch = Patch::merge(json!({"status": {"loadBalancer": {"ingress": points}}}));
        match api.patch_status(name, patch).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            // Its next change brings another try.
            Err(error) => tracing::warn!(%error, namespace, name, "status of the Ingress not written"),
        }
    }
}
