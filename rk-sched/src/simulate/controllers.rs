//! What controllers of a cluster do that scheduling waits for: volumes are bound and provided, and claims on devices come and go with their pods.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{Pod, PodResourceClaimStatus},
    resource::v1::ResourceClaim,
};
use rk_api::Object;
use serde_json::{Value, json};

use super::{clock::Event, objects, options::Chance, simulation::Simulation};

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

const SELECTED_NODE: &str = "/metadata/annotations/volume.kubernetes.io~1selected-node";

impl Simulation<'_> {
    /// Puts an object in, from whomever.
    pub(super) fn put(&mut self, object: Arc<Object>) {
        let change = self.objects.put(object);
        self.engine.apply(&change, self.clock.instant());
    }

    /// Takes an object away.
    pub(super) fn take_away(&mut self, object: &Object) {
        if let Some(change) = self.objects.remove(object) {
            self.engine.apply(&change, self.clock.instant());
        }
    }

    /// Controllers hear of an object that was written.
    pub(super) fn controllers(&mut self, object: &Object) {
        let Ok(value) = object.value() else { return };
        let meta = object.meta();
        match object.kind() {
            "PersistentVolume" if !text(&value, "/spec/claimRef/uid").is_empty() => {
                let late = self.write_takes(object.kind(), "", &meta.name);
                self.clock.add(late, Event::BindVolume(meta.name.clone()));
            }
            "PersistentVolumeClaim"
                if text(&value, "/spec/volumeName").is_empty() && !text(&value, SELECTED_NODE).is_empty() =>
            {
                let who = meta.resource_version.parse().unwrap_or(0);
                let late = self.takes(self.options.provisioning, Chance::Provisioning, who, 0);
                self.clock.add(late, Event::Provide(meta.namespace.clone(), meta.name.clone()));
            }
            _ => {}
        }
    }

    /// Binds the claim that a volume was given to (the controller of volumes).
    pub(super) fn bind_volume(&mut self, name: &str) {
        let Some(mut volume) = self.objects.value("PersistentVolume", "", name) else { return };
        let (namespace, claim) = (text(&volume, "/spec/claimRef/namespace"), text(&volume, "/spec/claimRef/name"));
        let Some(mut claim) = self.objects.value("PersistentVolumeClaim", namespace, claim) else { return };
        let theirs = text(&volume, "/spec/claimRef/uid") == text(&claim, "/metadata/uid");
        if !theirs || !text(&claim, "/spec/volumeName").is_empty() {
            return;
        }
        claim["spec"]["volumeName"] = name.into();
        claim["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = "yes".into();
        claim["status"]["phase"] = "Bound".into();
        claim["status"]["capacity"] = volume["spec"]["capacity"].clone();
        volume["status"]["phase"] = "Bound".into();
        // Neither is of a kind that can't be encoded.
        for change in [self.objects.write(volume), self.objects.write(claim)].into_iter().flatten() {
            self.engine.apply(&change, self.clock.instant());
        }
    }

    /// Provides a volume for a claim, for the node that was selected (a provisioner of the claim's class), and binds it.
    pub(super) fn provide(&mut self, namespace: &str, name: &str) {
        let Some(claim) = self.objects.value("PersistentVolumeClaim", namespace, name) else { return };
        let node = text(&claim, SELECTED_NODE);
        let class = text(&claim, "/spec/storageClassName");
        let Some(class) = self.objects.value("StorageClass", "", class) else { return };
        if node.is_empty() || !text(&claim, "/spec/volumeName").is_empty() {
            return;
        }
        let volume = format!("pvc-{namespace}-{name}");
        let driver = text(&class, "/provisioner");
        let mut spec = json!({
            "capacity": claim.pointer("/spec/resources/requests").cloned().unwrap_or_default(),
            "accessModes": claim["spec"]["accessModes"],
            "storageClassName": claim["spec"]["storageClassName"],
            "csi": {"driver": driver, "volumeHandle": volume},
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name,
                "uid": claim["metadata"]["uid"],
            },
        });
        let terms = self.topology(driver, node);
        if !terms.is_empty() {
            spec["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": terms}]}});
        }
        let made = json!({"apiVersion": "v1", "kind": "PersistentVolume", "spec": spec});
        if let Ok(made) = objects::other(made, &volume, None) {
            self.put(made);
            self.bind_volume(&volume);
        }
    }

    /// Where a driver's volumes for a node can be used: where the labels that it names in its CSINode are the node's.
    fn topology(&self, driver: &str, node: &str) -> Vec<Value> {
        let snapshot = self.engine.snapshot();
        let (Some(csi), Some(at)) = (self.objects.value("CSINode", "", node), snapshot.find(node)) else {
            return Vec::new();
        };
        let labels = snapshot.node(at).labels();
        let drivers = csi["spec"]["drivers"].as_array().into_iter().flatten();
        let keys = drivers.filter(|known| known["name"] == driver).flat_map(|known| known["topologyKeys"].as_array());
        let term = |key: &Value| {
            let key = key.as_str()?;
            Some(json!({"key": key, "operator": "In", "values": [labels.get(key)?]}))
        };
        keys.flatten().filter_map(term).collect()
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
