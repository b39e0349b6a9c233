//! What CSI drivers say of themselves: drivers, their nodes, capacities, attachments, and classes of volumes' attributes.

use serde_json::{Value, json};

use super::{
    field::{Errors, Path},
    names, pod,
    rules::Rules,
    selector,
    storage::{parameters, provisioner},
    value::{Peek, fill, object_mut, remove, same, set},
};
use crate::server::UserInfo;

/// The longest name of a driver where another object names it.
const DRIVER_NAME_LIMIT: usize = 63;
/// The longest id that a driver may give a node.
const NODE_ID_LIMIT: usize = 192;
/// The least seconds between two looks at how many volumes a node takes.
const UPDATE_PERIOD: i64 = 10;
/// The lifetimes of tokens in seconds: ten minutes, and 2^32.
const TOKEN_SECONDS: (i64, i64) = (600, 1 << 32);
/// The most bytes of an attachment's metadata.
const METADATA_LIMIT: usize = 256 << 10;
/// The most bytes of an attachment's error.
const MESSAGE_LIMIT: usize = 1024;

/// The rules of CSIDrivers.
pub const DRIVER: Rules = Rules {
    default: default_driver,
    validate: validate_driver,
    validate_change: |new, old, _, errors| {
        let (new, old, path) = (new.at("spec"), old.at("spec"), Path::Root.child("spec"));
        // Kubernetes names the field so.
        errors.immutable(&path.child("attachedRequired"), new.at("attachRequired"), old.at("attachRequired"));
        let modes = "volumeLifecycleModes";
        errors.immutable(&path.child(modes), new.at(modes), old.at(modes));
    },
    ..Rules::NONE
};

/// The rules of CSINodes.
pub const NODE: Rules = Rules { validate: validate_node, validate_change: change_node, ..Rules::NONE };

/// The rules of CSIStorageCapacities.
pub const CAPACITY: Rules = Rules {
    validate: |capacity, errors| {
        selector::validate(capacity.at("nodeTopology"), &Path::Root.child("nodeTopology"), errors);
        let class = capacity.text("storageClassName");
        errors.invalid_all(&Path::Root.child("storageClassName"), class, names::dns_subdomain(class));
        if capacity.has("capacity") {
            pod::quantity(capacity.at("capacity"), &Path::Root.child("capacity"), errors);
        }
    },
    validate_change: |new, old, _, errors| {
        for field in ["nodeTopology", "storageClassName"] {
            errors.immutable(&Path::Root.child(field), new.at(field), old.at(field));
        }
    },
    ..Rules::NONE
};

/// The rules of VolumeAttachments.
pub const ATTACHMENT: Rules = Rules {
    create: |attachment, _: &UserInfo| set(attachment, "status", json!({"attached": false})),
    validate: |attachment, errors| attachment_spec(attachment.at("spec"), &Path::Root.child("spec"), errors),
    validate_new: |attachment, errors| {
        let (spec, path) = (attachment.at("spec"), Path::Root.child("spec"));
        driver_name(spec.text("attacher"), &path.child("attacher"), errors);
        let volume = spec.text("source.persistentVolumeName");
        if spec.has("source.persistentVolumeName") {
            errors.invalid_all(&path.child("source.persistentVolumeName"), volume, names::dns_subdomain(volume));
        }
    },
    validate_change: |new, old, _, errors| {
        attachment_status(new.at("status"), &Path::Root.child("status"), errors);
        errors.immutable(&Path::Root.child("spec"), new.at("spec"), old.at("spec"));
    },
    has_status: true,
    ..Rules::NONE
};

/// The rules of VolumeAttributesClasses.
pub const ATTRIBUTES_CLASS: Rules = Rules {
    validate: |class, errors| {
        provisioner(class.text("driverName"), &Path::Root.child("driverName"), errors);
        parameters(class, errors);
        if class.entries("parameters").next().is_none() {
            errors.required(&Path::Root.child("parameters"), "must contain at least one key/value pair");
        }
    },
    validate_change: |new, old, _, errors| {
        for field in ["driverName", "parameters"] {
            if !same(new.at(field), old.at(field)) {
                errors.forbidden(&Path::Root.child(field), &format!("updates to {field} are forbidden."));
            }
        }
    },
    ..Rules::NONE
};

fn default_driver(driver: &mut Value) {
    let Some(spec) = object_mut(driver, "spec") else { return };
    fill(spec, "attachRequired", true);
    for flag in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        fill(spec, flag, false);
    }
    fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.list("volumeLifecycleModes").is_empty() {
        set(spec, "volumeLifecycleModes", json!(["Persistent"]));
    }
}

fn validate_driver(driver: &Value, errors: &mut Errors) {
    let (spec, path) = (driver.at("spec"), Path::Root.child("spec"));
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    errors.one_of(&path.child("fsGroupPolicy"), spec.text("fsGroupPolicy"), &policies);
    let requests = path.child("tokenRequests");
    let mut audiences = Vec::new();
    for (i, request) in spec.list("tokenRequests").iter().enumerate() {
        let (path, audience) = (requests.index(i), request.text("audience"));
        if audiences.contains(&audience) {
            errors.duplicate(&path.child("audience"), audience);
            continue;
        }
        audiences.push(audience);
        let (path, (least, most)) = (path.child("expirationSeconds"), TOKEN_SECONDS);
        match request.int("expirationSeconds") {
            Some(seconds) if seconds < least => {
                errors.invalid(&path, &seconds, "may not specify a duration less than 10 minutes");
            }
            Some(seconds) if seconds > most => {
                errors.invalid(&path, &seconds, "may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
    for mode in spec.list("volumeLifecycleModes").iter().filter_map(Value::as_str) {
        errors.one_of(&path.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
    }
    if let Some(period) = spec.int("nodeAllocatableUpdatePeriodSeconds").filter(|period| *period < UPDATE_PERIOD) {
        let path = path.child("nodeAllocatableUpdatePeriodSeconds");
        errors.invalid(&path, &period, "must be greater than or equal to 10 seconds");
    }
}

/// The rules of a driver's name where another object names it.
fn driver_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
    }
    if name.len() > DRIVER_NAME_LIMIT {
        errors.too_long(path, DRIVER_NAME_LIMIT);
    }
    errors.invalid_all(path, name, names::dns_subdomain(&name.to_ascii_lowercase()));
}

fn validate_node(node: &Value, errors: &mut Errors) {
    let spec = Path::Root.child("spec");
    let list = spec.child("drivers");
    let mut known = Vec::new();
    for (i, driver) in node.list("spec.drivers").iter().enumerate() {
        let (path, name, id) = (list.index(i), driver.text("name"), driver.text("nodeID"));
        driver_name(name, &path.child("name"), errors);
        if id.is_empty() {
            errors.required(&path.child("nodeID"), "");
        } else if id.len() > NODE_ID_LIMIT {
            errors.invalid(&path.child("nodeID"), id, &format!("must be {NODE_ID_LIMIT} characters or less"));
        }
        errors.non_negative(&path.child("allocatable.count"), driver.int("allocatable.count"));
        if known.contains(&name) {
            errors.duplicate(&path.child("name"), name);
        }
        known.push(name);
        let keys = driver.list("topologyKeys");
        for (i, key) in keys.iter().enumerate() {
            let text = key.as_str().unwrap_or_default();
            if text.is_empty() {
                errors.required(&path, "");
            }
            if keys[..i].contains(key) {
                errors.duplicate(&path, text);
            }
            errors.invalid_all(&path, text, names::qualified_name(text));
        }
    }
}

/// A driver may come and go; while it stays, only the number of volumes that the node takes changes.
fn change_node(new: &Value, old: &Value, _: &str, errors: &mut Errors) {
    let fixed = |driver: &Value| {
        let mut driver = driver.clone();
        remove(&mut driver, "allocatable");
        driver
    };
    for before in old.list("spec.drivers") {
        for after in new.list("spec.drivers").iter().filter(|after| after.text("name") == before.text("name")) {
            errors.immutable(&Path::Root.child("spec.drivers"), &fixed(after), &fixed(before));
        }
    }
}

fn attachment_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    if spec.text("attacher").is_empty() {
        errors.required(&path.child("attacher"), "");
    }
    let source = path.child("source");
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (spec.has("source.inlineVolumeSpec"), spec.has("source.persistentVolumeName")) {
        (false, false) => errors.required(&source, one),
        (true, true) => errors.forbidden(&source, one),
        (false, true) if spec.text("source.persistentVolumeName").is_empty() => {
            errors.required(&source.child("persistentVolumeName"), "must specify non empty persistentVolumeName");
        }
        (false, true) => {}
        (true, false) => inline(spec.at("source.inlineVolumeSpec"), &source.child("inlineVolumeSpec"), errors),
    }
    let node = spec.text("nodeName");
    errors.invalid_all(&path.child("nodeName"), node, names::dns_subdomain(node));
}

/// The rules of a PersistentVolume's `csi`.
pub(super) fn source(csi: &Value, path: &Path<'_>, errors: &mut Errors) {
    driver_name(csi.text("driver"), &path.child("driver"), errors);
    if csi.text("volumeHandle").is_empty() {
        errors.required(&path.child("volumeHandle"), "");
    }
    for secret in ["controllerPublish", "nodeStage", "nodePublish", "controllerExpand", "nodeExpand"] {
        let field = format!("{secret}SecretRef");
        for part in ["name", "namespace"] {
            if csi.has(&field) && csi.at(&field).text(part).is_empty() {
                errors.required(&path.child(&field).child(part), "");
            }
        }
    }
}

/// The rules of a PersistentVolume's spec that is no object of its own.
fn inline(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    const CONTEXT: &str = "in the context of inline volumes";
    for field in ["claimRef", "capacity", "nodeAffinity", "storageClassName"] {
        if spec.has(field) {
            errors.forbidden(&path.child(field), &format!("may not be specified {CONTEXT}"));
        }
    }
    if spec.has("csi") {
        source(spec.at("csi"), &path.child("csi"), errors);
    } else {
        errors.required(&path.child("csi"), &format!("has to be specified {CONTEXT}"));
    }
    if spec.list("accessModes").is_empty() {
        errors.required(&path.child("accessModes"), "");
    }
    let policy = spec.text("persistentVolumeReclaimPolicy");
    if !matches!(policy, "" | "Retain") {
        let path = path.child("persistentVolumeReclaimPolicy");
        errors.forbidden(&path, &format!("may only be \"Retain\" {CONTEXT}"));
    }
    if !matches!(spec.text("volumeMode"), "" | "Filesystem") {
        let why = format!("may not specify volumeMode other than \"Filesystem\" {CONTEXT}");
        errors.forbidden(&path.child("volumeMode"), &why);
    }
}

fn attachment_status(status: &Value, path: &Path<'_>, errors: &mut Errors) {
    let entries = status.entries("attachmentMetadata");
    if entries.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum::<usize>() > METADATA_LIMIT {
        errors.too_long(&path.child("attachmentMetadata"), METADATA_LIMIT);
    }
    for field in ["attachError", "detachError"] {
        let (error, path) = (status.at(field), path.child(field));
        if error.text("message").len() > MESSAGE_LIMIT {
            errors.too_long(&path.child("message"), METADATA_LIMIT);
        }
        if let Some(code) = error.int("errorCode").filter(|code| *code < 0) {
            errors.invalid(&path.child("errorCode"), &code, "must be between 0 and 2147483647, inclusive");
        }
    }
}
