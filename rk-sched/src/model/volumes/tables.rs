//! The tables of all objects that have to do with volumes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::{core::v1::PersistentVolumeClaim, storage::v1::StorageClass};

use super::{
    Available, Capacities, CsiNode, NodeVolumes, VolumeId, VolumeInfo,
    claim::{self, ClaimUse},
    migration::InTreePlugin,
    usage::{ClaimUsers, Slack},
    volume::Source,
};
use crate::model::PodInfo;

/// A VolumeAttachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) node: String,
    pub(super) driver: String,
    pub(super) volume: String,
}

/// A volume that a pod uses, as far as limits go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsedVolume {
    /// The volume.
    pub(crate) id: VolumeId,
    /// The plugin in the tree that it was made for; it counts then where there is a CSINode, as all of them are migrated (KEP-625).
    pub(crate) plugin: Option<&'static InTreePlugin>,
}

impl UsedVolume {
    /// Whether it counts on a node.
    pub(crate) fn counts_on(&self, csi: Option<&CsiNode>) -> bool {
        self.plugin.is_none() || csi.is_some()
    }
}

/// All that is known of volumes. See [`Volumes`](super::Volumes), which shares it with the plugins of a cycle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    /// By namespace and name.
    pub(super) claims: HashMap<String, HashMap<String, Arc<PersistentVolumeClaim>>>,
    pub(super) volumes: HashMap<String, Arc<VolumeInfo>>,
    pub(super) classes: HashMap<String, Arc<StorageClass>>,
    /// Volumes that any claim may have, by class.
    pub(super) available: HashMap<String, Available>,
    /// Volumes kept for a claim or bound to it, by its namespace and name.
    pub(super) kept: HashMap<String, HashMap<String, BTreeSet<Arc<str>>>>,
    /// Claims that name a volume, by the volume.
    pub(super) named: HashMap<String, BTreeSet<(String, String)>>,
    pub(super) csi_nodes: HashMap<String, CsiNode>,
    /// CSI drivers that tell how much room they have.
    pub(super) tracking: HashSet<String>,
    /// By class.
    pub(super) capacities: HashMap<String, Capacities>,
    /// The classes of these, by namespace and name.
    pub(super) capacity_classes: HashMap<(String, String), String>,
    pub(super) attachments: HashMap<String, Attachment>,
    /// Names of attachments, by volume.
    pub(super) attached: HashMap<String, BTreeSet<String>>,
    pub(super) nodes: HashMap<Arc<str>, NodeVolumes>,
    /// The nodes of pods that may use volumes, by uid.
    pub(super) placed: HashMap<Arc<str>, Arc<str>>,
    pub(super) users: ClaimUsers,
    pub(super) slack: Slack,
}

impl Tables {
    pub(crate) fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<PersistentVolumeClaim>> {
        self.claims.get(namespace)?.get(name)
    }

    pub(crate) fn volume(&self, name: &str) -> Option<&Arc<VolumeInfo>> {
        self.volumes.get(name)
    }

    pub(crate) fn class(&self, name: &str) -> Option<&Arc<StorageClass>> {
        self.classes.get(name)
    }

    pub(crate) fn csi_node(&self, name: &str) -> Option<&CsiNode> {
        self.csi_nodes.get(name)
    }

    /// The volumes of a class that any claim may have.
    pub(crate) fn available(&self, class: &str) -> Option<&Available> {
        self.available.get(class)
    }

    /// The volumes of its class that are kept for a claim, by name.
    pub(crate) fn kept_for(&self, claim: &PersistentVolumeClaim) -> impl Iterator<Item = &Arc<VolumeInfo>> {
        let (namespace, name) = (claim.metadata.namespace.as_deref(), claim.metadata.name.as_deref());
        let names = namespace.and_then(|namespace| self.kept.get(namespace)?.get(name?));
        let volumes = names.into_iter().flatten().filter_map(|name| self.volume(name));
        volumes.filter(|volume| volume.is_for(claim) && volume.class == claim::class_of(claim))
    }

    /// Whether there is room for a new volume of a class on a node of these labels, as far as its driver tells
    /// (`hasEnoughCapacity`).
    pub(crate) fn has_room(&self, class: &StorageClass, size: i64, labels: &BTreeMap<String, String>) -> bool {
        if !self.tracking.contains(&class.provisioner) {
            return true;
        }
        let capacities = class.metadata.name.as_deref().and_then(|name| self.capacities.get(name));
        capacities.is_some_and(|all| all.hold(size, labels))
    }

    /// What counts on a node.
    pub(crate) fn node(&self, name: &str) -> Option<&NodeVolumes> {
        self.nodes.get(name)
    }

    /// How many more volumes of a driver any node takes at least; `None` where no node limits them.
    pub(crate) fn least_slack(&self, driver: &str) -> Option<i64> {
        self.slack.least(driver)
    }

    /// Whether a pod on a node uses a claim.
    pub(crate) fn is_used(&self, namespace: &str, claim: &str) -> bool {
        self.users.of(namespace, claim).next().is_some()
    }

    /// The volume behind a claim, as far as limits go: that which it is bound to, or else one of its class's driver
    /// (`getCSIDriverInfo`).
    pub(crate) fn used_by(&self, claim: &PersistentVolumeClaim) -> Option<UsedVolume> {
        if let Some(volume) = claim::volume_of(claim).and_then(|name| self.volume(name)) {
            return match &volume.source {
                Source::Csi(id) => Some(UsedVolume { id: id.clone(), plugin: None }),
                Source::InTree(plugin, id, _) => Some(UsedVolume { id: id.clone(), plugin: Some(plugin) }),
                Source::Other => None,
            };
        }
        let provisioner = self.class(claim::class_of(claim))?.provisioner.as_str();
        let plugin = InTreePlugin::of_provisioner(provisioner);
        let text = |field: &Option<String>| Arc::from(field.as_deref().unwrap_or_default());
        let handle = super::Handle::Claim(text(&claim.metadata.namespace), text(&claim.metadata.name));
        let driver = plugin.map_or(provisioner, |plugin| plugin.driver);
        (!driver.is_empty()).then(|| UsedVolume { id: VolumeId { driver: Arc::from(driver), handle }, plugin })
    }

    /// The volumes of a pod on a node that count towards limits. What can't be found does not count.
    pub(crate) fn used_on(&self, pod: &PodInfo, csi: Option<&CsiNode>) -> Vec<VolumeId> {
        let mut used = Vec::new();
        for volume in pod.spec().volumes.iter().flatten() {
            let found = match ClaimUse::of(pod, volume) {
                Some(claim) => {
                    let found = self.claim(&pod.namespace, &claim.name);
                    let found = found.filter(|found| !claim.own || claim::check_owner(found, pod).is_ok());
                    found.and_then(|claim| self.used_by(claim))
                }
                None => UsedVolume::inline(volume),
            };
            used.extend(found.filter(|found| found.counts_on(csi)).map(|found| found.id));
        }
        used
    }

    /// The volumes that are attached to a node and whose driver and handle are known.
    pub(crate) fn attached_to<'a>(&'a self, node: &'a NodeVolumes) -> impl Iterator<Item = VolumeId> + 'a {
        node.attachments.iter().filter_map(|name| {
            let attachment = self.attachments.get(name)?;
            match &self.volume(&attachment.volume)?.source {
                Source::Csi(id) => Some(VolumeId { driver: Arc::from(attachment.driver.as_str()), ..id.clone() }),
                _ => None,
            }
        })
    }
}

impl UsedVolume {
    /// A volume that a pod names itself, if a CSI driver may serve it.
    pub(crate) fn inline(volume: &k8s_openapi::api::core::v1::Volume) -> Option<Self> {
        let (plugin, handle) = InTreePlugin::of_inline(volume)?;
        Some(Self { id: VolumeId::new(plugin.driver, &handle), plugin: Some(plugin) })
    }
}

/// Whether a pod has volumes that may count towards limits.
pub(crate) fn may_count(pod: &PodInfo) -> bool {
    let volumes = pod.spec().volumes.iter().flatten();
    volumes.into_iter().any(|volume| {
        volume.persistent_volume_claim.is_some()
            || volume.ephemeral.is_some()
            || InTreePlugin::of_inline(volume).is_some()
    })
}
