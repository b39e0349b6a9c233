//! The Endpoints of Services with a selector, for those who still read them.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use rk_api::{DeleteOptions, Informer, Informers, Key};
use tokio_util::sync::CancellationToken;

use super::{
    HEADLESS, is_headless,
    members::{self, Port},
    selector, services_of_pod,
};
use crate::{
    Action, Context, Controller, Error, Reconcile,
    common::{meta, pod},
    error::is_terminating,
};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
/// Says that there are more members than the object shows.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses in one object at most.
const MOST: usize = 1000;

/// Keeps the Endpoints of Services.
pub struct EndpointsController {
    pods: Informer,
    endpoints: Informer,
}

/// Runs the Endpoints controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    let (pods, services) = (informers.of::<Pod>(), informers.of::<Service>());
    let endpoints = informers.of::<Endpoints>();
    let reconciler = EndpointsController { pods: pods.clone(), endpoints };
    Controller::new("endpoint-controller", reconciler, informers)
        .watches::<Endpoints>(|endpoints| vec![meta::key(&endpoints.metadata)])
        .watches_informer(pods, move |change| services_of_pod(change, &services))
        .run(shutdown)
        .await;
}

#[async_trait]
impl Reconcile for EndpointsController {
    type Object = Service;

    async fn reconcile(&self, service: Arc<Service>, context: &Context) -> Result<Action, Error> {
        let (namespace, name) = meta::key(&service.metadata);
        let Some(selector) = selector(&service) else { return Ok(Action::await_change()) };
        let pods: Vec<Arc<Pod>> = self
            .pods
            .list_namespace(&namespace)
            .iter()
            .filter(|pod| selector.matches(&pod.meta().labels))
            .map(|pod| pod.typed())
            .collect::<Result<_, _>>()?;
        let (subsets, over) = subsets(&service, &pods);
        let current = self.endpoints.get_as::<Endpoints>(&namespace, &name)?;
        let wanted = wanted(&service, current.as_deref(), subsets, over);
        let api = context.api::<Endpoints>(&namespace);
        match current {
            Some(current) if *current == wanted => {}
            Some(_) => drop(api.update(&wanted).await?),
            None => match api.create(&wanted).await {
                // An object that is there already is one that the informer has yet to show; that brings the Service back.
                Err(error) if !error.is_already_exists() && !is_terminating(&error) => return Err(error.into()),
                _ => {}
            },
        }
        Ok(Action::await_change())
    }

    async fn gone(&self, (namespace, name): &Key, context: &Context) -> Result<Action, Error> {
        let Some(left) = self.endpoints.get_as::<Endpoints>(namespace, name)? else {
            return Ok(Action::await_change());
        };
        // Somebody else's (a leader election of old, a hand-made one) stay.
        if meta::labels(&left.metadata).get(MANAGED_BY).is_some_and(|manager| manager == MANAGER) {
            match context.api::<Endpoints>(namespace).delete(name, DeleteOptions::default()).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(Action::await_change())
    }
}

/// Members with the same ports, the ready and the others apart; and whether some were left out.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let unready_too = members::publishes_unready(service);
    let ipv6 = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.as_ref())
        .is_some_and(|families| families.first().is_some_and(|family| family == "IPv6"));
    let mut groups: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let headless = is_headless(service);
    let (mut count, mut over) = (0, false);
    let taking_part =
        pods.iter().filter(|pod| members::takes_part(pod) && (unready_too || !meta::is_deleting(&pod.metadata)));
    for pod in taking_part {
        let Some(ip) = members::addresses(pod).find(|ip| ip.is_ipv6() == ipv6) else { continue };
        let ports = members::ports(service, pod);
        // A Service of ports has no members without any of them; a headless one may have no ports at all.
        let has_ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).is_some_and(|p| !p.is_empty());
        if ports.is_empty() && (has_ports || !headless) {
            continue;
        }
        if count == MOST {
            over = true;
            break;
        }
        count += 1;
        let address = EndpointAddress {
            ip: ip.to_string(),
            hostname: members::hostname(service, pod),
            node_name: Some(pod::node_name(pod).to_owned()).filter(|name| !name.is_empty()),
            target_ref: Some(members::reference(pod)),
        };
        let group = groups.entry(ports).or_default();
        if pod::is_ready(pod) || unready_too { group.0.push(address) } else { group.1.push(address) }
    }
    let some = |mut addresses: Vec<EndpointAddress>| {
        addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
        (!addresses.is_empty()).then_some(addresses)
    };
    let subset = |(ports, (ready, unready)): (Vec<Port>, _)| EndpointSubset {
        addresses: some(ready),
        not_ready_addresses: some(unready),
        ports: (!ports.is_empty()).then(|| ports.into_iter().map(endpoint_port).collect()),
    };
    (groups.into_iter().map(subset).collect(), over)
}

fn endpoint_port(port: Port) -> EndpointPort {
    EndpointPort {
        name: (!port.name.is_empty()).then_some(port.name),
        port: port.port,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}

fn wanted(service: &Service, current: Option<&Endpoints>, subsets: Vec<EndpointSubset>, over: bool) -> Endpoints {
    let mut endpoints = current.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    let mut labels = meta::labels(&service.metadata).clone();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    endpoints.metadata.labels = Some(labels);
    if over {
        let annotations = endpoints.metadata.annotations.get_or_insert_default();
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else if let Some(annotations) = &mut endpoints.metadata.annotations {
        annotations.remove(OVER_CAPACITY);
    }
    endpoints.subsets = (!subsets.is_empty()).then_some(subsets);
    endpoints
}

#[cfg(test)]
mod tests {
    use rk_api::{
        Api,
        server::{Server, UserInfo},
    };
    use rk_store::MemoryStore;
    use serde_json::json;

    use super::*;

    async fn informers() -> Informers {
        let server = Server::builder(Arc::new(MemoryStore::new())).build().await.unwrap();
        Informers::new(server.client(UserInfo::loopback()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_informer_that_lags_behind_the_own_creation_is_no_failure() {
        let (informers, lagging) = (informers().await, informers().await);
        let controller = EndpointsController { pods: informers.of::<Pod>(), endpoints: lagging.of::<Endpoints>() };
        let context = Context::new(&informers, "endpoint-controller");
        let service =
            json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"selector": {"app": "web"}}});
        let service: Arc<Service> = Arc::new(serde_json::from_value(service).unwrap());
        for _ in 0..2 {
            assert_eq!(controller.reconcile(Arc::clone(&service), &context).await.unwrap(), Action::await_change());
        }
        let api = Api::<Endpoints>::namespaced(Arc::clone(informers.client()), "default");
        let made = api.get("web").await.unwrap();
        assert_eq!(meta::labels(&made.metadata)[MANAGED_BY], MANAGER);
    }
}
