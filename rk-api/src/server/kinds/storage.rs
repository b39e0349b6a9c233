//! Persistent volumes and the claims on them.

use serde_json::Value;

use super::{
    field::{Errors, Path},
    pod,
    rules::Rules,
    selector,
    value::{Peek, fill, object_mut},
};

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// The rules of PersistentVolumeClaims.
pub const CLAIM: Rules =
    Rules { default: default_claim, create: create_claim, validate: validate_claim, has_status: true, ..Rules::NONE };

fn default_claim(claim: &mut Value) {
    if let Some(spec) = object_mut(claim, "spec") {
        fill(spec, "volumeMode", "Filesystem");
    }
}

fn create_claim(claim: &mut Value) {
    if let Some(status) = object_mut(claim, "status") {
        fill(status, "phase", "Pending");
    }
}

fn validate_claim(claim: &Value, errors: &mut Errors) {
    claim_spec(claim.at("spec"), &Path::Root.child("spec"), errors);
}

/// The rules of a claim's spec, wherever it occurs.
pub fn claim_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let modes = spec.list("accessModes");
    if modes.is_empty() {
        errors.required(&path.child("accessModes"), "at least 1 access mode is required");
    }
    access_modes(modes, &path.child("accessModes"), errors);
    selector::validate(spec.at("selector"), &path.child("selector"), errors);
    let requests = path.child("resources");
    match spec.at("resources.requests").get("storage") {
        None => errors.required(&requests.key("storage"), ""),
        Some(value) => {
            let path = requests.key("storage");
            if pod::quantity(value, &path, errors).is_some_and(|quantity| quantity.is_zero()) {
                errors.invalid(&path, value, "must be greater than zero");
            }
        }
    }
    errors.one_of(&path.child("volumeMode"), spec.text("volumeMode"), &["Block", "Filesystem"]);
}

/// The rules of a list of access modes.
fn access_modes(modes: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for mode in modes.iter().filter_map(Value::as_str) {
        errors.one_of(path, mode, ACCESS_MODES);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}
