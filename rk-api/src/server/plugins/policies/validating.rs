//! ValidatingAdmissionPolicies.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    super::{forbid, list, text},
    Policies,
    compile::{Policy, Validation},
    evaluate::{Evaluation, Seen, Shown, settled},
    matched, params, sees,
};
use crate::{
    Resource, Status, StatusExt,
    server::{
        AdmissionRequest, Admit, Operation, Reader,
        cel::{Failure, Val},
    },
};

/// The longest message that an expression may make, in bytes (apiserver's `MaxEvaluatedMessageExpressionSizeBytes`).
const MAX_MESSAGE: usize = 5 * 1024;
/// The longest audit annotation (apiserver's `MaxAuditAnnotationValueLength`).
const MAX_ANNOTATION: usize = 10 * 1024;

/// Refuses what the ValidatingAdmissionPolicies that are bound to it refuse; or warns, or notes it for the audit log.
#[derive(Debug)]
pub struct ValidatingPolicies(Policies);

impl Default for ValidatingPolicies {
    fn default() -> Self {
        Self(Policies::new("validatingadmissionpolicies", "validatingadmissionpolicybindings"))
    }
}

/// What a policy has against a write.
struct Objection {
    message: String,
    reason: String,
    /// Whether it refuses the write whatever the binding says is to be done.
    refuses: bool,
}

impl Objection {
    /// Of an expression that could not be evaluated.
    fn failed(why: impl Into<String>) -> Self {
        Self { message: why.into(), reason: String::new(), refuses: false }
    }

    /// Of a policy that can't be used as it is, or whose audit annotations can't.
    fn unusable(why: impl Into<String>) -> Self {
        Self { refuses: true, ..Self::failed(why) }
    }
}

/// What came of a policy for one binding and one param.
#[derive(Default)]
struct Judged {
    objections: Vec<Objection>,
    annotations: Vec<(String, String)>,
}

#[async_trait]
impl Admit for ValidatingPolicies {
    fn name(&self) -> &str {
        "ValidatingAdmissionPolicy"
    }

    fn handles(&self, _operation: Operation, resource: &Resource, _subresource: &str) -> bool {
        sees(resource)
    }

    async fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let set = self.0.current(reader).await?;
        let (mut seen, mut denied) = (Shown::default(), None);
        for policy in set.0.iter().filter(|policy| !policy.bindings.is_empty()) {
            let Some(shown) = matched(&policy.resources, request, reader).await? else { continue };
            for binding in &policy.bindings {
                if matched(&binding["spec"]["matchResources"], request, reader).await?.is_none() {
                    continue;
                }
                let seen = seen.of(request, &shown, reader).await?;
                for objection in judge(policy, binding, seen, request, reader).await {
                    act(policy, binding, objection, request, &mut denied);
                }
            }
        }
        denied.map_or(Ok(()), Err)
    }
}

/// Judges a write by a policy under a binding.
async fn judge(
    policy: &Policy,
    binding: &Value,
    seen: &Seen,
    request: &AdmissionRequest,
    reader: &dyn Reader,
) -> Vec<Objection> {
    let failed = |objection: Objection| if policy.fail { vec![objection] } else { Vec::new() };
    if let Some(why) = &policy.broken {
        return failed(Objection::unusable(format!("failed to configure policy: {why}")));
    }
    let params = match params::params(&policy.param_kind, binding, request, reader).await {
        Ok(params) => params,
        Err(why) => return failed(Objection::unusable(format!("failed to configure binding: {why}"))),
    };
    let mut objections = Vec::new();
    for param in &params {
        let judged = settled(request, reader, |answers| {
            let mut evaluation = Evaluation::new(&seen.inputs(param), &policy.variables, answers)?;
            judge_one(policy, &mut evaluation)
        });
        match judged.await {
            Ok(judged) => {
                objections.extend(judged.objections);
                for (key, value) in judged.annotations {
                    request.notes.annotate(format!("{}/{key}", policy.name), value);
                }
            }
            Err(failure) => objections.extend(failed(Objection::failed(failure.to_string()))),
        }
    }
    objections
}

/// Evaluates the expressions of a policy.
///
/// # Errors
/// The match conditions fail, or the authorizer is to be asked; other expressions fail by the policy's failure policy.
fn judge_one<'a>(policy: &'a Policy, evaluation: &mut Evaluation<'a, '_>) -> Result<Judged, Failure> {
    let mut judged = Judged::default();
    if !evaluation.all(&policy.conditions)? {
        return Ok(judged);
    }
    for validation in &policy.validations {
        match evaluation.holds(&validation.program) {
            Ok(true) => {}
            Ok(false) => {
                let message = message(validation, evaluation)?;
                judged.objections.push(Objection { message, reason: validation.reason.clone(), refuses: false });
            }
            Err(ask @ Failure::Ask(_)) => return Err(ask),
            Err(failure) if policy.fail => {
                let why = format!("expression '{}' resulted in error: {failure}", validation.text);
                judged.objections.push(Objection::failed(why));
            }
            Err(_) => {}
        }
    }
    for (key, program) in &policy.annotations {
        match evaluation.value(program) {
            Ok(Val::String(value)) if !value.is_empty() => {
                let mut end = value.len().min(MAX_ANNOTATION);
                while !value.is_char_boundary(end) {
                    end -= 1;
                }
                judged.annotations.push((key.clone(), value[..end].to_owned()));
            }
            Ok(_) => {}
            Err(ask @ Failure::Ask(_)) => return Err(ask),
            Err(failure) if policy.fail => {
                let why = format!("audit annotation '{key}' resulted in error: {failure}");
                judged.objections.push(Objection::unusable(why));
            }
            Err(_) => {}
        }
    }
    Ok(judged)
}

fn message<'a>(validation: &'a Validation, evaluation: &mut Evaluation<'a, '_>) -> Result<String, Failure> {
    let made = match &validation.message_expression {
        None => None,
        Some(program) => match evaluation.value(program) {
            Ok(Val::String(text)) => Some(text.trim().to_owned()),
            Err(ask @ Failure::Ask(_)) => return Err(ask),
            _ => None,
        },
    };
    let usable = |text: &String| !text.is_empty() && !text.contains('\n') && text.len() <= MAX_MESSAGE;
    Ok(match (made.filter(usable), validation.message.as_str()) {
        (Some(made), _) => made,
        (None, "") => format!("failed expression: {}", validation.text),
        (None, message) => message.to_owned(),
    })
}

/// Does what a binding says is to be done about an objection.
fn act(
    policy: &Policy,
    binding: &Value,
    objection: Objection,
    request: &AdmissionRequest,
    denied: &mut Option<Status>,
) {
    let (policy, binding_name, why) = (&policy.name, text(&binding["metadata"]["name"]), &objection.message);
    let actions: Vec<&str> = if objection.refuses {
        vec!["Deny"]
    } else {
        list(&binding["spec"]["validationActions"]).iter().filter_map(Value::as_str).collect()
    };
    for &action in &actions {
        match action {
            "Warn" => request.notes.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding_name}': {why}"
            )),
            "Audit" => {
                let failure = json!([{"message": why, "policy": policy, "binding": binding_name,
                    "validationActions": actions}]);
                request.notes.annotate("validation.policy.admission.k8s.io/validation_failure", failure.to_string());
            }
            // The first one is told.
            "Deny" if denied.is_none() => {
                let message =
                    format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding_name}' denied request: {why}");
                *denied = Some(refusal(request, &message, &objection.reason));
            }
            _ => {}
        }
    }
}

fn refusal(request: &AdmissionRequest, message: &str, reason: &str) -> Status {
    let (reason, code) = match reason {
        "Forbidden" => ("Forbidden", 403),
        "Unauthorized" => ("Unauthorized", 401),
        "RequestEntityTooLarge" => ("RequestEntityTooLarge", 413),
        _ => ("Invalid", 422),
    };
    let mut status = forbid(request, message);
    status.reason = Some(reason.to_owned());
    status.code = Some(code);
    status.cause("", "", message)
}
