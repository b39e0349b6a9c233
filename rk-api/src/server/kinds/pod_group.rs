//! Workloads and PodGroups (KEP-4671, `scheduling.k8s.io/v1alpha2`), and the pods that are of a group.

use serde_json::Value;

use super::{
    field::{Errors, Path},
    names,
    rules::Rules,
    value::{Peek, object_mut, remove},
};
use crate::server::Reader;

/// The group of both.
pub const GROUP: &str = "scheduling.k8s.io";

/// The most templates of a Workload.
const MOST_TEMPLATES: usize = 8;

/// The rules of Workloads.
pub const WORKLOAD: Rules = Rules {
    validate: validate_workload,
    validate_change: |new, old, _, errors| immutable(new, old, &["controllerRef", "podGroupTemplates"], errors),
    ..Rules::NONE
};

/// The rules of PodGroups, of which all but the status stays as it is.
pub const POD_GROUP: Rules = Rules {
    validate: validate_group,
    validate_change: |new, old, subresource, errors| {
        if subresource.is_empty() {
            let fields = [
                "podGroupTemplateRef",
                "schedulingPolicy",
                "schedulingConstraints",
                "disruptionMode",
                "priorityClassName",
                "priority",
                "resourceClaims",
            ];
            immutable(new, old, &fields, errors);
        }
    },
    has_status: true,
    ..Rules::NONE
};

/// Drops the group that the pod's spec at a path names, where PodGroups are not served and no older version named one.
pub fn drop_disabled(object: &mut Value, old: Option<&Value>, path: &str, reader: &dyn Reader) {
    if path.is_empty() || !object.at(path).has("schedulingGroup") {
        return;
    }
    let is_used = old.is_some_and(|old| old.at(path).has("schedulingGroup"));
    if !is_used
        && reader.resource(GROUP, "v1alpha2", "podgroups").is_none()
        && let Some(spec) = object_mut(object, path)
    {
        remove(spec, "schedulingGroup");
    }
}

/// The rules of the group that a pod's spec names.
pub fn validate_reference(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    if !spec.has("schedulingGroup") {
        return;
    }
    let name = spec.text("schedulingGroup.podGroupName");
    let path = path.child("schedulingGroup.podGroupName");
    match name {
        "" => errors.required(&path, "must specify one of: `podGroupName`"),
        _ => errors.invalid_all(&path, name, names::dns_subdomain(name)),
    }
}

fn immutable(new: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    let path = Path::Root.child("spec");
    for field in fields {
        errors.immutable(&path.child(field), new.at("spec").at(field), old.at("spec").at(field));
    }
}

fn validate_workload(workload: &Value, errors: &mut Errors) {
    let path = Path::Root.child("spec");
    let controller = workload.at("spec.controllerRef");
    if !controller.is_null() {
        let path = path.child("controllerRef");
        let group = controller.text("apiGroup");
        if !group.is_empty() {
            errors.invalid_all(&path.child("apiGroup"), group, names::dns_subdomain(group));
        }
        for field in ["kind", "name"] {
            named(controller, field, &path, names::path_segment, errors);
        }
    }
    let (templates, path) = (workload.list("spec.podGroupTemplates"), path.child("podGroupTemplates"));
    if templates.is_empty() {
        errors.required(&path, "must have at least one item");
    } else if templates.len() > MOST_TEMPLATES {
        errors.too_many(&path, templates.len(), MOST_TEMPLATES);
    }
    for (i, template) in templates.iter().enumerate() {
        let path = path.index(i);
        named(template, "name", &path, names::dns_label, errors);
        if templates[..i].iter().any(|other| other.text("name") == template.text("name")) {
            errors.duplicate(&path.child("name"), template.text("name"));
        }
        validate_scheduling(template, &path, errors);
    }
}

fn validate_group(group: &Value, errors: &mut Errors) {
    let (spec, path) = (group.at("spec"), Path::Root.child("spec"));
    if spec.has("podGroupTemplateRef") {
        let (workload, path) = (spec.at("podGroupTemplateRef.workload"), path.child("podGroupTemplateRef.workload"));
        if workload.is_null() {
            errors.required(&path, "must specify one of: `workload`");
        } else {
            named(workload, "workloadName", &path, names::dns_subdomain, errors);
            named(workload, "podGroupTemplateName", &path, names::dns_label, errors);
        }
    }
    validate_scheduling(spec, &path, errors);
}

/// What PodGroups and the templates of them have in common.
fn validate_scheduling(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (policy, policy_path) = (spec.at("schedulingPolicy"), path.child("schedulingPolicy"));
    match (policy.has("basic"), policy.has("gang")) {
        (false, false) => errors.required(&policy_path, "must specify one of: `basic`, `gang`"),
        (true, true) => errors.invalid(&policy_path, policy, "must specify exactly one of: `basic`, `gang`"),
        (_, gang) => {
            let least = policy.int("gang.minCount").unwrap_or(0);
            if gang && least < 1 {
                let path = policy_path.child("gang.minCount");
                errors.invalid(&path, &least, "must be greater than or equal to 1");
            }
        }
    }
    let (topology, topology_path) =
        (spec.list("schedulingConstraints.topology"), path.child("schedulingConstraints.topology"));
    if topology.len() > 1 {
        errors.too_many(&topology_path, topology.len(), 1);
    }
    for (i, constraint) in topology.iter().enumerate() {
        named(constraint, "key", &topology_path.index(i), names::qualified_name, errors);
    }
    let mode = spec.text("disruptionMode");
    if !mode.is_empty() {
        errors.one_of(&path.child("disruptionMode"), mode, &["Pod", "PodGroup"]);
    }
    let class = spec.text("priorityClassName");
    if !class.is_empty() {
        errors.invalid_all(&path.child("priorityClassName"), class, names::dns_subdomain(class));
    }
    let (claims, claims_path) = (spec.list("resourceClaims"), path.child("resourceClaims"));
    for (i, claim) in claims.iter().enumerate() {
        let path = claims_path.index(i);
        named(claim, "name", &path, names::dns_label, errors);
        if claims[..i].iter().any(|other| other.text("name") == claim.text("name")) {
            errors.duplicate(&path, claim.text("name"));
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        let mut given = sources.into_iter().filter(|source| claim.has(source));
        match (given.next(), given.next()) {
            (Some(source), None) => named(claim, source, &path, names::dns_subdomain, errors),
            (None, _) => {
                errors.required(&path, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
            }
            _ => {
                let why = "must specify exactly one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.invalid(&path, claim, why);
            }
        }
    }
}

/// A name that has to be there.
fn named<E: IntoIterator<Item = String>>(
    object: &Value,
    field: &str,
    path: &Path<'_>,
    rule: impl Fn(&str) -> E,
    errors: &mut Errors,
) {
    match object.text(field) {
        "" => errors.required(&path.child(field), ""),
        name => errors.invalid_all(&path.child(field), name, rule(name)),
    }
}
