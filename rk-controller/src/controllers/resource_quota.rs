//! What ResourceQuotas show as used (<https://kubernetes.io/docs/concepts/policy/resource-quotas/>).
//!
//! The API server's admission counts for itself, and writes what a new object adds; this controller sees to what goes, to quotas that
//! are new or changed, and to all that was counted wrong.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{Event, ResourceQuota, ResourceQuotaStatus},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::api::resource::Quantity as Text,
};
use parking_lot::Mutex;
use rk_api::{
    Change, Informer, Informers, Key, ListOptions, Resource,
    quota::{self, Measured},
};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::SYNC_TIMEOUT;
use crate::{Action, Context, Controller, Error, Reconcile, common::meta, resources};

/// A quota is counted at most once in this time, however much changes.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is counted where nothing tells of a change (`--resource-quota-sync-period`).
const RESYNC: Duration = Duration::from_secs(5 * 60);
/// The same where it counts custom resources, whose changes nobody tells, or what can't be counted now.
const CUSTOM_RESYNC: Duration = Duration::from_secs(10);

/// Keeps the status of quotas.
pub struct ResourceQuotaController {
    /// By plural name and group.
    collections: HashMap<String, (Resource, Informer)>,
    definitions: Informer,
    counted: Mutex<HashMap<Key, Instant>>,
}

/// Runs the quota controller until `shutdown`. It counts objects of `resources` and custom ones; Events no quota counts.
pub async fn run(informers: &Informers, resources: Vec<Resource>, shutdown: CancellationToken) {
    let events = Resource::of::<Event>();
    let countable = resources.into_iter().filter(|resource| resource.namespaced && *resource != events);
    let collections: HashMap<_, _> = countable
        .map(|resource| (resource.group_resource(), (resource.clone(), informers.resource(resource))))
        .collect();
    let watched: Vec<_> = collections.iter().map(|(name, (_, informer))| (name.clone(), informer.clone())).collect();
    let listed = tokio::select! {
        () = listed(&watched) => true,
        () = shutdown.cancelled() => false,
    };
    if !listed {
        return;
    }
    let definitions = informers.of::<CustomResourceDefinition>();
    let reconciler = ResourceQuotaController { collections, definitions, counted: Mutex::default() };
    let quotas = informers.of::<ResourceQuota>();
    let mut controller = Controller::new("resourcequota-controller", reconciler, informers);
    for (resource, informer) in watched.into_iter().filter(|(_, informer)| informer.has_synced()) {
        let quotas = quotas.clone();
        controller = controller.watches_informer(informer, move |change| concerned(change, &resource, &quotas));
    }
    controller.run(shutdown).await;
}

/// Waits until all are listed that can be: one that is not served here, or that this controller may not list, holds up no other.
async fn listed(informers: &[(String, Informer)]) {
    let deadline = Instant::now() + SYNC_TIMEOUT;
    for (resource, informer) in informers {
        if timeout_at(deadline, informer.synced()).await.is_err() && !informer.has_synced() {
            tracing::warn!(resource, "quotas do not count what can't be listed");
        }
    }
}

/// The quotas that count the object of a change, if it may count otherwise since.
fn concerned(change: &Change, resource: &str, quotas: &Informer) -> Vec<Key> {
    let stays = matches!(change, Change::Updated { old, new } if old.meta().uid == new.meta().uid);
    if stays && !matches!(resource, "pods" | "services" | "persistentvolumeclaims") {
        return Vec::new();
    }
    let counts = |quota: &ResourceQuota| {
        let hard = quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten());
        hard.into_iter().any(|(name, _)| quota::counted(name) == Some(resource))
    };
    let all = quotas.list_namespace(&change.object().meta().namespace);
    let typed = all.iter().filter_map(|object| object.typed::<ResourceQuota>().ok());
    typed.filter(|quota| counts(quota)).map(|quota| meta::key(&quota.metadata)).collect()
}

#[async_trait]
impl Reconcile for ResourceQuotaController {
    type Object = ResourceQuota;

    async fn reconcile(&self, quota: Arc<ResourceQuota>, context: &Context) -> Result<Action, Error> {
        let key = meta::key(&quota.metadata);
        let last = self.counted.lock().get(&key).copied();
        if let Some(rest) = last.and_then(|last| PAUSE.checked_sub(last.elapsed())).filter(|rest| !rest.is_zero()) {
            return Ok(Action::requeue(rest));
        }
        let (used, often) = self.count(&quota, context).await?;
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone());
        let status = Some(ResourceQuotaStatus { hard, used: Some(used) });
        if quota.status != status {
            let changed = ResourceQuota { status, ..ResourceQuota::clone(&quota) };
            match context.api::<ResourceQuota>(&key.0).update_status(&changed).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        self.counted.lock().insert(key, Instant::now());
        Ok(Action::requeue(if often { CUSTOM_RESYNC } else { RESYNC }))
    }

    async fn gone(&self, key: &Key, _context: &Context) -> Result<Action, Error> {
        self.counted.lock().remove(key);
        Ok(Action::await_change())
    }
}

impl ResourceQuotaController {
    /// What is used of a quota, and whether it counts what nobody tells of. What can't be counted here stays as the API server has it.
    async fn count(&self, quota: &ResourceQuota, context: &Context) -> Result<(BTreeMap<String, Text>, bool), Error> {
        let namespace = meta::namespace(&quota.metadata);
        let spec = serde_json::to_value(&quota.spec).map_err(Error::other)?;
        let mut measured: HashMap<&str, Vec<Arc<Measured>>> = HashMap::new();
        let before = quota.status.as_ref().and_then(|status| status.used.as_ref());
        let (mut used, mut often) = (BTreeMap::new(), false);
        for name in quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten()).map(|(name, _)| name) {
            let Some(resource) = quota::counted(name) else { continue };
            often |= !self.collections.get(resource).is_some_and(|(_, informer)| informer.has_synced());
            if !measured.contains_key(resource) {
                let Some(all) = self.measure(resource, namespace, context).await? else {
                    used.extend(
                        before.and_then(|before| before.get(name)).map(|amount| (name.clone(), amount.clone())),
                    );
                    continue;
                };
                measured.insert(resource, all);
            }
            let seen = quota::seen(&spec, &measured[resource]);
            used.insert(name.clone(), Text(quota::sum(name, &seen).to_string()));
        }
        Ok((used, often))
    }

    /// What the objects of a resource take; `None` if there is no such resource, or it is not listed.
    async fn measure(
        &self,
        name: &str,
        namespace: &str,
        context: &Context,
    ) -> Result<Option<Vec<Arc<Measured>>>, Error> {
        if let Some((resource, informer)) = self.collections.get(name) {
            let listed = informer.has_synced().then(|| informer.list_namespace(namespace));
            return Ok(listed.map(|objects| Measured::all(resource, &objects)).transpose()?);
        }
        let custom = resources::custom(&self.definitions);
        let Some(resource) = custom.into_iter().find(|custom| custom.namespaced && custom.group_resource() == name)
        else {
            return Ok(None);
        };
        let objects = context.client().list(&resource, namespace, ListOptions::default()).await?;
        Ok(Some(Measured::all(&resource, &objects.items)?))
    }
}
