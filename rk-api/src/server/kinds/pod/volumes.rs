//! The rules of volumes and of their mounts.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{env, resources};
use crate::server::kinds::{
    field::{Errors, Path},
    names,
    value::Peek,
};

/// The fields of a pod that a file may show.
const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const HOST_PATH_TYPES: &[&str] =
    &["BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// The rules of the volumes of a pod's spec; returns them by name.
pub fn validate<'a>(volumes: &'a [Value], path: &Path<'_>, errors: &mut Errors) -> HashMap<&'a str, &'a Value> {
    let mut seen = HashMap::new();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let name = volume.text("name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            let wrong = names::dns_label(name);
            let good = wrong.is_empty();
            errors.invalid_all(&path.child("name"), name, wrong);
            if seen.insert(name, volume).is_some() && good {
                errors.duplicate(&path.child("name"), name);
            }
        }
        let sources =
            volume.as_object().into_iter().flatten().filter(|(key, value)| *key != "name" && !value.is_null());
        let mut count = 0;
        for (kind, value) in sources {
            count += 1;
            let path = path.child(kind);
            if count > 1 {
                errors.forbidden(&path, "may not specify more than 1 volume type");
            } else {
                source(kind, value, &path, errors);
            }
        }
        if count == 0 {
            errors.required(&path, "must specify a volume type");
        }
    }
    seen
}

fn source(kind: &str, source: &Value, path: &Path<'_>, errors: &mut Errors) {
    match kind {
        "emptyDir" if source.has("sizeLimit") => {
            resources::quantity(source.at("sizeLimit"), &path.child("sizeLimit"), errors);
        }
        "hostPath" => {
            let host = source.text("path");
            if host.is_empty() {
                errors.required(&path.child("path"), "");
            } else if host.split('/').any(|part| part == "..") {
                errors.invalid(&path.child("path"), host, "must not contain '..'");
            }
            errors.one_of(&path.child("type"), source.text("type"), HOST_PATH_TYPES);
        }
        "secret" => named_files(source, "secretName", path, errors),
        "configMap" => named_files(source, "name", path, errors),
        "downwardAPI" => {
            mode(source.int("defaultMode"), &path.child("defaultMode"), errors);
            downward(source, path, errors);
        }
        "projected" => projected(source, path, errors),
        "persistentVolumeClaim" => required(source, &["claimName"], path, errors),
        "nfs" => {
            required(source, &["server", "path"], path, errors);
            let export = source.text("path");
            if !export.is_empty() && !export.starts_with('/') {
                errors.invalid(&path.child("path"), export, "must be an absolute path");
            }
        }
        "csi" => required(source, &["driver"], path, errors),
        "image" => {
            required(source, &["reference"], path, errors);
            errors.one_of(&path.child("pullPolicy"), source.text("pullPolicy"), &["Always", "IfNotPresent", "Never"]);
        }
        "ephemeral" => {
            let template = path.child("volumeClaimTemplate");
            if source.has("volumeClaimTemplate") {
                let spec = template.child("spec");
                crate::server::kinds::storage::claim_spec(source.at("volumeClaimTemplate.spec"), &spec, errors);
            } else {
                errors.required(&template, "");
            }
        }
        _ => {}
    }
}

fn required(source: &Value, fields: &[&str], path: &Path<'_>, errors: &mut Errors) {
    for field in fields {
        if source.text(field).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
}

fn mode(mode: Option<i64>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid(path, &mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn named_files(source: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    required(source, &[name], path, errors);
    mode(source.int("defaultMode"), &path.child("defaultMode"), errors);
    items(source, path, errors);
}

fn items(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.child("items");
    for (i, item) in source.list("items").iter().enumerate() {
        let path = list.index(i);
        required(item, &["key", "path"], &path, errors);
        relative(item.text("path"), true, &path.child("path"), errors);
        mode(item.int("mode"), &path.child("mode"), errors);
    }
}

fn downward(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.child("items");
    for (i, item) in source.list("items").iter().enumerate() {
        let path = list.index(i);
        required(item, &["path"], &path, errors);
        relative(item.text("path"), true, &path.child("path"), errors);
        match (item.has("fieldRef"), item.has("resourceFieldRef")) {
            (true, true) => {
                errors.invalid(&path, item, "fieldRef and resourceFieldRef can not be specified simultaneously")
            }
            (true, false) => env::field_ref(item.at("fieldRef"), FILE_FIELDS, &path.child("fieldRef"), errors),
            (false, true) => {
                env::resource_ref(item.at("resourceFieldRef"), true, &path.child("resourceFieldRef"), errors)
            }
            (false, false) => errors.required(&path, "one of fieldRef and resourceFieldRef is required"),
        }
        mode(item.int("mode"), &path.child("mode"), errors);
    }
}

fn projected(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    mode(source.int("defaultMode"), &path.child("defaultMode"), errors);
    let list = path.child("sources");
    let mut paths = HashSet::new();
    for (i, part) in source.list("sources").iter().enumerate() {
        let path = list.index(i);
        let kinds =
            ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
        let given: Vec<_> = kinds.into_iter().filter(|kind| part.has(kind)).collect();
        for (n, kind) in given.iter().enumerate() {
            let (value, path) = (part.at(kind), path.child(kind));
            if n > 0 {
                errors.forbidden(&path, "may not specify more than 1 volume type per source");
                continue;
            }
            match *kind {
                "secret" | "configMap" => {
                    required(value, &["name"], &path, errors);
                    items(value, &path, errors);
                }
                "downwardAPI" => downward(value, &path, errors),
                "serviceAccountToken" => {
                    let seconds = value.int("expirationSeconds").unwrap_or(0);
                    if seconds < 600 {
                        errors.invalid(
                            &path.child("expirationSeconds"),
                            &seconds,
                            "may not specify a duration less than 10 minutes",
                        );
                    } else if seconds > 1 << 32 {
                        errors.invalid(
                            &path.child("expirationSeconds"),
                            &seconds,
                            "may not specify a duration larger than 2^32 seconds",
                        );
                    }
                    required(value, &["path"], &path, errors);
                    relative(value.text("path"), true, &path.child("path"), errors);
                }
                _ => relative(value.text("path"), true, &path.child("path"), errors),
            }
            let files = value.list("items").iter().map(|item| item.text("path")).chain([value.text("path")]);
            for file in files.filter(|file| !file.is_empty()) {
                if !paths.insert(file) {
                    errors.invalid(&path, file, "conflicting duplicate paths");
                }
            }
        }
        if given.is_empty() {
            errors.required(&path, "must specify a volume type");
        }
    }
}

/// A path inside a volume: relative, without `..`, and for the files a volume makes not starting with it either.
fn relative(file: &str, made: bool, path: &Path<'_>, errors: &mut Errors) {
    if file.starts_with('/') {
        errors.invalid(path, file, "must be a relative path");
    }
    if file.split('/').any(|part| part == "..") {
        errors.invalid(path, file, "must not contain '..'");
    } else if made && file.starts_with("..") {
        errors.invalid(path, file, "must not start with '..'");
    }
}

/// The rules of a container's mounts and block devices.
pub fn mounts(container: &Value, volumes: &HashMap<&str, &Value>, path: &Path<'_>, errors: &mut Errors) {
    let list = path.child("volumeMounts");
    let mut seen = HashSet::new();
    for (i, mount) in container.list("volumeMounts").iter().enumerate() {
        let path = list.index(i);
        let (name, place) = (mount.text("name"), mount.text("mountPath"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if !volumes.contains_key(name) {
            errors.not_found(&path.child("name"), name);
        }
        if place.is_empty() {
            errors.required(&path.child("mountPath"), "");
        } else if !seen.insert(place) {
            errors.invalid(&path.child("mountPath"), place, "must be unique");
        }
        // Kubernetes names these fields without the index of the mount.
        relative(mount.text("subPath"), false, &list.child("subPath"), errors);
        if !mount.text("subPathExpr").is_empty() {
            if !mount.text("subPath").is_empty() {
                errors.invalid(
                    &path.child("subPathExpr"),
                    mount.text("subPathExpr"),
                    "subPathExpr and subPath are mutually exclusive",
                );
            }
            relative(mount.text("subPathExpr"), false, &list.child("subPathExpr"), errors);
        }
        propagation(mount.text("mountPropagation"), container, &list.child("mountPropagation"), errors);
        read_only(mount, &path.child("recursiveReadOnly"), errors);
    }
    let list = path.child("volumeDevices");
    let mut devices = HashSet::new();
    for (i, device) in container.list("volumeDevices").iter().enumerate() {
        let path = list.index(i);
        let (name, place) = (device.text("name"), device.text("devicePath"));
        match volumes.get(name) {
            _ if name.is_empty() => errors.required(&path.child("name"), ""),
            None => errors.not_found(&path.child("name"), name),
            Some(volume) if !volume.has("persistentVolumeClaim") && !volume.has("ephemeral") => errors.invalid(
                &path.child("name"),
                name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
            Some(_) => {}
        }
        if place.is_empty() {
            errors.required(&path.child("devicePath"), "");
        } else if seen.contains(place) {
            errors.invalid(&path.child("devicePath"), place, "must not already exist in volumeMounts");
        } else if !devices.insert(place) {
            errors.invalid(&path.child("devicePath"), place, "must be unique");
        }
    }
}

fn propagation(mode: &str, container: &Value, path: &Path<'_>, errors: &mut Errors) {
    errors.one_of(path, mode, &["Bidirectional", "HostToContainer", "None"]);
    if mode == "Bidirectional" && !container.flag("securityContext.privileged") {
        errors.forbidden(path, "Bidirectional mount propagation is available only to privileged containers");
    }
}

fn read_only(mount: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mode = mount.text("recursiveReadOnly");
    errors.one_of(path, mode, &["Disabled", "Enabled", "IfPossible"]);
    if matches!(mode, "Enabled" | "IfPossible") && !mount.flag("readOnly") {
        errors.forbidden(path, "may only be specified when readOnly is true");
    }
}
