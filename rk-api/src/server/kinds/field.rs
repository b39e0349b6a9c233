//! Where a rule is broken and in which words: the paths of fields, and the constructors of [`FieldError`] with exactly
//! the wording of apimachinery's `field` package, which clients and people match on.
//!
//! A [`Path`] is a chain of borrowed parts; it becomes text only when a rule is broken, so that a valid object costs no allocation.

use std::fmt;

use serde_json::Value;

use crate::{
    Status, StatusExt,
    server::{FieldError, FieldErrors},
    status,
};

/// A field's path, such as `spec.containers[0].name`.
#[derive(Debug, Clone, Copy)]
pub enum Path<'a> {
    /// The object itself, whose own path is empty.
    Root,
    /// A field (or several, joined by dots) of the parent.
    Field(&'a Path<'a>, &'a str),
    /// An item of the parent, a list.
    Index(&'a Path<'a>, usize),
    /// The value at a key of the parent, a map.
    Key(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    /// A field of this one; `name` may hold dots.
    pub fn child(&'a self, name: &'a str) -> Path<'a> {
        Path::Field(self, name)
    }

    /// An item of this list.
    pub fn index(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }

    /// A key of this map.
    pub fn key(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Path::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

/// Collects the broken rules of one object.
#[derive(Debug, Default)]
pub struct Errors(FieldErrors);

impl Errors {
    /// The broken rules found.
    pub fn into_inner(self) -> FieldErrors {
        self.0
    }

    /// How many were found so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none was found so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what was found elsewhere.
    pub fn extend(&mut self, errors: FieldErrors) {
        self.0.extend(errors);
    }

    fn push(&mut self, reason: &'static str, path: &Path<'_>, message: String) {
        self.0.push(FieldError { reason, field: path.to_string(), message });
    }

    /// A value is missing; `detail` may be empty.
    pub fn required(&mut self, path: &Path<'_>, detail: &str) {
        self.push("FieldValueRequired", path, with_detail("Required value".to_owned(), detail));
    }

    /// A value is malformed or out of bounds.
    pub fn invalid<V: Shown + ?Sized>(&mut self, path: &Path<'_>, value: &V, detail: &str) {
        self.push("FieldValueInvalid", path, with_detail(format!("Invalid value: {}", value.shown()), detail));
    }

    /// A value has the wrong type.
    pub fn type_invalid<V: Shown + ?Sized>(&mut self, path: &Path<'_>, value: &V, detail: &str) {
        self.push("FieldValueTypeInvalid", path, with_detail(format!("Invalid value: {}", value.shown()), detail));
    }

    /// A value is none of an enumeration; `supported` is given in the order to show (Kubernetes sorts it).
    pub fn not_supported<V: Shown + ?Sized>(&mut self, path: &Path<'_>, value: &V, supported: &[&str]) {
        let mut detail = String::new();
        if !supported.is_empty() {
            let quoted: Vec<_> = supported.iter().map(|value| format!("{value:?}")).collect();
            detail = format!("supported values: {}", quoted.join(", "));
        }
        self.push(
            "FieldValueNotSupported",
            path,
            with_detail(format!("Unsupported value: {}", value.shown()), &detail),
        );
    }

    /// A well-formed value that may not be here.
    pub fn forbidden(&mut self, path: &Path<'_>, detail: &str) {
        self.push("FieldValueForbidden", path, with_detail("Forbidden".to_owned(), detail));
    }

    /// A value that must be unique is not.
    pub fn duplicate<V: Shown + ?Sized>(&mut self, path: &Path<'_>, value: &V) {
        self.push("FieldValueDuplicate", path, format!("Duplicate value: {}", value.shown()));
    }

    /// A value names something that is not there.
    pub fn not_found<V: Shown + ?Sized>(&mut self, path: &Path<'_>, value: &V) {
        self.push("FieldValueNotFound", path, format!("Not found: {}", value.shown()));
    }

    /// A text has more than `limit` bytes.
    pub fn too_long(&mut self, path: &Path<'_>, limit: usize) {
        self.push("FieldValueTooLong", path, format!("Too long: may not be more than {limit} bytes"));
    }

    /// A list has more than `limit` items.
    pub fn too_many(&mut self, path: &Path<'_>, count: usize, limit: usize) {
        self.push("FieldValueTooMany", path, format!("Too many: {count}: must have at most {limit} items"));
    }

    /// One [`Self::invalid`] for each of `details`, as the name checks return them.
    pub fn invalid_all(&mut self, path: &Path<'_>, value: &str, details: impl IntoIterator<Item = String>) {
        for detail in details {
            self.invalid(path, value, &detail);
        }
    }

    /// The value must be one of an enumeration; nothing is said of an empty one.
    pub fn one_of(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        if !value.is_empty() && !supported.contains(&value) {
            self.not_supported(path, value, supported);
        }
    }

    /// The value must be there and be one of an enumeration.
    pub fn required_one_of(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        if value.is_empty() {
            self.required(path, "");
        } else {
            self.one_of(path, value, supported);
        }
    }

    /// The number, if there is one, must not be below 0.
    pub fn non_negative(&mut self, path: &Path<'_>, value: Option<i64>) {
        if let Some(value) = value.filter(|value| *value < 0) {
            self.invalid(path, &value, NOT_NEGATIVE);
        }
    }

    /// The number, if there is one, must be above 0.
    pub fn positive(&mut self, path: &Path<'_>, value: Option<i64>) {
        if let Some(value) = value.filter(|value| *value <= 0) {
            self.invalid(path, &value, "must be greater than zero");
        }
    }

    /// A field that may not change did.
    pub fn immutable(&mut self, path: &Path<'_>, new: &Value, old: &Value) {
        if !super::value::same(new, old) {
            self.invalid(path, new, IMMUTABLE);
        }
    }
}

/// 422: the object breaks these rules.
pub fn invalid(group: &str, kind: &str, name: &str, errors: &FieldErrors) -> Status {
    let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    let mut texts: Vec<String> = Vec::new();
    for error in errors {
        let text = format!("{}: {}", error.field, error.message);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    let all = match &texts[..] {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let status = status::failure(422, "Invalid", format!("{qualified} {name:?} is invalid: {all}"));
    let status = status.about(group, kind, name);
    errors.iter().fold(status, |status, error| status.cause(error.reason, &error.field, &error.message))
}

/// What is said of a field that may not change.
pub const IMMUTABLE: &str = "field is immutable";

/// What is said of a number below 0.
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

fn with_detail(mut message: String, detail: &str) -> String {
    if !detail.is_empty() {
        message.push_str(": ");
        message.push_str(detail);
    }
    message
}

/// How a bad value is shown in an error.
pub trait Shown {
    /// Strings in quotes, numbers and truth values plain, everything else as JSON.
    fn shown(&self) -> String;
}

impl Shown for str {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        self.as_str().shown()
    }
}

impl Shown for i64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for usize {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for bool {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for Value {
    fn shown(&self) -> String {
        match self {
            // Kubernetes prints an absent value as a quoted word.
            Value::Null => "\"null\"".to_owned(),
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_have_kubernetes_words() {
        let root = Path::Root;
        let spec = root.child("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let mut errors = Errors::default();
        errors.required(&first.child("image"), "");
        errors.required(&spec.child("selector"), "must be set");
        errors.invalid(&first.child("name"), "A", "bad");
        errors.invalid(&spec.child("replicas"), &-1i64, "must be greater than or equal to 0");
        errors.invalid(&spec.child("labels"), &json!({"a": "b"}), "no");
        errors.not_supported(&spec.child("type"), "x", &["A", "B"]);
        errors.duplicate(&spec.key("k"), "v");
        errors.too_long(&spec, 5);
        errors.too_many(&spec, 4, 3);
        errors.not_found(&spec, "v");
        errors.forbidden(&spec, "no");
        let seen: Vec<_> = errors.into_inner().into_iter().map(|e| format!("{} {}", e.field, e.message)).collect();
        assert_eq!(
            seen,
            [
                "spec.containers[0].image Required value",
                "spec.selector Required value: must be set",
                "spec.containers[0].name Invalid value: \"A\": bad",
                "spec.replicas Invalid value: -1: must be greater than or equal to 0",
                "spec.labels Invalid value: {\"a\":\"b\"}: no",
                "spec.type Unsupported value: \"x\": supported values: \"A\", \"B\"",
                "spec[k] Duplicate value: \"v\"",
                "spec Too long: may not be more than 5 bytes",
                "spec Too many: 4: must have at most 3 items",
                "spec Not found: \"v\"",
                "spec Forbidden: no",
            ]
        );
    }
}
