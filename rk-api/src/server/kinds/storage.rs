//! Persistent volumes, the claims on them, and classes of storage.

pub mod warnings;

use serde_json::{Value, json};

use super::{
    cells::{AGE, NAME, column, wide},
    field::{Errors, Path},
    names, pod,
    pod::node_selector,
    rules::Rules,
    selector,
    value::{Peek, at_mut, fill, object_mut, same, set},
};
use crate::server::{Column, UserInfo};

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// The most parameters of a class.
const PARAMETERS: usize = 512;
/// The most bytes of them.
const PARAMETERS_LIMIT: usize = 256 << 10;

/// The rules of PersistentVolumeClaims.
pub const CLAIM: Rules = Rules {
    default: |claim| {
        if let Some(spec) = object_mut(claim, "spec") {
            fill(spec, "volumeMode", "Filesystem");
        }
    },
    create: |claim, _: &UserInfo| set(claim, "status", json!({"phase": "Pending"})),
    validate: |claim, errors| claim_spec(claim.at("spec"), &Path::Root.child("spec"), errors),
    validate_change: change_claim,
    warn: warnings::claim,
    has_status: true,
    ..Rules::NONE
};

/// The rules of PersistentVolumes.
pub const VOLUME: Rules = Rules {
    default: default_volume,
    create: |volume, _: &UserInfo| set(volume, "status", json!({"phase": "Pending"})),
    validate: validate_volume,
    validate_change: change_volume,
    warn: warnings::volume,
    has_status: true,
    ..Rules::NONE
};

/// The rules of StorageClasses.
pub const CLASS: Rules = Rules {
    default: |class| {
        fill(class, "reclaimPolicy", "Delete");
        fill(class, "volumeBindingMode", "Immediate");
    },
    validate: validate_class,
    validate_change: change_class,
    warn: warnings::class,
    ..Rules::NONE
};

/// The columns of PersistentVolumeClaims.
pub fn claim_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Status", "string", |claim| phase(claim).into()),
        column("Volume", "string", |claim| claim.text("spec.volumeName").into()),
        column("Capacity", "string", |claim| {
            if claim.text("spec.volumeName").is_empty() { "" } else { claim.text("status.capacity.storage") }.into()
        }),
        column("Access Modes", "string", |claim| {
            if claim.text("spec.volumeName").is_empty() { "".into() } else { modes(claim.list("status.accessModes")) }
        }),
        column("StorageClass", "string", |claim| claim.text("spec.storageClassName").into()),
        column("VolumeAttributesClass", "string", attributes_class),
        AGE,
        wide("VolumeMode", "string", volume_mode),
    ]
}

/// The columns of PersistentVolumes.
pub fn volume_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Capacity", "string", |volume| volume.text("spec.capacity.storage").into()),
        column("Access Modes", "string", |volume| modes(volume.list("spec.accessModes"))),
        column("Reclaim Policy", "string", |volume| volume.text("spec.persistentVolumeReclaimPolicy").into()),
        column("Status", "string", |volume| phase(volume).into()),
        column("Claim", "string", |volume| match volume.at("spec.claimRef") {
            Value::Null => "".into(),
            claim => format!("{}/{}", claim.text("namespace"), claim.text("name")).into(),
        }),
        column("StorageClass", "string", |volume| volume.text("spec.storageClassName").into()),
        column("VolumeAttributesClass", "string", attributes_class),
        column("Reason", "string", |volume| volume.text("status.reason").into()),
        AGE,
        wide("VolumeMode", "string", volume_mode),
    ]
}

/// The columns of StorageClasses.
pub fn class_columns() -> Vec<Column> {
    vec![
        Column { cell: class_name, ..NAME },
        column("Provisioner", "string", |class| class.text("provisioner").into()),
        column("ReclaimPolicy", "string", |class| class.text("reclaimPolicy").into()),
        column("VolumeBindingMode", "string", |class| class.text("volumeBindingMode").into()),
        column("AllowVolumeExpansion", "string", |class| class.flag("allowVolumeExpansion").into()),
        AGE,
    ]
}

fn class_name(class: &Value) -> Value {
    let default = class.at("metadata.annotations").get("storageclass.kubernetes.io/is-default-class");
    let mark = if default.is_some_and(|value| value == "true") { " (default)" } else { "" };
    format!("{}{mark}", class.text("metadata.name")).into()
}

fn phase(object: &Value) -> &str {
    if object.has("metadata.deletionTimestamp") { "Terminating" } else { object.text("status.phase") }
}

fn attributes_class(object: &Value) -> Value {
    match object.text("spec.volumeAttributesClassName") {
        "" => "<unset>".into(),
        class => class.into(),
    }
}

fn volume_mode(object: &Value) -> Value {
    match object.text("spec.volumeMode") {
        "" => "<unset>".into(),
        mode => mode.into(),
    }
}

fn modes(modes: &[Value]) -> Value {
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let present = short.iter().filter(|(mode, _)| modes.iter().any(|value| value == mode));
    present.map(|(_, short)| *short).collect::<Vec<_>>().join(",").into()
}

/// The rules of a claim's spec, wherever it occurs.
pub fn claim_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    access_modes(spec.list("accessModes"), "at least 1 access mode is required", &path.child("accessModes"), errors);
    selector::validate(spec.at("selector"), &path.child("selector"), errors);
    let resources = path.child("resources");
    match spec.at("resources.requests").get("storage") {
        None => errors.required(&resources.key("storage"), ""),
        Some(value) => positive(value, &resources.key("storage"), errors),
    }
    errors.one_of(&path.child("volumeMode"), spec.text("volumeMode"), &["Block", "Filesystem"]);
    let class = spec.text("storageClassName");
    if !class.is_empty() {
        errors.invalid_all(&path.child("storageClassName"), class, names::dns_subdomain(class));
    }
}

fn positive(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    if pod::quantity(value, path, errors).is_some_and(|quantity| quantity.is_zero()) {
        errors.invalid(path, value, "must be greater than zero");
    }
}

/// The rules of a list of access modes.
fn access_modes(modes: &[Value], missing: &str, path: &Path<'_>, errors: &mut Errors) {
    if modes.is_empty() {
        errors.required(path, missing);
    }
    for mode in modes.iter().filter_map(Value::as_str) {
        errors.one_of(path, mode, ACCESS_MODES);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// A claim stays as it was made, but for the volume it gets and what it requests once it has one.
fn change_claim(new: &Value, old: &Value, subresource: &str, errors: &mut Errors) {
    if !subresource.is_empty() {
        return;
    }
    let (mut after, before) = (new.at("spec").clone(), old.at("spec"));
    if before.text("volumeName").is_empty() {
        set(&mut after, "volumeName", before.at("volumeName").clone());
    }
    if old.text("status.phase") == "Bound" {
        if let Some(resources) = object_mut(&mut after, "resources") {
            set(resources, "requests", before.at("resources.requests").clone());
        }
        set(&mut after, "volumeAttributesClassName", before.at("volumeAttributesClassName").clone());
    }
    if before.text("storageClassName").is_empty() && !before.has("storageClassName") {
        set(&mut after, "storageClassName", Value::Null);
    }
    let path = Path::Root.child("spec");
    if !same(&after, before) {
        errors.forbidden(
            &path,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
    let size = |claim: &Value| claim.text("spec.resources.requests.storage").parse::<crate::Quantity>().ok();
    let capacity = old.text("status.capacity.storage").parse::<crate::Quantity>().ok();
    if let (Some(after), Some(before)) = (size(new), size(old))
        && after < before
        && capacity.is_none_or(|capacity| after <= capacity)
    {
        errors.forbidden(&path.child("resources.requests.storage"), "field can not be less than status.capacity");
    }
}

/// The fields of a volume's spec that are not its source.
const NOT_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn default_volume(volume: &mut Value) {
    if let Some(spec) = object_mut(volume, "spec") {
        fill(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill(spec, "volumeMode", "Filesystem");
        if let Some(host) = at_mut(spec, "hostPath") {
            fill(host, "type", "");
        }
    }
}

fn validate_volume(volume: &Value, errors: &mut Errors) {
    let (spec, path) = (volume.at("spec"), Path::Root.child("spec"));
    access_modes(spec.list("accessModes"), "", &path.child("accessModes"), errors);
    let capacity = path.child("capacity");
    let amounts = spec.at("capacity").as_object().filter(|map| !map.is_empty());
    match amounts {
        None => errors.required(&capacity, ""),
        Some(map) if map.len() > 1 || !map.contains_key("storage") => {
            errors.not_supported(&capacity, spec.at("capacity"), &["storage"]);
        }
        Some(map) => map.values().for_each(|value| positive(value, &capacity.key("storage"), errors)),
    }
    errors.one_of(
        &path.child("persistentVolumeReclaimPolicy"),
        spec.text("persistentVolumeReclaimPolicy"),
        &["Delete", "Recycle", "Retain"],
    );
    errors.one_of(&path.child("volumeMode"), spec.text("volumeMode"), &["Block", "Filesystem"]);
    let fields = spec.as_object().into_iter().flatten();
    let sources: Vec<_> = fields
        .filter(|(key, value)| !value.is_null() && !NOT_SOURCES.contains(&key.as_str()))
        .map(|(key, _)| key)
        .collect();
    if sources.is_empty() {
        errors.required(&path, "must specify a volume type");
    }
    for extra in sources.iter().skip(1) {
        errors.forbidden(&path.child(extra), "may not specify more than 1 volume type");
    }
    if spec.has("csi") {
        super::csi::source(spec.at("csi"), &path.child("csi"), errors);
    }
    if spec.has("hostPath") {
        let host = spec.text("hostPath.path");
        if host.is_empty() {
            errors.required(&path.child("hostPath.path"), "");
        } else if host.split('/').any(|part| part == "..") {
            errors.invalid(&path.child("hostPath.path"), host, "must not contain '..'");
        }
    }
    if spec.has("local") {
        if spec.text("local.path").is_empty() {
            errors.required(&path.child("local.path"), "");
        }
        if !spec.has("nodeAffinity") {
            errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if spec.has("nodeAffinity") {
        let path = path.child("nodeAffinity.required");
        if spec.has("nodeAffinity.required") {
            node_selector(spec.at("nodeAffinity.required"), &path, errors);
        } else {
            errors.required(&path, "must specify required node constraints");
        }
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() {
        errors.invalid_all(&path.child("storageClassName"), class, names::dns_subdomain(class));
    }
}

fn change_volume(new: &Value, old: &Value, subresource: &str, errors: &mut Errors) {
    if !subresource.is_empty() {
        return;
    }
    let (after, before, path) = (new.at("spec"), old.at("spec"), Path::Root.child("spec"));
    let sources = |spec: &Value| {
        let mut map = spec.as_object().cloned().unwrap_or_default();
        map.retain(|key, value| !value.is_null() && !NOT_SOURCES.contains(&key.as_str()));
        Value::Object(map)
    };
    if !same(&sources(after), &sources(before)) {
        errors.forbidden(
            &path.child("persistentvolumesource"),
            "spec.persistentvolumesource is immutable after creation",
        );
    }
    errors.immutable(&path.child("volumeMode"), after.at("volumeMode"), before.at("volumeMode"));
    if before.has("nodeAffinity") {
        errors.immutable(&path.child("nodeAffinity"), after.at("nodeAffinity"), before.at("nodeAffinity"));
    }
}

/// The rules of the name of who makes volumes.
pub fn provisioner(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
    } else {
        errors.invalid_all(path, name, names::qualified_name(&name.to_ascii_lowercase()));
    }
}

/// The rules of an object's `parameters`.
pub fn parameters(object: &Value, errors: &mut Errors) {
    let path = Path::Root.child("parameters");
    if object.entries("parameters").count() > PARAMETERS {
        errors.too_long(&path, PARAMETERS);
        return;
    }
    if object.entries("parameters").any(|(key, _)| key.is_empty()) {
        errors.invalid(&path, "", "field must not be empty.");
    }
    let sizes = object.entries("parameters").map(|(key, value)| key.len() + value.as_str().map_or(0, str::len));
    if sizes.sum::<usize>() > PARAMETERS_LIMIT {
        errors.too_long(&path, PARAMETERS_LIMIT);
    }
}

fn validate_class(class: &Value, errors: &mut Errors) {
    provisioner(class.text("provisioner"), &Path::Root.child("provisioner"), errors);
    parameters(class, errors);
    errors.required_one_of(&Path::Root.child("reclaimPolicy"), class.text("reclaimPolicy"), &["Delete", "Retain"]);
    errors.required_one_of(
        &Path::Root.child("volumeBindingMode"),
        class.text("volumeBindingMode"),
        &["Immediate", "WaitForFirstConsumer"],
    );
}

fn change_class(new: &Value, old: &Value, _: &str, errors: &mut Errors) {
    for field in ["parameters", "provisioner", "reclaimPolicy"] {
        if !same(new.at(field), old.at(field)) {
            errors.forbidden(&Path::Root.child(field), &format!("updates to {field} are forbidden."));
        }
    }
    errors.immutable(&Path::Root.child("volumeBindingMode"), new.at("volumeBindingMode"), old.at("volumeBindingMode"));
}
