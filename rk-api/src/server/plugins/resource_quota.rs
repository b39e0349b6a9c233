//! Resource quotas: what the objects of a namespace may add up to. [`crate::quota`] says what one object takes and which
//! quotas look at it; this file compares.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;

use super::forbid;
use crate::{
    LabelSelector, Quantity, Resource, Status,
    quota::{self, Amounts, Measured, amounts},
    server::{AdmissionRequest, Admit, Operation, Reader, Reservation, Reserve},
    status,
};

/// Refuses objects that would exceed a ResourceQuota of their namespace.
///
/// What is used is counted from the objects that are there, and the new sum is written into the quota's `status.used` in the
/// transaction that stores the object, if the quota is what it was when it was read. So any number of writes at the same time stay
/// within the quota, through whichever server of the store they come; those through the same server wait for each other.
#[derive(Default)]
pub struct ResourceQuota {
    namespaces: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

fn print(amounts: &BTreeMap<&str, Quantity>) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

/// What of a quota is used with one more object, as far as that takes more of it.
fn check(
    name: &str,
    spec: &Value,
    new: &Measured,
    old: Option<&Measured>,
    others: &[Arc<Measured>],
) -> Result<Amounts, String> {
    let hard = amounts(&spec["hard"]);
    let (mut requested, mut used, mut limited) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut sums = Amounts::new();
    for (resource, asked) in &new.usage {
        let Some(limit) = hard.get(resource) else { continue };
        let before = old.and_then(|old| old.usage.get(resource)).copied().unwrap_or_default();
        // Taking less is always allowed, also above the quota.
        if *asked <= before {
            continue;
        }
        let others = quota::sum(spec, resource, others);
        let add = |amount: Quantity| if others.is_zero() { amount } else { others + amount };
        sums.insert(resource.clone(), add(*asked));
        if add(*asked) > *limit {
            requested.insert(resource.as_str(), *asked - before);
            used.insert(resource.as_str(), add(before));
            limited.insert(resource.as_str(), *limit);
        }
    }
    if requested.is_empty() {
        return Ok(sums);
    }
    Err(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        print(&requested),
        print(&used),
        print(&limited)
    ))
}

#[async_trait]
impl Admit for ResourceQuota {
    fn name(&self) -> &str {
        "ResourceQuota"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        let changes = matches!(&*resource.plural, "pods" | "services" | "persistentvolumeclaims");
        resource.namespaced
            && match operation {
                Operation::Create => subresource.is_empty(),
                Operation::Update => resource.group.is_empty() && changes && matches!(subresource, "" | "resize"),
                Operation::Delete | Operation::Connect => false,
            }
    }

    fn reserve(&self) -> Option<&dyn Reserve> {
        Some(self)
    }
}

#[async_trait]
impl Reserve for ResourceQuota {
    async fn reserve(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<Reservation, Status> {
        let mut reservation = Reservation::default();
        let namespace = &request.attributes.namespace;
        let quotas = async || {
            let all = reader.list("", "resourcequotas", namespace, &LabelSelector::everything()).await;
            all.map_err(status::internal)
        };
        let Some(object) = &request.object else { return Ok(reservation) };
        if quotas().await?.is_empty() {
            self.namespaces.lock().remove(namespace);
            return Ok(reservation);
        }
        let turn = Arc::clone(self.namespaces.lock().entry(namespace.clone()).or_default());
        let turn = turn.lock_owned().await;
        let quotas = quotas().await?;
        // What was written with the quotas as they are is to be counted.
        let newest = quotas.iter().map(|quota| quota.revision()).max().unwrap_or_default();
        reader.reach(newest).await.map_err(status::internal)?;

        let resource = &request.resource;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let new = Measured::of(resource, object);
        let old = request.old_value()?.map(|old| Measured::of(resource, &old));
        let mut others: Option<Vec<Arc<Measured>>> = None;
        for quota in &quotas {
            let mut value = quota.value().map_err(status::internal)?;
            let spec = &value["spec"];
            if !quota::matches(spec, &new.scoped) {
                continue;
            }
            let quota_name = &quota.meta().name;
            if request.operation == Operation::Create
                && let Some(missing) = quota::unspecified(resource, object, &amounts(&spec["hard"]))
            {
                return Err(forbid(request, &format!("failed quota: {quota_name}: must specify {missing}")));
            }
            let others = match &others {
                Some(others) => others,
                None => {
                    let (group, plural) = (&resource.group, &resource.plural);
                    let objects = reader.list(group, plural, namespace, &LabelSelector::everything()).await;
                    let mut objects = objects.map_err(status::internal)?;
                    objects.retain(|object| object.meta().name != name);
                    others.insert(Measured::all(resource, &objects).map_err(status::internal)?)
                }
            };
            // A change that brings an object into a quota's scope counts in full.
            let before = old.as_ref().filter(|old| quota::matches(spec, &old.scoped));
            let sums = check(quota_name, spec, &new, before, others).map_err(|why| forbid(request, &why))?;
            if sums.is_empty() {
                continue;
            }
            for (name, sum) in sums {
                value["status"]["used"][name] = sum.to_string().into();
            }
            reservation.change(&quotas_resource(), quota, &value);
        }
        if !reservation.is_empty() {
            reservation.hold(turn);
        }
        Ok(reservation)
    }
}

fn quotas_resource() -> Resource {
    Resource::of::<k8s_openapi::api::core::v1::ResourceQuota>()
}
