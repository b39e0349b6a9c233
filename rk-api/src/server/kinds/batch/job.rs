//! Jobs.

use serde_json::{Value, json};

use super::policies;
use crate::server::{
    Column, UserInfo,
    kinds::{
        cells::{
            AGE, NAME, age, column, condition, container_images, container_names, duration, number,
            selector as selector_cell, wide,
        },
        field::{Errors, Path},
        pod::{template, warnings},
        rules::Rules,
        selector,
        value::{Peek, at_mut, each_mut, fill, is_empty, object_mut, remove, same, set},
    },
};

/// The rules of Jobs.
pub const JOB: Rules = Rules {
    default,
    create,
    validate,
    validate_new,
    validate_change,
    warn: |object, old, warnings| warnings::named_workload(object, old, "spec.template", warnings),
    has_status: true,
    orphans: true,
    pod_spec: "spec.template.spec",
    ..Rules::NONE
};

/// The labels that a Job's pods carry: its uid and its name, each under the present and the older key.
const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const OLD_UID_LABEL: &str = "controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
const OLD_NAME_LABEL: &str = "job-name";

/// The columns of Jobs.
pub fn job_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Status", "string", |job| status(job).into()),
        column("Completions", "string", |job| completions(job).into()),
        column("Duration", "string", |job| took(job).into()),
        AGE,
        wide("Containers", "string", |job| container_names(job.at("spec.template.spec"))),
        wide("Images", "string", |job| container_images(job.at("spec.template.spec"))),
        wide("Selector", "string", |job| selector_cell(job.at("spec.selector"))),
    ]
}

fn has_condition(job: &Value, kind: &str) -> bool {
    condition(job, kind).is_some_and(|condition| condition.text("status") == "True")
}

fn status(job: &Value) -> &'static str {
    if has_condition(job, "Complete") {
        "Complete"
    } else if has_condition(job, "Failed") {
        "Failed"
    } else if job.has("metadata.deletionTimestamp") {
        "Terminating"
    } else if has_condition(job, "Suspended") {
        "Suspended"
    } else if has_condition(job, "FailureTarget") {
        "FailureTarget"
    } else if has_condition(job, "SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let done = number(job, "status.succeeded");
    match (job.int("spec.completions"), number(job, "spec.parallelism")) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, many) if many > 1 => format!("{done}/1 of {many}"),
        (None, _) => format!("{done}/1"),
    }
}

fn took(job: &Value) -> String {
    let time = |path: &str| job.text(path).parse::<jiff::Timestamp>().ok();
    match (time("status.startTime"), time("status.completionTime")) {
        (Some(start), Some(end)) => duration(end.as_second() - start.as_second()),
        (Some(_), None) => age(job.text("status.startTime")),
        (None, _) => String::new(),
    }
}

fn default(job: &mut Value) {
    template::default(job, "spec.template");
    labels_of_template(job);
    let Some(spec) = object_mut(job, "spec") else { return };
    // Both absent is one pod, once; completions alone may be absent: a work queue.
    if !spec.has("completions") && !spec.has("parallelism") {
        set(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    let retries = if spec.has("backoffLimitPerIndex") { i32::MAX } else { 6 };
    fill(spec, "backoffLimit", retries);
    fill(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    fill(spec, "manualSelector", false);
    let replacement = if spec.has("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    fill(spec, "podReplacementPolicy", replacement);
    if let Some(policy) = at_mut(spec, "podFailurePolicy") {
        each_mut(policy, "rules", |rule| {
            each_mut(rule, "onPodConditions", |pattern| fill(pattern, "status", "True"));
        });
    }
}

/// A Job without labels takes those of its pods.
fn labels_of_template(job: &mut Value) {
    let template_labels = job.at("spec.template.metadata.labels").clone();
    if is_empty(job.at("metadata.labels"))
        && !is_empty(&template_labels)
        && let Some(metadata) = object_mut(job, "metadata")
    {
        set(metadata, "labels", template_labels);
    }
}

/// A Job's pods are told apart by its uid, unless the user takes care of the selector.
fn create(job: &mut Value, _: &UserInfo) {
    set(job, "status", json!({}));
    if job.flag("spec.manualSelector") {
        return;
    }
    let (uid, name) = (job.text("metadata.uid").to_owned(), job.text("metadata.name").to_owned());
    if let Some(labels) = object_mut(job, "spec.template.metadata.labels") {
        for (label, value) in [(UID_LABEL, &uid), (OLD_UID_LABEL, &uid), (NAME_LABEL, &name), (OLD_NAME_LABEL, &name)] {
            // What the user wrote stays, for the validation to refuse.
            fill(labels, label, value.as_str());
        }
    }
    if let Some(wanted) = object_mut(job, "spec.selector.matchLabels") {
        fill(wanted, UID_LABEL, uid);
    }
    labels_of_template(job);
}

fn validate_new(job: &Value, errors: &mut Errors) {
    if job.flag("spec.manualSelector") {
        return;
    }
    let path = Path::Root.child("spec.template.metadata.labels");
    let labels = job.at("spec.template.metadata.labels");
    for (label, expected) in [
        (OLD_UID_LABEL, job.text("metadata.uid")),
        (UID_LABEL, job.text("metadata.uid")),
        (OLD_NAME_LABEL, job.text("metadata.name")),
        (NAME_LABEL, job.text("metadata.name")),
    ] {
        if labels.get(label).is_none_or(|value| value != expected) {
            errors.invalid(&path, labels, &format!("must be '{expected}'"));
        }
    }
    let wanted = job.at("spec.selector");
    if wanted.at("matchLabels").as_object().is_some_and(|map| map.len() != 1)
        || !wanted.list("matchExpressions").is_empty()
    {
        errors.invalid(&Path::Root.child("spec.selector"), wanted, "`selector` not auto-generated");
    }
}

fn validate(job: &Value, errors: &mut Errors) {
    let (spec, path) = (job.at("spec"), Path::Root.child("spec"));
    job_spec(spec, &path, errors);
    let (wanted, selector_path) = (spec.at("selector"), path.child("selector"));
    if wanted.is_null() {
        errors.required(&selector_path, "");
    } else {
        selector::validate(wanted, &selector_path, errors);
    }
    let labels = spec.at("template.metadata.labels");
    if !wanted.is_null() && !selector::matches(wanted, labels) {
        errors.invalid(&path.child("template.metadata.labels"), labels, "`selector` does not match template `labels`");
    }
}

/// The rules of a Job's spec but for its selector, which a CronJob's template does not have yet.
pub fn job_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.non_negative(&path.child(field), spec.int(field));
    }
    let mode = spec.text("completionMode");
    errors.one_of(&path.child("completionMode"), mode, &["Indexed", "NonIndexed"]);
    if mode == "Indexed" {
        let most = 100_000;
        match spec.int("completions") {
            None => errors.required(&path.child("completions"), "when completion mode is Indexed"),
            Some(completions) if completions > most && spec.int("parallelism").is_some_and(|many| many > most) => {
                let many = spec.int("parallelism").unwrap_or(0);
                errors.invalid(
                    &path.child("parallelism"),
                    &many,
                    "must be less than or equal to 100000 when completion mode is Indexed",
                );
            }
            Some(_) => {}
        }
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(value) = spec.int(field) {
                errors.invalid(&path.child(field), &value, "requires indexed completion mode");
            }
        }
    }
    if let Some(most) = spec.int("maxFailedIndexes")
        && mode == "Indexed"
        && !spec.has("backoffLimitPerIndex")
    {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
        errors.non_negative(&path.child("maxFailedIndexes"), Some(most));
    }
    let manager = spec.text("managedBy");
    if !manager.is_empty() && !manager.contains('/') {
        errors.invalid(&path.child("managedBy"), manager, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    }
    policies::replacement(spec, path, errors);
    policies::failure(spec, &path.child("podFailurePolicy"), errors);
    policies::success(spec, &path.child("successPolicy"), errors);
    let template_path = path.child("template");
    template::validate(spec.at("template"), &template_path, errors);
    let restart = template_path.child("spec.restartPolicy");
    match spec.text("template.spec.restartPolicy") {
        "Always" => errors.required(&restart, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.has("podFailurePolicy") => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.invalid(&restart, "OnFailure", detail);
        }
        "OnFailure" | "Never" => {}
        other => errors.not_supported(&restart, other, &["OnFailure", "Never"]),
    }
}

fn validate_change(new: &Value, old: &Value, subresource: &str, errors: &mut Errors) {
    if !subresource.is_empty() {
        return;
    }
    let (after, before, path) = (new.at("spec"), old.at("spec"), Path::Root.child("spec"));
    for field in
        ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        errors.immutable(&path.child(field), after.at(field), before.at(field));
    }
    completions_change(after, before, &path.child("completions"), errors);
    let (mut template, template_before) = (after.at("template").clone(), before.at("template"));
    // Where its pods will run may be said as long as none has started.
    if before.flag("suspend") && !old.has("status.startTime") {
        for field in [
            "spec.nodeSelector",
            "spec.affinity",
            "spec.tolerations",
            "spec.schedulingGates",
            "metadata.labels",
            "metadata.annotations",
        ] {
            put_back(&mut template, template_before, field);
        }
    }
    if !same(&template, template_before) {
        errors.invalid(&path.child("template"), after.at("template"), "field is immutable");
    }
}

fn put_back(value: &mut Value, old: &Value, field: &str) {
    let Some((parent, field)) = field.split_once('.') else { return };
    if let Some(target) = object_mut(value, parent) {
        match old.at(parent).get(field) {
            Some(before) => set(target, field, before.clone()),
            None => {
                remove(target, field);
            }
        }
    }
}

/// The count of an indexed Job may change together with its parallelism.
fn completions_change(after: &Value, before: &Value, path: &Path<'_>, errors: &mut Errors) {
    if same(after.at("completions"), before.at("completions")) {
        return;
    }
    if after.text("completionMode") != "Indexed" {
        errors.immutable(path, after.at("completions"), before.at("completions"));
    } else if after.at("completions") != after.at("parallelism") {
        errors.invalid(path, after.at("completions"), "can only be modified in tandem with spec.parallelism");
    }
}
