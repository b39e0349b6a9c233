//! APIServices: which server serves a group and version.

use serde_json::Value;

use super::{
    field::{Errors, Path},
    names,
    rules::Rules,
    value::{Peek, at_mut, fill, is_empty},
};

/// The rules of APIServices (kube-aggregator's `validation.go`).
pub const API_SERVICE: Rules = Rules {
    default: |service| {
        if let Some(reference) = at_mut(service, "spec.service").filter(|reference| reference.is_object()) {
            fill(reference, "port", 443);
        }
    },
    validate,
    has_status: true,
    ..Rules::NONE
};

fn validate(service: &Value, errors: &mut Errors) {
    let (spec, path) = (service.at("spec"), Path::Root.child("spec"));
    let (group, version) = (spec.text("group"), spec.text("version"));
    let (name, wanted) = (service.text("metadata.name"), format!("{version}.{group}"));
    if name != wanted {
        let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.invalid(&Path::Root.child("metadata.name"), name, &why);
    }
    if !group.is_empty() {
        errors.invalid_all(&path.child("group"), group, names::dns_subdomain(group));
    }
    errors.invalid_all(&path.child("version"), version, names::dns1035_label(version));
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
        let number = spec.int(field).unwrap_or_default();
        if number <= 0 || number > most {
            errors.invalid(&path.child(field), &number, &format!("must be positive and less than {most}"));
        }
    }
    let (authorities, insecure) = (!is_empty(spec.at("caBundle")), spec.flag("insecureSkipTLSVerify"));
    let reference = spec.at("service");
    if reference.is_null() {
        if authorities {
            errors.invalid(&path.child("caBundle"), "", "local APIServices may not have a caBundle");
        }
        if insecure {
            let why = "local APIServices may not have insecureSkipTLSVerify";
            errors.invalid(&path.child("insecureSkipTLSVerify"), &true, why);
        }
        return;
    }
    let place = path.child("service");
    for field in ["namespace", "name"] {
        if reference.text(field).is_empty() {
            errors.required(&place.child(field), "");
        }
    }
    if let Some(port) = reference.int("port")
        && let Some(why) = names::port_number(port)
    {
        errors.invalid(&place.child("port"), &port, why);
    }
    if authorities && insecure {
        let why = "may not be true if caBundle is present";
        errors.invalid(&path.child("insecureSkipTLSVerify"), &true, why);
    }
}
