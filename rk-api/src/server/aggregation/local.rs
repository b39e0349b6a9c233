//! The APIServices of what this server serves itself: made when a group and version come, deleted with them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::{
    api_services,
    status::{self, Condition},
};
use crate::{
    DeleteOptions, Error, LabelSelector, Request, Verb, WriteOptions,
    server::{UserInfo, pipeline::Core},
};

/// What says that an APIService was made by the server, and goes with its group.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Pause after changes, and after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Writes run at the same time.
const PARALLEL: usize = 64;

/// The priorities of Kubernetes' own groups (kube-apiserver's `aggregator.go`); those of custom resources have 1000 and 100.
const PRIORITIES: [(&str, i64); 22] = [
    ("", 18000),
    ("apps", 17800),
    ("events.k8s.io", 17750),
    ("authentication.k8s.io", 17700),
    ("authorization.k8s.io", 17600),
    ("autoscaling", 17500),
    ("batch", 17400),
    ("certificates.k8s.io", 17300),
    ("networking.k8s.io", 17200),
    ("policy", 17100),
    ("rbac.authorization.k8s.io", 17000),
    ("storage.k8s.io", 16800),
    ("apiextensions.k8s.io", 16700),
    ("admissionregistration.k8s.io", 16700),
    ("scheduling.k8s.io", 16600),
    ("coordination.k8s.io", 16500),
    ("node.k8s.io", 16300),
    ("discovery.k8s.io", 16200),
    ("resource.k8s.io", 16150),
    ("flowcontrol.apiserver.k8s.io", 16100),
    ("internal.apiserver.k8s.io", 16000),
    ("storagemigration.k8s.io", 15900),
];

/// Keeps the APIServices as the catalog is, until the server is dropped.
pub(super) async fn keep(core: Weak<Core>) {
    let Some(mut changes) = core.upgrade().map(|core| core.catalog_changed.subscribe()) else { return };
    loop {
        changes.borrow_and_update();
        let Some(alive) = core.upgrade() else { return };
        if let Err(error) = bring_about(&alive).await {
            tracing::warn!(%error, "can't write the APIServices of this server's own groups, trying again");
            drop(alive);
            tokio::time::sleep(PAUSE.1).await;
            continue;
        }
        drop(alive);
        if changes.changed().await.is_err() {
            return;
        }
        // Many definitions often come at once.
        tokio::time::sleep(PAUSE.0).await;
    }
}

/// Each group and version that this server serves, with its APIService.
fn wanted(core: &Core) -> BTreeMap<String, Value> {
    let catalog = core.catalog.load();
    let mut all = BTreeMap::new();
    for (group, versions) in catalog.groups() {
        // The group of APIServices themselves has none, as in Kubernetes.
        if group == "apiregistration.k8s.io" {
            continue;
        }
        let known = PRIORITIES.iter().find(|(name, _)| name == group);
        for (at, (version, _)) in versions.iter().enumerate() {
            let name = format!("{version}.{group}");
            let (minimum, priority) = match known {
                Some((_, minimum)) if group.is_empty() => (*minimum, 1),
                Some((_, minimum)) => (*minimum, 30_i64.saturating_sub(15 * at as i64).max(1)),
                None => (1000, 100),
            };
            let managed = if known.is_some() { "onstart" } else { "true" };
            let mut spec = json!({"version": version, "groupPriorityMinimum": minimum, "versionPriority": priority});
            if !group.is_empty() {
                spec["group"] = group.as_str().into();
            }
            let value = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": {"name": name, "labels": {MANAGED: managed}}, "spec": spec});
            all.insert(name, value);
        }
    }
    all
}

async fn bring_about(core: &Arc<Core>) -> Result<(), Error> {
    let user = Arc::new(UserInfo::loopback());
    let request = |name: &str, verb| Request {
        resource: api_services(),
        namespace: String::new(),
        name: name.to_owned(),
        subresource: String::new(),
        verb,
    };
    let wanted = wanted(core);
    let collection = core.cache.collection("apiregistration.k8s.io/apiservices");
    let known: BTreeMap<_, _> = collection
        .select("", &LabelSelector::everything())
        .into_iter()
        .map(|object| (object.meta().name.clone(), object))
        .collect();
    let ensure = |(name, value): (&String, &Value)| {
        let create = request("", Verb::Create(value.clone(), WriteOptions::default()));
        let (name, known, user) = (name.clone(), known.get(name).cloned(), Arc::clone(&user));
        async move {
            let local = match known {
                Some(object) => object.value()?["spec"]["service"].is_null(),
                None => match core.request(&user, create).await {
                    // Another server on the same store was faster.
                    Err(error) if !error.is_already_exists() => return Err(error),
                    _ => true,
                },
            };
            if local { status::write(core, &name, &Condition::local()).await } else { Ok(()) }
        }
    };
    // Together, so that a durable store can commit them together.
    stream::iter(wanted.iter().map(ensure)).buffer_unordered(PARALLEL).try_collect::<()>().await?;
    let orphan = |name: &String, labels: &BTreeMap<String, String>| {
        labels.get(MANAGED).is_some_and(|managed| managed == "true") && !wanted.contains_key(name)
    };
    for (name, _) in known.iter().filter(|(name, object)| orphan(name, &object.meta().labels)) {
        match core.request(&user, request(name, Verb::Delete(DeleteOptions::default()))).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
