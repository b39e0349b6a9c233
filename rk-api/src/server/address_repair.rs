//! The IPAddresses of Services, brought back to what the Services say (kube-apiserver's repair controller of cluster IPs).
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
    Server, UserInfo,
    kinds::service::addresses::{cluster_ips, ip_address, ip_addresses, is_managed, says, service_of},
    pipeline::Core,
    storage::{Beside, Claims, Collection, WatchSpec, Write, key, watch},
};
use crate::{Error, EventRecorder, Object, WatchEvent, clock};

/// Who says so in Events.
const COMPONENT: &str = "ipallocator-repair-controller";
/// Pause before a watch that broke starts anew.
const PAUSE: Duration = Duration::from_secs(1);

/// A cluster IP whose IPAddress is not there, or says something else.
struct Wrong {
    service: Arc<Object>,
    /// The IPAddress as it should be.
    wanted: Value,
    /// The IPAddress as it is.
    found: Option<Arc<Object>>,
}

impl Core {
    /// Follows Services and IPAddresses until `stop`, if Services are served.
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

    fn services(&self) -> Arc<Collection> {
        self.cache.collection_of("", "services")
    }

    fn addresses(&self) -> Arc<Collection> {
        let resource = ip_addresses();
        self.cache.collection_of(&resource.group, &resource.plural)
    }

    /// Looks at what has just changed.
    async fn check_addresses(self: &Arc<Self>, event: WatchEvent) -> Result<(), Error> {
        let (WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) = event else {
            return Ok(());
        };
        if object.kind() == "Service" {
            return self
                .check_service(&key::item(&object.meta().namespace, &object.meta().name), object.revision())
                .await;
        }
        let tree = object.value()?;
        if let Some((namespace, name)) = service_of(&tree) {
            self.check_service(&key::item(namespace, name), object.revision()).await?;
        }
        self.check_leak(&object.meta().name, object.revision()).await
    }

    /// Sees that each cluster IP of a Service has its IPAddress. All is looked at as it was at this revision, or later.
    async fn check_service(self: &Arc<Self>, item: &str, revision: rk_store::Revision) -> Result<(), Error> {
        self.cache.wait_for(revision).await?;
        if self.wrong_address(item)?.is_none() {
            return Ok(());
        }
        // Another server may have written both, or have mended it, since.
        self.cache.sync().await?;
        while let Some(Wrong { service, wanted, found }) = self.wrong_address(item)? {
            let address = wanted["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let expected = found.as_ref().map_or(0, |found| found.revision());
            let holder = found.as_ref().map(|found| self.holder(found)).transpose()?.flatten();
            if let Some(other) = holder.filter(|holder| holder != item) {
                let why = format!(
                    "the cluster IP {address} is assigned to the Service {other} as well; please recreate this one"
                );
                self.tell(&service, "ClusterIPAlreadyAllocated", why);
                return Ok(());
            }
            let Beside { item: name, json, .. } = self.new_beside(&ip_addresses(), wanted, expected).await?;
            if let Write::Done(_) =
                self.cache.put(&self.addresses(), &name, json, expected, 0, Claims::default()).await?
            {
                let why = match found {
                    None => format!("the cluster IP {address} has no IPAddress; repairing"),
                    Some(_) => format!("the IPAddress {address} does not say that it is this Service's; repairing"),
                };
                self.tell(&service, "ClusterIPNotAllocated", why);
            }
        }
        Ok(())
    }

    /// The first cluster IP of a Service without a proper IPAddress.
    fn wrong_address(&self, item: &str) -> Result<Option<Wrong>, Error> {
        let Some(service) = self.services().get(item).map(|item| Arc::clone(&item.object)) else { return Ok(None) };
        let tree = service.value()?;
        for ip in cluster_ips(&tree) {
            let (wanted, found) = (ip_address(ip, &tree), self.addresses().get(&ip.to_string()));
            let found = found.map(|item| Arc::clone(&item.object));
            let is_right = match &found {
                Some(found) => says(found, &found.value()?, &wanted),
                None => false,
            };
            if !is_right {
                return Ok(Some(Wrong { service, wanted, found }));
            }
        }
        Ok(None)
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

    /// Removes an IPAddress that was made with a Service which does not have it.
    async fn check_leak(self: &Arc<Self>, name: &str, revision: rk_store::Revision) -> Result<(), Error> {
        self.cache.wait_for(revision).await?;
        if self.leaked(name)?.is_none() {
            return Ok(());
        }
        self.cache.sync().await?;
        let Some(address) = self.leaked(name)? else { return Ok(()) };
        let addresses = self.addresses();
        let removed =
            self.cache.remove(&addresses, name, address.json(), address.revision(), Claims::default()).await?;
        if matches!(removed, Write::Done(_)) {
            let tree = address.value()?;
            let (namespace, service) = service_of(&tree).unwrap_or_default();
            let why = format!("no Service has the address {name}, which {namespace}/{service} was given; cleaning up");
            self.tell(&address, "IPAddressNotAllocated", why);
        }
        Ok(())
    }

    fn leaked(&self, name: &str) -> Result<Option<Arc<Object>>, Error> {
        let Some(address) = self.addresses().get(name).map(|item| Arc::clone(&item.object)) else { return Ok(None) };
        let is_held = !is_managed(&address) || self.holder(&address)?.is_some();
        Ok((!is_held).then_some(address))
    }

    fn tell(self: &Arc<Self>, about: &Object, reason: &str, message: String) {
        tracing::warn!(object = %about.meta().name, reason, message);
        let client = Server { core: Arc::clone(self) }.client(UserInfo::loopback());
        EventRecorder::new(client, COMPONENT, "").warning(&about.reference(), reason, message);
    }
}

/// Follows both collections until the server is dropped.
async fn follow(core: Weak<Core>) {
    let spec =
        WatchSpec { resource_version: "0".to_owned(), timeout_seconds: u64::from(u32::MAX), ..WatchSpec::default() };
    loop {
        let Some(alive) = core.upgrade() else { return };
        let services = watch(&alive.cache, &alive.services(), spec.clone()).await;
        let addresses = watch(&alive.cache, &alive.addresses(), spec.clone()).await;
        drop(alive);
        let [services, addresses] = [services, addresses]
            .map(|watched| watched.unwrap_or_else(|error| stream::once(async { Err(error) }).boxed()));
        let mut events = stream::select(services, addresses);
        while let Some(event) = events.next().await {
            let checked = match (event, core.upgrade()) {
                (Ok(event), Some(core)) => {
                    let checked = std::pin::pin!(core.check_addresses(event));
                    clock::within(&core.clock, checked).await
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
