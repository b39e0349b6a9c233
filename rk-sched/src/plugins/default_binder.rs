//! DefaultBinder.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use rk_api::{Api, Error};
use serde_json::json;

use crate::framework::{Bind, BindContext, Plugin, Status};

/// Binds a pod by its `binding` subresource.
///
/// Where no answer comes, or one that leaves open what was done, the pod is looked at until it is known whether it was bound: its
/// room on the node is not given to others meanwhile.
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
        let body = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"namespace": pod.namespace.as_ref(), "name": pod.name.as_ref(), "uid": pod.uid.as_ref()},
            "target": {"kind": "Node", "name": context.node},
        });
        let api = Api::<Pod>::namespaced(context.client.clone(), &pod.namespace);
        match api.create_subresource(&pod.name, "binding", body).await {
            Ok(_) => Status::success(),
            Err(error) if refused(&error) => Status::error(error.to_string()),
            Err(error) => look(&api, context, &error).await,
        }
    }
}

/// The first wait before the pod is looked at again, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Whether the API has said no, and so did nothing.
fn refused(error: &Error) -> bool {
    (400..500).contains(&error.code()) && error.code() != 408
}

/// Looks whether a pod was bound.
async fn look(api: &Api<Pod>, context: &BindContext<'_>, unanswered: &Error) -> Status {
    let (mut wait, longest) = WAITS;
    loop {
        tokio::time::sleep(wait).await;
        let found = match api.get_opt(&context.pod.name).await {
            Ok(found) => found,
            Err(error) => {
                let (pod, namespace) = (&context.pod.name, &context.pod.namespace);
                tracing::warn!(%error, %unanswered, %pod, %namespace, "not known whether the pod was bound");
                wait = (wait * 2).min(longest);
                continue;
            }
        };
        let same = found.filter(|pod| pod.metadata.uid.as_deref() == Some(context.pod.uid.as_ref()));
        let node = same.as_ref().and_then(|pod| pod.spec.as_ref()?.node_name.as_deref());
        return if node == Some(context.node) { Status::success() } else { Status::error(unanswered.to_string()) };
    }
}
