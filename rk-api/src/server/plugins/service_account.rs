//! Every pod runs as a service account and, unless told otherwise, gets its token.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rand::RngExt;
use serde_json::{Value, json};

use super::{forbid, is, list, push, spec_mut, text};
use crate::{
    Object, Resource, Status,
    server::{AdmissionRequest, Admit, Operation, Reader, pipeline::generate_name},
    status,
};

/// Sets the service account of new pods (`default` if none is named), takes its image pull secrets, and mounts a volume
/// with its token, the cluster's certificate authority and the namespace in every container.
#[derive(Debug, Clone, Copy)]
pub struct ServiceAccount {
    /// How often a missing `default` account is looked for again: it comes a moment after its namespace.
    pub attempts: usize,
}

impl Default for ServiceAccount {
    fn default() -> Self {
        Self { attempts: 10 }
    }
}

/// Where containers find the token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour, and seven seconds by which such volumes are told from those that people write (KEP-1205).
const TOKEN_SECONDS: i64 = 3607;
const MIRROR: &str = "kubernetes.io/config.mirror";

impl ServiceAccount {
    async fn find(&self, reader: &dyn Reader, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Status> {
        let attempts = if name == "default" { self.attempts.max(1) } else { 1 };
        for attempt in 0..attempts {
            if attempt > 0 {
                let jitter = rand::rng().random_range(0..100);
                tokio::time::sleep(Duration::from_millis(100 + jitter)).await;
            }
            if let Some(found) = reader.get("", "serviceaccounts", namespace, name).await.map_err(status::internal)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// What a mirror pod, which the API knows but does not start, may not refer to; `None` if all is well.
fn mirror_refusal(spec: &Value) -> Option<&'static str> {
    if !text(&spec["serviceAccountName"]).is_empty() {
        return Some("a mirror pod may not reference service accounts");
    }
    let refers = |field: &str| list(&spec["volumes"]).iter().any(|volume| !volume[field].is_null());
    let token = |volume: &Value| {
        list(&volume["projected"]["sources"]).iter().any(|source| !source["serviceAccountToken"].is_null())
    };
    if refers("secret") {
        return Some("a mirror pod may not reference secrets");
    }
    if list(&spec["volumes"]).iter().any(token) {
        return Some("a mirror pod may not use ServiceAccountToken volume projections");
    }
    None
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

/// Mounts the token wherever nothing else is mounted in its place; adds the volume if any container needs it.
fn mount_token(spec: &mut Value) {
    let known = list(&spec["volumes"]).iter().find_map(|volume| {
        let sources = list(&volume["projected"]["sources"]);
        let token = sources.iter().any(|source| !source["serviceAccountToken"].is_null());
        let name = text(&volume["name"]);
        (token && name.starts_with("kube-api-access-")).then(|| name.to_owned())
    });
    let name = known.clone().unwrap_or_else(|| generate_name("kube-api-access-"));
    let mut needed = false;
    for field in ["initContainers", "containers"] {
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            if list(&container["volumeMounts"]).iter().any(|mount| text(&mount["mountPath"]) == MOUNT_PATH) {
                continue;
            }
            push(container, "volumeMounts", json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            needed = true;
        }
    }
    if needed && known.is_none() {
        push(spec, "volumes", token_volume(&name));
    }
}

#[async_trait]
impl Admit for ServiceAccount {
    fn name(&self) -> &str {
        "ServiceAccount"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Create && is(resource, "", "pods") && subresource.is_empty()
    }

    async fn mutate(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(pod) = &request.object else { return Ok(()) };
        if pod["metadata"]["annotations"].get(MIRROR).is_some() {
            return match mirror_refusal(&pod["spec"]) {
                Some(why) => Err(forbid(request, why)),
                None => Ok(()),
            };
        }
        let named = [text(&pod["spec"]["serviceAccountName"]), text(&pod["spec"]["serviceAccount"])];
        let name = named.into_iter().find(|name| !name.is_empty()).unwrap_or("default").to_owned();
        let namespace = request.attributes.namespace.clone();
        let Some(account) = self.find(reader, &namespace, &name).await? else {
            let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
            return Err(forbid(request, &why));
        };
        let account = account.cached(|| account.value()).map_err(status::internal)?;
        let Some(spec) = spec_mut(request) else {
            return Ok(());
        };
        spec["serviceAccountName"] = name.clone().into();
        spec["serviceAccount"] = name.into();
        let wants = |object: &Value| object["automountServiceAccountToken"].as_bool();
        if wants(spec).or(wants(&account)).unwrap_or(true) {
            mount_token(spec);
        }
        if list(&spec["imagePullSecrets"]).is_empty() && !list(&account["imagePullSecrets"]).is_empty() {
            spec["imagePullSecrets"] = account["imagePullSecrets"].clone();
        }
        Ok(())
    }
}
