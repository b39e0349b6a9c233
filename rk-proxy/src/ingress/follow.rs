//! Following the objects, and keeping the router, the endpoints and the certificates up to date.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{Secret, Service},
    discovery::v1::EndpointSlice,
    networking::v1::Ingress,
};
use rk_api::{
    Api, Change, Client, EventRecorder, FieldSelector, Informer, Informers, Key, LabelSelector, Patch, Resource,
    object_reference,
};
use serde_json::json;

use super::{IngressConfig, Router, forward::Shared, tls};
use crate::{
    ServiceKey, Tracker, service_of,
    watch::{drain, service_changed, slice_changed, typed},
};

pub(super) struct Follower {
    client: Arc<dyn Client>,
    config: IngressConfig,
    shared: Arc<Shared>,
    certificates: Arc<tls::Certificates>,
    events: EventRecorder,
    tracker: Tracker,
    ingresses: BTreeMap<Key, Arc<Ingress>>,
    dirty: Dirty,
    /// What was said of certificates that can't be used.
    told: BTreeSet<String>,
}

/// What changed since the last update.
#[derive(Default)]
struct Dirty {
    services: BTreeSet<ServiceKey>,
    ingresses: BTreeSet<Key>,
    secrets: bool,
}

impl Follower {
    pub(super) fn new(
        client: Arc<dyn Client>,
        config: IngressConfig,
        shared: Arc<Shared>,
        certificates: Arc<tls::Certificates>,
    ) -> Self {
        Self {
            events: EventRecorder::new(Arc::clone(&client), "ingress-controller", ""),
            client,
            config,
            shared,
            certificates,
            tracker: Tracker::default(),
            ingresses: BTreeMap::new(),
            dirty: Dirty::default(),
            told: BTreeSet::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let informers = Informers::new(Arc::clone(&self.client));
        let of_services = informers.of::<Service>();
        let (of_slices, of_ingresses) = (informers.of::<EndpointSlice>(), informers.of::<Ingress>());
        let tls_only = FieldSelector::field("type", "kubernetes.io/tls");
        let of_secrets = informers.selected(Resource::of::<Secret>(), "", LabelSelector::everything(), tls_only);
        for informer in [&of_services, &of_slices, &of_ingresses, &of_secrets] {
            informer.synced().await;
        }
        let (mut services, mut slices) = (of_services.subscribe(), of_slices.subscribe());
        let (mut ingresses, mut secrets) = (of_ingresses.subscribe(), of_secrets.subscribe());
        loop {
            drain(&mut services, |change| self.on_service(&change));
            drain(&mut slices, |change| self.on_slice(&change));
            drain(&mut ingresses, |change| self.on_ingress(&change));
            drain(&mut secrets, |_| self.dirty.secrets = true);
            self.update(&of_services, &of_secrets).await;
            tokio::select! {
                Some(change) = services.recv() => self.on_service(&change),
                Some(change) = slices.recv() => self.on_slice(&change),
                Some(change) = ingresses.recv() => self.on_ingress(&change),
                Some(_) = secrets.recv() => self.dirty.secrets = true,
            }
        }
    }

    fn on_service(&mut self, change: &Change) {
        service_changed(&mut self.tracker, change);
        let meta = change.object().meta();
        self.dirty.services.insert(ServiceKey::new(&meta.namespace, &meta.name));
    }

    fn on_slice(&mut self, change: &Change) {
        slice_changed(&mut self.tracker, change);
        let old = if let Change::Updated { old, .. } = change { Some(old) } else { None };
        for object in old.into_iter().chain([change.object()]) {
            self.dirty.services.extend(typed::<EndpointSlice>(object).and_then(|slice| service_of(&slice)));
        }
    }

    fn on_ingress(&mut self, change: &Change) {
        let meta = change.object().meta();
        let key = (meta.namespace.clone(), meta.name.clone());
        let ingress = typed::<Ingress>(change.object()).filter(|ingress| self.serves(ingress));
        match (change, ingress) {
            (Change::Added(_) | Change::Updated { .. }, Some(ingress)) => self.ingresses.insert(key.clone(), ingress),
            _ => self.ingresses.remove(&key),
        };
        self.dirty.ingresses.insert(key);
    }

    /// Whether an Ingress is for this router: of its class, or of none.
    fn serves(&self, ingress: &Ingress) -> bool {
        let annotation = ingress.metadata.annotations.as_ref().and_then(|a| a.get("kubernetes.io/ingress.class"));
        let class = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_ref()).or(annotation);
        class.is_none_or(|class| *class == self.config.class)
    }

    async fn update(&mut self, services: &Informer, secrets: &Informer) {
        // The directory asks the tracker service by service; its own account of changes is not needed.
        self.tracker.take_change();
        let dirty = std::mem::take(&mut self.dirty);
        for key in &dirty.services {
            let object = services.get(&key.namespace, &key.name);
            let service = object.and_then(|object| typed::<Service>(&object));
            self.shared.directory.set(key, service.as_deref(), &self.tracker);
        }
        if dirty.secrets || !dirty.ingresses.is_empty() {
            self.update_certificates(secrets);
        }
        if dirty.ingresses.is_empty() {
            return;
        }
        let router = Router::new(self.oldest_first().into_iter().map(AsRef::as_ref));
        *self.shared.router.write() = Arc::new(router);
        for key in &dirty.ingresses {
            if let Some(ingress) = self.ingresses.get(key) {
                self.publish(ingress).await;
            }
        }
    }

    fn oldest_first(&self) -> Vec<&Arc<Ingress>> {
        let mut ingresses: Vec<&Arc<Ingress>> = self.ingresses.values().collect();
        ingresses.sort_by_key(|ingress| ingress.metadata.creation_timestamp.clone());
        ingresses
    }

    fn update_certificates(&mut self, secrets: &Informer) {
        let mut table = tls::Table::default();
        let mut failures = Vec::new();
        for ingress in self.oldest_first() {
            let namespace = ingress.metadata.namespace.as_deref().unwrap_or_default();
            for entry in ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten()) {
                let Some(name) = entry.secret_name.as_deref().filter(|name| !name.is_empty()) else { continue };
                let secret = secrets.get(namespace, name).and_then(|object| typed::<Secret>(&object));
                let secret = secret.ok_or_else(|| "there is no such Secret of type kubernetes.io/tls".to_owned());
                match secret.and_then(|secret| tls::certificate(&secret)) {
                    Ok(certificate) => {
                        table.add(entry.hosts.as_deref().unwrap_or_default(), &Arc::new(certificate));
                    }
                    Err(why) => {
                        failures.push((Arc::clone(ingress), format!("can't use Secret {namespace}/{name}: {why}")))
                    }
                }
            }
        }
        self.certificates.set(table);
        self.told.retain(|told| failures.iter().any(|(_, message)| message == told));
        for (ingress, message) in failures {
            if self.told.insert(message.clone()) {
                tracing::warn!(message, "certificate left out");
                self.events.warning(&object_reference(&*ingress), "BadCertificate", message);
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
