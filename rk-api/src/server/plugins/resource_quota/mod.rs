//! Resource quotas: what the objects of a namespace may add up to.
//!
//! `usage` says what one object takes and which quotas look at it; this file adds up and compares.

mod usage;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    forbid,
    limit_ranger::{Amounts, amounts},
};
use crate::{
    LabelSelector, Object, Quantity, Resource, Status,
    server::{AdmissionRequest, Admit, Operation, Reader},
    status,
};

/// Refuses objects that would exceed a ResourceQuota of their namespace.
///
/// What is used is counted from the objects that are there, plus what this plugin has let through and has not seen
/// stored yet. Writes of one namespace are counted one after the other, so that any number of them at the same time
/// stay within the quota, as far as they pass through the same server.
#[derive(Default)]
pub struct ResourceQuota {
    namespaces: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Namespace>>>>,
}

/// What is let through but perhaps not stored yet counts for so long; a write that failed meanwhile is counted in vain.
const PENDING: Duration = Duration::from_secs(10);

/// Group and plural name, and the object's name.
type Key = (String, String);

#[derive(Default)]
struct Namespace {
    pending: HashMap<Key, Pending>,
    /// What each stored object takes, by uid, at a version.
    known: HashMap<String, (String, Arc<Measured>)>,
}

struct Pending {
    until: Instant,
    measured: Arc<Measured>,
}

/// What an object takes, and what scopes look at.
struct Measured {
    usage: Amounts,
    scoped: usage::Scoped,
}

fn measure(resource: &Resource, object: &Value) -> Measured {
    Measured { usage: usage::of(resource, object), scoped: usage::Scoped::of(object) }
}

impl Namespace {
    /// What every object of a resource takes: those that are there, but for `except`, and those on their way.
    fn all(
        &mut self,
        resource: &Resource,
        objects: &[Arc<Object>],
        except: &str,
    ) -> Result<Vec<Arc<Measured>>, Status> {
        let collection = resource.group_resource();
        let mut all = Vec::with_capacity(objects.len());
        let mut names = HashSet::new();
        for object in objects {
            let meta = object.meta();
            names.insert(meta.name.as_str());
            if meta.name == except {
                continue;
            }
            let measured = match self.known.get(&meta.uid) {
                Some((version, measured)) if *version == meta.resource_version => Arc::clone(measured),
                _ => {
                    let measured = Arc::new(measure(resource, &object.value().map_err(status::internal)?));
                    self.known.insert(meta.uid.clone(), (meta.resource_version.clone(), Arc::clone(&measured)));
                    measured
                }
            };
            all.push(measured);
        }
        let now = Instant::now();
        self.pending
            .retain(|(of, name), pending| pending.until > now && !(*of == collection && names.contains(name.as_str())));
        let waiting = self.pending.iter().filter(|((of, name), _)| *of == collection && name != except);
        all.extend(waiting.map(|(_, pending)| Arc::clone(&pending.measured)));
        // Objects that are gone are forgotten when they are many; of other collections they are measured again.
        if self.known.len() > 2 * objects.len() + 1024 {
            let uids: HashSet<&str> = objects.iter().map(|object| object.meta().uid.as_str()).collect();
            self.known.retain(|uid, _| uids.contains(uid.as_str()));
        }
        Ok(all)
    }
}

fn print(amounts: &BTreeMap<&str, Quantity>) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

/// Whether a quota has room for one more object.
fn check(
    name: &str,
    spec: &Value,
    new: &Measured,
    old: Option<&Measured>,
    all: &[Arc<Measured>],
) -> Result<(), String> {
    let hard = amounts(&spec["hard"]);
    let (mut requested, mut used, mut limited) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (resource, asked) in &new.usage {
        let Some(limit) = hard.get(resource) else { continue };
        let before = old.and_then(|old| old.usage.get(resource)).copied().unwrap_or_default();
        // Taking less is always allowed, also above the quota.
        if *asked <= before {
            continue;
        }
        let mut sum = before;
        for other in all.iter().filter(|other| usage::matches(spec, &other.scoped)) {
            if let Some(amount) = other.usage.get(resource) {
                sum = if sum.is_zero() { *amount } else { sum + *amount };
            }
        }
        let delta = *asked - before;
        if sum + delta > *limit {
            requested.insert(resource.as_str(), delta);
            used.insert(resource.as_str(), sum);
            limited.insert(resource.as_str(), *limit);
        }
    }
    if requested.is_empty() {
        return Ok(());
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
                Operation::Create | Operation::Delete => subresource.is_empty(),
                Operation::Update => resource.group.is_empty() && changes && matches!(subresource, "" | "resize"),
                Operation::Connect => false,
            }
    }

    async fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let namespace = &request.attributes.namespace;
        let quotas = reader.list("", "resourcequotas", namespace, &LabelSelector::everything()).await;
        let quotas = quotas.map_err(status::internal)?;
        if quotas.is_empty() {
            self.namespaces.lock().remove(namespace);
            return Ok(());
        }
        let state = Arc::clone(self.namespaces.lock().entry(namespace.clone()).or_default());
        let mut state = state.lock().await;
        let resource = &request.resource;
        let Some(object) = &request.object else {
            state.pending.remove(&(resource.group_resource(), request.attributes.name.clone()));
            return Ok(());
        };
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let new = Arc::new(measure(resource, object));
        let old = request.old_value()?;
        let old = old.map(|old| measure(resource, &old));

        let mut all: Option<Vec<Arc<Measured>>> = None;
        for quota in &quotas {
            let value = quota.value().map_err(status::internal)?;
            let spec = &value["spec"];
            if !usage::matches(spec, &new.scoped) {
                continue;
            }
            let quota_name = &quota.meta().name;
            if request.operation == Operation::Create
                && let Some(missing) = usage::unspecified(resource, object, &amounts(&spec["hard"]))
            {
                return Err(forbid(request, &format!("failed quota: {quota_name}: must specify {missing}")));
            }
            if all.is_none() {
                let (group, plural) = (&resource.group, &resource.plural);
                let objects = reader.list(group, plural, namespace, &LabelSelector::everything()).await;
                all = Some(state.all(resource, &objects.map_err(status::internal)?, &name)?);
            }
            let others = all.as_deref().unwrap_or_default();
            // A change that brings an object into a quota's scope counts in full.
            let before = old.as_ref().filter(|old| usage::matches(spec, &old.scoped));
            check(quota_name, spec, &new, before, others).map_err(|why| forbid(request, &why))?;
        }
        if !request.dry_run && request.operation == Operation::Create {
            let pending = Pending { until: Instant::now() + PENDING, measured: new };
            state.pending.insert((resource.group_resource(), name), pending);
        }
        Ok(())
    }
}
