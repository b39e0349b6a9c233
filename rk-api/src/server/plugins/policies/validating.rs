//! ValidatingAdmissionPolicies.

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

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
        AdmissionRequest, Admit, Notes, Operation, Reader,
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
    /// The validation that has it.
    index: usize,
    /// Whether it refuses the write whatever the binding says is to be done.
    refuses: bool,
}

impl Objection {
    /// Of an expression that could not be evaluated.
    fn failed(why: impl Into<String>) -> Self {
        Self { message: why.into(), reason: String::new(), index: 0, refuses: false }
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

/// The audit annotations of a policy, of all its bindings and params: each value of a key once.
#[derive(Default)]
struct Annotations(Vec<(String, Vec<String>)>);

impl Annotations {
    fn add(&mut self, (key, value): (String, String)) {
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) if values.contains(&value) => {}
            Some((_, values)) => values.push(value),
            None => self.0.push((key, vec![value])),
        }
    }

    fn publish(self, policy: &str, notes: &Notes) {
        for (key, values) in self.0 {
            notes.annotate(format!("{policy}/{key}"), values.join(", "));
        }
    }
}

/// A failure as the audit log has it (apiserver's `ValidationFailureValue`).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Noted<'a> {
    message: &'a str,
    policy: &'a str,
    binding: &'a str,
    expression_index: usize,
    validation_actions: &'a [&'a str],
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
            let mut annotations = Annotations::default();
            for binding in &policy.bindings {
                if matched(&binding["spec"]["matchResources"], request, reader).await?.is_none() {
                    continue;
                }
                // Boxed, so that a write that no policy is about moves little.
                let seen = Box::pin(seen.of(request, &shown, reader)).await?;
                let judged = Box::pin(judge(policy, binding, seen, request, reader)).await;
                judged.annotations.into_iter().for_each(|annotation| annotations.add(annotation));
                for objection in judged.objections {
                    act(policy, binding, objection, request, &mut denied);
                }
            }
            annotations.publish(&policy.name, &request.notes);
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
) -> Judged {
    let failed = |objection: Objection| {
        let objections = if policy.fail { vec![objection] } else { Vec::new() };
        Judged { objections, ..Judged::default() }
    };
    if let Some(why) = &policy.broken {
        return failed(Objection::unusable(format!("failed to configure policy: {why}")));
    }
    let params = match params::params(&policy.param_kind, binding, request, reader).await {
        Ok(params) => params,
        Err(why) => return failed(Objection::unusable(format!("failed to configure binding: {why}"))),
    };
    let mut all = Judged::default();
    for param in &params {
        let judged = settled(request, reader, |answers| {
            let mut evaluation = Evaluation::new(&seen.inputs(param), &policy.variables, answers)?;
            judge_one(policy, &mut evaluation)
        });
        let judged = judged.await.unwrap_or_else(|failure| failed(Objection::failed(failure.to_string())));
        all.objections.extend(judged.objections);
        all.annotations.extend(judged.annotations);
    }
    all
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
    for (index, validation) in policy.validations.iter().enumerate() {
        match evaluation.holds(&validation.program) {
            Ok(true) => {}
            Ok(false) => {
                let message = message(validation, evaluation)?;
                let reason = validation.reason.clone();
                judged.objections.push(Objection { message, reason, index, refuses: false });
            }
            Err(ask @ Failure::Ask(_)) => return Err(ask),
            Err(failure) if policy.fail => {
                let why = format!("expression '{}' resulted in error: {failure}", validation.text);
                judged.objections.push(Objection { index, ..Objection::failed(why) });
            }
            Err(_) => {}
        }
    }
    for annotation in &policy.annotations {
        match evaluation.value(&annotation.program) {
            Ok(Val::String(value)) => {
                let value = value.trim();
                let mut end = value.len().min(MAX_ANNOTATION);
                while !value.is_char_boundary(end) {
                    end -= 1;
                }
                if !value.is_empty() {
                    judged.annotations.push((annotation.key.clone(), value[..end].to_owned()));
                }
            }
            Ok(_) => {}
            Err(ask @ Failure::Ask(_)) => return Err(ask),
            Err(failure) if policy.fail => {
                let why = format!("expression '{}' resulted in error: {failure}", annotation.text);
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
                let failure = Noted {
                    message: why,
                    policy,
                    binding: binding_name,
                    expression_index: objection.index,
                    validation_actions: &actions,
                };
                // Names and texts always are JSON.
                let failure = serde_json::to_string(&[failure]).unwrap_or_default();
                request.notes.annotate("validation.policy.admission.k8s.io/validation_failure", failure);
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
