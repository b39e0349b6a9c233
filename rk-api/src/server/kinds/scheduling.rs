//! PriorityClasses, RuntimeClasses and Leases.

use serde_json::Value;

use super::{
    cells::{AGE, NAME, column, number},
    field::{Errors, Path},
    names,
    rules::Rules,
    value::{Peek, fill},
};
use crate::server::Column;

/// The most that a priority class of a user may be worth.
const USER_PRIORITY_LIMIT: i64 = 1_000_000_000;

/// The priority classes that are the system's own.
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// The rules of PriorityClasses.
pub const PRIORITY_CLASS: Rules = Rules {
    default: |class| {
        fill(class, "value", 0);
        fill(class, "preemptionPolicy", "PreemptLowerPriority");
    },
    validate: validate_priority,
    validate_change: |new, old, _, errors| {
        if new.at("value") != old.at("value") {
            errors.forbidden(&Path::Root.child("value"), "may not be changed in an update.");
        }
        errors.immutable(&Path::Root.child("preemptionPolicy"), new.at("preemptionPolicy"), old.at("preemptionPolicy"));
    },
    ..Rules::NONE
};

/// The columns of PriorityClasses.
pub fn priority_class_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Value", "integer", |class| number(class, "value").into()),
        column("Global-Default", "boolean", |class| class.flag("globalDefault").into()),
        AGE,
        column("PreemptionPolicy", "string", |class| class.text("preemptionPolicy").into()),
    ]
}

fn validate_priority(class: &Value, errors: &mut Errors) {
    let (name, value) = (class.text("metadata.name"), number(class, "value"));
    if name.starts_with("system-") {
        let path = Path::Root.child("metadata.name");
        let reserved = "priority class names with 'system-' prefix are reserved for system use only";
        match SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) {
            None => errors.forbidden(&path, &format!("{reserved}. error: {name} is not a known system priority class")),
            Some((_, expected)) if *expected != value => {
                let detail = format!("{reserved}. error: value of {name} PriorityClass must be {expected}");
                errors.forbidden(&path, &detail);
            }
            Some(_) if class.flag("globalDefault") => {
                let detail = format!("{reserved}. error: globalDefault of {name} PriorityClass must be false");
                errors.forbidden(&path, &detail);
            }
            Some(_) => {}
        }
    } else if value > USER_PRIORITY_LIMIT {
        let detail = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_LIMIT}");
        errors.forbidden(&Path::Root.child("value"), &detail);
    }
    errors.required_one_of(
        &Path::Root.child("preemptionPolicy"),
        class.text("preemptionPolicy"),
        &["Never", "PreemptLowerPriority"],
    );
}

/// The rules of RuntimeClasses.
pub const RUNTIME_CLASS: Rules = Rules {
    validate: |class, errors| {
        let (handler, path) = (class.text("handler"), Path::Root.child("handler"));
        errors.invalid_all(&path, handler, names::dns_label(handler));
    },
    validate_change: |new, old, _, errors| {
        errors.immutable(&Path::Root.child("handler"), new.at("handler"), old.at("handler"));
    },
    ..Rules::NONE
};

/// The columns of RuntimeClasses.
pub fn runtime_class_columns() -> Vec<Column> {
    vec![NAME, column("Handler", "string", |class| class.text("handler").into()), AGE]
}

/// The rules of Leases.
pub const LEASE: Rules = Rules {
    validate: |lease, errors| {
        let path = Path::Root.child("spec");
        if let Some(seconds) = lease.int("spec.leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
            errors.invalid(&path.child("leaseDurationSeconds"), &seconds, "must be greater than 0");
        }
        errors.non_negative(&path.child("leaseTransitions"), lease.int("spec.leaseTransitions"));
    },
    ..Rules::NONE
};

/// The columns of Leases.
pub fn lease_columns() -> Vec<Column> {
    vec![NAME, column("Holder", "string", |lease| lease.text("spec.holderIdentity").into()), AGE]
}
