//! Resource quotas: what the objects of a namespace may add up to. [`crate::quota`] says what one object takes and which
//! quotas look at it; this file compares.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;

use super::{forbid, text};
use crate::{
    LabelSelector, Object, Quantity, Resource, Status,
    quota::{self, Amounts, Measured, amounts},
    server::{AdmissionRequest, Admit, Operation, Reader, Reservation, Reserve},
    status,
};

/// Refuses objects that would exceed a ResourceQuota of their namespace.
///
/// What is used is counted from the objects that are there, and the new sum is written into the quota's `status.used` in the
/// transaction that stores the object, if the quota is what it was when it was read. So any number of writes at the same time stay
/// within the quota, through whichever server of the store they come; those through the same server that take more of one wait for each
/// other.
#[derive(Default)]
pub struct ResourceQuota {
    /// Whose turn it is in each namespace.
    namespaces: Mutex<HashMap<String, Turn>>,
}

type Turn = Arc<tokio::sync::Mutex<()>>;

impl ResourceQuota {
    /// The turn in a namespace. Those that nobody has or waits for are forgotten when another is made.
    fn turn(&self, namespace: &str) -> Turn {
        let mut namespaces = self.namespaces.lock();
        if let Some(turn) = namespaces.get(namespace) {
            return Arc::clone(turn);
        }
        namespaces.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(namespaces.entry(namespace.to_owned()).or_default())
    }
}

/// A write, measured.
struct Write<'a> {
    request: &'a AdmissionRequest,
    object: &'a Value,
    new: Measured,
    old: Option<Measured>,
}

/// What a write takes of a resource, what it took before, and how much of it all may take.
struct More {
    resource: String,
    takes: Quantity,
    took: Quantity,
    limit: Quantity,
}

/// A quota that a write takes more of.
struct Concerned<'a> {
    quota: &'a Arc<Object>,
    value: Arc<Value>,
    more: Vec<More>,
}

impl Write<'_> {
    /// The quotas that this takes more of.
    ///
    /// # Errors
    /// 403: it does not say how much it takes. 500: a quota can't be read.
    fn concerns<'a>(&self, quotas: &'a [Arc<Object>]) -> Result<Vec<Concerned<'a>>, Status> {
        let mut concerned = Vec::new();
        for quota in quotas {
            let value = quota.cached(|| quota.value()).map_err(status::internal)?;
            let spec = &value["spec"];
            if !quota::matches(spec, &self.new.scoped) {
                continue;
            }
            let hard = amounts(&spec["hard"]);
            if self.request.operation == Operation::Create
                && let Some(missing) = quota::unspecified(&self.request.resource, self.object, &hard)
            {
                let why = format!("failed quota: {}: must specify {missing}", quota.meta().name);
                return Err(forbid(self.request, &why));
            }
            let more = self.more(spec, &hard);
            if !more.is_empty() {
                concerned.push(Concerned { quota, value, more });
            }
        }
        Ok(concerned)
    }

    /// What this takes more of, among what a quota limits. To take less is always allowed, also above the quota.
    fn more(&self, spec: &Value, hard: &Amounts) -> Vec<More> {
        // A change that brings an object into a quota's scope counts in full.
        let old = self.old.as_ref().filter(|old| quota::matches(spec, &old.scoped));
        let more = self.new.usage.iter().filter_map(|(resource, &takes)| {
            let limit = *hard.get(resource)?;
            let took = old.and_then(|old| old.usage.get(resource)).copied().unwrap_or_default();
            (takes > took).then(|| More { resource: resource.clone(), takes, took, limit })
        });
        more.collect()
    }
}

impl Concerned<'_> {
    /// The quota with what is used of it then, beside these other objects.
    ///
    /// # Errors
    /// What of it would be exceeded.
    fn filled(&self, others: &[Arc<Measured>]) -> Result<Value, String> {
        let (mut requested, mut used, mut limited) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let seen = quota::seen(&self.value["spec"], others);
        let mut filled = Value::clone(&self.value);
        for More { resource, takes, took, limit } in &self.more {
            let others = quota::sum(resource, &seen);
            let add = |amount: Quantity| if others.is_zero() { amount } else { others + amount };
            filled["status"]["used"][resource] = add(*takes).to_string().into();
            if add(*takes) > *limit {
                requested.insert(resource.as_str(), *takes - *took);
                used.insert(resource.as_str(), add(*took));
                limited.insert(resource.as_str(), *limit);
            }
        }
        if requested.is_empty() {
            return Ok(filled);
        }
        let (requested, used, limited) = (print(&requested), print(&used), print(&limited));
        let name = &self.quota.meta().name;
        Err(format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"))
    }
}

fn print(amounts: &BTreeMap<&str, Quantity>) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
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
        let (namespace, resource) = (&request.attributes.namespace, &request.resource);
        let list = async |group: &str, plural: &str| {
            let all = reader.list(group, plural, namespace, &LabelSelector::everything()).await;
            all.map_err(status::internal)
        };
        let Some(object) = &request.object else { return Ok(reservation) };
        let quotas = list("", "resourcequotas").await?;
        if quotas.is_empty() {
            return Ok(reservation);
        }
        let old = request.old_value()?.map(|old| Measured::of(resource, &old));
        let write = Write { request, object, new: Measured::of(resource, object), old };
        if write.concerns(&quotas)?.is_empty() {
            return Ok(reservation);
        }
        let turn = self.turn(namespace).lock_owned().await;
        let quotas = list("", "resourcequotas").await?;
        let concerned = write.concerns(&quotas)?;
        if concerned.is_empty() {
            return Ok(reservation);
        }
        // What was written with the quotas as they are is to be counted.
        let newest = quotas.iter().map(|quota| quota.revision()).max().unwrap_or_default();
        reader.reach(newest).await.map_err(status::internal)?;
        let mut others = list(&resource.group, &resource.plural).await?;
        let name = text(&object["metadata"]["name"]);
        others.retain(|other| other.meta().name != name);
        let others = Measured::all(resource, &others).map_err(status::internal)?;
        for concerned in concerned {
            let filled = concerned.filled(&others).map_err(|why| forbid(request, &why))?;
            reservation.change(&quotas_resource(), concerned.quota, &filled);
        }
        reservation.hold(turn);
        Ok(reservation)
    }
}

fn quotas_resource() -> Resource {
    Resource::of::<k8s_openapi::api::core::v1::ResourceQuota>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn namespaces_are_known_while_somebody_has_their_turn() {
        let plugin = ResourceQuota::default();
        let held = plugin.turn("held").lock_owned().await;
        for namespace in ["a", "b", "c"] {
            drop(plugin.turn(namespace).lock_owned().await);
        }
        assert_eq!(plugin.namespaces.lock().len(), 2);
        assert!(plugin.turn("held").try_lock().is_err());
        drop(held);
        assert!(plugin.turn("held").try_lock().is_ok());
    }
}
