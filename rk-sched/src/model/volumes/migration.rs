//! In-tree volumes that a CSI driver serves in their plugin's place (KEP-625): under which names they count and where they can be used.
//!
//! A node's CSINode says in an annotation which plugins it has migrated; on other nodes these volumes are what they say. Of the plugins that have
//! a driver in their place kube-scheduler leaves out those for vSphere and Azure File (`isCSIMigrationOn`), and so does this.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume, Volume};

use super::{
    super::NodeTerm,
    zones::{ZONE_LABELS, zones_of},
};

/// A plugin that has a CSI driver in its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InTreePlugin {
    /// Such as `kubernetes.io/aws-ebs`.
    pub(crate) name: &'static str,
    /// The driver in its place.
    pub(crate) driver: &'static str,
    /// The node label in which the driver tells a node's zone, for drivers that translate zones.
    zone_label: Option<&'static str>,
}

static AWS_EBS: InTreePlugin = InTreePlugin {
    name: "kubernetes.io/aws-ebs",
    driver: "ebs.csi.aws.com",
    zone_label: Some("topology.ebs.csi.aws.com/zone"),
};
static GCE_PD: InTreePlugin = InTreePlugin {
    name: "kubernetes.io/gce-pd",
    driver: "pd.csi.storage.gke.io",
    zone_label: Some("topology.gke.io/zone"),
};
static AZURE_DISK: InTreePlugin =
    InTreePlugin { name: "kubernetes.io/azure-disk", driver: "disk.csi.azure.com", zone_label: None };
static CINDER: InTreePlugin = InTreePlugin {
    name: "kubernetes.io/cinder",
    driver: "cinder.csi.openstack.org",
    zone_label: Some("topology.cinder.csi.openstack.org/zone"),
};
static PORTWORX: InTreePlugin =
    InTreePlugin { name: "kubernetes.io/portworx-volume", driver: "pxd.portworx.com", zone_label: None };

impl InTreePlugin {
    /// The plugin of a storage class's provisioner.
    pub(crate) fn of_provisioner(name: &str) -> Option<&'static Self> {
        [&AWS_EBS, &GCE_PD, &AZURE_DISK, &CINDER, &PORTWORX].into_iter().find(|plugin| plugin.name == name)
    }

    /// The plugin of a PersistentVolume, and the driver's handle of it.
    pub(crate) fn of_volume(volume: &PersistentVolume) -> Option<(&'static Self, String)> {
        let spec = volume.spec.as_ref()?;
        if let Some(disk) = &spec.aws_elastic_block_store {
            return Some((&AWS_EBS, ebs_handle(&disk.volume_id)));
        }
        if let Some(disk) = &spec.gce_persistent_disk {
            return Some((&GCE_PD, gce_handle(&disk.pd_name, &label_zones(volume))));
        }
        if let Some(disk) = &spec.azure_disk {
            return Some((&AZURE_DISK, disk.disk_uri.clone()));
        }
        if let Some(disk) = &spec.cinder {
            return Some((&CINDER, disk.volume_id.clone()));
        }
        spec.portworx_volume.as_ref().map(|disk| (&PORTWORX, disk.volume_id.clone()))
    }

    /// The plugin of a volume that a pod names itself, and the driver's handle of it.
    pub(crate) fn of_inline(volume: &Volume) -> Option<(&'static Self, String)> {
        if let Some(disk) = &volume.aws_elastic_block_store {
            return Some((&AWS_EBS, ebs_handle(&disk.volume_id)));
        }
        if let Some(disk) = &volume.gce_persistent_disk {
            return Some((&GCE_PD, gce_handle(&disk.pd_name, &BTreeSet::new())));
        }
        if let Some(disk) = &volume.azure_disk {
            return Some((&AZURE_DISK, disk.disk_uri.clone()));
        }
        if let Some(disk) = &volume.cinder {
            return Some((&CINDER, disk.volume_id.clone()));
        }
        volume.portworx_volume.as_ref().map(|disk| (&PORTWORX, disk.volume_id.clone()))
    }

    /// The terms of a volume's node affinity as the driver has them: zones by the driver's label, taken from the volume's own labels
    /// where the affinity names none. `None` for no condition.
    pub(crate) fn affinity(&self, volume: &PersistentVolume) -> Option<Vec<NodeTerm>> {
        let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
        let required = affinity.and_then(|affinity| affinity.required.as_ref());
        let mut terms = required.map(|required| required.node_selector_terms.clone());
        let Some(label) = self.zone_label else { return terms.as_deref().map(NodeTerm::all) };
        let is_zone = |expression: &NodeSelectorRequirement| ZONE_LABELS.contains(&expression.key.as_str());
        let mut named = false;
        for expression in terms.iter_mut().flatten().flat_map(|term| term.match_expressions.iter_mut().flatten()) {
            if is_zone(expression) {
                expression.key = label.to_owned();
                named = true;
            }
        }
        let zones = if named { BTreeSet::new() } else { label_zones(volume) };
        if !zones.is_empty() {
            let zone = NodeSelectorRequirement {
                key: label.to_owned(),
                operator: "In".to_owned(),
                values: Some(zones.into_iter().collect()),
            };
            let all = terms.get_or_insert_with(Vec::new);
            if all.is_empty() {
                all.push(NodeSelectorTerm::default());
            }
            for term in all {
                term.match_expressions.get_or_insert_with(Vec::new).push(zone.clone());
            }
        }
        terms.as_deref().map(NodeTerm::all)
    }
}

/// `aws://ZONE/vol-1` and `vol-1` are one volume.
fn ebs_handle(id: &str) -> String {
    let bare = id.strip_prefix("aws://").and_then(|rest| rest.rsplit('/').next());
    bare.unwrap_or(id).to_owned()
}

/// The zones that a volume's labels name.
fn label_zones(volume: &PersistentVolume) -> BTreeSet<String> {
    let labels = volume.metadata.labels.as_ref();
    let value = ZONE_LABELS.iter().find_map(|label| labels?.get(*label));
    value.and_then(|value| zones_of(value)).unwrap_or_default()
}

/// A disk in several zones is one of their region, whose name is a zone's without its last part.
fn gce_handle(disk: &str, zones: &BTreeSet<String>) -> String {
    let first = zones.first().map_or("UNSPECIFIED", String::as_str);
    if zones.len() > 1 {
        let region = first.rsplit_once('-').map_or(first, |(region, _)| region);
        return format!("projects/UNSPECIFIED/regions/{region}/disks/{disk}");
    }
    format!("projects/UNSPECIFIED/zones/{first}/disks/{disk}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn volume(value: serde_json::Value) -> PersistentVolume {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn handles_are_the_drivers() {
        let handle = |value| InTreePlugin::of_volume(&volume(value)).map(|(plugin, handle)| (plugin.driver, handle));
        let ebs = json!({"spec": {"awsElasticBlockStore": {"volumeID": "aws://us-1a/vol-1"}}});
        assert_eq!(handle(ebs), Some(("ebs.csi.aws.com", "vol-1".to_owned())));
        let zone = |zone: &str| json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}, "spec": {"gcePersistentDisk": {"pdName": "d"}}});
        let pd = |text: &str| Some(("pd.csi.storage.gke.io", text.to_owned()));
        assert_eq!(handle(zone("r-1-a")), pd("projects/UNSPECIFIED/zones/r-1-a/disks/d"));
        assert_eq!(handle(zone("r-1-a__r-1-b")), pd("projects/UNSPECIFIED/regions/r-1/disks/d"));
        assert_eq!(handle(json!({"spec": {"nfs": {"server": "s", "path": "/"}}})), None);
    }

    #[test]
    fn zones_are_told_by_the_drivers_label() {
        let on = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let of_affinity = volume(json!({"spec": {
            "awsElasticBlockStore": {"volumeID": "v"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "failure-domain.beta.kubernetes.io/zone", "operator": "In", "values": ["a"]},
            ]}]}},
        }}));
        let of_labels = volume(json!({
            "metadata": {"labels": {"topology.kubernetes.io/zone": "a"}},
            "spec": {"awsElasticBlockStore": {"volumeID": "v"}},
        }));
        for volume in [of_affinity, of_labels] {
            let terms = AWS_EBS.affinity(&volume).unwrap();
            assert!(terms[0].matches("n", &on("topology.ebs.csi.aws.com/zone", "a")));
            assert!(!terms[0].matches("n", &on("topology.ebs.csi.aws.com/zone", "b")));
            assert!(!terms[0].matches("n", &on("topology.kubernetes.io/zone", "a")));
        }
        assert_eq!(AWS_EBS.affinity(&volume(json!({"spec": {}}))), None);
    }
}
