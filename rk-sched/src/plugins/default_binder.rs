//! DefaultBinder.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use rk_api::Api;
use serde_json::json;

use crate::framework::{Bind, BindContext, Plugin, Status};

/// Binds a pod by its `binding` subresource.
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
            Err(error) => Status::error(error.to_string()),
        }
    }
}
