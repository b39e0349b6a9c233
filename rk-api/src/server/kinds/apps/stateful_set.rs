//! StatefulSets.

use serde_json::Value;

use crate::server::{
    Column, UserInfo,
    kinds::{
        cells::{AGE, NAME, column, container_images, container_names, number, wide},
        field::{Errors, Path},
        pod::{template, warnings},
        rules::Rules,
        storage,
        value::{Peek, at_mut, each_mut, fill, object_mut, remove, same, set},
        warn::{Warnings, is_news},
    },
};

/// The rules of StatefulSets.
pub const STATEFUL_SET: Rules = Rules {
    default,
    create,
    validate,
    validate_change,
    warn,
    has_status: true,
    pod_spec: "spec.template.spec",
    ..Rules::NONE
};

fn warn(set: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    warnings::workload(set, old, "spec.template", warnings);
    if is_news(set, old) {
        let path = Path::Root.child("spec.volumeClaimTemplates");
        for (i, claim) in set.list("spec.volumeClaimTemplates").iter().enumerate() {
            storage::warnings::claim_spec(claim.at("spec"), &path.index(i).child("spec"), warnings);
        }
    }
}

/// The columns of StatefulSets.
pub fn stateful_set_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Ready", "string", |s| {
            format!("{}/{}", number(s, "status.readyReplicas"), number(s, "spec.replicas")).into()
        }),
        AGE,
        wide("Containers", "string", |s| container_names(s.at("spec.template.spec"))),
        wide("Images", "string", |s| container_images(s.at("spec.template.spec"))),
    ]
}

fn default(stateful_set: &mut Value) {
    template::default(stateful_set, "spec.template");
    let Some(spec) = object_mut(stateful_set, "spec") else { return };
    fill(spec, "podManagementPolicy", "OrderedReady");
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = object_mut(spec, "updateStrategy") {
        fill(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = object_mut(strategy, "rollingUpdate")
        {
            fill(rolling, "partition", 0);
        }
    }
    if let Some(policy) = object_mut(spec, "persistentVolumeClaimRetentionPolicy") {
        fill(policy, "whenDeleted", "Retain");
        fill(policy, "whenScaled", "Retain");
    }
    each_mut(spec, "volumeClaimTemplates", |claim| {
        fill(claim, "apiVersion", "v1");
        fill(claim, "kind", "PersistentVolumeClaim");
        if let Some(spec) = at_mut(claim, "spec") {
            fill(spec, "volumeMode", "Filesystem");
        }
        if let Some(status) = object_mut(claim, "status") {
            fill(status, "phase", "Pending");
        }
    });
}

fn create(stateful_set: &mut Value, _: &UserInfo) {
    if let Some(status) = object_mut(stateful_set, "status") {
        set(status, "replicas", 0);
        set(status, "availableReplicas", 0);
    }
}

fn validate(stateful_set: &Value, errors: &mut Errors) {
    let (spec, path) = (stateful_set.at("spec"), Path::Root.child("spec"));
    let policy = path.child("podManagementPolicy");
    match spec.text("podManagementPolicy") {
        "" => errors.required(&policy, ""),
        "OrderedReady" | "Parallel" => {}
        other => errors.invalid(&policy, other, "must be 'OrderedReady' or 'Parallel'"),
    }
    update_strategy(spec.at("updateStrategy"), &path.child("updateStrategy"), errors);
    let retention = path.child("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let value = spec.at("persistentVolumeClaimRetentionPolicy").text(field);
        errors.one_of(&retention.child(field), value, &["Delete", "Retain"]);
    }
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        errors.non_negative(&path.child(field), spec.int(field));
    }
    errors.non_negative(&path.child("ordinals.start"), spec.int("ordinals.start"));
    super::selector_and_template(spec, "StatefulSet", &path, errors);
    let claims = path.child("volumeClaimTemplates");
    for (i, claim) in spec.list("volumeClaimTemplates").iter().enumerate() {
        storage::claim_spec(claim.at("spec"), &claims.index(i).child("spec"), errors);
    }
}

fn update_strategy(strategy: &Value, path: &Path<'_>, errors: &mut Errors) {
    let rolling = strategy.at("rollingUpdate");
    let rolling_path = path.child("rollingUpdate");
    match strategy.text("type") {
        "" => errors.required(&path.child("type"), ""),
        "OnDelete" => {
            if !rolling.is_null() {
                errors.invalid(&rolling_path, rolling, "only allowed for updateStrategy 'RollingUpdate'");
            }
        }
        "RollingUpdate" => {
            errors.non_negative(&rolling_path.child("partition"), rolling.int("partition"));
            let unavailable = rolling.at("maxUnavailable");
            if !unavailable.is_null() {
                let path = rolling_path.child("maxUnavailable");
                super::int_or_percent(unavailable, &path, errors);
                if super::is_zero(unavailable) {
                    errors.invalid(&path, unavailable, "cannot be 0");
                }
                super::at_most_all(unavailable, &path, errors);
            }
        }
        other => errors.invalid(&path.child("type"), other, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

/// What may change in the spec of a StatefulSet.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn validate_change(new: &Value, old: &Value, subresource: &str, errors: &mut Errors) {
    if !subresource.is_empty() {
        return;
    }
    let (mut after, mut before) = (new.at("spec").clone(), old.at("spec").clone());
    for field in MUTABLE {
        remove(&mut after, field);
        remove(&mut before, field);
    }
    if !same(&after, &before) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                      'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.forbidden(&Path::Root.child("spec"), detail);
    }
}
