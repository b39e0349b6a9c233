//! CustomResourceDefinitions: what a definition must say before the server takes it.

mod approval;
mod structural;

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{
    field::{Errors, Path},
    names,
    rules::Rules,
    value::{Peek, fill, object_mut, set},
};
use crate::server::{UserInfo, schema::Expressions};

pub(crate) use approval::Approval;

/// The rules of CustomResourceDefinitions.
pub const DEFINITION: Rules = Rules {
    default,
    create,
    validate,
    validate_new: |definition, errors| {
        expressions(definition, &Value::Null, errors);
        approval::validate(definition, None, errors);
    },
    validate_change,
    has_status: true,
    ..Rules::NONE
};

fn default(definition: &mut Value) {
    let Some(spec) = object_mut(definition, "spec") else { return };
    let kind = spec.text("names.kind").to_owned();
    if let Some(names) = object_mut(spec, "names")
        && !kind.is_empty()
    {
        fill(names, "singular", kind.to_lowercase());
        fill(names, "listKind", format!("{kind}List"));
    }
    fill(spec, "conversion", json!({"strategy": "None"}));
}

/// The version that objects are stored in is noted from the start.
fn create(definition: &mut Value, _: &UserInfo) {
    let versions = definition.list("spec.versions").iter().filter(|version| version.flag("storage"));
    let stored: Vec<Value> = versions.map(|version| version.at("name").clone()).collect();
    set(
        definition,
        "status",
        json!({"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}),
    );
}

fn validate(definition: &Value, errors: &mut Errors) {
    let (spec, path) = (definition.at("spec"), Path::Root.child("spec"));
    let (group, plural, name) = (spec.text("group"), spec.text("names.plural"), definition.text("metadata.name"));
    if name != format!("{plural}.{group}") {
        errors.invalid(&Path::Root.child("metadata.name"), name, "must be spec.names.plural+\".\"+spec.group");
    }
    if group.is_empty() {
        errors.required(&path.child("group"), "");
    } else {
        errors.invalid_all(&path.child("group"), group, names::dns_subdomain(group));
        if !group.contains('.') {
            errors.invalid(&path.child("group"), group, "should be a domain with at least one dot");
        }
    }
    errors.required_one_of(&path.child("scope"), spec.text("scope"), &["Cluster", "Namespaced"]);
    kind_names(spec.at("names"), &path.child("names"), errors);
    if spec.flag("preserveUnknownFields") {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&path.child("preserveUnknownFields"), &true, detail);
    }
    versions(spec, &path.child("versions"), errors);
    conversion(spec.at("conversion"), &path.child("conversion"), errors);
}

fn kind_names(kinds: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (field, required) in [("plural", true), ("singular", false)] {
        let value = kinds.text(field);
        if !value.is_empty() {
            errors.invalid_all(&path.child(field), value, names::dns1035_label(value));
        } else if required {
            errors.required(&path.child(field), "");
        }
    }
    for (field, detail) in [
        ("kind", "may have mixed case, but should otherwise match: "),
        ("listKind", "may have mixed case, but should otherwise match: "),
    ] {
        let value = kinds.text(field);
        if value.is_empty() {
            errors.required(&path.child(field), "");
        } else {
            let wrong = names::dns1035_label(&value.to_ascii_lowercase());
            errors.invalid_all(&path.child(field), value, wrong.into_iter().map(|wrong| format!("{detail}{wrong}")));
        }
    }
    if !kinds.text("kind").is_empty() && kinds.text("kind") == kinds.text("listKind") {
        errors.invalid(&path.child("listKind"), kinds.text("listKind"), "kind and listKind may not be the same");
    }
    for field in ["shortNames", "categories"] {
        let list = path.child(field);
        for (i, name) in kinds.list(field).iter().filter_map(Value::as_str).enumerate() {
            errors.invalid_all(&list.index(i), name, names::dns1035_label(name));
        }
    }
}

fn versions(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (versions, mut seen) = (spec.list("versions"), HashSet::new());
    for (i, version) in versions.iter().enumerate() {
        let path = path.index(i);
        let name = version.text("name");
        errors.invalid_all(&path.child("name"), name, names::dns1035_label(name));
        if !seen.insert(name) {
            errors.invalid(&path.child("name"), name, "must contain unique version names");
        }
        let place = schema_path(spec, i);
        // One that all versions share is judged once.
        if i == 0 || place != "spec.validation" {
            schema(version, &Path::Root.child(&place), errors);
        }
        selectable_fields(version, &path.child("selectableFields"), errors);
        printer_columns(version, &path.child("additionalPrinterColumns"), errors);
        subresources(version, &path.child("subresources"), errors);
    }
    if versions.is_empty() {
        errors.required(path, "must have at least one version");
    }
    if versions.iter().filter(|version| version.flag("storage")).count() != 1 {
        errors.invalid(path, spec.at("versions"), "must have exactly one version marked as storage version");
    }
}

fn schema(version: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("openAPIV3Schema");
    let root = version.at("schema.openAPIV3Schema");
    if root.is_null() {
        errors.required(&path, "schemas are required");
        return;
    }
    structural::root(root, &path, errors);
}

/// Where the schema of a version is. What all versions share is hoisted out of them.
fn schema_path(spec: &Value, version: usize) -> String {
    let versions = spec.list("versions");
    let (own, mut all) = (versions[version].at("schema"), versions.iter().map(|other| other.at("schema")));
    if own.has("openAPIV3Schema") && all.all(|other| other == own) {
        "spec.validation".to_owned()
    } else {
        format!("spec.versions[{version}].schema")
    }
}

/// Rules in CEL compile. What was stored before is not judged again.
fn expressions(definition: &Value, old: &Value, errors: &mut Errors) {
    let spec = definition.at("spec");
    for (i, version) in spec.list("versions").iter().enumerate() {
        let known = |other: &&Value| other.at("name") == version.at("name");
        let before = old.list("spec.versions").iter().find(known).map(|before| before.at("schema"));
        let place = schema_path(spec, i);
        if before == Some(version.at("schema")) || i > 0 && place == "spec.validation" {
            continue;
        }
        let mut issues = Vec::new();
        let path = format!("{place}.openAPIV3Schema");
        Expressions::compile(version.at("schema.openAPIV3Schema"), &path, &mut issues);
        errors.extend(issues);
    }
}

/// How many fields of a version may be selectable.
const MAX_SELECTABLE: usize = 8;

/// Selectable fields are single texts, numbers or truth values.
fn selectable_fields(version: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (fields, mut seen) = (version.list("selectableFields"), HashSet::new());
    if fields.len() > MAX_SELECTABLE {
        errors.too_many(path, fields.len(), MAX_SELECTABLE);
    }
    for (i, field) in fields.iter().enumerate() {
        let path = path.index(i).child("jsonPath").to_string();
        let path = Path::Root.child(&path);
        let json_path = field.text("jsonPath");
        if json_path.is_empty() {
            errors.required(&path, "");
            continue;
        }
        if !seen.insert(json_path) {
            errors.duplicate(&path, json_path);
        }
        if json_path.starts_with(".metadata") {
            errors.invalid(&path, json_path, "must not point to fields in metadata");
            continue;
        }
        let mut names = json_path.strip_prefix('.').into_iter().flat_map(|names| names.split('.'));
        let schema = version.at("schema.openAPIV3Schema");
        let found = names.try_fold(schema, |schema, name| schema.get("properties")?.get(name));
        let kind = found.map_or("", |found| found.text("type"));
        if !json_path.starts_with('.') || found.is_none() {
            errors.invalid(&path, json_path, "is an invalid path: does not refer to a valid field");
        } else if !matches!(kind, "string" | "boolean" | "integer") {
            errors.invalid(&path, json_path, "must point to a field of type string, boolean or integer");
        }
    }
}

fn printer_columns(version: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (i, column) in version.list("additionalPrinterColumns").iter().enumerate() {
        let path = path.index(i);
        if column.text("name").is_empty() {
            errors.required(&path.child("name"), "");
        }
        let kind = column.text("type");
        if kind.is_empty() {
            errors.required(&path.child("type"), "must be one of boolean,date,integer,number,string");
        } else if !["boolean", "date", "integer", "number", "string"].contains(&kind) {
            errors.invalid(&path.child("type"), kind, "must be one of boolean,date,integer,number,string");
        }
        let json_path = column.text("jsonPath");
        if json_path.is_empty() {
            errors.required(&path.child("jsonPath"), "");
        } else if !json_path.starts_with('.') && !json_path.starts_with('{') {
            errors.invalid(&path.child("jsonPath"), json_path, "must be a simple json path starting with .");
        }
    }
}

fn subresources(version: &Value, path: &Path<'_>, errors: &mut Errors) {
    let scale = version.at("subresources.scale");
    if scale.is_null() {
        return;
    }
    let path = path.child("scale");
    for (field, prefix, required) in [
        ("specReplicasPath", ".spec.", true),
        ("statusReplicasPath", ".status.", true),
        ("labelSelectorPath", ".", false),
    ] {
        let value = scale.text(field);
        if value.is_empty() {
            if required {
                errors.required(&path.child(field), "");
            }
        } else if !value.starts_with(prefix) {
            let under = if prefix == "." { "either .status or .spec" } else { prefix.trim_end_matches('.') };
            errors.invalid(&path.child(field), value, &format!("should be a json path under {under}"));
        }
    }
}

fn conversion(conversion: &Value, path: &Path<'_>, errors: &mut Errors) {
    match conversion.text("strategy") {
        "" => errors.required(&path.child("strategy"), ""),
        "None" => {
            if conversion.has("webhook") {
                errors.forbidden(&path.child("webhook"), "should not be set when strategy is not set to Webhook");
            }
        }
        "Webhook" => {
            let client = path.child("webhookClientConfig");
            match (conversion.at("webhook.clientConfig"), conversion.text("webhook.clientConfig.url")) {
                (Value::Null, _) => errors.required(&client, "required when strategy is set to Webhook"),
                (config, url) if url.is_empty() != config.has("service") => {
                    errors.required(&client, "exactly one of url or service is required");
                }
                (_, url) if !url.is_empty() && !url.starts_with("https://") => errors.invalid(
                    &client.child("url"),
                    url,
                    "'https' is the only allowed URL scheme; desired format: https://host[/path]",
                ),
                _ => {}
            }
            let (versions, reviews) =
                (conversion.list("webhook.conversionReviewVersions"), path.child("conversionReviewVersions"));
            if versions.is_empty() {
                errors.required(&reviews, "");
            } else if !versions.iter().any(|version| version == "v1") {
                let detail = "must include at least one of v1";
                errors.invalid(&reviews, conversion.at("webhook.conversionReviewVersions"), detail);
            }
        }
        other => errors.not_supported(&path.child("strategy"), other, &["None", "Webhook"]),
    }
}

fn validate_change(new: &Value, old: &Value, subresource: &str, errors: &mut Errors) {
    if !subresource.is_empty() {
        return;
    }
    expressions(new, old, errors);
    let path = Path::Root.child("spec");
    let established = super::cells::condition(old, "Established").is_some_and(|c| c.text("status") == "True");
    let fixed: &[&str] =
        if established { &["group", "names.plural", "scope", "names.kind"] } else { &["group", "names.plural"] };
    for field in fixed {
        errors.immutable(&path.child(field), new.at("spec").at(field), old.at("spec").at(field));
    }
    let stored = Path::Root.child("status.storedVersions");
    for (i, name) in old.list("status.storedVersions").iter().filter_map(Value::as_str).enumerate() {
        if !new.list("spec.versions").iter().any(|version| version.text("name") == name) {
            errors.invalid(&stored.index(i), name, "must appear in spec.versions");
        }
    }
    approval::validate(new, Some(old), errors);
}
