//! Resource quotas: what the objects of a namespace may add up to. [`crate::quota`] says what one object takes and which
//! quotas look at it; this file compares.

mod run;

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
use run::{Leaves, Run};

/// Refuses objects that would exceed a ResourceQuota of their namespace.
///
/// What is used is counted from the objects that are there, and the new sum is written into the quota's `status.used` in the
/// transaction that stores the object, if the quota is what it was when it was read. So any number of writes at the same time stay
/// within the quota, through whichever server of the store they come. Those through the same server that take more of one are judged one after
/// the other, each by what the one before leaves; they are stored together.
#[derive(Default)]
pub struct ResourceQuota {
    /// Whose turn it is in each namespace: from when a write is judged until it is on its way to the store.
    namespaces: Mutex<HashMap<String, Turn>>,
}

type Turn = Arc<tokio::sync::Mutex<Run>>;

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
struct Concerned {
    quota: Arc<Object>,
    /// As it is when the write comes.
    value: Arc<Value>,
    /// What is known to be used of it then.
    used: Amounts,
    more: Vec<More>,
}

impl Write<'_> {
    /// The quotas that this takes more of, as the writes of a run leave them.
    ///
    /// # Errors
    /// 403: it does not say how much it takes. 500: a quota can't be read.
    fn concerns(&self, quotas: &[Arc<Object>], run: &Run) -> Result<Vec<Concerned>, Status> {
        let mut concerned = Vec::new();
        for quota in quotas {
            let left = run.left(quota);
            let value = match left {
                Some(left) => Arc::clone(&left.value),
                None => quota.cached(|| quota.value()).map_err(status::internal)?,
            };
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
                let used = left.map(|left| left.used.clone()).unwrap_or_default();
                concerned.push(Concerned { quota: Arc::clone(quota), value, used, more });
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

impl Concerned {
    /// Whether objects are to be counted to tell what is used.
    fn counts(&self) -> bool {
        self.more.iter().any(|more| !self.used.contains_key(&more.resource))
    }

    /// The quota with what is used of it then, and that by itself, beside these other objects where it is not known.
    ///
    /// # Errors
    /// What of it would be exceeded.
    fn filled(&self, others: &[Arc<Measured>]) -> Result<(Value, Amounts), String> {
        let (mut requested, mut used, mut limited) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let seen = quota::seen(&self.value["spec"], others);
        let (mut filled, mut fills) = (Value::clone(&self.value), Amounts::new());
        for More { resource, takes, took, limit } in &self.more {
            let others = self.used.get(resource).map_or_else(|| quota::sum(resource, &seen), |used| *used - *took);
            let add = |amount: Quantity| if others.is_zero() { amount } else { others + amount };
            filled["status"]["used"][resource] = add(*takes).to_string().into();
            fills.insert(resource.clone(), add(*takes));
            if add(*takes) > *limit {
                requested.insert(resource.as_str(), *takes - *took);
                used.insert(resource.as_str(), add(*took));
                limited.insert(resource.as_str(), *limit);
            }
        }
        if requested.is_empty() {
            return Ok((filled, fills));
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

impl Write<'_> {
    /// What this leaves of the quotas of its namespace if it comes behind the writes of a run; `None` where it has to wait for these.
    ///
    /// # Errors
    /// 403: a quota refuses it.
    async fn judge(&self, run: &mut Run, reader: &dyn Reader) -> Result<Option<Leaves>, Status> {
        let quotas = list(reader, &quotas_resource(), self.request).await?;
        run.begin(&quotas);
        let concerned = self.concerns(&quotas, run)?;
        if !concerned.iter().all(|concerned| run.knows(&concerned.quota)) {
            return Ok(None);
        }
        let mut others = Vec::new();
        if concerned.iter().any(Concerned::counts) {
            // What was written with the quotas as they are is to be counted.
            let newest = quotas.iter().map(|quota| quota.revision()).max().unwrap_or_default();
            reader.reach(newest).await.map_err(status::internal)?;
            let mut all = list(reader, &self.request.resource, self.request).await?;
            let name = text(&self.object["metadata"]["name"]);
            all.retain(|other| other.meta().name != name);
            others = Measured::all(&self.request.resource, &all).map_err(status::internal)?;
        }
        let mut leaves = Leaves::new();
        for concerned in concerned {
            let (value, used) = concerned.filled(&others).map_err(|why| forbid(self.request, &why))?;
            leaves.push((concerned.quota, value, used));
        }
        Ok(Some(leaves))
    }
}

/// The objects of a resource in the namespace of a write.
async fn list(
    reader: &dyn Reader,
    resource: &Resource,
    request: &AdmissionRequest,
) -> Result<Vec<Arc<Object>>, Status> {
    let (namespace, everything) = (&request.attributes.namespace, LabelSelector::everything());
    let all = reader.list(&resource.group, &resource.plural, namespace, &everything).await;
    all.map_err(status::internal)
}

#[async_trait]
impl Reserve for ResourceQuota {
    async fn reserve(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<Reservation, Status> {
        let mut reservation = Reservation::default();
        let Some(object) = &request.object else { return Ok(reservation) };
        let quotas = list(reader, &quotas_resource(), request).await?;
        if quotas.is_empty() {
            return Ok(reservation);
        }
        let old = request.old_value()?.map(|old| Measured::of(&request.resource, &old));
        let write = Write { request, object, new: Measured::of(&request.resource, object), old };
        if write.concerns(&quotas, &Run::default())?.is_empty() {
            return Ok(reservation);
        }
        let mut run = self.turn(&request.attributes.namespace).lock_owned().await;
        if run.is_over() {
            run.end().await;
        }
        let leaves = loop {
            match write.judge(&mut run, reader).await {
                Ok(Some(leaves)) => break leaves,
                // Only by what is stored is a write refused.
                Err(refused) if run.is_new() => return Err(refused),
                _ => run.end().await,
            }
        };
        if !leaves.is_empty() && !request.dry_run {
            run.join(&mut reservation, &quotas_resource(), leaves);
            reservation.hold_until_sent(run);
        }
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
