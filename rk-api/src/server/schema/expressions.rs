//! The rules of custom resources in CEL: `x-kubernetes-validations`
//! (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules>).
//!
//! A schema's rules are compiled when its definition is written, where each that is wrong is told, and once for all when the
//! first object is validated by them. They go down the tree beside the object, and beside what it was before as far as
//! Kubernetes can tell which part of the one is which part of the other.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{ListType, builtin, parse::Path};
use crate::server::{
    FieldError, FieldErrors,
    cel::{
        Answers, CALL_LIMIT, Environment, Failure, Meter, Program, Type, Val, batch, estimate,
        schema::{Typed, typed},
    },
};

/// What the rules of one object may cost together (apiextensions' `RuntimeCELCostBudget`).
const BUDGET: u64 = 10_000_000;
/// What one rule may be estimated to cost, and all rules of a version (`StaticEstimatedCostLimit`, `...CRDCostLimit`).
const RULE_ESTIMATE: u64 = 10_000_000;
const ALL_ESTIMATE: u64 = 100_000_000;
/// So many expressions are blamed where all together cost too much.
const MOST_EXPENSIVE: usize = 10;

/// The rules of a schema and of its parts.
#[derive(Debug)]
pub(crate) struct Expressions {
    /// The type in JSON, which stands for the value in errors.
    name: Box<str>,
    kind: Type,
    rules: Vec<Rule>,
    fields: BTreeMap<Box<str>, Expressions>,
    /// Of a list's items, or a map's values.
    parts: Option<Box<Expressions>>,
    list: ListType,
}

#[derive(Debug)]
struct Rule {
    text: Box<str>,
    message: Box<str>,
    message_expression: Option<Program>,
    reason: &'static str,
    /// What to add to the path of what is wrong.
    path: Box<str>,
    program: Program,
    /// Whether it reads the old value, and whether it does also where there is none.
    transition: bool,
    optional: bool,
}

/// The place of `oldSelf`, behind `self`.
const OLD: usize = 1;

/// What is wrong with a rule, and where in the definition.
pub(crate) type Issue = FieldError;

/// How often a rule is evaluated, and where old values can't be told.
#[derive(Clone, Copy)]
struct Surroundings<'a> {
    /// `None` in lists and maps without limits.
    often: Option<u64>,
    uncorrelatable: Option<&'a str>,
}

struct Compiler<'i> {
    issues: &'i mut Vec<Issue>,
    total: u64,
    /// Each expression's cost, by its path.
    costs: Vec<(u64, String)>,
}

impl Expressions {
    /// Compiles the rules of the root schema of a version; `path` says where it is. `None` if there are none.
    pub(crate) fn compile(schema: &Value, path: &str, issues: &mut Vec<Issue>) -> Option<Self> {
        // Most schemas have none, which is told at once.
        if !has_rules(schema) {
            return None;
        }
        let (compiled, found) = batch(|| {
            let mut issues = Vec::new();
            (Self::compile_here(schema, path, &mut issues), issues)
        });
        issues.extend(found);
        compiled
    }

    fn compile_here(schema: &Value, path: &str, issues: &mut Vec<Issue>) -> Option<Self> {
        let mut compiler = Compiler { issues, total: 0, costs: Vec::new() };
        let root = Surroundings { often: Some(1), uncorrelatable: None };
        let compiled = compiler.node(schema, path, true, root);
        let (total, mut costs) = (compiler.total, compiler.costs);
        if total > ALL_ESTIMATE {
            let mut forbid = |field: String, message: String| {
                issues.push(Issue { reason: "FieldValueForbidden", field, message });
            };
            costs.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
            for (_, path) in costs.into_iter().take(MOST_EXPENSIVE) {
                let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
                forbid(path, format!("Forbidden: {why}"));
            }
            let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
            forbid(path.to_owned(), format!("Forbidden: {what} {}", exceeds(total, ALL_ESTIMATE)));
        }
        compiled
    }

    /// The broken rules of an object; `old` is what it was.
    pub(crate) fn validate(&self, object: &Value, old: Option<&Value>) -> FieldErrors {
        let mut run = Run { errors: Vec::new(), left: BUDGET };
        run.node(self, object, old, &Path::Root);
        run.errors
    }
}

/// Whether a schema or a part of it may have rules.
fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields.contains_key("x-kubernetes-validations") || fields.values().any(has_rules),
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

/// What to do about costs.
const ADVICE: &str = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are \
                      declared)";

fn exceeds(cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        f if f > 100.0 => "more than 100".to_owned(),
        // Not to say 1.0.
        f if f < 1.5 => format!("{f:.6}"),
        f => format!("{f:.1}"),
    };
    format!("exceeds budget by factor of {factor}x {ADVICE}")
}

/// The value of a rule as Go prints it in errors.
fn go(rule: &Value) -> String {
    let text = |field: &str| rule[field].as_str().unwrap_or_default().to_owned();
    let pointer = |field: &str, kind: &str| {
        if rule[field].is_null() { format!("({kind})(nil)") } else { format!("({kind})(0x0)") }
    };
    format!(
        "apiextensions.ValidationRule{{Rule:{:?}, Message:{:?}, MessageExpression:{:?}, Reason:{}, FieldPath:{:?}, OptionalOldSelf:{}}}",
        text("rule"),
        text("message"),
        text("messageExpression"),
        pointer("reason", "*apiextensions.FieldValueErrorReason"),
        text("fieldPath"),
        pointer("optionalOldSelf", "*bool"),
    )
}

impl Compiler<'_> {
    fn issue(&mut self, reason: &'static str, field: String, message: String) {
        self.issues.push(Issue { reason, field, message });
    }

    fn invalid(&mut self, field: String, value: &str, why: &str) {
        self.issue("FieldValueInvalid", field, format!("Invalid value: {value}: {why}"));
    }

    fn node(&mut self, schema: &Value, path: &str, root: bool, around: Surroundings<'_>) -> Option<Expressions> {
        let rules = schema["x-kubernetes-validations"].as_array().map(Vec::as_slice).unwrap_or_default();
        // Types are worked out where there are rules: a rule sees all that is below it.
        let typed = if rules.is_empty() { None } else { typed(schema, root, "object") };
        let mut compiled = Vec::new();
        match (&typed, rules) {
            (Some(typed), rules) => {
                for (index, rule) in rules.iter().enumerate() {
                    let path = format!("{path}.x-kubernetes-validations[{index}]");
                    compiled.extend(self.rule(rule, schema, typed, &path, around));
                }
            }
            (None, [_, ..]) => {
                let why = "Forbidden: rules need a schema with a type that expressions know".to_owned();
                self.issue("FieldValueForbidden", format!("{path}.x-kubernetes-validations"), why);
            }
            (None, []) => {}
        }
        let embedded = |part: &Value| part["x-kubernetes-embedded-resource"] == true;
        let atomic = (schema["x-kubernetes-map-type"] == "atomic").then_some(path);
        let inner = Surroundings { uncorrelatable: around.uncorrelatable.or(atomic), ..around };
        let mut fields = BTreeMap::new();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            if root && name == "metadata" {
                continue;
            }
            if let Some(node) = self.node(property, &format!("{path}.properties[{name}]"), embedded(property), inner) {
                fields.insert(name.as_str().into(), node);
            }
        }
        let list = builtin::list_type(schema);
        let (part, field, most) = if schema["items"].is_object() {
            (&schema["items"], "items", "maxItems")
        } else {
            (&schema["additionalProperties"], "additionalProperties", "maxProperties")
        };
        let mut parts = None;
        if part.is_object() {
            let opaque = (field == "items" && !matches!(list, ListType::Map(_))).then_some(path);
            let around = Surroundings {
                often: around.often.zip(schema[most].as_u64()).map(|(often, most)| often.saturating_mul(most)),
                uncorrelatable: inner.uncorrelatable.or(opaque),
            };
            parts = self.node(part, &format!("{path}.{field}"), embedded(part), around).map(Box::new);
        }
        if compiled.is_empty() && fields.is_empty() && parts.is_none() {
            return None;
        }
        let name = schema["type"].as_str().unwrap_or_default().into();
        let kind = typed.map(|typed| typed.kind).unwrap_or_default();
        Some(Expressions { name, kind, rules: compiled, fields, parts, list })
    }

    fn rule(
        &mut self,
        rule: &Value,
        schema: &Value,
        typed: &Typed,
        path: &str,
        around: Surroundings<'_>,
    ) -> Option<Rule> {
        let field = |name: &str| rule[name].as_str().unwrap_or_default();
        let (text, message, expression) = (field("rule"), field("message"), field("messageExpression"));
        let before = self.issues.len();
        if text.trim().is_empty() {
            let why = "Required value: rule is not specified".to_owned();
            self.issue("FieldValueRequired", format!("{path}.rule"), why);
            return None;
        }
        if !message.is_empty() && message.trim().is_empty() {
            self.invalid(format!("{path}.message"), &format!("{message:?}"), "message must be non-empty if specified");
        } else if message.trim().contains('\n') {
            self.invalid(format!("{path}.message"), &format!("{message:?}"), "message must not contain line breaks");
        } else if text.trim().contains('\n') && message.is_empty() && expression.is_empty() {
            let why = "Required value: message must be specified if rule contains line breaks".to_owned();
            self.issue("FieldValueRequired", format!("{path}.message"), why);
        }
        let reason = match field("reason") {
            "" | "FieldValueInvalid" => "FieldValueInvalid",
            "FieldValueRequired" => "FieldValueRequired",
            "FieldValueForbidden" => "FieldValueForbidden",
            "FieldValueDuplicate" => "FieldValueDuplicate",
            other => {
                let known =
                    r#""FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate""#;
                let why = format!("Unsupported value: {other:?}: supported values: {known}");
                self.issue("FieldValueNotSupported", format!("{path}.reason"), why);
                "FieldValueInvalid"
            }
        };
        let sub = field("fieldPath");
        let suffix = match sub {
            "" => Some(String::new()),
            sub => field_path(sub, schema),
        };
        if suffix.is_none() {
            self.invalid(format!("{path}.fieldPath"), &format!("{sub:?}"), "fieldPath must be a valid path");
        }
        let optional = rule["optionalOldSelf"] == true;
        let mut environment = Environment::default();
        environment.declare("self", typed.kind.clone());
        environment.declare("oldSelf", if optional { Type::optional(typed.kind.clone()) } else { typed.kind.clone() });
        let mut compile = |text: &str, wanted: &Type, words: [&str; 2], field: &str, value: String| {
            let program = Program::checked(text, &environment);
            let program = program
                .map_err(|error| format!("{}compilation failed: {error}", words[0]))
                .and_then(|program| if wanted.is(program.kind()) { Ok(program) } else { Err(words[1].to_owned()) });
            match program {
                Ok(program) => {
                    self.estimate(&program, typed, around, format!("{path}.{field}"), field);
                    Some(program)
                }
                Err(why) => {
                    self.invalid(format!("{path}.{field}"), &value, &why);
                    None
                }
            }
        };
        let program = compile(text, &Type::Bool, ["", "cel expression must evaluate to a bool"], "rule", go(rule));
        let words = ["messageExpression ", "messageExpression must evaluate to a string"];
        let message_expression = if expression.is_empty() {
            None
        } else {
            compile(expression, &Type::String, words, "messageExpression", go(rule))
        };
        let program = program?;
        let transition = program.uses(OLD);
        match around.uncorrelatable.filter(|_| transition) {
            Some(list) => self.invalid(
                format!("{path}.rule"),
                &format!("{text:?}"),
                &format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}"),
            ),
            None if !transition && rule["optionalOldSelf"].is_boolean() => {
                let value = rule["optionalOldSelf"].to_string();
                self.invalid(
                    format!("{path}.optionalOldSelf"),
                    &value,
                    "may not be set if oldSelf is not used in rule",
                );
            }
            None => {}
        }
        if self.issues.len() > before {
            return None;
        }
        Some(Rule {
            text: text.trim().into(),
            message: message.trim().into(),
            message_expression,
            reason,
            path: suffix.unwrap_or_default().into(),
            program,
            transition,
            optional,
        })
    }

    fn estimate(&mut self, program: &Program, typed: &Typed, around: Surroundings<'_>, path: String, what: &str) {
        let once = estimate(program, &[&typed.bounds, &typed.bounds]);
        let cost = once.saturating_mul(around.often.unwrap_or_else(|| typed.most_often()));
        self.total = self.total.saturating_add(cost);
        self.costs.push((cost, path.clone()));
        if cost > RULE_ESTIMATE {
            let message = format!("Forbidden: estimated {what} cost {}", exceeds(cost, RULE_ESTIMATE));
            self.issue("FieldValueForbidden", path, message);
        }
    }
}

/// The path of a field below a rule, as it is added to that of the rule's value; `None` if the schema has no such field.
fn field_path(path: &str, schema: &Value) -> Option<String> {
    let (mut rest, mut at, mut out) = (path.trim(), schema, String::new());
    while !rest.is_empty() {
        let name: String;
        if let Some(after) = rest.strip_prefix("['") {
            let end = after.find("']")?;
            name = after[..end].to_owned();
            rest = &after[end + 2..];
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            name = after[..end].to_owned();
            rest = &after[end..];
        }
        if name.is_empty() {
            return None;
        }
        match (at["properties"].get(&name), at["additionalProperties"].is_object()) {
            (Some(property), _) => {
                out.push('.');
                out.push_str(&name);
                at = property;
            }
            (None, true) => {
                out.push_str(&format!("[{name}]"));
                at = &at["additionalProperties"];
            }
            (None, false) => return None,
        }
    }
    Some(out)
}

struct Run {
    errors: FieldErrors,
    left: u64,
}

impl Run {
    /// Whether there is budget left for more.
    fn node(&mut self, node: &Expressions, value: &Value, old: Option<&Value>, path: &Path<'_>) -> bool {
        // Whether there may be nothing is for the rules around to say.
        if value.is_null() {
            return true;
        }
        let old = old.filter(|old| !old.is_null());
        for rule in &node.rules {
            if rule.transition && old.is_none() && !rule.optional {
                continue;
            }
            if !self.rule(node, rule, value, old, path) {
                return false;
            }
        }
        match value {
            Value::Object(map) => self.object(node, map, old.and_then(Value::as_object), path),
            Value::Array(items) => {
                let Some(part) = &node.parts else { return true };
                let old = node.list.counterparts(items, old.and_then(Value::as_array));
                let mut items = items.iter().enumerate().zip(old);
                items.all(|((index, item), old)| self.node(part, item, old, &Path::Item(path, index)))
            }
            _ => true,
        }
    }

    fn object(
        &mut self,
        node: &Expressions,
        map: &Map<String, Value>,
        old: Option<&Map<String, Value>>,
        path: &Path<'_>,
    ) -> bool {
        map.iter().all(|(name, value)| {
            let old = old.and_then(|old| old.get(name));
            match (node.fields.get(name.as_str()), &node.parts) {
                (Some(field), _) => self.node(field, value, old, &Path::Field(path, name)),
                (None, Some(part)) => self.node(part, value, old, &Path::Key(path, name)),
                (None, None) => true,
            }
        })
    }

    fn rule(&mut self, node: &Expressions, rule: &Rule, value: &Value, old: Option<&Value>, path: &Path<'_>) -> bool {
        let answers = Answers::default();
        let mut meter = Meter::new(CALL_LIMIT.min(self.left), &answers);
        let scope = || -> Result<[Val<'_>; 2], Failure> {
            let old = old.map(|old| Val::of(old, &node.kind)).transpose()?;
            let old = if rule.optional { Val::optional(old) } else { old.unwrap_or(Val::Null) };
            Ok([Val::of(value, &node.kind)?, old])
        };
        let holds = scope().and_then(|scope| match rule.program.evaluate(scope.as_slice(), &mut meter)? {
            Val::Bool(true) => Ok(None),
            Val::Bool(false) => Ok(Some(rule.message_for(&scope, &mut meter))),
            _ => Err(Failure::overload()),
        });
        let out_of_budget = self.left < CALL_LIMIT;
        self.left = self.left.saturating_sub(meter.spent());
        let whole = |field: String| if field.is_empty() { "<nil>".to_owned() } else { field };
        let mut invalid = |why: String| {
            let message = format!("Invalid value: {:?}: {why}", node.name);
            self.errors.push(FieldError { reason: "FieldValueInvalid", field: whole(path.to_string()), message });
        };
        match holds {
            Ok(None) => true,
            // What was wrong before and did not change may stay (KEP-4008).
            Ok(Some(_)) if !rule.transition && old == Some(value) => true,
            Ok(Some(why)) => {
                let message = match rule.reason {
                    "FieldValueRequired" => format!("Required value: {why}"),
                    "FieldValueForbidden" => format!("Forbidden: {why}"),
                    "FieldValueDuplicate" => format!("Duplicate value: {:?}", node.name),
                    _ => format!("Invalid value: {:?}: {why}", node.name),
                };
                let field = path.to_string();
                let joined = format!("{field}{}", rule.path);
                let joined = if field.is_empty() { joined.trim_start_matches('.').to_owned() } else { joined };
                self.errors.push(FieldError { reason: rule.reason, field: whole(joined), message });
                true
            }
            Err(Failure::Cost) if out_of_budget => {
                invalid(
                    "validation failed due to running out of cost budget, no further validation rules will be run"
                        .into(),
                );
                false
            }
            Err(failure @ Failure::Cost) => {
                let why = "no further validation rules will be run due to call cost exceeds limit for rule";
                invalid(format!("'{failure}': {why}: {}", rule.text));
                false
            }
            Err(failure) if failure == Failure::overload() => {
                let why = "call arguments did not match a supported operator, function or macro signature for rule";
                invalid(format!("'{failure}': {why}: {}", rule.text));
                true
            }
            Err(failure) => {
                invalid(format!("{failure} evaluating rule: {}", rule.text));
                true
            }
        }
    }
}

impl Rule {
    /// What to say of an object that breaks the rule.
    fn message_for<'a>(&'a self, scope: &[Val<'a>], meter: &mut Meter<'_>) -> String {
        let made = self.message_expression.as_ref().and_then(|program| match program.evaluate(scope, meter) {
            Ok(Val::String(text)) if !text.trim().is_empty() && !text.contains('\n') => Some(text.trim().to_owned()),
            _ => None,
        });
        made.unwrap_or_else(|| match &*self.message {
            "" => format!("failed rule: {}", self.text),
            message => message.to_owned(),
        })
    }
}
