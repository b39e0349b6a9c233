//! ServiceCIDRs: one whose addresses Services still have stays until they are gone (KEP-1880), and one that is there is ready.

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::{
    api::networking::v1::{IPAddress, ServiceCIDR},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use rk_api::{Informer, Informers, LabelSelector, ListOptions, Network};
use tokio_util::sync::CancellationToken;

use super::protection::{hold, state};
use crate::{Action, Context, Controller, Error, Reconcile, common::meta};

/// Holds a ServiceCIDR until nobody has an address of it alone.
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// The label of the addresses that Services were given.
const MANAGED: &str = "ipaddress.kubernetes.io/managed-by=ipallocator";
/// How long after its deletion a ServiceCIDR goes at the soonest, so that no server gives out an address of it any more.
const GRACE: Duration = Duration::from_secs(10);

struct ServiceCidrController {
    ranges: Informer,
}

/// Runs the ServiceCIDR controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    let ranges = informers.of::<ServiceCIDR>();
    let (of_addresses, of_ranges) = (ranges.clone(), ranges.clone());
    // An address that goes, and a range that comes, may set those free that are being deleted.
    let deleted = |ranges: &Informer| -> Vec<_> {
        let all = ranges.list();
        let deleted = all.iter().filter(|range| range.meta().deletion_timestamp.is_some());
        deleted.map(|range| (String::new(), range.meta().name.clone())).collect()
    };
    Controller::new("service-cidr-controller", ServiceCidrController { ranges }, informers)
        .watches::<IPAddress>(move |_| deleted(&of_addresses))
        .watches::<ServiceCIDR>(move |_| deleted(&of_ranges))
        .run(shutdown)
        .await;
}

#[async_trait]
impl Reconcile for ServiceCidrController {
    type Object = ServiceCIDR;

    async fn reconcile(&self, range: Arc<ServiceCIDR>, context: &Context) -> Result<Action, Error> {
        let (held, deleting) = state(&*range, FINALIZER);
        if !deleting {
            if !held {
                // The change brings it back here.
                return hold(&*range, FINALIZER, true, context).await;
            }
            return set_ready(&range, "True", "", "Kubernetes Service CIDR is ready", context).await;
        }
        if !held {
            return Ok(Action::await_change());
        }
        if self.is_used(&range, context).await? {
            let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
                       ServiceCIDR";
            return set_ready(&range, "False", "Terminating", why, context).await;
        }
        let deleted = range.metadata.deletion_timestamp.as_ref().map_or(0, |time| time.0.as_millisecond());
        let passed = Duration::from_millis(u64::try_from(rk_api::now().as_millisecond() - deleted).unwrap_or(0));
        match GRACE.checked_sub(passed).filter(|left| !left.is_zero()) {
            Some(left) => Ok(Action::requeue(left)),
            None => hold(&*range, FINALIZER, false, context).await,
        }
    }
}

impl ServiceCidrController {
    /// Whether a Service has an address that is in this range and in no other one that stays.
    async fn is_used(&self, range: &ServiceCIDR, context: &Context) -> Result<bool, Error> {
        let own = networks(range);
        let mut others = Vec::new();
        for object in self.ranges.list() {
            if object.meta().name != meta::name(&range.metadata) && object.meta().deletion_timestamp.is_none() {
                others.extend(networks(&*object.typed::<ServiceCIDR>()?));
            }
        }
        // The informer might not show the last that was given out.
        let managed = MANAGED.parse::<LabelSelector>()?;
        let addresses = context.api_all::<IPAddress>().list(ListOptions::labels(managed)).await?;
        let ips = addresses.items.iter().filter_map(|address| meta::name(&address.metadata).parse::<IpAddr>().ok());
        let is_in = |networks: &[Network], ip| networks.iter().any(|network| network.is_assignable(ip));
        Ok(ips.into_iter().any(|ip| is_in(&own, ip) && !is_in(&others, ip)))
    }
}

fn networks(range: &ServiceCIDR) -> Vec<Network> {
    let cidrs = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    cidrs.filter_map(|cidr| cidr.parse().ok()).collect()
}

/// Says whether Services get addresses of a range; nothing is written where it says so already.
async fn set_ready(
    range: &ServiceCIDR,
    status: &str,
    reason: &str,
    message: &str,
    context: &Context,
) -> Result<Action, Error> {
    let mut changed = range.clone();
    let conditions = changed.status.get_or_insert_default().conditions.get_or_insert_default();
    let mut ready = Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: meta::now(),
        observed_generation: None,
    };
    match conditions.iter_mut().find(|condition| condition.type_ == ready.type_) {
        Some(old) if (&old.status, &old.reason, &old.message) == (&ready.status, &ready.reason, &ready.message) => {
            return Ok(Action::await_change());
        }
        Some(old) => {
            if old.status == ready.status {
                ready.last_transition_time = old.last_transition_time.clone();
            }
            *old = ready;
        }
        None => conditions.push(ready),
    }
    match context.api_all::<ServiceCIDR>().update_status(&changed).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(Action::await_change()),
    }
}
