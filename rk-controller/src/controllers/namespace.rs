//! The end of namespaces: everything in one is deleted, pods first, before it goes itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition, Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use rk_api::{
    Change, DeleteOptions, Informer, Informers, ListOptions, Propagation, Request, Resource, Verb, WriteOptions,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Action, Context, Controller, Error, Reconcile,
    common::{
        condition::{self, Condition},
        meta,
    },
    resources,
};

/// The finalizer in `spec.finalizers` that this controller takes away.
const FINALIZER: &str = "kubernetes";

/// How long to wait for what other controllers and nodes have to finish, where no event tells of it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Ends namespaces.
pub struct NamespaceController {
    resources: Vec<Resource>,
    definitions: Informer,
}

/// Runs the namespace controller until `shutdown`. `resources` are those whose objects it deletes, beside custom ones.
pub async fn run(informers: &Informers, resources: Vec<Resource>, shutdown: CancellationToken) {
    let definitions = informers.of::<CustomResourceDefinition>();
    let reconciler = NamespaceController { resources, definitions };
    let namespaces = informers.of::<Namespace>();
    Controller::new("namespace-controller", reconciler, informers)
        .workers(10)
        .watches_changes::<Pod>(move |change| {
            let Change::Deleted(pod) = change else { return Vec::new() };
            let namespace = namespaces.get("", &pod.meta().namespace);
            let going = namespace.filter(|namespace| namespace.meta().deletion_timestamp.is_some());
            going.map(|namespace| (String::new(), namespace.meta().name.clone())).into_iter().collect()
        })
        .run(shutdown)
        .await;
}

#[async_trait]
impl Reconcile for NamespaceController {
    type Object = Namespace;

    async fn reconcile(&self, namespace: Arc<Namespace>, context: &Context) -> Result<Action, Error> {
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
        if !meta::is_deleting(&namespace.metadata) || !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(Action::await_change());
        }
        let name = meta::name(&namespace.metadata);
        let left = self.delete_content(name, context).await;
        self.write_status(&namespace, &left, context).await?;
        if !left.is_empty() {
            return Ok(Action::requeue(LOOK_AGAIN));
        }
        finalize(&namespace, finalizers, context).await?;
        Ok(Action::await_change())
    }
}

/// What is still in a namespace.
#[derive(Debug, Default)]
struct Left {
    /// Objects by resource.
    objects: BTreeMap<String, usize>,
    /// Objects by the finalizer that holds them.
    finalizers: BTreeMap<String, usize>,
    failures: Vec<String>,
}

impl Left {
    fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.failures.is_empty()
    }
}

impl NamespaceController {
    /// Deletes what it can, and counts what is left. Pods go before anything that they may need (KEP-5080).
    async fn delete_content(&self, namespace: &str, context: &Context) -> Left {
        let mut left = Left::default();
        let pods = Resource::of::<Pod>();
        self.delete_all(&pods, namespace, &mut left, context).await;
        if !left.is_empty() {
            return left;
        }
        let all = self.resources.iter().cloned().chain(resources::custom(&self.definitions));
        for resource in all.filter(|resource| resource.namespaced && *resource != pods) {
            self.delete_all(&resource, namespace, &mut left, context).await;
        }
        left
    }

    async fn delete_all(&self, resource: &Resource, namespace: &str, left: &mut Left, context: &Context) {
        let client = context.client();
        let result = async {
            let there = client.list(resource, namespace, ListOptions::default()).await?;
            if there.items.is_empty() {
                return Ok(there);
            }
            let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
            client.delete_collection(resource, namespace, options, ListOptions::default()).await?;
            client.list(resource, namespace, ListOptions::default()).await
        };
        match result.await {
            Ok(there) => {
                if !there.items.is_empty() {
                    left.objects.insert(resource.group_resource(), there.items.len());
                }
                for finalizer in there.items.iter().flat_map(|object| &object.meta().finalizers) {
                    *left.finalizers.entry(finalizer.clone()).or_default() += 1;
                }
            }
            // Not served: then nothing of it is stored.
            Err(error) if error.is_not_found() || error.code() == 405 => {}
            Err(error) => left.failures.push(format!("{}: {error}", resource.group_resource())),
        }
    }

    async fn write_status(&self, namespace: &Namespace, left: &Left, context: &Context) -> Result<(), Error> {
        if left.is_empty() {
            return Ok(());
        }
        let list = |counts: &BTreeMap<String, usize>, what: fn(&String, &usize) -> String| {
            counts.iter().map(|(name, count)| what(name, count)).collect::<Vec<_>>().join(", ")
        };
        let condition = |kind, truth: bool, (yes, yes_message): (&str, String), (no, no_message): (&str, &str)| {
            if truth {
                NamespaceCondition::new(kind, "True", yes, yes_message)
            } else {
                NamespaceCondition::new(kind, "False", no, no_message.to_owned())
            }
        };
        let objects = list(&left.objects, |name, count| format!("{name} has {count} resource instances"));
        let finalizers = list(&left.finalizers, |name, count| format!("{name} in {count} resource instances"));
        let failures = left.failures.join(", ");
        let new = [
            condition(
                "NamespaceDeletionDiscoveryFailure",
                false,
                ("", String::new()),
                ("ResourcesDiscovered", "All resources successfully discovered"),
            ),
            condition(
                "NamespaceDeletionGroupVersionParsingFailure",
                false,
                ("", String::new()),
                ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
            ),
            condition(
                "NamespaceDeletionContentFailure",
                !left.failures.is_empty(),
                ("ContentDeletionFailed", format!("Failed to delete all resource types, remaining: {failures}")),
                ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            ),
            condition(
                "NamespaceContentRemaining",
                !left.objects.is_empty(),
                ("SomeResourcesRemain", format!("Some resources are remaining: {objects}")),
                ("ContentRemoved", "All content successfully removed"),
            ),
            condition(
                "NamespaceFinalizersRemaining",
                !left.finalizers.is_empty(),
                (
                    "SomeFinalizersRemain",
                    format!("Some content in the namespace has finalizers remaining: {finalizers}"),
                ),
                ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            ),
        ];
        let mut changed = namespace.clone();
        let status = changed.status.get_or_insert_default();
        status.phase = Some("Terminating".to_owned());
        for condition in new {
            let same = condition::get(&status.conditions, &condition.type_)
                .is_some_and(|old| old.status == condition.status && old.message == condition.message);
            if !same {
                // The counts are in the message, so a condition of the same reason is replaced too.
                let transition = condition::get(&status.conditions, &condition.type_)
                    .filter(|old| old.status == condition.status)
                    .map(|old| old.last_transition_time.clone());
                condition::remove(&mut status.conditions, &condition.type_);
                let condition = NamespaceCondition {
                    last_transition_time: transition.unwrap_or(condition.last_transition_time.clone()),
                    ..condition
                };
                condition::set(&mut status.conditions, condition);
            }
        }
        if changed == *namespace {
            return Ok(());
        }
        match context.api_all::<Namespace>().update_status(&changed).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Takes this controller's finalizer away; the server then removes the namespace.
async fn finalize(namespace: &Namespace, finalizers: Vec<String>, context: &Context) -> Result<(), Error> {
    let resource = Resource::of::<Namespace>();
    let mut done = namespace.clone();
    // The status may have been written meanwhile; the server judges the finalizers of the newest version.
    done.metadata.resource_version = None;
    let rest = finalizers.into_iter().filter(|finalizer| finalizer != FINALIZER).collect();
    done.spec.get_or_insert_default().finalizers = Some(rest);
    let mut body = serde_json::to_value(&done).map_err(Error::other)?;
    body["apiVersion"] = resource.api_version().into();
    body["kind"] = resource.kind.as_ref().into();
    let request = Request {
        name: meta::name(&namespace.metadata).to_owned(),
        namespace: String::new(),
        subresource: "finalize".to_owned(),
        verb: Verb::Update(body, WriteOptions::default()),
        resource,
    };
    match context.client().request(request).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}
