//! What the controllers of volumes do: claims are made for ephemeral volumes, get the volumes that were given to them or that are provided for
//! them, and what they had is reclaimed once they are gone.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaimTemplate, Pod};
use rand::RngExt;
use rk_api::Object;
use serde_json::{Value, json};

use super::{
    clock::Event,
    objects,
    options::{Chance, chance, number_of},
    simulation::Simulation,
};

const CLAIM: &str = "PersistentVolumeClaim";
const SELECTED_NODE: &str = "/metadata/annotations/volume.kubernetes.io~1selected-node";

/// The provisioner of classes whose volumes nobody provides.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The ephemeral volumes of a pod that claims are made for: the names of the claims (`PodName-VolumeName`), and what they are made of.
fn ephemeral(pod: &Pod) -> impl Iterator<Item = (String, &PersistentVolumeClaimTemplate)> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(move |volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        Some((format!("{name}-{}", volume.name), template))
    })
}

/// Which claim it is that chance decides about, whenever it is written.
fn who(namespace: &str, claim: &str) -> u64 {
    number_of(&format!("{CLAIM}/{namespace}/{claim}"))
}

/// Whether an object is a pod's own.
fn is_owned(object: &Value, pod: &Pod) -> bool {
    let mut owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    owners.any(|owner| owner["controller"] == true && owner["uid"].as_str() == pod.metadata.uid.as_deref())
}

impl Simulation<'_> {
    /// A claim was made or written: a volume is provided for it, on the node that was selected, or at once where its class says so.
    pub(super) fn claim_written(&mut self, claim: &Object) {
        let Ok(value) = claim.value() else { return };
        let waits = text(&value, SELECTED_NODE).is_empty() && !self.is_immediate(&value);
        if waits || !text(&value, "/spec/volumeName").is_empty() {
            return;
        }
        let (namespace, name) = (claim.meta().namespace.clone(), claim.meta().name.clone());
        let late = self.takes(self.options.provisioning, Chance::Provisioning, who(&namespace, &name), 0);
        self.clock.add(late, Event::Provide(namespace, name));
    }

    /// Whether volumes of a claim's class are provided before any pod has a node (`volumeBindingMode: Immediate`, the default).
    fn is_immediate(&self, claim: &Value) -> bool {
        let class = self.objects.value("StorageClass", "", text(claim, "/spec/storageClassName"));
        class.is_some_and(|class| {
            text(&class, "/volumeBindingMode") != "WaitForFirstConsumer"
                && text(&class, "/provisioner") != NO_PROVISIONER
        })
    }

    /// A volume was written: the claim that it was given to is bound in its time.
    pub(super) fn volume_written(&mut self, volume: &Object) {
        let Ok(value) = volume.value() else { return };
        if !text(&value, "/spec/claimRef/uid").is_empty() {
            let name = &volume.meta().name;
            let late = self.write_takes(volume.kind(), "", name);
            self.clock.add(late, Event::BindVolume(name.clone()));
        }
    }

    /// Binds the claim that a volume was given to; one that is gone leaves the volume.
    pub(super) fn bind_volume(&mut self, name: &str) {
        let Some(mut volume) = self.objects.value("PersistentVolume", "", name) else { return };
        let (namespace, claim) = (text(&volume, "/spec/claimRef/namespace"), text(&volume, "/spec/claimRef/name"));
        let claim = self.objects.value(CLAIM, namespace, claim);
        let theirs = |claim: &Value| text(&volume, "/spec/claimRef/uid") == text(claim, "/metadata/uid");
        let Some(mut claim) = claim.filter(theirs) else { return self.reclaim(volume) };
        if !text(&claim, "/spec/volumeName").is_empty() {
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

    /// Provides a volume for a claim, for the node that was selected if one was (a provisioner of the claim's class), and binds it.
    pub(super) fn provide(&mut self, namespace: &str, name: &str) {
        let Some(claim) = self.objects.value(CLAIM, namespace, name) else { return };
        let class = text(&claim, "/spec/storageClassName");
        let Some(class) = self.objects.value("StorageClass", "", class) else { return };
        let driver = text(&class, "/provisioner");
        let node = match text(&claim, SELECTED_NODE) {
            "" if self.is_immediate(&claim) => self.any_node(driver, namespace, name).unwrap_or_default(),
            "" => return,
            node => node.to_owned(),
        };
        if !text(&claim, "/spec/volumeName").is_empty() {
            return;
        }
        let volume = format!("pvc-{namespace}-{name}");
        let policy = Some(text(&class, "/reclaimPolicy")).filter(|policy| !policy.is_empty()).unwrap_or("Delete");
        let mut spec = json!({
            "capacity": claim.pointer("/spec/resources/requests").cloned().unwrap_or_default(),
            "accessModes": claim["spec"]["accessModes"],
            "storageClassName": claim["spec"]["storageClassName"],
            "persistentVolumeReclaimPolicy": policy,
            "csi": {"driver": driver, "volumeHandle": volume},
            "claimRef": {
                "apiVersion": "v1", "kind": CLAIM, "namespace": namespace, "name": name, "uid": claim["metadata"]["uid"],
            },
        });
        let terms = self.topology(driver, &node);
        if !terms.is_empty() {
            spec["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": terms}]}});
        }
        let made = json!({"apiVersion": "v1", "kind": "PersistentVolume", "spec": spec});
        if let Ok(made) = objects::other(made, &volume, None) {
            self.put(made);
            self.bind_volume(&volume);
        }
    }

    /// One of the nodes that a driver's volumes can be used on, by chance.
    fn any_node(&self, driver: &str, namespace: &str, claim: &str) -> Option<String> {
        let has_driver = |node: &&str| {
            let csi = self.objects.value("CSINode", "", node).unwrap_or_default();
            csi["spec"]["drivers"].as_array().into_iter().flatten().any(|known| known["name"] == driver)
        };
        let mut nodes: Vec<&str> =
            self.engine.snapshot().nodes().map(|(_, node)| node.name.as_ref()).filter(has_driver).collect();
        nodes.sort_unstable();
        let mut random = chance(self.seed, Chance::Provisioning, who(namespace, claim), 1);
        let at = random.random_range(0..nodes.len().max(1));
        nodes.get(at).map(ToString::to_string)
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

    /// A claim is gone: what becomes of the volume that it had.
    pub(super) fn claim_gone(&mut self, claim: &Object) {
        let Ok(claim) = claim.value() else { return };
        let volume = self.objects.value("PersistentVolume", "", text(&claim, "/spec/volumeName"));
        let theirs = |volume: &Value| text(volume, "/spec/claimRef/uid") == text(&claim, "/metadata/uid");
        if let Some(volume) = volume.filter(theirs) {
            self.reclaim(volume);
        }
    }

    /// A volume whose claim is gone is deleted where its policy says so; else nobody gets it until somebody sees to it.
    fn reclaim(&mut self, mut volume: Value) {
        let name = text(&volume, "/metadata/name");
        let Some(object) = self.objects.get("PersistentVolume", "", name).map(Arc::clone) else { return };
        if text(&volume, "/spec/persistentVolumeReclaimPolicy") == "Delete" {
            return self.take_away(&object);
        }
        volume["status"]["phase"] = "Released".into();
        // It was an object before.
        if let Ok(change) = self.objects.write(volume) {
            self.engine.apply(&change, self.clock.instant());
        }
    }

    /// Makes the claims of a pod's ephemeral volumes (the ephemeral volume controller). One of that name that is somebody else's stays.
    pub(super) fn make_volume_claims(&mut self, pod: &Pod) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let owner = json!({
            "apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid, "controller": true,
            "blockOwnerDeletion": true,
        });
        for (name, template) in ephemeral(pod) {
            if self.objects.get(CLAIM, namespace, &name).is_some() {
                continue;
            }
            let meta = template.metadata.as_ref();
            let claim = json!({
                "apiVersion": "v1", "kind": CLAIM, "spec": template.spec, "status": {"phase": "Pending"},
                "metadata": {
                    "labels": meta.and_then(|meta| meta.labels.as_ref()),
                    "annotations": meta.and_then(|meta| meta.annotations.as_ref()),
                    "ownerReferences": [owner],
                },
            });
            if let Ok(claim) = objects::other(claim, &name, Some(namespace)) {
                self.put(claim);
            }
        }
    }

    /// The claims of a pod's ephemeral volumes go with it (the garbage collector).
    pub(super) fn release_volume_claims(&mut self, pod: &Pod) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for (name, _) in ephemeral(pod) {
            let Some(claim) = self.objects.get(CLAIM, namespace, &name).map(Arc::clone) else { continue };
            if claim.value().is_ok_and(|value| is_owned(&value, pod)) {
                self.take_away(&claim);
            }
        }
    }
}
