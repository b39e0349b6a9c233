//! A policy's expressions, and what is wrong with them.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    super::{list, text},
    environment::environment,
};
use crate::server::{
    FieldError, FieldErrors,
    cel::{Environment, Program, Type, batch},
    kinds::names,
};

/// A policy that can be evaluated.
#[derive(Debug, Default)]
pub(super) struct Policy {
    pub(super) name: String,
    /// The version of the object that it was made of.
    pub(super) revision: u64,
    pub(super) bindings: Vec<Value>,
    /// `matchConstraints`
    pub(super) resources: Value,
    /// `paramKind`
    pub(super) param_kind: Value,
    /// Whether what fails refuses the write.
    pub(super) fail: bool,
    pub(super) conditions: Vec<(String, Program)>,
    pub(super) variables: Vec<Program>,
    pub(super) validations: Vec<Validation>,
    pub(super) annotations: Vec<Annotation>,
    pub(super) mutations: Vec<Mutation>,
    /// `reinvocationPolicy: IfNeeded`
    pub(super) again: bool,
    /// What is wrong with it: it was stored before that was judged.
    pub(super) broken: Option<String>,
}

#[derive(Debug)]
pub(super) struct Validation {
    pub(super) text: String,
    pub(super) program: Program,
    pub(super) message: String,
    pub(super) message_expression: Option<Program>,
    pub(super) reason: String,
}

/// An audit annotation.
#[derive(Debug)]
pub(super) struct Annotation {
    pub(super) key: String,
    pub(super) text: String,
    pub(super) program: Program,
}

#[derive(Debug)]
pub(super) struct Mutation {
    pub(super) program: Program,
    /// The value is applied; else it is a list of JSON patches.
    pub(super) applies: bool,
}

/// What is wrong with a policy's expressions.
pub(crate) fn issues(policy: &Value) -> FieldErrors {
    compile(policy).1
}

/// What is wrong with the match conditions of a webhook.
pub(crate) fn condition_issues(webhook: &Value, path: &str) -> FieldErrors {
    webhook_conditions(&webhook["matchConditions"], &format!("{path}.matchConditions")).1
}

/// Compiles the `matchConditions` of a webhook, which stand at `path`.
pub(super) fn webhook_conditions(conditions: &Value, path: &str) -> (Vec<(String, Program)>, FieldErrors) {
    // Most have none, and need no thread to say so.
    if list(conditions).is_empty() {
        return Default::default();
    }
    let environment = environment(false, true, false);
    batch(|| {
        let mut issues = FieldErrors::new();
        (self::conditions(conditions, path, &environment, &mut issues), issues)
    })
}

/// Compiles a list of `matchConditions`.
fn conditions(
    conditions: &Value,
    path: &str,
    environment: &Environment,
    issues: &mut FieldErrors,
) -> Vec<(String, Program)> {
    let mut compiler = Compiler { issues };
    let (mut seen, mut compiled) = (HashSet::new(), Vec::new());
    for (i, condition) in list(conditions).iter().enumerate() {
        let path = format!("{path}[{i}]");
        let name = text(&condition["name"]);
        if name.is_empty() {
            compiler.required(format!("{path}.name"), "");
        }
        for why in if name.is_empty() { Vec::new() } else { names::qualified_name(name) } {
            compiler.invalid(format!("{path}.name"), name, &why);
        }
        if !seen.insert(name) {
            let message = format!("Duplicate value: {name:?}");
            compiler.push("FieldValueDuplicate", format!("{path}.name"), message);
        }
        if let Some(program) = compiler.expression(condition, "expression", &path, environment, &[Type::Bool]) {
            compiled.push((name.to_owned(), program));
        }
    }
    compiled
}

/// Compiles a policy; the second part is what is wrong with it.
pub(super) fn compile(policy: &Value) -> (Policy, FieldErrors) {
    batch(|| compile_here(policy))
}

fn compile_here(policy: &Value) -> (Policy, FieldErrors) {
    let mut issues = FieldErrors::new();
    let spec = &policy["spec"];
    let params = spec["paramKind"].is_object();
    let mutating = policy["kind"] == "MutatingAdmissionPolicy";
    let mut all = environment(params, true, mutating);
    let conditions = conditions(&spec["matchConditions"], "spec.matchConditions", &all, &mut issues);
    let mut messages = environment(params, false, false);
    let mut compiled = Policy {
        name: text(&policy["metadata"]["name"]).to_owned(),
        resources: spec["matchConstraints"].clone(),
        param_kind: spec["paramKind"].clone(),
        fail: spec["failurePolicy"] != "Ignore",
        again: spec["reinvocationPolicy"] == "IfNeeded",
        conditions,
        ..Policy::default()
    };
    let mut compiler = Compiler { issues: &mut issues };
    compiler.variables(spec, &mut all, &mut messages, &mut compiled.variables);
    for (i, validation) in list(&spec["validations"]).iter().enumerate() {
        let path = format!("spec.validations[{i}]");
        let message = text(&validation["message"]);
        if message.contains('\n') {
            compiler.invalid(format!("{path}.message"), message, "message must not contain line breaks");
        }
        let reason = text(&validation["reason"]);
        if !matches!(reason, "" | "Unauthorized" | "Forbidden" | "Invalid" | "RequestEntityTooLarge") {
            let known = r#""Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized""#;
            let message = format!("Unsupported value: {reason:?}: supported values: {known}");
            compiler.push("FieldValueNotSupported", format!("{path}.reason"), message);
        }
        let expression = text(&validation["messageExpression"]);
        let message_expression = if expression.is_empty() {
            None
        } else {
            compiler.expression(validation, "messageExpression", &path, &messages, &[Type::String])
        };
        if let Some(program) = compiler.expression(validation, "expression", &path, &all, &[Type::Bool]) {
            compiled.validations.push(Validation {
                text: text(&validation["expression"]).trim().to_owned(),
                program,
                message: message.trim().to_owned(),
                message_expression,
                reason: reason.to_owned(),
            });
        }
    }
    let mut keys = HashSet::new();
    for (i, annotation) in list(&spec["auditAnnotations"]).iter().enumerate() {
        let path = format!("spec.auditAnnotations[{i}]");
        let key = text(&annotation["key"]);
        if key.is_empty() {
            compiler.required(format!("{path}.key"), "");
        } else if !keys.insert(key) {
            compiler.push("FieldValueDuplicate", format!("{path}.key"), format!("Duplicate value: {key:?}"));
        } else {
            // As it stands in the audit log.
            for why in names::qualified_name(&format!("{}/{key}", compiled.name)) {
                compiler.invalid(format!("{path}.key"), key, &why);
            }
        }
        let wanted = [Type::String, Type::Null];
        if let Some(program) = compiler.expression(annotation, "valueExpression", &path, &all, &wanted) {
            let text = text(&annotation["valueExpression"]).trim().to_owned();
            compiled.annotations.push(Annotation { key: key.to_owned(), text, program });
        }
    }
    for (i, mutation) in list(&spec["mutations"]).iter().enumerate() {
        let path = format!("spec.mutations[{i}]");
        let (field, wanted, applies) = match text(&mutation["patchType"]) {
            "ApplyConfiguration" => ("applyConfiguration", Type::map(Type::String, Type::Dyn), true),
            "JSONPatch" => ("jsonPatch", Type::list(Type::Dyn), false),
            other => {
                let known = r#""ApplyConfiguration", "JSONPatch""#;
                let message = format!("Unsupported value: {other:?}: supported values: {known}");
                compiler.push("FieldValueNotSupported", format!("{path}.patchType"), message);
                continue;
            }
        };
        if !mutation[field].is_object() {
            compiler.required(
                format!("{path}.{field}"),
                &format!("must be specified when patchType is {}", mutation["patchType"]),
            );
            continue;
        }
        let path = format!("{path}.{field}");
        if let Some(program) = compiler.expression(&mutation[field], "expression", &path, &all, &[wanted]) {
            compiled.mutations.push(Mutation { program, applies });
        }
    }
    compiled.broken = issues.first().map(|issue| format!("{}: {}", issue.field, issue.message));
    (compiled, issues)
}

struct Compiler<'i> {
    issues: &'i mut FieldErrors,
}

impl Compiler<'_> {
    fn push(&mut self, reason: &'static str, field: String, message: String) {
        self.issues.push(FieldError { reason, field, message });
    }

    fn invalid(&mut self, field: String, value: &str, why: &str) {
        self.push("FieldValueInvalid", field, format!("Invalid value: {value:?}: {why}"));
    }

    fn required(&mut self, field: String, why: &str) {
        let message = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        self.push("FieldValueRequired", field, message);
    }

    fn variables(
        &mut self,
        spec: &Value,
        all: &mut Environment,
        messages: &mut Environment,
        programs: &mut Vec<Program>,
    ) {
        let mut seen = HashSet::new();
        for (i, variable) in list(&spec["variables"]).iter().enumerate() {
            let path = format!("spec.variables[{i}]");
            let name = text(&variable["name"]);
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() {
                self.required(format!("{path}.name"), "name is not specified");
            } else if !name.chars().all(word) || name.starts_with(|c: char| c.is_ascii_digit()) {
                self.invalid(format!("{path}.name"), name, "name is not a valid CEL identifier");
            } else if !seen.insert(name) {
                self.push("FieldValueDuplicate", format!("{path}.name"), format!("Duplicate value: {name:?}"));
            } else if let Some(program) = self.expression(variable, "expression", &path, all, &[Type::Dyn]) {
                // Those behind it may read it.
                let kind = program.kind().clone();
                all.declare(format!("variables.{name}"), kind.clone());
                messages.declare(format!("variables.{name}"), kind);
                programs.push(program);
            }
        }
    }

    fn expression(
        &mut self,
        holder: &Value,
        field: &str,
        path: &str,
        environment: &Environment,
        wanted: &[Type],
    ) -> Option<Program> {
        let expression = text(&holder[field]);
        let path = format!("{path}.{field}");
        if expression.trim().is_empty() {
            self.required(path, &format!("{field} is not specified"));
            return None;
        }
        let why = match Program::checked(expression, environment) {
            Ok(program) if wanted.iter().any(|wanted| wanted.is(program.kind())) => return Some(program),
            Ok(_) => match wanted {
                [one] => format!("must evaluate to {one}"),
                several => {
                    let names: Vec<_> = several.iter().map(Type::name).collect();
                    format!("must evaluate to one of [{}]", names.join(" "))
                }
            },
            Err(error) => format!("compilation failed: {error}"),
        };
        self.invalid(path, expression, &why);
        None
    }
}
