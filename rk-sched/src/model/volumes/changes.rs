//! Changes of the tables. What counts on nodes is kept as if it were counted anew after each of them.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::PersistentVolumeClaim,
    storage::v1::{CSIStorageCapacity, StorageClass, VolumeAttachment},
};

use super::{
    Capacity, CsiNode, NodeVolumes, VolumeInfo, claim,
    tables::{Attachment, Tables, may_count},
    volume::Source,
};
use crate::model::PodInfo;

impl Tables {
    pub(super) fn set_claim(&mut self, namespace: &str, name: &str, claim: Option<Arc<PersistentVolumeClaim>>) {
        let key = || (namespace.to_owned(), name.to_owned());
        let said = |claim: &PersistentVolumeClaim| {
            let owner = claim::owner_of(claim).map(str::to_owned);
            (claim::volume_of(claim).map(str::to_owned), claim::class_of(claim).to_owned(), owner)
        };
        let now = claim.as_deref().map(said);
        let claims = self.claims.entry(namespace.to_owned()).or_default();
        let old = match claim {
            Some(claim) => claims.insert(name.to_owned(), claim),
            None => claims.remove(name),
        };
        if claims.is_empty() {
            self.claims.remove(namespace);
        }
        let before = old.as_deref().map(said);
        if before == now {
            return;
        }
        if let Some((Some(volume), ..)) = &before
            && let Some(claims) = self.named.get_mut(volume)
        {
            claims.remove(&key());
            if claims.is_empty() {
                self.named.remove(volume);
            }
        }
        if let Some((Some(volume), ..)) = now {
            self.named.entry(volume).or_default().insert(key());
        }
        self.recount_users(namespace, name);
    }

    /// Counts anew where a claim is used.
    fn recount_users(&mut self, namespace: &str, name: &str) {
        let nodes = self.users.of(namespace, name).filter_map(|uid| self.placed.get(uid)).cloned();
        for node in nodes.collect::<std::collections::BTreeSet<_>>() {
            self.recount(&node);
        }
    }

    pub(super) fn set_volume(&mut self, name: &str, volume: Option<Arc<VolumeInfo>>) {
        let known = self.volumes.remove(name);
        if let Some(old) = &known {
            self.index(old, false);
        }
        if let Some(new) = &volume {
            self.volumes.insert(name.to_owned(), Arc::clone(new));
            self.index(new, true);
        }
        // What is behind a volume never changes while it is there.
        let source = |volume: &Option<Arc<VolumeInfo>>| match volume.as_deref().map(|volume| &volume.source) {
            Some(Source::Csi(id)) => Some((id.clone(), None)),
            Some(Source::InTree(plugin, id, _)) => Some((id.clone(), Some(plugin.name))),
            Some(Source::Other) | None => None,
        };
        if known.is_some() == volume.is_some() && source(&known) == source(&volume) {
            return;
        }
        for (namespace, claim) in self.named.get(name).cloned().unwrap_or_default() {
            self.recount_users(&namespace, &claim);
        }
        for attachment in self.attached.get(name).cloned().unwrap_or_default() {
            if let Some(node) = self.attachments.get(&attachment).map(|attachment| attachment.node.clone()) {
                self.recount(&node);
            }
        }
    }

    /// Notes where a volume is found, or forgets it.
    fn index(&mut self, volume: &VolumeInfo, there: bool) {
        if volume.available() {
            let class = self.available.entry(volume.class.clone()).or_default();
            if there {
                class.insert(volume)
            } else {
                class.remove(volume)
            }
            if class.is_empty() {
                self.available.remove(&volume.class);
            }
        }
        let Some(reference) = volume.claim() else { return };
        let (Some(namespace), Some(name)) = (&reference.namespace, &reference.name) else { return };
        let claims = self.kept.entry(namespace.clone()).or_default();
        let kept = claims.entry(name.clone()).or_default();
        if there {
            kept.insert(Arc::clone(&volume.name));
        } else {
            kept.remove(&volume.name);
        }
        if kept.is_empty() {
            claims.remove(name);
        }
        if claims.is_empty() {
            self.kept.remove(namespace);
        }
    }

    pub(super) fn set_class(&mut self, name: &str, class: Option<Arc<StorageClass>>) {
        let provisioner = |class: Option<&Arc<StorageClass>>| class.map(|class| class.provisioner.clone());
        let (before, now) = (provisioner(self.class(name)), provisioner(class.as_ref()));
        match class {
            Some(class) => drop(self.classes.insert(name.to_owned(), class)),
            None => drop(self.classes.remove(name)),
        }
        if before != now {
            for node in self.nodes.keys().cloned().collect::<Vec<_>>() {
                self.recount(&node);
            }
        }
    }

    pub(super) fn set_csi_node(&mut self, name: &str, node: Option<CsiNode>) {
        if self.csi_nodes.get(name) == node.as_ref() {
            return;
        }
        self.slack.note(self.csi_nodes.get(name), self.nodes.get(name), false);
        match node {
            Some(node) => drop(self.csi_nodes.insert(name.to_owned(), node)),
            None => drop(self.csi_nodes.remove(name)),
        }
        if let Some((key, mut volumes)) = self.nodes.remove_entry(name) {
            self.count(name, &mut volumes);
            self.nodes.insert(key, volumes);
        }
        self.slack.note(self.csi_nodes.get(name), self.nodes.get(name), true);
    }

    pub(super) fn set_capacity(&mut self, namespace: &str, name: &str, capacity: Option<&CSIStorageCapacity>) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(class) = self.capacity_classes.remove(&key)
            && let Some(capacities) = self.capacities.get_mut(&class)
        {
            capacities.remove(&key);
            if capacities.is_empty() {
                self.capacities.remove(&class);
            }
        }
        if let Some(capacity) = capacity {
            let class = &capacity.storage_class_name;
            self.capacities.entry(class.clone()).or_default().insert(key.clone(), Capacity::new(capacity));
            self.capacity_classes.insert(key, class.clone());
        }
    }

    pub(super) fn set_attachment(&mut self, name: &str, attachment: Option<&VolumeAttachment>) {
        let new = attachment.and_then(|attachment| {
            let spec = &attachment.spec;
            let volume = spec.source.persistent_volume_name.clone()?;
            Some(Attachment { node: spec.node_name.clone(), driver: spec.attacher.clone(), volume })
        });
        if self.attachments.get(name) == new.as_ref() {
            return;
        }
        if let Some(old) = self.attachments.remove(name) {
            if let Some(names) = self.attached.get_mut(&old.volume) {
                names.remove(name);
                if names.is_empty() {
                    self.attached.remove(&old.volume);
                }
            }
            self.change(&Arc::from(old.node.as_str()), |tables, node| {
                node.attachments.remove(name);
                tables.count(&old.node, node);
            });
        }
        if let Some(new) = new {
            self.attached.entry(new.volume.clone()).or_default().insert(name.to_owned());
            let node = new.node.clone();
            self.attachments.insert(name.to_owned(), new);
            self.change(&Arc::from(node.as_str()), |tables, volumes| {
                volumes.attachments.insert(name.to_owned());
                tables.count(&node, volumes);
            });
        }
    }

    /// A pod is on a node now.
    pub(super) fn place(&mut self, pod: &Arc<PodInfo>, node: &Arc<str>) {
        if !may_count(pod) {
            return;
        }
        self.users.add(pod);
        self.placed.insert(Arc::clone(&pod.uid), Arc::clone(node));
        self.change(node, |tables, volumes| {
            for id in tables.used_on(pod, tables.csi_node(node)) {
                volumes.add(id);
            }
            volumes.pods.insert(Arc::clone(&pod.uid), Arc::clone(pod));
        });
    }

    /// A pod is on no node any more.
    pub(super) fn take_off(&mut self, pod: &PodInfo) {
        let Some(node) = self.placed.remove(&pod.uid) else { return };
        self.users.remove(pod);
        self.change(&node, |tables, volumes| {
            for id in tables.used_on(pod, tables.csi_node(&node)) {
                volumes.remove(&id);
            }
            volumes.pods.remove(&pod.uid);
        });
    }

    /// Changes what is known of a node, and what there is room for.
    fn change(&mut self, node: &Arc<str>, change: impl FnOnce(&Self, &mut NodeVolumes)) {
        let mut volumes = self.nodes.remove(node).unwrap_or_default();
        self.slack.note(self.csi_nodes.get(node.as_ref()), Some(&volumes), false);
        change(self, &mut volumes);
        self.slack.note(self.csi_nodes.get(node.as_ref()), Some(&volumes), true);
        if !volumes.is_empty() {
            self.nodes.insert(Arc::clone(node), volumes);
        }
    }

    /// Counts anew what a node's pods use and what is attached to it.
    fn recount(&mut self, node: &str) {
        if let Some((key, _)) = self.nodes.get_key_value(node) {
            self.change(&Arc::clone(key), |tables, volumes| tables.count(node, volumes));
        }
    }

    fn count(&self, node: &str, volumes: &mut NodeVolumes) {
        let csi = self.csi_node(node);
        volumes.clear();
        let used: Vec<_> = volumes.pods.values().flat_map(|pod| self.used_on(pod, csi)).collect();
        let attached: Vec<_> = self.attached_to(volumes).collect();
        for id in used {
            volumes.add(id);
        }
        for id in attached {
            volumes.attach(id);
        }
    }
}
