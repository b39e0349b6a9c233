//! Addresses for services of type LoadBalancer, from a given set: no cloud needed.
//!
//! The address is written to the service's status; that traffic to it reaches the service is the backend's work, to which it is one
//! more external address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::core::v1::Service;
use rk_api::{Api, Change, Client, EventRecorder, Informers, Key, Patch, object_reference};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    Protocol,
    watch::{drain, typed},
};

/// Settings of [`LoadBalancers`].
#[derive(Debug, Clone, Default)]
pub struct LoadBalancerConfig {
    /// The addresses to give. Services share one as long as their ports differ.
    pub addresses: Vec<IpAddr>,
}

/// Gives services of type LoadBalancer (those without a `loadBalancerClass`) their addresses.
pub struct LoadBalancers {
    client: Arc<dyn Client>,
    config: LoadBalancerConfig,
}

/// A port as load balancers hold it.
type Port = (u16, Protocol);

/// What a service wants.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    ports: BTreeSet<Port>,
    /// `spec.loadBalancerIP`.
    only: Option<IpAddr>,
    /// The addresses it has.
    has: Vec<IpAddr>,
}

/// What a service wants; `None` for one that wants nothing of us.
fn wanted(service: &Service) -> Option<Wanted> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() != Some("LoadBalancer") || spec.load_balancer_class.is_some() {
        return None;
    }
    let ports = spec.ports.iter().flatten();
    let ports =
        ports.filter_map(|port| Some((u16::try_from(port.port).ok()?, Protocol::parse(port.protocol.as_deref())?)));
    Some(Wanted {
        ports: ports.collect(),
        only: spec.load_balancer_ip.as_ref().and_then(|ip| ip.parse().ok()),
        has: published(service),
    })
}

fn published(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let points = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    points.iter().filter_map(|point| point.ip.as_ref()?.parse().ok()).collect()
}

/// The address of each service, `None` where its ports are taken at all of them. Services keep what they have; else the first
/// by name has its choice first.
fn assign(services: &BTreeMap<Key, Wanted>, addresses: &[IpAddr]) -> BTreeMap<Key, Option<IpAddr>> {
    let mut taken: BTreeSet<(IpAddr, Port)> = BTreeSet::new();
    let mut given: BTreeMap<Key, Option<IpAddr>> = BTreeMap::new();
    let keeps_first = services.iter().filter(|(_, wanted)| !wanted.has.is_empty());
    for (key, wanted) in keeps_first.chain(services.iter().filter(|(_, wanted)| wanted.has.is_empty())) {
        let allowed = |ip: &&IpAddr| wanted.only.is_none_or(|only| only == **ip);
        let free = |ip: &&IpAddr| wanted.ports.iter().all(|port| !taken.contains(&(**ip, *port)));
        let held = wanted.has.iter().filter(|ip| addresses.contains(ip));
        let found = held.chain(addresses).filter(allowed).find(free).copied();
        if let Some(ip) = found {
            taken.extend(wanted.ports.iter().map(|port| (ip, *port)));
        }
        given.insert(key.clone(), found);
    }
    given
}

impl LoadBalancers {
    /// Gives addresses in the cluster behind `client`.
    pub fn new(client: Arc<dyn Client>, config: LoadBalancerConfig) -> Self {
        Self { client, config }
    }

    /// Gives addresses until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(self) {
        let events = EventRecorder::new(Arc::clone(&self.client), "service-controller", "");
        let informer = Informers::new(Arc::clone(&self.client)).of::<Service>();
        informer.synced().await;
        let mut changes = informer.subscribe();
        let mut services: BTreeMap<Key, Wanted> = BTreeMap::new();
        let mut told: BTreeSet<Key> = BTreeSet::new();
        while let Some(change) = changes.recv().await {
            let mut touched = self.note(&mut services, &change);
            drain(&mut changes, |change| touched |= self.note(&mut services, &change));
            if !touched {
                continue;
            }
            for (key, address) in assign(&services, &self.config.addresses) {
                let Some(service) = informer.get(&key.0, &key.1).and_then(|object| typed::<Service>(&object)) else {
                    continue;
                };
                if address.is_none() && told.insert(key.clone()) {
                    let message = "its ports are taken at every load balancer address";
                    events.warning(&object_reference(&*service), "SyncLoadBalancerFailed", message);
                }
                if address.is_some() {
                    told.remove(&key);
                }
                self.publish(&service, address).await;
            }
        }
    }

    /// Takes a change into account; whether anybody's address may change by it.
    fn note(&self, services: &mut BTreeMap<Key, Wanted>, change: &Change) -> bool {
        let meta = change.object().meta();
        let key = (meta.namespace.clone(), meta.name.clone());
        let wanted = match change {
            Change::Deleted(_) => None,
            _ => typed::<Service>(change.object()).and_then(|service| wanted(&service)),
        };
        match wanted {
            Some(wanted) => services.insert(key, wanted.clone()).as_ref() != Some(&wanted),
            None => services.remove(&key).is_some(),
        }
    }

    async fn publish(&self, service: &Service, address: Option<IpAddr>) {
        let wanted: Vec<IpAddr> = address.into_iter().collect();
        if published(service) == wanted {
            return;
        }
        let points: Vec<_> = wanted.iter().map(|ip| json!({"ip": ip.to_string(), "ipMode": "VIP"})).collect();
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let api = Api::<Service>::namespaced(Arc::clone(&self.client), namespace);
        match api.patch_status(name, Patch::merge(json!({"status": {"loadBalancer": {"ingress": points}}}))).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            // Its next change brings another try.
            Err(error) => tracing::warn!(%error, namespace, name, "address of the load balancer not written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_share_addresses_but_no_ports_and_keep_what_they_have() {
        let [one, two]: [IpAddr; 2] = ["127.0.0.1", "127.0.0.2"].map(|ip| ip.parse().unwrap());
        let service = |port: u16, has: &[IpAddr], only| Wanted {
            ports: BTreeSet::from([(port, Protocol::Tcp)]),
            only,
            has: has.to_vec(),
        };
        let services: BTreeMap<Key, Wanted> = [
            ("a", service(80, &[], None)),
            ("b", service(80, &[one], None)),
            ("c", service(443, &[], None)),
            ("d", service(80, &[], None)),
            ("e", service(443, &[], Some(one))),
        ]
        .into_iter()
        .map(|(name, wanted)| (("ns".to_owned(), name.to_owned()), wanted))
        .collect();
        let given = assign(&services, &[one, two]);
        let given: Vec<Option<IpAddr>> = given.into_values().collect();
        assert_eq!(given, [Some(two), Some(one), Some(one), None, None]);
    }
}
