//! DefaultBinder.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use rk_api::{Api, Error};
use serde_json::{Value, json};

use crate::{
    framework::{Bind, BindContext, Plugin, Status},
    model::PodInfo,
};

/// Binds a pod by its `binding` subresource.
///
/// Where no answer comes, or one that leaves open what was done, it asks for the same again until there is one: once that is known the first
/// request can't do anything any more, as a pod is bound but once. Its room on the node is not given to others meanwhile.
#[derive(Debug, Clone, Copy, Default)]
pub struct DefaultBinder;

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }
}

#[async_trait]
impl Bind for DefaultBinder {
    async fn bind(&self, context: &BindContext<'_>) -> Status {
        let pod = context.pod;
        let body = binding_of(pod, context.node);
        let api = Api::<Pod>::namespaced(context.client.clone(), &pod.namespace);
        let mut wait = FIRST_WAIT;
        let mut open = false;
        loop {
            let error = match api.create_subresource(&pod.name, "binding", body.clone()).await {
                Ok(_) => return Status::success(),
                Err(error) => error,
            };
            // What is refused now may be what was done before.
            let bound = if open && error.code() == 409 { is_bound(&api, context).await } else { Some(false) };
            match bound.filter(|_| is_definite(&error)) {
                Some(true) => return Status::success(),
                Some(false) => return Status::error(error.to_string()),
                None => {}
            }
            let (pod, namespace) = (&pod.name, &pod.namespace);
            tracing::warn!(%error, %pod, %namespace, "not known whether the pod was bound");
            open = true;
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

/// The binding of a pod to a node, as the API takes it.
pub(crate) fn binding_of(pod: &PodInfo, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"namespace": pod.namespace.as_ref(), "name": pod.name.as_ref(), "uid": pod.uid.as_ref()},
        "target": {"kind": "Node", "name": node},
    })
}

/// The first wait before a request is made again.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Whether the API has said no, and so did nothing.
pub(super) fn is_definite(error: &Error) -> bool {
    (400..500).contains(&error.code()) && !matches!(error.code(), 408 | 429)
}

/// Whether the pod is on the node; `None` if there is no answer to that.
async fn is_bound(api: &Api<Pod>, context: &BindContext<'_>) -> Option<bool> {
    match api.get_opt(&context.pod.name).await {
        Ok(found) => {
            let same = found.filter(|pod| pod.metadata.uid.as_deref() == Some(context.pod.uid.as_ref()));
            Some(same.and_then(|pod| pod.spec.as_ref()?.node_name.clone()).as_deref() == Some(context.node))
        }
        Err(error) => is_definite(&error).then_some(false),
    }
}
