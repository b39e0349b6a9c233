//! Webhook configurations and admission policies.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{
    cells::{AGE, NAME, column},
    field::{Errors, Path},
    names,
    rules::Rules,
    selector,
    value::{Peek, at_mut, each_mut, fill, object_mut, set},
};
use crate::server::{Column, Reader, plugins};

/// The rules of webhook configurations.
pub const WEBHOOKS: Rules = Rules {
    default: default_webhooks,
    validate: validate_webhooks,
    validate_new: |config, errors| validate_conditions(config, &Value::Null, errors),
    validate_change: |new, old, _, errors| validate_conditions(new, old, errors),
    ..Rules::NONE
};

/// The rules of admission policies.
pub const POLICY: Rules = Rules {
    default: default_policy,
    validate: validate_policy,
    validate_new: |policy, errors| errors.extend(plugins::policy_issues(policy)),
    validate_change: |new, old, _, errors| {
        // What was stored before is not judged again.
        if new.at("spec") != old.at("spec") {
            errors.extend(plugins::policy_issues(new));
        }
    },
    observe: observe_policy,
    has_status: true,
    ..Rules::NONE
};

/// Tells what the expressions of a policy whose wanted state is new get wrong about the objects that it is for.
fn observe_policy(policy: &mut Value, old: Option<&Value>, reader: &dyn Reader) {
    if old.is_some_and(|old| old.at("spec") == policy.at("spec")) {
        return;
    }
    // A change of the wanted state is about to be counted.
    let generation = old.map_or(1, |old| old.int("metadata.generation").unwrap_or(0) + 1);
    let checked = plugins::type_check(policy, reader);
    if let Some(status) = object_mut(policy, "status") {
        set(status, "observedGeneration", generation);
        set(status, "typeChecking", checked);
    }
}

/// The rules of the bindings of admission policies.
pub const POLICY_BINDING: Rules = Rules { default: default_binding, validate: validate_binding, ..Rules::NONE };

/// The columns of webhook configurations.
pub fn webhook_columns() -> Vec<Column> {
    vec![NAME, column("Webhooks", "integer", |config| config.list("webhooks").len().into()), AGE]
}

fn param_kind(policy: &Value) -> Value {
    match policy.at("spec.paramKind") {
        Value::Null => "<unset>".into(),
        kind => format!("{}/{}", kind.text("apiVersion"), kind.text("kind")).into(),
    }
}

/// The columns of ValidatingAdmissionPolicies.
pub fn policy_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Validations", "integer", |policy| policy.list("spec.validations").len().into()),
        column("ParamKind", "string", param_kind),
        AGE,
    ]
}

/// The columns of MutatingAdmissionPolicies.
pub fn mutating_policy_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Mutations", "integer", |policy| policy.list("spec.mutations").len().into()),
        column("ParamKind", "string", param_kind),
        AGE,
    ]
}

/// The columns of the bindings of admission policies.
pub fn policy_binding_columns() -> Vec<Column> {
    fn param_ref(binding: &Value) -> Value {
        let param = binding.at("spec.paramRef");
        match (param.text("namespace"), param.text("name")) {
            _ if param.is_null() => "<unset>".into(),
            (_, "") => "*".into(),
            ("", name) => name.into(),
            (namespace, name) => format!("{namespace}/{name}").into(),
        }
    }
    vec![
        NAME,
        column("PolicyName", "string", |binding| binding.text("spec.policyName").into()),
        column("ParamRef", "string", param_ref),
        AGE,
    ]
}

fn default_webhooks(config: &mut Value) {
    let mutating = config.text("kind") == "MutatingWebhookConfiguration";
    each_mut(config, "webhooks", |webhook| {
        fill(webhook, "failurePolicy", "Fail");
        fill(webhook, "matchPolicy", "Equivalent");
        fill(webhook, "namespaceSelector", json!({}));
        fill(webhook, "objectSelector", json!({}));
        fill(webhook, "timeoutSeconds", 10);
        if mutating {
            fill(webhook, "reinvocationPolicy", "Never");
        }
        each_mut(webhook, "rules", |rule| fill(rule, "scope", "*"));
        if let Some(service) = at_mut(webhook, "clientConfig.service") {
            fill(service, "port", 443);
        }
    });
}

fn validate_webhooks(config: &Value, errors: &mut Errors) {
    let (list, mut seen) = (Path::Root.child("webhooks"), HashSet::new());
    for (i, webhook) in config.list("webhooks").iter().enumerate() {
        let path = list.index(i);
        let name = webhook.text("name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            let wrong = names::dns_subdomain(name);
            if wrong.is_empty() && name.split('.').count() < 3 {
                errors.invalid(
                    &path.child("name"),
                    name,
                    "should be a domain with at least three segments separated by dots",
                );
            }
            errors.invalid_all(&path.child("name"), name, wrong);
            if !seen.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        webhook_fields(webhook, &path, errors);
    }
}

fn webhook_fields(webhook: &Value, path: &Path<'_>, errors: &mut Errors) {
    if webhook.list("admissionReviewVersions").is_empty() {
        errors.required(&path.child("admissionReviewVersions"), "must specify one of v1, v1beta1");
    }
    errors.required_one_of(&path.child("sideEffects"), webhook.text("sideEffects"), &["None", "NoneOnDryRun"]);
    errors.one_of(&path.child("failurePolicy"), webhook.text("failurePolicy"), &["Fail", "Ignore"]);
    errors.one_of(&path.child("matchPolicy"), webhook.text("matchPolicy"), &["Equivalent", "Exact"]);
    errors.one_of(&path.child("reinvocationPolicy"), webhook.text("reinvocationPolicy"), &["IfNeeded", "Never"]);
    if let Some(seconds) = webhook.int("timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
        errors.invalid(&path.child("timeoutSeconds"), &seconds, "the timeout value must be between 1 and 30 seconds");
    }
    for field in ["namespaceSelector", "objectSelector"] {
        selector::validate(webhook.at(field), &path.child(field), errors);
    }
    let (config, config_path) = (webhook.at("clientConfig"), path.child("clientConfig"));
    match (config.text("url"), config.at("service")) {
        ("", Value::Null) => errors.required(&config_path, "exactly one of url or service is required"),
        ("", service) => {
            for field in ["namespace", "name"] {
                if service.text(field).is_empty() {
                    errors.required(&config_path.child("service").child(field), "");
                }
            }
        }
        (_, service) if !service.is_null() => {
            errors.required(&config_path.child("url"), "exactly one of url or service is required");
        }
        (url, _) => {
            if !url.starts_with("https://") {
                errors.invalid(
                    &config_path.child("url"),
                    url,
                    "'https' is the only allowed URL scheme; desired format: https://host[/path]",
                );
            }
        }
    }
    rules(webhook.list("rules"), &path.child("rules"), errors);
}

/// Match conditions compile. Those that a webhook had before are not judged again.
fn validate_conditions(config: &Value, old: &Value, errors: &mut Errors) {
    let list = Path::Root.child("webhooks");
    for (i, webhook) in config.list("webhooks").iter().enumerate() {
        let before = old.list("webhooks").iter().find(|before| before.text("name") == webhook.text("name"));
        if before.is_none_or(|before| before.at("matchConditions") != webhook.at("matchConditions")) {
            errors.extend(plugins::condition_issues(webhook, &list.index(i).to_string()));
        }
    }
}

fn rules(rules: &[Value], list: &Path<'_>, errors: &mut Errors) {
    for (i, rule) in rules.iter().enumerate() {
        let path = list.index(i);
        for field in ["apiGroups", "apiVersions", "resources", "operations"] {
            let values = rule.list(field);
            if values.is_empty() {
                errors.required(&path.child(field), "");
            } else if values.len() > 1
                && matches!(field, "apiGroups" | "apiVersions" | "operations")
                && values.iter().any(|value| value == "*")
            {
                errors.invalid(&path.child(field), rule.at(field), "if '*' is present, must not specify other values");
            }
        }
        let operations = path.child("operations");
        for (i, operation) in rule.list("operations").iter().filter_map(Value::as_str).enumerate() {
            let all = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
            errors.one_of(&operations.index(i), operation, &all);
        }
        errors.one_of(&path.child("scope"), rule.text("scope"), &["*", "Cluster", "Namespaced"]);
    }
}

fn match_defaults(resources: &mut Value) {
    fill(resources, "matchPolicy", "Equivalent");
    fill(resources, "namespaceSelector", json!({}));
    fill(resources, "objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        each_mut(resources, list, |rule| fill(rule, "scope", "*"));
    }
}

fn default_policy(policy: &mut Value) {
    if let Some(spec) = object_mut(policy, "spec") {
        fill(spec, "failurePolicy", "Fail");
        if let Some(resources) = at_mut(spec, "matchConstraints") {
            match_defaults(resources);
        }
    }
}

fn default_binding(binding: &mut Value) {
    if let Some(resources) = at_mut(binding, "spec.matchResources") {
        match_defaults(resources);
    }
}

fn validate_policy(policy: &Value, errors: &mut Errors) {
    let (spec, path) = (policy.at("spec"), Path::Root.child("spec"));
    errors.one_of(&path.child("failurePolicy"), spec.text("failurePolicy"), &["Fail", "Ignore"]);
    if spec.has("matchConstraints") {
        let path = path.child("matchConstraints");
        let list = spec.list("matchConstraints.resourceRules");
        if list.is_empty() {
            errors.required(&path.child("resourceRules"), "");
        }
        rules(list, &path.child("resourceRules"), errors);
    } else {
        errors.required(&path.child("matchConstraints"), "");
    }
    if policy.text("kind") == "ValidatingAdmissionPolicy" {
        if spec.list("validations").is_empty() && spec.list("auditAnnotations").is_empty() {
            errors.required(&path.child("validations"), "validations or auditAnnotations must be non-empty");
        }
    } else if spec.list("mutations").is_empty() {
        errors.required(&path.child("mutations"), "mutations must contain at least one item");
    }
}

fn validate_binding(binding: &Value, errors: &mut Errors) {
    let (spec, path) = (binding.at("spec"), Path::Root.child("spec"));
    if spec.text("policyName").is_empty() {
        errors.required(&path.child("policyName"), "");
    }
    if binding.text("kind") != "ValidatingAdmissionPolicyBinding" {
        return;
    }
    let (actions, list) = (spec.list("validationActions"), path.child("validationActions"));
    if actions.is_empty() {
        errors.required(&list, "");
    }
    for (i, action) in actions.iter().filter_map(Value::as_str).enumerate() {
        errors.one_of(&list.index(i), action, &["Audit", "Deny", "Warn"]);
        if actions[..i].iter().any(|other| other == action) {
            errors.duplicate(&list.index(i), action);
        }
    }
    if ["Deny", "Warn"].iter().all(|both| actions.iter().any(|action| action == both)) {
        errors.invalid(&list, spec.at("validationActions"), "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
    }
}
