//! Whether somebody may do something, and what one may do oneself.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        authorization::v1::{
            FieldSelectorAttributes, LabelSelectorAttributes, NonResourceAttributes, ResourceAttributes,
            SubjectAccessReviewSpec,
        },
        rbac::v1::PolicyRule,
    },
    apimachinery::pkg::apis::meta::v1::{FieldSelectorRequirement, LabelSelector as LabelSelectorSpec},
};
use serde_json::{Value, json};

use super::{ReviewDeps, answered, invalid, read};
use crate::{
    FieldSelector, LabelSelector, Status,
    server::{Attributes, Decision, Strategy, UserInfo, WriteContext},
    status,
};

const GROUP: &str = "authorization.k8s.io";

/// Whose access is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// The one in the question.
    Named,
    /// The one in the question, in the question's namespace.
    NamedInNamespace,
    /// The caller.
    Caller,
}

/// Answers `SubjectAccessReview`, `LocalSubjectAccessReview` and `SelfSubjectAccessReview`.
pub(super) struct AccessReviews(pub ReviewDeps, pub Subject);

fn on_resource(user: Arc<UserInfo>, asked: ResourceAttributes) -> Attributes {
    Attributes {
        user,
        verb: asked.verb.unwrap_or_default().into(),
        group: asked.group.unwrap_or_default().into(),
        version: asked.version.unwrap_or_default().into(),
        resource: asked.resource.unwrap_or_default().into(),
        subresource: asked.subresource.unwrap_or_default(),
        namespace: asked.namespace.unwrap_or_default(),
        name: asked.name.unwrap_or_default(),
        labels: asked.label_selector.as_ref().map(label_selector).unwrap_or_default(),
        fields: asked.field_selector.as_ref().map(field_selector).unwrap_or_default(),
        ..Attributes::default()
    }
}

fn on_path(user: Arc<UserInfo>, asked: NonResourceAttributes) -> Attributes {
    Attributes {
        user,
        verb: asked.verb.unwrap_or_default().into(),
        path: asked.path.unwrap_or_default(),
        ..Attributes::default()
    }
}

/// The broken rule of a question, as field and message.
fn broken(spec: &SubjectAccessReviewSpec, subject: Subject, namespace: &str) -> Option<(&'static str, String)> {
    let (resource, path) = (&spec.resource_attributes, &spec.non_resource_attributes);
    match (resource, path) {
        (Some(_), Some(path)) => {
            let value = json!(path);
            let message = format!("Invalid value: {value}: cannot be specified in combination with resourceAttributes");
            return Some(("spec.nonResourceAttributes", message));
        }
        (None, None) => {
            let message =
                "Invalid value: \"null\": exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return Some(("spec.resourceAttributes", message.to_owned()));
        }
        _ => {}
    }
    let named = spec.user.as_ref().is_some_and(|user| !user.is_empty())
        || spec.groups.as_ref().is_some_and(|groups| !groups.is_empty());
    if subject != Subject::Caller && !named {
        let message = "Invalid value: \"\": at least one of user or group must be specified";
        return Some(("spec.user", message.to_owned()));
    }
    if subject == Subject::NamedInNamespace {
        let Some(resource) = resource else {
            let message = format!("Invalid value: {}: disallowed on this kind of request", json!(path));
            return Some(("spec.nonResourceAttributes", message));
        };
        let asked = resource.namespace.as_deref().unwrap_or_default();
        if asked != namespace {
            let message = format!("Invalid value: {asked:?}: must match metadata.namespace");
            return Some(("spec.resourceAttributes.namespace", message));
        }
    }
    None
}

#[async_trait]
impl Strategy for AccessReviews {
    async fn answer(&self, question: Value, context: &WriteContext<'_>) -> Result<Value, Status> {
        let spec: SubjectAccessReviewSpec = read(&question["spec"]).map_err(|status| *status)?;
        let namespace = question["metadata"]["namespace"].as_str().unwrap_or_default();
        if let Some((field, message)) = broken(&spec, self.1, namespace) {
            let kind = question["kind"].as_str().unwrap_or_default();
            return Err(invalid(GROUP, kind, field, &message));
        }
        let user = if self.1 == Subject::Caller {
            Arc::new(context.user.clone())
        } else {
            Arc::new(UserInfo {
                name: spec.user.unwrap_or_default(),
                uid: spec.uid.unwrap_or_default(),
                groups: spec.groups.unwrap_or_default(),
                extra: spec.extra.unwrap_or_default(),
            })
        };
        let attributes = match (spec.resource_attributes, spec.non_resource_attributes) {
            (Some(resource), _) => on_resource(user, resource),
            (None, path) => on_path(user, path.unwrap_or_default()),
        };
        let mut status = match self.0.authorizer.authorize(&attributes).await {
            Decision::Allow(reason) => json!({"allowed": true, "reason": reason}),
            Decision::Deny(reason) => json!({"allowed": false, "denied": true, "reason": reason}),
            Decision::NoOpinion(reason) => json!({"allowed": false, "reason": reason}),
            Decision::Failed(error) => json!({"allowed": false, "evaluationError": error}),
        };
        if status["reason"] == ""
            && let Some(fields) = status.as_object_mut()
        {
            fields.remove("reason");
        }
        Ok(answered(question, status))
    }
}

/// The requirements of a review's selector (KEP-4601), or those of its text. What can't be read requires nothing: the
/// access is then decided as if all were meant.
fn field_selector(asked: &FieldSelectorAttributes) -> FieldSelector {
    let Some(requirements) = &asked.requirements else {
        return asked.raw_selector.as_deref().unwrap_or_default().parse().unwrap_or_default();
    };
    let term = |requirement: &FieldSelectorRequirement| match (requirement.operator.as_str(), &requirement.values) {
        ("In", Some(values)) if values.len() == 1 => Some((requirement.key.clone(), values[0].clone(), true)),
        ("NotIn", Some(values)) if values.len() == 1 => Some((requirement.key.clone(), values[0].clone(), false)),
        _ => None,
    };
    FieldSelector { terms: requirements.iter().filter_map(term).collect() }
}

fn label_selector(asked: &LabelSelectorAttributes) -> LabelSelector {
    let Some(requirements) = &asked.requirements else {
        return asked.raw_selector.as_deref().unwrap_or_default().parse().unwrap_or_default();
    };
    let spec = LabelSelectorSpec { match_expressions: Some(requirements.clone()), match_labels: None };
    LabelSelector::from_spec(&spec).unwrap_or_default()
}

/// Answers `SelfSubjectRulesReview`.
pub(super) struct RulesReviews(pub ReviewDeps);

fn resource_rule(rule: &PolicyRule) -> Option<Value> {
    let resources = rule.resources.as_ref().filter(|resources| !resources.is_empty())?;
    let mut entry = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": resources});
    if let Some(names) = rule.resource_names.as_ref().filter(|names| !names.is_empty()) {
        entry["resourceNames"] = json!(names);
    }
    Some(entry)
}

fn path_rule(rule: &PolicyRule) -> Option<Value> {
    let paths = rule.non_resource_urls.as_ref().filter(|paths| !paths.is_empty())?;
    Some(json!({"verbs": rule.verbs, "nonResourceURLs": paths}))
}

#[async_trait]
impl Strategy for RulesReviews {
    async fn answer(&self, question: Value, context: &WriteContext<'_>) -> Result<Value, Status> {
        let namespace = question["spec"]["namespace"].as_str().unwrap_or_default();
        if namespace.is_empty() {
            return Err(status::bad_request("no namespace on request"));
        }
        let resolved = self.0.rules.rules_for(context.user, namespace).await;
        let mut status = json!({
            "resourceRules": resolved.rules.iter().filter_map(resource_rule).collect::<Vec<_>>(),
            "nonResourceRules": resolved.rules.iter().filter_map(path_rule).collect::<Vec<_>>(),
            "incomplete": resolved.incomplete,
        });
        if !resolved.errors.is_empty() {
            status["evaluationError"] = resolved.errors.join(", ").into();
        }
        Ok(answered(question, status))
    }
}
