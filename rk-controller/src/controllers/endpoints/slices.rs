//! The EndpointSlices of Services with a selector.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::{Node, Pod, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use rk_api::{Change, DeleteOptions, Informer, Informers, Key, Resource};
use tokio_util::sync::CancellationToken;

use super::{
    HEADLESS, is_headless,
    members::{self, Port},
    packing, selector, services_of_pod,
};
use crate::{
    Action, Context, Controller, Error, Expectations, Reconcile,
    common::{meta, pod},
    error::is_terminating,
    runtime::controller_key,
};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Keeps the EndpointSlices of Services.
pub struct EndpointSliceController {
    pods: Informer,
    nodes: Informer,
    slices: Informer,
    expectations: Arc<Expectations>,
}

/// Runs the EndpointSlice controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    let (pods, nodes) = (informers.of::<Pod>(), informers.of::<Node>());
    let (slices, services) = (informers.of::<EndpointSlice>(), informers.of::<Service>());
    let expectations = Arc::new(Expectations::default());
    let reconciler = EndpointSliceController {
        pods: pods.clone(),
        nodes: nodes.clone(),
        slices: slices.clone(),
        expectations: Arc::clone(&expectations),
    };
    let service = Resource::of::<Service>();
    let observe = move |change: &Change| {
        let key = controller_key(change.object(), &service);
        if let (Change::Added(_), Some(key)) = (change, &key) {
            expectations.created(key);
        }
        key.into_iter().collect()
    };
    let (all_pods, all_services) = (pods.clone(), services.clone());
    Controller::new("endpoint-slice-controller", reconciler, informers)
        .watches_informer(slices, observe)
        .watches_informer(pods, move |change| services_of_pod(change, &services))
        .watches_informer(nodes, move |change| services_of_zone(change, &all_pods, &all_services))
        .run(shutdown)
        .await;
}

/// The Services whose endpoints show the zone of a node: those of the pods on it, when that zone is another one.
fn services_of_zone(change: &Change, pods: &Informer, services: &Informer) -> Vec<Key> {
    let node = change.object();
    let (old, new) = match change {
        Change::Added(_) => (None, zone(node)),
        Change::Updated { old, .. } => (zone(old), zone(node)),
        Change::Deleted(_) => (zone(node), None),
    };
    if old == new {
        return Vec::new();
    }
    let here = |object: &Arc<rk_api::Object>| {
        let pod = object.typed::<Pod>();
        pod.is_ok_and(|pod| pod::node_name(&pod) == node.meta().name)
    };
    let mut keys: Vec<Key> =
        pods.list().into_iter().filter(here).flat_map(|pod| services_of_pod(&Change::Added(pod), services)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn zone(node: &rk_api::Object) -> Option<&String> {
    node.meta().labels.get(ZONE)
}

#[async_trait]
impl Reconcile for EndpointSliceController {
    type Object = Service;

    async fn reconcile(&self, service: Arc<Service>, context: &Context) -> Result<Action, Error> {
        let key = meta::key(&service.metadata);
        let Some(selector) = selector(&service).filter(|_| !meta::is_deleting(&service.metadata)) else {
            return Ok(Action::await_change());
        };
        if let Some(wait) = self.expectations.pending(&key) {
            return Ok(Action::requeue(wait));
        }
        let pods: Vec<Arc<Pod>> = self
            .pods
            .list_namespace(&key.0)
            .iter()
            .filter(|pod| selector.matches(&pod.meta().labels))
            .map(|pod| pod.typed())
            .collect::<Result<_, _>>()?;
        let existing: Vec<EndpointSlice> = self
            .slices
            .controlled_by(meta::uid(&service.metadata))
            .iter()
            .filter(|slice| slice.meta().labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER))
            .filter(|slice| slice.meta().deletion_timestamp.is_none())
            .map(|slice| slice.typed().map(|slice: Arc<EndpointSlice>| EndpointSlice::clone(&slice)))
            .collect::<Result<_, _>>()?;

        let families = families(&service);
        let (of_families, others): (Vec<_>, Vec<_>) =
            existing.into_iter().partition(|slice| families.contains(&slice.address_type.as_str()));
        let mut changes = Changes { delete: others, ..Changes::default() };
        for family in families {
            let of_family = of_families.iter().filter(|slice| slice.address_type == family).cloned().collect();
            self.plan(&service, family, &pods, of_family, &mut changes);
        }
        self.write(&service, changes, context).await?;
        Ok(Action::await_change())
    }

    async fn gone(&self, key: &Key, _: &Context) -> Result<Action, Error> {
        self.expectations.forget(key);
        Ok(Action::await_change())
    }
}

#[derive(Default)]
struct Changes {
    create: Vec<EndpointSlice>,
    update: Vec<EndpointSlice>,
    delete: Vec<EndpointSlice>,
}

/// The address types of a Service.
fn families(service: &Service) -> Vec<&'static str> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    let known = families.iter().filter_map(|family| match family.as_str() {
        "IPv4" => Some("IPv4"),
        "IPv6" => Some("IPv6"),
        _ => None,
    });
    let known: Vec<_> = known.collect();
    if known.is_empty() { vec!["IPv4"] } else { known }
}

impl EndpointSliceController {
    /// Adds to `changes` what the slices of one address type need.
    fn plan(
        &self,
        service: &Service,
        family: &str,
        pods: &[Arc<Pod>],
        existing: Vec<EndpointSlice>,
        changes: &mut Changes,
    ) {
        let mut wanted: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| members::takes_part(pod)) {
            let addresses = members::addresses(pod).filter(|ip| is_of(family, ip)).map(|ip| ip.to_string());
            let addresses: Vec<_> = addresses.take(1).collect();
            if !addresses.is_empty() {
                wanted.entry(members::ports(service, pod)).or_default().push(self.endpoint(service, pod, addresses));
            }
        }
        // A Service without any member has one empty slice, so that one sees it was looked at.
        if wanted.is_empty() {
            wanted.insert(Vec::new(), Vec::new());
        }
        let mut by_ports: BTreeMap<Vec<Port>, Vec<EndpointSlice>> = BTreeMap::new();
        for slice in existing {
            by_ports.entry(ports_of(&slice)).or_default().push(slice);
        }
        let placeholder = wanted.len() == 1 && wanted.values().all(Vec::is_empty);
        for (ports, endpoints) in wanted {
            let mut plan = packing::plan(by_ports.remove(&ports).unwrap_or_default(), endpoints);
            if placeholder {
                match plan.delete.pop() {
                    Some(empty) => plan.keep.push(empty),
                    None => plan.create.push(Vec::new()),
                }
            }
            let new = |endpoints| EndpointSlice {
                metadata: self.metadata(service),
                address_type: family.to_owned(),
                endpoints: Some(endpoints),
                ports: Some(ports.iter().map(endpoint_port).collect()),
            };
            changes.create.extend(plan.create.into_iter().map(new));
            changes.update.extend(plan.update.into_iter().map(|slice| self.with_labels(service, slice)));
            // The Service's labels may have changed.
            let relabeled = plan.keep.into_iter().filter_map(|slice| {
                let labeled = self.with_labels(service, slice.clone());
                (labeled.metadata != slice.metadata).then_some(labeled)
            });
            changes.update.extend(relabeled);
            changes.delete.append(&mut plan.delete);
        }
        changes.delete.extend(by_ports.into_values().flatten());
    }

    fn endpoint(&self, service: &Service, pod: &Pod, addresses: Vec<String>) -> Endpoint {
        let (serving, terminating) = (pod::is_ready(pod), meta::is_deleting(&pod.metadata));
        let ready = members::publishes_unready(service) || (serving && !terminating);
        let node_name = Some(pod::node_name(pod)).filter(|name| !name.is_empty()).map(str::to_owned);
        let node = node_name.as_deref().and_then(|name| self.nodes.get("", name));
        Endpoint {
            addresses,
            conditions: Some(EndpointConditions {
                ready: Some(ready),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hostname: members::hostname(service, pod),
            zone: node.as_deref().and_then(zone).cloned(),
            node_name,
            target_ref: Some(members::reference(pod)),
            ..Endpoint::default()
        }
    }

    fn metadata(&self, service: &Service) -> ObjectMeta {
        ObjectMeta {
            generate_name: Some(format!("{}-", meta::name(&service.metadata))),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            owner_references: Some(vec![meta::controller_reference(service)]),
            ..ObjectMeta::default()
        }
    }

    fn with_labels(&self, service: &Service, mut slice: EndpointSlice) -> EndpointSlice {
        slice.metadata.labels = Some(labels(service));
        slice
    }

    async fn write(&self, service: &Service, changes: Changes, context: &Context) -> Result<(), Error> {
        let key = meta::key(&service.metadata);
        let api = context.api::<EndpointSlice>(&key.0);
        for slice in changes.create {
            self.expectations.expect_creations(&key, 1);
            if let Err(error) = api.create(&slice).await {
                self.expectations.created(&key);
                if is_terminating(&error) {
                    return Ok(());
                }
                return Err(error.into());
            }
        }
        for slice in changes.update {
            api.update(&slice).await?;
        }
        for slice in changes.delete {
            match api.delete(meta::name(&slice.metadata), DeleteOptions::default()).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A slice has the Service's labels, and those that say whose it is.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = meta::labels(&service.metadata).clone();
    labels.insert(SERVICE_NAME.to_owned(), meta::name(&service.metadata).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

fn is_of(family: &str, ip: &IpAddr) -> bool {
    (family == "IPv6") == ip.is_ipv6()
}

fn endpoint_port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.port),
        app_protocol: port.app_protocol.clone(),
    }
}

fn ports_of(slice: &EndpointSlice) -> Vec<Port> {
    let port = |port: &EndpointPort| Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        port: port.port.unwrap_or(0),
        app_protocol: port.app_protocol.clone(),
    };
    let mut ports: Vec<Port> = slice.ports.iter().flatten().map(port).collect();
    ports.sort_unstable();
    ports
}
