//! From Service and EndpointSlice objects to changes of service ports.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

use crate::{Endpoint, PortKey, Protocol, ServiceChange, ServiceKey, ServicePort};

/// The label that names the service of an EndpointSlice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label of services that another proxy serves.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// `ClientIP` affinity's default (`DefaultClientIPServiceAffinitySeconds`).
const AFFINITY_SECONDS: i32 = 10_800;

/// Knows all services and endpoint slices, and what of them the backend knows already. Its work is in proportion to what
/// changed.
#[derive(Default)]
pub struct Tracker {
    services: HashMap<ServiceKey, Arc<Service>>,
    slices: HashMap<ServiceKey, BTreeMap<String, Arc<EndpointSlice>>>,
    dirty: BTreeSet<ServiceKey>,
    told: HashMap<ServiceKey, BTreeMap<PortKey, Arc<ServicePort>>>,
}

/// The service that a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<ServiceKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ServiceKey::new(slice.metadata.namespace.as_deref().unwrap_or_default(), name))
}

impl Tracker {
    /// A service is new or changed.
    pub fn set_service(&mut self, service: Arc<Service>) {
        let meta = &service.metadata;
        let key =
            ServiceKey::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        self.services.insert(key.clone(), service);
        self.dirty.insert(key);
    }

    /// A service is gone.
    pub fn remove_service(&mut self, key: &ServiceKey) {
        if self.services.remove(key).is_some() {
            self.dirty.insert(key.clone());
        }
    }

    /// A slice is new or changed.
    pub fn set_slice(&mut self, slice: Arc<EndpointSlice>) {
        let Some(key) = service_of(&slice) else { return };
        let name = slice.metadata.name.clone().unwrap_or_default();
        self.slices.entry(key.clone()).or_default().insert(name, slice);
        self.dirty.insert(key);
    }

    /// A slice is gone.
    pub fn remove_slice(&mut self, slice: &EndpointSlice) {
        let Some(key) = service_of(slice) else { return };
        if let Some(slices) = self.slices.get_mut(&key) {
            slices.remove(slice.metadata.name.as_deref().unwrap_or_default());
            if slices.is_empty() {
                self.slices.remove(&key);
            }
        }
        self.dirty.insert(key);
    }

    /// What changed since the last call.
    pub fn take_change(&mut self) -> ServiceChange {
        let mut change = ServiceChange::default();
        for key in std::mem::take(&mut self.dirty) {
            let mut known = self.told.remove(&key).unwrap_or_default();
            let mut now = BTreeMap::new();
            for port in self.ports(&key) {
                let port = match known.remove(&port.key) {
                    Some(same) if *same == port => same,
                    _ => {
                        let port = Arc::new(port);
                        change.upserts.push(Arc::clone(&port));
                        port
                    }
                };
                now.insert(port.key.clone(), port);
            }
            change.removals.extend(known.into_keys());
            if !now.is_empty() {
                self.told.insert(key, now);
            }
        }
        change
    }

    /// The ports of a service that have an address of their own.
    fn ports(&self, key: &ServiceKey) -> Vec<ServicePort> {
        let Some(service) = self.services.get(key) else { return Vec::new() };
        let Some(spec) = &service.spec else { return Vec::new() };
        let elsewhere = service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(OTHER_PROXY));
        if elsewhere || spec.type_.as_deref() == Some("ExternalName") {
            return Vec::new();
        }
        let addresses = |texts: Option<&Vec<String>>| -> Vec<IpAddr> {
            texts.into_iter().flatten().filter_map(|text| text.parse().ok()).collect()
        };
        let mut cluster_ips = addresses(spec.cluster_ips.as_ref());
        if cluster_ips.is_empty() {
            cluster_ips.extend(spec.cluster_ip.as_ref().and_then(|text| text.parse::<IpAddr>().ok()));
        }
        if cluster_ips.is_empty() {
            return Vec::new();
        }
        let mut external_ips = addresses(spec.external_ips.as_ref());
        let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let balancers = balancer.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
        // `ipMode: Proxy` asks that traffic to the address go through the load balancer itself (KEP-1860).
        let direct = balancers.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
        external_ips.extend(direct.filter_map(|ingress| ingress.ip.as_ref()?.parse::<IpAddr>().ok()));
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
            let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY_SECONDS);
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        });
        let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            let name: Arc<str> = Arc::from(port.name.as_deref().unwrap_or_default());
            let protocol = Protocol::parse(port.protocol.as_deref())?;
            Some(ServicePort {
                uid: Arc::from(service.metadata.uid.as_deref().unwrap_or_default()),
                cluster_ips: cluster_ips.clone(),
                external_ips: external_ips.clone(),
                port: u16::try_from(port.port).ok()?,
                node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0),
                affinity,
                external_local: local(&spec.external_traffic_policy),
                internal_local: local(&spec.internal_traffic_policy),
                endpoints: self.endpoints(key, &name, protocol),
                key: PortKey { service: key.clone(), port: name, protocol },
            })
        });
        ports.collect()
    }

    /// Where a port of a service is served, in order of address.
    pub fn endpoints(&self, key: &ServiceKey, name: &str, protocol: Protocol) -> Vec<Endpoint> {
        let mut endpoints: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
        for slice in self.slices.get(key).into_iter().flat_map(BTreeMap::values) {
            let ports = slice.ports.iter().flatten().filter(|port| {
                port.name.as_deref().unwrap_or_default() == name
                    && Protocol::parse(port.protocol.as_deref()) == Some(protocol)
            });
            for port in ports.filter_map(|port| u16::try_from(port.port?).ok()) {
                for endpoint in slice.endpoints.iter().flatten() {
                    // Of several addresses of an endpoint, they are interchangeable, proxies use the first.
                    let address = endpoint.addresses.first().and_then(|text| text.parse::<IpAddr>().ok());
                    let Some(address) = address else { continue };
                    let conditions = endpoint.conditions.as_ref();
                    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
                    let endpoint = Endpoint {
                        address: SocketAddr::new(address, port),
                        ready,
                        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
                        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
                        node: endpoint.node_name.as_deref().map(Arc::from),
                    };
                    // The same address may be in two slices for a moment while one replaces the other: the better one counts.
                    let known = endpoints.entry(endpoint.address).or_insert_with(|| endpoint.clone());
                    if (endpoint.ready, endpoint.serving) > (known.ready, known.serving) {
                        *known = endpoint;
                    }
                }
            }
        }
        endpoints.into_values().collect()
    }
}
