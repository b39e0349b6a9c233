//! Cluster IPs as objects (KEP-1880): the ServiceCIDRs that they come from, and the IPAddresses that say who has them.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{
    defaults::has_cluster_ip,
    range::{ClusterIpRange, family},
};
use crate::{
    LabelSelector, Network, Object, Resource, Status,
    server::{Reader, kinds::value::Peek},
    status,
};

/// The group of both.
const GROUP: &str = "networking.k8s.io";
/// The ServiceCIDR of the range that the server was started with.
pub(crate) const DEFAULT_RANGE: &str = "kubernetes";
/// The label of who made an IPAddress, and its value where a Service was given its address.
pub(crate) const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator");
/// The label of its family.
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";

/// The resource of ServiceCIDRs.
pub(crate) fn service_cidrs() -> Resource {
    Resource::new(GROUP, "v1", "ServiceCIDR", "servicecidrs", false)
}

/// The resource of IPAddresses.
pub(crate) fn ip_addresses() -> Resource {
    Resource::new(GROUP, "v1", "IPAddress", "ipaddresses", false)
}

/// The networks that Services get addresses from: those of the ready ServiceCIDRs, the server's own first. Its own are among them as long as
/// no ServiceCIDR says what became of them.
pub(super) async fn networks(reader: &dyn Reader, own: &ClusterIpRange) -> Result<Vec<Network>, Status> {
    let everything = LabelSelector::everything();
    let ranges = reader.list(GROUP, "servicecidrs", "", &everything).await.map_err(status::internal)?;
    let is_told = ranges.iter().any(|range| range.meta().name == DEFAULT_RANGE);
    let mut networks: Vec<_> = own.networks().filter(|_| !is_told).collect();
    for range in ranges {
        let value = range.value().map_err(status::internal)?;
        if range.meta().deletion_timestamp.is_none() && is_ready(&value) {
            networks.extend(networks_of(&value));
        }
    }
    networks.sort_by_key(|network| own.networks().all(|own| own != *network));
    Ok(networks)
}

/// The networks of a ServiceCIDR.
pub(crate) fn networks_of(range: &Value) -> impl Iterator<Item = Network> {
    range.list("spec.cidrs").iter().filter_map(|cidr| cidr.as_str()?.parse().ok())
}

/// Whether nothing says that a ServiceCIDR is not ready: whoever says so need not run.
fn is_ready(range: &Value) -> bool {
    let mut conditions = range.list("status.conditions").iter();
    conditions.find(|condition| condition.text("type") == "Ready").is_none_or(|ready| ready.text("status") == "True")
}

/// All addresses that an IPAddress speaks of.
pub(super) async fn reserved(reader: &dyn Reader) -> Result<Vec<IpAddr>, Status> {
    let everything = LabelSelector::everything();
    let all = reader.list(GROUP, "ipaddresses", "", &everything).await.map_err(status::internal)?;
    Ok(all.iter().filter_map(|address| address.meta().name.parse().ok()).collect())
}

/// The cluster IPs of a Service.
pub(crate) fn cluster_ips(service: &Value) -> impl Iterator<Item = IpAddr> {
    let ips = if has_cluster_ip(service.text("spec.type")) { service.list("spec.clusterIPs") } else { &[] };
    ips.iter().filter_map(|ip| ip.as_str()?.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical())
}

/// The IPAddress that says that a Service has this address.
pub(crate) fn ip_address(ip: IpAddr, service: &Value) -> Value {
    let parent = json!({"resource": "services", "namespace": service.text("metadata.namespace"),
        "name": service.text("metadata.name")});
    json!({
        "apiVersion": ip_addresses().api_version(), "kind": "IPAddress",
        "metadata": {
            "name": ip.to_string(),
            "labels": {FAMILY: family(ip), MANAGED_BY.0: MANAGED_BY.1},
        },
        "spec": {"parentRef": parent},
    })
}

/// The Service that an IPAddress belongs to, as namespace and name; `None` if it belongs to something else.
pub(crate) fn service_of(address: &Value) -> Option<(&str, &str)> {
    let parent = address.at("spec.parentRef");
    let is_service = parent.text("group").is_empty() && parent.text("resource") == "services";
    is_service.then(|| (parent.text("namespace"), parent.text("name")))
}

/// Whether an IPAddress was made with the Service that it belongs to.
pub(crate) fn is_managed(address: &Object) -> bool {
    address.meta().labels.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1)
}

/// Whether an IPAddress says of itself what one of this Service says.
pub(crate) fn says(address: &Object, tree: &Value, wanted: &Value) -> bool {
    let labels = wanted.at("metadata.labels").as_object().into_iter().flatten();
    let labelled =
        |(name, value): (&String, &Value)| address.meta().labels.get(name).map(String::as_str) == value.as_str();
    service_of(tree) == service_of(wanted) && labels.into_iter().all(labelled)
}
