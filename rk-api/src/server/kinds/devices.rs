//! Dynamic resource allocation: device classes, claims, their templates, and slices of devices
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/>, KEP-4381).

use std::collections::HashSet;

use serde_json::Value;

use super::{
    cells::{AGE, NAME, column},
    field::{Errors, Path},
    names,
    rules::Rules,
    value::{Peek, each_mut, fill, fill_zero},
};
use crate::server::{
    Column,
    cel::{
        batch,
        device::{MAX_SELECTOR, Wrong, check_selector},
    },
};

/// The most devices of a slice, requests of a claim, and selectors of a class or a request.
const MOST_DEVICES: usize = 128;
const MOST_REQUESTS: usize = 32;
const MOST_SELECTORS: usize = 32;

const MODES: [&str; 2] = ["All", "ExactCount"];

/// The rules of ResourceClaims.
pub const CLAIM: Rules = Rules {
    default: |claim| requests_mut(claim, "spec"),
    validate: |claim, errors| {
        let path = Path::Root.child("spec");
        validate_claim(claim.at("spec"), &path.child("devices"), errors);
    },
    // A claim's spec never changes.
    validate_new: |claim, errors| {
        let path = Path::Root.child("spec");
        claim_expressions(claim.at("spec"), &path.child("devices"), errors);
    },
    validate_change: |new, old, _, errors| {
        errors.immutable(&Path::Root.child("spec"), new.at("spec"), old.at("spec"));
    },
    has_status: true,
    ..Rules::NONE
};

/// The rules of ResourceClaimTemplates.
pub const TEMPLATE: Rules = Rules {
    default: |template| requests_mut(template, "spec.spec"),
    validate: |template, errors| {
        let path = Path::Root.child("spec");
        let path = path.child("spec");
        validate_claim(template.at("spec.spec"), &path.child("devices"), errors);
    },
    validate_new: |template, errors| {
        let path = Path::Root.child("spec");
        let path = path.child("spec");
        claim_expressions(template.at("spec.spec"), &path.child("devices"), errors);
    },
    validate_change: |new, old, _, errors| {
        errors.immutable(&Path::Root.child("spec"), new.at("spec"), old.at("spec"));
    },
    ..Rules::NONE
};

/// The rules of DeviceClasses.
pub const CLASS: Rules = Rules {
    validate: |class, errors| {
        let path = Path::Root.child("spec");
        selectors(class.list("spec.selectors"), &path.child("selectors"), errors);
    },
    validate_new: |class, errors| class_expressions(class, &[], errors),
    // What was stored before is not judged again.
    validate_change: |new, old, _, errors| class_expressions(new, old.list("spec.selectors"), errors),
    ..Rules::NONE
};

/// The rules of ResourceSlices.
pub const SLICE: Rules = Rules {
    validate: validate_slice,
    validate_change: |new, old, _, errors| {
        let path = Path::Root.child("spec");
        for field in ["driver", "nodeName"] {
            errors.immutable(&path.child(field), new.at("spec").at(field), old.at("spec").at(field));
        }
        errors.immutable(&path.child("pool").child("name"), new.at("spec.pool.name"), old.at("spec.pool.name"));
    },
    ..Rules::NONE
};

/// The fields of ResourceSlices that a field selector may name.
pub const SLICE_SELECTABLE: &[&str] = &["spec.driver", "spec.nodeName"];

/// The columns of ResourceClaims.
pub fn claim_columns() -> Vec<Column> {
    vec![NAME, column("State", "string", |claim| state(claim).into()), AGE]
}

/// The columns of DeviceClasses and ResourceClaimTemplates.
pub fn named_columns() -> Vec<Column> {
    vec![NAME, AGE]
}

/// The columns of ResourceSlices.
pub fn slice_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Node", "string", |slice| slice.text("spec.nodeName").into()),
        column("Driver", "string", |slice| slice.text("spec.driver").into()),
        column("Pool", "string", |slice| slice.text("spec.pool.name").into()),
        AGE,
    ]
}

/// What has become of a claim, in kubectl's words.
fn state(claim: &Value) -> String {
    let mut states = Vec::new();
    let deleted = !claim.at("metadata.deletionTimestamp").is_null();
    let allocated = !claim.at("status.allocation").is_null();
    if deleted {
        states.push("deleted");
    }
    if allocated {
        states.push("allocated");
    } else if !deleted {
        states.push("pending");
    }
    if !claim.list("status.reservedFor").is_empty() {
        states.push("reserved");
    }
    states.join(",")
}

/// One device unless a request says otherwise.
fn requests_mut(object: &mut Value, spec: &str) {
    let count = |request: &mut Value| {
        fill(request, "allocationMode", "ExactCount");
        if request["allocationMode"] == "ExactCount" {
            fill_zero(request, "count", 1);
        }
    };
    each_mut(object, &format!("{spec}.devices.requests"), |request| {
        if let Some(exactly) = request.get_mut("exactly") {
            count(exactly);
        }
        each_mut(request, "firstAvailable", count);
    });
}

fn validate_claim(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.child("requests");
    let requests = spec.list("devices.requests");
    if requests.len() > MOST_REQUESTS {
        errors.too_many(&list, requests.len(), MOST_REQUESTS);
    }
    let mut seen = HashSet::new();
    for (i, request) in requests.iter().enumerate() {
        let path = list.index(i);
        named(request, &path, &mut seen, errors);
        let (exactly, first) = (request.at("exactly"), request.list("firstAvailable"));
        match (exactly.is_null(), first.is_empty()) {
            (true, true) => errors.required(&path, "exactly one of `exactly` or `firstAvailable` is required"),
            (false, false) => errors.invalid(
                &path,
                "",
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
            ),
            (false, true) => exact(exactly, &path.child("exactly"), errors),
            (true, false) => {
                let list = path.child("firstAvailable");
                let mut seen = HashSet::new();
                for (i, request) in first.iter().enumerate() {
                    let path = list.index(i);
                    named(request, &path, &mut seen, errors);
                    exact(request, &path, errors);
                }
            }
        }
    }
}

/// A name that no other of the list has.
fn named<'a>(object: &'a Value, path: &Path<'_>, seen: &mut HashSet<&'a str>, errors: &mut Errors) {
    let (name, path) = (object.text("name"), path.child("name"));
    if name.is_empty() {
        errors.required(&path, "");
    } else {
        errors.invalid_all(&path, name, names::dns_label(name));
        if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
    }
}

fn exact(request: &Value, path: &Path<'_>, errors: &mut Errors) {
    let class = request.text("deviceClassName");
    if class.is_empty() {
        errors.required(&path.child("deviceClassName"), "");
    } else {
        errors.invalid_all(&path.child("deviceClassName"), class, names::dns_subdomain(class));
    }
    selectors(request.list("selectors"), &path.child("selectors"), errors);
    let mode = request.text("allocationMode");
    errors.one_of(&path.child("allocationMode"), mode, &MODES);
    let (count, field) = (request.at("count"), path.child("count"));
    match mode {
        "All" if !count.is_null() && *count != 0 => {
            errors.invalid(&field, count, "must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if count.as_i64().is_none_or(|count| count <= 0) => {
            errors.invalid(&field, count, "must be greater than zero");
        }
        _ => {}
    }
}

fn selectors(list: &[Value], path: &Path<'_>, errors: &mut Errors) {
    if list.len() > MOST_SELECTORS {
        errors.too_many(path, list.len(), MOST_SELECTORS);
    }
    for (i, selector) in list.iter().enumerate() {
        let path = path.index(i);
        if selector.at("cel").is_null() {
            errors.required(&path.child("cel"), "");
        } else if selector.text("cel.expression").trim().is_empty() {
            errors.required(&path.child("cel").child("expression"), "");
        } else if selector.text("cel.expression").len() > MAX_SELECTOR {
            errors.too_long(&path.child("cel").child("expression"), MAX_SELECTOR);
        }
    }
}

/// The expressions of a class compile, but for those of selectors that it had before.
fn class_expressions(class: &Value, before: &[Value], errors: &mut Errors) {
    let path = Path::Root.child("spec");
    expressions(class.list("spec.selectors"), before, &path.child("selectors"), errors);
}

/// The expressions of a claim compile.
fn claim_expressions(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.child("requests");
    for (i, request) in spec.list("devices.requests").iter().enumerate() {
        let path = list.index(i);
        expressions(request.list("exactly.selectors"), &[], &path.child("exactly").child("selectors"), errors);
        let list = path.child("firstAvailable");
        for (i, request) in request.list("firstAvailable").iter().enumerate() {
            expressions(request.list("selectors"), &[], &list.index(i).child("selectors"), errors);
        }
    }
}

fn expressions(list: &[Value], before: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let judge = |selector: &Value| {
        let text = selector.text("cel.expression");
        let judged = !text.trim().is_empty() && text.len() <= MAX_SELECTOR && !before.contains(selector);
        if judged { check_selector(text) } else { Ok(()) }
    };
    // Most have none.
    let judged = if list.is_empty() { Vec::new() } else { batch(|| list.iter().map(judge).collect::<Vec<_>>()) };
    for (i, (selector, judged)) in list.iter().zip(judged).enumerate() {
        let (path, text) = (path.index(i), selector.text("cel.expression"));
        let path = path.child("cel");
        let path = path.child("expression");
        match judged {
            Ok(()) => {}
            Err(Wrong::Invalid(why)) => errors.invalid(&path, text, &why),
            Err(Wrong::Costly) => errors.forbidden(&path, "too complex, exceeds cost limit"),
        }
    }
}

fn validate_slice(slice: &Value, errors: &mut Errors) {
    let (spec, path) = (slice.at("spec"), Path::Root.child("spec"));
    let driver = spec.text("driver");
    if driver.is_empty() {
        errors.required(&path.child("driver"), "");
    } else {
        errors.invalid_all(&path.child("driver"), driver, names::dns_subdomain(driver));
    }
    let pool = path.child("pool");
    if spec.text("pool.name").is_empty() {
        errors.required(&pool.child("name"), "");
    }
    errors.positive(&pool.child("resourceSliceCount"), spec.at("pool.resourceSliceCount").as_i64());
    errors.non_negative(&pool.child("generation"), spec.at("pool.generation").as_i64());
    let wheres = [
        !spec.text("nodeName").is_empty(),
        !spec.at("nodeSelector").is_null(),
        spec.flag("allNodes"),
        spec.flag("perDeviceNodeSelection"),
    ];
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match wheres.into_iter().filter(|set| *set).count() {
        0 => errors.required(&path, one),
        1 => {}
        _ => errors.invalid(&path, "", &format!("{one}, but multiple fields are set")),
    }
    let list = path.child("devices");
    let devices = spec.list("devices");
    if devices.len() > MOST_DEVICES {
        errors.too_many(&list, devices.len(), MOST_DEVICES);
    }
    let mut seen = HashSet::new();
    for (i, device) in devices.iter().enumerate() {
        named(device, &list.index(i), &mut seen, errors);
    }
}
