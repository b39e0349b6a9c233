//! What controllers of a cluster do that scheduling waits for: volumes are bound and provided (`volumes.rs`), and claims come and go with
//! their pods.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{Pod, PodResourceClaimStatus},
    resource::v1::ResourceClaim,
};
use rk_api::Object;
use serde_json::{Value, json};

use super::{objects, simulation::Simulation};

impl Simulation<'_> {
    /// Puts an object in, from whomever.
    pub(super) fn put(&mut self, object: Arc<Object>) {
        let change = self.objects.put(object);
        self.engine.apply(&change, self.clock.instant());
        match change.object().kind() {
            "PersistentVolumeClaim" => self.claim_written(change.object()),
            "StorageClass" => {
                self.objects.of_kind("PersistentVolumeClaim").iter().for_each(|claim| self.claim_written(claim))
            }
            _ => {}
        }
    }

    /// Takes an object away.
    pub(super) fn take_away(&mut self, object: &Object) {
        if let Some(change) = self.objects.remove(object) {
            self.engine.apply(&change, self.clock.instant());
            if change.object().kind() == "PersistentVolumeClaim" {
                self.claim_gone(change.object());
            }
        }
    }

    /// Controllers hear of an object that was written.
    pub(super) fn controllers(&mut self, object: &Object) {
        match object.kind() {
            "PersistentVolume" => self.volume_written(object),
            "PersistentVolumeClaim" => self.claim_written(object),
            _ => {}
        }
    }

    /// Makes the claims on devices that a pod wants made from templates.
    pub(super) fn make_claims(&mut self, pod: &mut Arc<Pod>) {
        let wanted = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
        let wanted: Vec<(String, String)> = wanted
            .filter_map(|claim| Some((claim.name.clone(), claim.resource_claim_template_name.clone()?)))
            .collect();
        if wanted.is_empty() {
            return;
        }
        let field = |field: &Option<String>| field.clone().unwrap_or_default();
        let meta = &pod.metadata;
        let (namespace, name, uid) = (field(&meta.namespace), field(&meta.name), field(&meta.uid));
        let mut made = Vec::new();
        for (entry, template) in wanted {
            let Some(template) = self.objects.value("ResourceClaimTemplate", &namespace, &template) else { continue };
            let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid, "controller": true});
            let claim_name = format!("{name}-{entry}");
            let claim = json!({
                "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "spec": template["spec"]["spec"],
                "metadata": {"labels": template["spec"]["metadata"]["labels"], "ownerReferences": [owner]},
            });
            if let Ok(claim) = objects::other(claim, &claim_name, Some(&namespace)) {
                self.put(claim);
                made.push(PodResourceClaimStatus { name: entry, resource_claim_name: Some(claim_name) });
            }
        }
        Arc::make_mut(pod).status.get_or_insert_default().resource_claim_statuses = Some(made);
    }

    /// Gives back what a pod that is gone held of claims: its own go with it, and those that nobody uses any more are deallocated.
    pub(super) fn release_claims(&mut self, pod: &Pod) {
        let Some(spec) = &pod.spec else { return };
        let made = pod.status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
        let made = made.filter_map(|made| made.resource_claim_name.as_ref());
        let named = spec.resource_claims.iter().flatten().filter_map(|claim| claim.resource_claim_name.as_ref());
        let names: Vec<&String> = made.chain(named).collect();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let uid = json!(pod.metadata.uid);
        for name in names {
            let Some(claim) = self.objects.get("ResourceClaim", namespace, name).map(Arc::clone) else { continue };
            let Ok(mut value) = claim.value() else { continue };
            if value.pointer("/metadata/ownerReferences/0/uid") == Some(&uid) {
                self.take_away(&claim);
                continue;
            }
            let Some(users) = value.pointer_mut("/status/reservedFor").and_then(Value::as_array_mut) else { continue };
            let before = users.len();
            users.retain(|user| user["uid"] != uid);
            if users.len() == before {
                continue;
            }
            if users.is_empty() {
                value["status"] = json!({});
            }
            // It was an object before.
            let _ = self.write(value);
        }
    }

    /// Takes back the allocation of a claim, unless it has changed since.
    pub(super) fn deallocate(&mut self, claim: &ResourceClaim) {
        let meta = &claim.metadata;
        let (namespace, name) =
            (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let Some(current) = self.objects.get("ResourceClaim", namespace, name).map(Arc::clone) else { return };
        if Some(&current.meta().resource_version) != meta.resource_version.as_ref() {
            return;
        }
        if let Ok(mut value) = current.value() {
            value["status"] = json!({});
            let _ = self.write(value);
        }
    }
}
