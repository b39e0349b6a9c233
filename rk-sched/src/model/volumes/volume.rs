//! What scheduling asks of a PersistentVolume, read once per version.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec},
    apimachinery::pkg::api::resource::Quantity as RawQuantity,
};
use rk_api::{LabelSelector, Quantity};

use super::{super::NodeTerm, CsiNode, migration::InTreePlugin, zones::Place};

/// What tells two volumes of a driver apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Handle {
    /// The driver's own handle.
    Volume(Arc<str>),
    /// Namespace and name of a claim that has no volume yet.
    Claim(Arc<str>, Arc<str>),
}

/// A volume as its driver knows it: pods that use the same one use one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct VolumeId {
    /// The CSI driver.
    pub(crate) driver: Arc<str>,
    /// Which of the driver's volumes.
    pub(crate) handle: Handle,
}

impl VolumeId {
    /// A volume by its driver's handle.
    pub(crate) fn new(driver: &str, handle: &str) -> Self {
        Self { driver: Arc::from(driver), handle: Handle::Volume(Arc::from(handle)) }
    }
}

/// What is behind a volume.
#[derive(Debug)]
pub(crate) enum Source {
    /// A CSI driver.
    Csi(VolumeId),
    /// A plugin in whose place a CSI driver is on nodes that have migrated it; the driver's id, and the affinity in the driver's labels.
    InTree(&'static InTreePlugin, VolumeId, Option<Affinity>),
    /// Anything else; it counts towards no limit.
    Other,
}

/// Where a volume can be used: terms of which one has to match. Those that ask for values of one label, as most do, are looked up and not
/// tried one by one.
#[derive(Debug)]
pub(crate) struct Affinity {
    terms: Vec<NodeTerm>,
    /// The values of each label that terms ask for which ask for nothing else.
    by_label: BTreeMap<String, HashSet<String>>,
    /// The places of the other terms.
    others: Vec<usize>,
}

impl Affinity {
    pub(super) fn new(terms: Vec<NodeTerm>) -> Self {
        let mut by_label: BTreeMap<String, HashSet<String>> = BTreeMap::new();
        let mut others = Vec::new();
        for (at, term) in terms.iter().enumerate() {
            match term.one_label() {
                Some((label, values)) => {
                    by_label.entry(label.to_owned()).or_default().extend(values.iter().cloned());
                }
                None => others.push(at),
            }
        }
        Self { terms, by_label, others }
    }

    /// The terms.
    pub(super) fn terms(&self) -> &[NodeTerm] {
        &self.terms
    }

    /// Whether a node of this name and these labels matches.
    fn allows(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let has = |(label, values): (&String, &HashSet<String>)| labels.get(label).is_some_and(|v| values.contains(v));
        self.by_label.iter().any(has) || self.others.iter().any(|at| self.terms[*at].matches(name, labels))
    }
}

/// A PersistentVolume with what plugins ask of it, computed once.
#[derive(Debug)]
pub struct VolumeInfo {
    /// The volume.
    pub volume: Arc<PersistentVolume>,
    /// Its name.
    pub name: Arc<str>,
    /// Its storage class, empty for none.
    pub class: String,
    /// Bytes that it holds.
    pub capacity: i64,
    pub(crate) affinity: Option<Affinity>,
    pub(crate) source: Source,
    pub(crate) places: Vec<Place>,
}

/// The bytes of `storage` in a list of resources.
pub(super) fn storage(list: Option<&BTreeMap<String, RawQuantity>>) -> Option<i64> {
    list?.get("storage")?.0.parse::<Quantity>().ok().map(|quantity| quantity.value())
}

/// The storage class that the beta annotation or else the spec names, empty for none (`GetPersistentVolumeClass`).
pub(super) fn class_name<'a>(annotations: Option<&'a BTreeMap<String, String>>, spec: Option<&'a String>) -> &'a str {
    let annotated = annotations.and_then(|annotations| annotations.get("volume.beta.kubernetes.io/storage-class"));
    annotated.or(spec).map_or("", String::as_str)
}

impl VolumeInfo {
    /// Reads a volume.
    pub fn new(volume: Arc<PersistentVolume>) -> Self {
        let spec = volume.spec.as_ref();
        let required = spec.and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
        let class = class_name(volume.metadata.annotations.as_ref(), spec.and_then(|s| s.storage_class_name.as_ref()));
        let source = match spec.and_then(|spec| spec.csi.as_ref()) {
            Some(csi) if csi.volume_handle.is_empty() => Source::Other,
            Some(csi) => Source::Csi(VolumeId::new(&csi.driver, &csi.volume_handle)),
            None => InTreePlugin::of_volume(&volume).map_or(Source::Other, |(plugin, handle)| {
                Source::InTree(
                    plugin,
                    VolumeId::new(plugin.driver, &handle),
                    plugin.affinity(&volume).map(Affinity::new),
                )
            }),
        };
        Self {
            name: Arc::from(volume.metadata.name.as_deref().unwrap_or_default()),
            class: class.to_owned(),
            capacity: storage(spec.and_then(|spec| spec.capacity.as_ref())).unwrap_or(0),
            affinity: required.map(|required| Affinity::new(NodeTerm::all(&required.node_selector_terms))),
            source,
            places: volume.metadata.labels.as_ref().map(Place::all).unwrap_or_default(),
            volume,
        }
    }

    fn spec(&self) -> Option<&PersistentVolumeSpec> {
        self.volume.spec.as_ref()
    }

    /// The claim that it is bound to or kept for.
    pub fn claim(&self) -> Option<&ObjectReference> {
        self.spec()?.claim_ref.as_ref()
    }

    /// Whether it is bound to this claim or kept for it (`IsVolumeBoundToClaim`).
    pub fn is_for(&self, claim: &PersistentVolumeClaim) -> bool {
        let Some(reference) = self.claim() else { return false };
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && reference.uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
    }

    /// Whether any claim may have it.
    pub(super) fn available(&self) -> bool {
        let phase = self.volume.status.as_ref().and_then(|status| status.phase.as_deref());
        self.claim().is_none() && self.volume.metadata.deletion_timestamp.is_none() && phase == Some("Available")
    }

    /// Whether it can be used only on nodes that its affinity names.
    pub(crate) fn is_bound_to_nodes(&self) -> bool {
        self.affinity.is_some() || matches!(&self.source, Source::InTree(_, _, Some(_)))
    }

    /// Whether it can be used on a node of this name and these labels, as its own affinity has it.
    pub(crate) fn is_usable_on(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.affinity.as_ref().is_none_or(|affinity| affinity.allows(name, labels))
    }

    /// The same, in the labels of the CSI driver where the node uses that in the plugin's place.
    pub(crate) fn is_usable_with(&self, csi: Option<&CsiNode>, name: &str, labels: &BTreeMap<String, String>) -> bool {
        match &self.source {
            Source::InTree(plugin, _, affinity) if csi.is_some_and(|csi| csi.migrates(plugin)) => {
                affinity.as_ref().is_none_or(|affinity| affinity.allows(name, labels))
            }
            _ => self.is_usable_on(name, labels),
        }
    }

    /// Whether it has what a claim with this selector asks for, but for its size, its class and where it can be used.
    pub(crate) fn suits(&self, claim: &PersistentVolumeClaim, selector: &LabelSelector) -> bool {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let (Some(has), Some(wants)) = (self.spec(), claim.spec.as_ref()) else { return false };
        let modes = has.access_modes.as_deref().unwrap_or_default();
        wants.access_modes.iter().flatten().all(|mode| modes.contains(mode))
            && self.is_alike(claim)
            && selector.matches(self.volume.metadata.labels.as_ref().unwrap_or(&NONE))
    }

    /// Whether volume mode and VolumeAttributesClass are those that a claim asks for: what even a volume that is kept for it has to have.
    pub(crate) fn is_alike(&self, claim: &PersistentVolumeClaim) -> bool {
        let (Some(has), Some(wants)) = (self.spec(), claim.spec.as_ref()) else { return false };
        let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
        let attributes = |class: &Option<String>| class.clone().unwrap_or_default();
        mode(&has.volume_mode) == mode(&wants.volume_mode)
            && attributes(&has.volume_attributes_class_name) == attributes(&wants.volume_attributes_class_name)
    }
}
