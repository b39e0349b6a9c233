//! The pod templates of workloads.

use serde_json::Value;

use super::{
    super::{
        field::{Errors, Path},
        meta,
        rules::Rules,
        value::{Peek, object_mut},
    },
    defaults, spec, warnings,
};

/// The rules of PodTemplates, which are templates and nothing else.
pub const POD_TEMPLATE: Rules = Rules {
    default: |object| default(object, "template"),
    validate: |object, errors| validate(object.at("template"), &Path::Root.child("template"), errors),
    warn: |object, old, warnings| warnings::workload(object, old, "template", warnings),
    pod_spec: "template.spec",
    ..Rules::NONE
};

/// Defaults of the template at a path of a workload.
pub fn default(workload: &mut Value, path: &str) {
    if let Some(template) = object_mut(workload, path)
        && let Some(spec) = object_mut(template, "spec")
    {
        defaults::pod_spec(spec);
    }
}

/// The rules of a template: its labels and annotations, and its pod's spec.
pub fn validate(template: &Value, path: &Path<'_>, errors: &mut Errors) {
    let metadata = path.child("metadata");
    meta::labels(template.at("metadata"), &metadata.child("labels"), errors);
    meta::annotations(template.at("metadata"), &metadata.child("annotations"), errors);
    let spec_path = path.child("spec");
    spec::validate(template.at("spec"), &spec_path, errors);
    if !template.list("spec.ephemeralContainers").is_empty() {
        errors.forbidden(&spec_path.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

/// The rules of the template of a workload that keeps its pods running: they must restart, and may not have a deadline. `kind` is
/// the workload's in the words about the deadline.
pub fn validate_lasting(template: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    validate(template, path, errors);
    let policy = template.text("spec.restartPolicy");
    if policy != "Always" {
        errors.not_supported(&path.child("spec.restartPolicy"), policy, &["Always"]);
    }
    if template.has("spec.activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&path.child("spec.activeDeadlineSeconds"), &detail);
    }
}
