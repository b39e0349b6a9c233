//! What clients are told of volumes, claims and classes that are valid all the same.

use serde_json::Value;

use crate::server::kinds::{
    field::Path,
    pod::warnings::volume_source,
    value::Peek,
    warn::{self, Warnings},
};

/// Of a claim.
pub fn claim(claim: &Value, _: Option<&Value>, warnings: &mut Warnings) {
    old_class(claim, warnings);
    claim_spec(claim.at("spec"), &Path::Root.child("spec"), warnings);
}

/// Of a claim's spec, wherever it occurs.
pub fn claim_spec(spec: &Value, path: &Path<'_>, warnings: &mut Warnings) {
    let path = path.child("resources");
    for list in ["requests", "limits"] {
        warn::fractions(spec.at("resources").at(list), &["storage"], &path.child(list), warnings);
    }
}

/// Of a volume.
pub fn volume(volume: &Value, _: Option<&Value>, warnings: &mut Warnings) {
    let (spec, path) = (volume.at("spec"), Path::Root.child("spec"));
    old_class(volume, warnings);
    if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        let text = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic \
                    provisioning.";
        warnings.at(&path.child("persistentVolumeReclaimPolicy"), text);
    }
    let terms = path.child("nodeAffinity.required.nodeSelectorTerms");
    for (i, term) in spec.list("nodeAffinity.required.nodeSelectorTerms").iter().enumerate() {
        warn::node_term(term, &terms.index(i), warnings);
    }
    volume_source(spec, &path, warnings);
    warn::fractions(spec.at("capacity"), &["storage"], &path.child("capacity"), warnings);
}

/// Of a class.
pub fn class(class: &Value, _: Option<&Value>, warnings: &mut Warnings) {
    let path = Path::Root.child("allowedTopologies");
    for (i, term) in class.list("allowedTopologies").iter().enumerate() {
        warn::node_requirements(term, "matchLabelExpressions", &path.index(i), warnings);
    }
}

/// Of the annotation that named the class before there was a field for it.
fn old_class(object: &Value, warnings: &mut Warnings) {
    let key = "volume.beta.kubernetes.io/storage-class";
    if object.at("metadata.annotations").get(key).is_some() {
        let path = Path::Root.child("metadata.annotations");
        warnings.at(&path.key(key), "deprecated since v1.8; use \"storageClassName\" attribute instead");
    }
}
