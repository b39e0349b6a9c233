//! The IPAddresses of Services, brought back to what the Services say (kube-apiserver's `ipallocator-repair-controller`).
//!
//! An IPAddress is written in one step with its Service, so it is only others that bring the two apart: who deletes or changes an
//! IPAddress, or makes one that looks like a Service's. A store that an older version wrote has no IPAddresses at all.

use std::{
    net::IpAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{StreamExt, stream};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    kinds::{
        Peek,
        service::{
            addresses::{
                DEFAULT_RANGE, cluster_ips, ip_address, ip_addresses, is_managed, networks_of, says, service_cidrs,
                service_of,
            },
            family,
        },
    },
    pipeline::Core,
    storage::{Beside, Claims, Collection, WatchSpec, Write, key, watch},
    weak_client::WeakClient,
};
use crate::{Error, EventRecorder, LabelSelector, Network, Object, Resource, WatchEvent, clock};

/// Who says so in Events.
const COMPONENT: &str = "ipallocator-repair-controller";
/// Pause before a watch that broke starts anew.
const PAUSE: Duration = Duration::from_secs(1);

impl Core {
    /// Follows Services, IPAddresses and ServiceCIDRs until `stop`, if Services are served.
    pub(crate) fn keep_addresses(self: &Arc<Self>, stop: CancellationToken) {
        if self.catalog.load().get("", "v1", "services").is_none() {
            return;
        }
        let follow = follow(Arc::downgrade(self));
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow => {}
            }
        });
    }

    fn of(&self, resource: &Resource) -> Arc<Collection> {
        self.cache.collection_of(&resource.group, &resource.plural)
    }

    fn services(&self) -> Arc<Collection> {
        self.cache.collection_of("", "services")
    }

    fn addresses(&self) -> Arc<Collection> {
        self.of(&ip_addresses())
    }

    fn ranges(&self) -> Arc<Collection> {
        self.of(&service_cidrs())
    }

    /// The networks of all ServiceCIDRs, ready or not; `None` while none says what became of the server's own range.
    fn networks(&self) -> Result<Option<Vec<Network>>, Error> {
        let ranges = self.ranges().select("", &LabelSelector::everything());
        if ranges.iter().all(|range| range.meta().name != DEFAULT_RANGE) {
            return Ok(None);
        }
        let mut networks = Vec::new();
        for range in ranges {
            networks.extend(networks_of(&range.value()?));
        }
        Ok(Some(networks))
    }

    /// The Service that an IPAddress belongs to, if that has the address indeed.
    fn holder(&self, address: &Object) -> Result<Option<String>, Error> {
        let tree = address.value()?;
        let Some((namespace, name)) = service_of(&tree) else { return Ok(None) };
        let item = key::item(namespace, name);
        let Some(service) = self.services().get(&item) else { return Ok(None) };
        let ip = address.meta().name.parse::<IpAddr>().ok();
        let holds = cluster_ips(&service.object.value()?).any(|held| Some(held) == ip);
        Ok(holds.then_some(item))
    }
}

/// A cluster IP whose IPAddress is not there, or says something else.
struct Wrong {
    service: Arc<Object>,
    ip: IpAddr,
    /// The IPAddress as it should be.
    wanted: Value,
    /// The IPAddress as it is.
    found: Option<Arc<Object>>,
}

/// Looks at what has just changed.
struct Repair {
    core: Arc<Core>,
    recorder: EventRecorder,
}

impl Repair {
    async fn check(&self, event: WatchEvent) -> Result<(), Error> {
        let is_gone = matches!(event, WatchEvent::Deleted(_));
        let (WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) = event else {
            return Ok(());
        };
        let (name, revision) = (&object.meta().name, object.revision());
        match object.kind() {
            "Service" => {
                let item = key::item(&object.meta().namespace, name);
                self.check_range(&item, revision).await?;
                self.check_service(&item, revision).await
            }
            "ServiceCIDR" if is_gone || name == DEFAULT_RANGE => {
                for service in self.core.services().select("", &LabelSelector::everything()) {
                    let item = key::item(&service.meta().namespace, &service.meta().name);
                    self.check_range(&item, revision).await?;
                }
                Ok(())
            }
            "IPAddress" => {
                let tree = object.value()?;
                if let Some((namespace, name)) = service_of(&tree) {
                    self.check_service(&key::item(namespace, name), revision).await?;
                }
                self.check_leak(name, revision).await
            }
            _ => Ok(()),
        }
    }

    /// Tells of cluster IPs that no ServiceCIDR has.
    async fn check_range(&self, item: &str, revision: rk_store::Revision) -> Result<(), Error> {
        self.core.cache.wait_for(revision).await?;
        let Some(networks) = self.core.networks()? else { return Ok(()) };
        let Some(service) = self.core.services().get(item).map(|item| Arc::clone(&item.object)) else { return Ok(()) };
        for ip in cluster_ips(&service.value()?).filter(|ip| !is_within(&networks, *ip)) {
            let family = family(ip);
            let text = format!(
                "Cluster IP [{family}]: {ip} is not within any configured Service CIDR; please recreate service"
            );
            self.tell(&service, "ClusterIPOutOfRange", text);
        }
        Ok(())
    }

    /// Sees that each cluster IP of a Service has its IPAddress. All is looked at as it was at this revision, or later.
    async fn check_service(&self, item: &str, revision: rk_store::Revision) -> Result<(), Error> {
        self.core.cache.wait_for(revision).await?;
        if self.wrong_addresses(item)?.is_empty() {
            return Ok(());
        }
        // Another server may have written both, or have mended it, since.
        self.core.cache.sync().await?;
        loop {
            let mut is_done = true;
            for wrong in self.wrong_addresses(item)? {
                is_done &= self.mend(item, wrong).await?;
            }
            if is_done {
                return Ok(());
            }
        }
    }

    /// The cluster IPs of a Service, in the range, without a proper IPAddress.
    fn wrong_addresses(&self, item: &str) -> Result<Vec<Wrong>, Error> {
        let core = &self.core;
        let Some(service) = core.services().get(item).map(|item| Arc::clone(&item.object)) else {
            return Ok(Vec::new());
        };
        let (tree, mut wrong) = (service.value()?, Vec::new());
        for ip in cluster_ips(&tree) {
            let (wanted, found) = (ip_address(ip, &tree), core.addresses().get(&ip.to_string()));
            let found = found.map(|item| Arc::clone(&item.object));
            let is_right = match &found {
                Some(found) => says(found, &found.value()?, &wanted),
                None => false,
            };
            if !is_right && core.networks()?.is_none_or(|networks| is_within(&networks, ip)) {
                wrong.push(Wrong { service: Arc::clone(&service), ip, wanted, found });
            }
        }
        Ok(wrong)
    }

    /// Writes an IPAddress, unless another Service has it; `false` if it has changed meanwhile.
    async fn mend(&self, item: &str, Wrong { service, ip, wanted, found }: Wrong) -> Result<bool, Error> {
        let (core, family) = (&self.core, family(ip));
        let expected = found.as_ref().map_or(0, |found| found.revision());
        let holder = found.as_ref().map(|found| core.holder(found)).transpose()?.flatten();
        if holder.is_some_and(|holder| holder != item) {
            let text = format!("Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate service");
            self.tell(&service, "ClusterIPAlreadyAllocated", text);
            return Ok(true);
        }
        let is_of_service = match &found {
            Some(found) => service_of(&found.value()?) == service_of(&wanted),
            None => false,
        };
        let Beside { item: name, json, .. } = core.new_beside(&ip_addresses(), wanted, expected).await?;
        let written = core.cache.put(&core.addresses(), &name, json, expected, 0, Claims::default()).await?;
        if !matches!(written, Write::Done(_)) {
            return Ok(false);
        }
        // Of labels alone nothing is told.
        if !is_of_service {
            let (namespace, service_name) = (&service.meta().namespace, &service.meta().name);
            let text = match found {
                None => format!("Cluster IP [{family}]: {ip} is not allocated; repairing"),
                Some(_) => format!(
                    "the ClusterIP [{family}]: {ip} for Service {namespace}/{service_name} has a wrong reference; repairing"
                ),
            };
            self.tell(&service, "ClusterIPNotAllocated", text);
        }
        Ok(true)
    }

    /// Removes an IPAddress that was made with a Service which does not have it.
    async fn check_leak(&self, name: &str, revision: rk_store::Revision) -> Result<(), Error> {
        let cache = &self.core.cache;
        cache.wait_for(revision).await?;
        if self.leaked(name)?.is_none() {
            return Ok(());
        }
        cache.sync().await?;
        let Some(address) = self.leaked(name)? else { return Ok(()) };
        let (reason, text) = self.why_leaked(&address)?;
        let addresses = self.core.addresses();
        let removed = cache.remove(&addresses, name, address.json(), address.revision(), Claims::default()).await?;
        if matches!(removed, Write::Done(_)) {
            self.tell(&address, reason, text);
        }
        Ok(())
    }

    fn leaked(&self, name: &str) -> Result<Option<Arc<Object>>, Error> {
        let found = self.core.addresses().get(name).map(|item| Arc::clone(&item.object));
        let Some(address) = found else { return Ok(None) };
        let is_held = !is_managed(&address) || self.core.holder(&address)?.is_some();
        Ok((!is_held).then_some(address))
    }

    /// What is told of an IPAddress that nobody has.
    fn why_leaked(&self, address: &Object) -> Result<(&'static str, String), Error> {
        let (name, tree) = (&address.meta().name, address.value()?);
        let Some((namespace, service)) = service_of(&tree) else {
            let field = |field| tree.at("spec.parentRef").text(field);
            // As Go prints the reference.
            let parent = format!(
                "&ParentReference{{Group:{},Resource:{},Namespace:{},Name:{},}}",
                field("group"),
                field("resource"),
                field("namespace"),
                field("name")
            );
            let text = format!(
                "IPAddress {name} appears to have been modified, not referencing a Service {parent}: cleaning up"
            );
            return Ok(("IPAddressNotAllocated", text));
        };
        let about = format!("IPAddress: {name} for Service {namespace}/{service}");
        Ok(match self.core.services().get(&key::item(namespace, service)) {
            None => ("IPAddressNotAllocated", format!("{about} appears to have leaked: cleaning up")),
            Some(_) => ("IPAddressWrongReference", format!("{about} has a wrong reference; cleaning up")),
        })
    }

    fn tell(&self, about: &Object, reason: &str, text: String) {
        tracing::warn!(object = %about.meta().name, reason, text);
        self.recorder.warning(&about.reference(), reason, text);
    }
}

fn is_within(networks: &[Network], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.is_assignable(ip))
}

/// Follows the collections until the server is dropped.
async fn follow(core: Weak<Core>) {
    let spec =
        WatchSpec { resource_version: "0".to_owned(), timeout_seconds: u64::from(u32::MAX), ..WatchSpec::default() };
    let recorder = EventRecorder::new(WeakClient::of(&core), COMPONENT, "");
    loop {
        let Some(alive) = core.upgrade() else { return };
        let mut watched = Vec::new();
        for collection in [alive.services(), alive.addresses(), alive.ranges()] {
            let events = watch(&alive.cache, &collection, spec.clone()).await;
            watched.push(events.unwrap_or_else(|error| stream::once(async { Err(error) }).boxed()));
        }
        drop(alive);
        let mut events = stream::select_all(watched);
        while let Some(event) = events.next().await {
            let checked = match (event, core.upgrade()) {
                (Ok(event), Some(core)) => {
                    let repair = Repair { core, recorder: recorder.clone() };
                    let checked = std::pin::pin!(repair.check(event));
                    clock::within(&repair.core.clock, checked).await
                }
                (Err(error), _) => Err(error),
                (Ok(_), None) => return,
            };
            if let Err(error) = checked {
                tracing::warn!(%error, "the IPAddresses of Services can't be followed, starting anew");
                break;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
