//! The schemas of kinds: what fields there are, their types, defaults and merge rules.
//!
//! The schemas of the built-in kinds come from Kubernetes' published OpenAPI documents, kept in
//! `rk-api/data/schemas.json.gz` and read at the first use; those of custom resources from their definitions
//! ([`Schema::from_crd`]). Both become one tree of [`Schema`] nodes, which everything else reads:
//!
//! ```text
//! body -> parse (JSON, YAML) -> normalize (types, unknown fields, nulls, quantities) -> object   = decode
//! object -> apply_defaults -> validate (custom resources) -> object
//! patch and apply: merge keys, list and map types
//! ```

mod builtin;
mod crd;
pub(crate) mod decode;
mod defaults;
mod expressions;
mod normalize;
mod parse;
pub(crate) mod protobuf;
mod rules;
mod types;
mod validate;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

pub(crate) use builtin::{definition_name, gunzip, list_type, load_definitions};
pub(crate) use decode::{PROTOBUF, unsupported_media_type};
pub use decode::{decode, decode_value};
pub(crate) use expressions::Expressions;
pub use normalize::Normalized;
pub use parse::{ParseError, Parsed, parse_json, parse_yaml};
pub(crate) use protobuf::parse as parse_protobuf;
use rules::Rules;
use serde_json::Value;

pub(crate) use crate::cel::ListType;
use crate::formats;

/// A node of a schema: the type of one value, and how values of it are defaulted, merged and owned.
#[derive(Debug, Default)]
pub struct Schema {
    shape: Shape,
    /// Set where an object has the parent but not this field.
    default: Option<Value>,
    list_type: ListType,
    /// The value is owned and replaced as one (`x-kubernetes-map-type: atomic`).
    atomic: bool,
    merge: Option<Merge>,
    /// Fields that are not specified are kept (`x-kubernetes-preserve-unknown-fields`).
    preserve_unknown: bool,
    /// The value is itself an object with `apiVersion`, `kind` and `metadata` (`x-kubernetes-embedded-resource`).
    embedded: bool,
    /// Null is a value.
    nullable: bool,
    /// The parent always has the field.
    required: bool,
    /// Go's name of the type, such as `v1.PodSpec`; of built-in definitions.
    go_name: Option<Box<str>>,
    /// What else a custom resource's values must fulfil; its presence marks a node of a custom resource's schema.
    rules: Option<Box<Rules>>,
    /// The text that a custom resource's schema was read from; of its root.
    source: Option<Box<str>>,
    /// The rules in CEL, compiled when they are first needed; of the root.
    expressions: OnceLock<Option<Expressions>>,
}

/// The type of a value.
#[derive(Debug, Default)]
enum Shape {
    /// Whatever JSON there is.
    #[default]
    Any,
    Bool,
    Integer {
        wide: bool,
    },
    Number,
    String,
    /// Base64.
    Bytes,
    /// RFC 3339 in UTC, to the second, or to the microsecond.
    Time {
        micro: bool,
    },
    Quantity,
    IntOrString,
    /// Named fields, and values of other keys if there is a schema for those.
    Object {
        fields: BTreeMap<Box<str>, Schema>,
        others: Option<Box<Schema>>,
    },
    List(Box<Schema>),
    /// A built-in definition, by number: definitions may contain themselves.
    Definition(usize),
}

impl ListType {
    /// For each item of a list the one of the `old` list that is the same; only those of maps can be told.
    pub(crate) fn counterparts<'a>(&self, list: &[Value], old: Option<&'a Vec<Value>>) -> Vec<Option<&'a Value>> {
        let (Self::Map(keys), Some(old)) = (self, old) else { return vec![None; list.len()] };
        let identity = |item: &Value| {
            let keys: Value = keys.iter().map(|key| item.get(&**key).cloned().unwrap_or_default()).collect();
            keys.to_string()
        };
        let old: HashMap<String, &'a Value> = old.iter().map(|item| (identity(item), item)).collect();
        list.iter().map(|item| old.get(&identity(item)).copied()).collect()
    }
}

/// How a field is merged by a strategic merge patch (`x-kubernetes-patch-strategy`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Merge {
    /// A list is merged, not replaced.
    pub(crate) merge: bool,
    /// `$retainKeys` may be given.
    pub(crate) retain_keys: bool,
    /// A map is replaced.
    pub(crate) replace: bool,
    /// What tells items of a merged list apart; `None` for lists of scalars.
    pub(crate) key: Option<Box<str>>,
}

impl Schema {
    /// The schema of a built-in kind.
    pub fn builtin(group: &str, version: &str, kind: &str) -> Option<Arc<Self>> {
        builtin::kind(group, version, kind)
    }

    /// The schema of a custom resource: the `openAPIV3Schema` of a version of its definition.
    ///
    /// # Errors
    /// What is wrong with it and where, if it is no structural schema.
    pub fn from_crd(open_api_v3_schema: &Value) -> Result<Arc<Self>, String> {
        crd::schema(open_api_v3_schema).map(Arc::new)
    }

    /// Sets what is missing and has a default, in all parents that are there.
    pub fn apply_defaults(&self, object: &mut Value) {
        defaults::apply(self, object);
    }

    /// Removes the fields that the schema does not know and answers their paths.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        self.normalize(object).unknown
    }

    /// The first value of a wrong type, as Kubernetes words it.
    pub fn type_error(&self, object: &Value) -> Option<String> {
        self.normalize(&mut object.clone()).error
    }

    /// Brings an object into the form that Kubernetes stores: unknown fields and nulls go, quantities and times become
    /// canonical.
    pub fn normalize(&self, object: &mut Value) -> Normalized {
        normalize::normalize(self, object)
    }

    /// The broken rules of a custom resource; built-in kinds have theirs in their strategies. `old` is what the object was:
    /// what was wrong with it and did not change may stay.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> super::FieldErrors {
        let mut errors = validate::validate(self, object, old);
        let Some(expressions) = self.expressions() else { return errors };
        if errors.iter().any(validate::blocks_rules) {
            errors.push(validate::rules_not_checked());
        } else {
            errors.extend(expressions.validate(object, old));
        }
        errors
    }

    /// The rules in CEL of a custom resource's schema. What was stored before a rule was refused has the other rules.
    fn expressions(&self) -> Option<&Expressions> {
        let compile = || self.source().and_then(|source| Expressions::compile(&source, "", &mut Vec::new()));
        self.expressions.get_or_init(compile).as_ref()
    }

    /// What is wrong with the default of a part of a custom resource's schema, which is at `path`.
    pub(crate) fn judge_default(part: &Value, default: &Value, path: &str) -> super::FieldErrors {
        // What is wrong with the schema itself is told elsewhere.
        let Ok(schema) = crd::node(part, "") else { return Vec::new() };
        let mut value = default.clone();
        schema.apply_defaults(&mut value);
        if !schema.prune(&mut value).is_empty() {
            let message = format!("Invalid value: {default}: must not have unknown fields");
            return vec![super::FieldError { reason: "FieldValueInvalid", field: path.to_owned(), message }];
        }
        let mut errors = validate::validate(&schema, &value, None);
        if errors.is_empty()
            && let Some(rules) = Expressions::compile(part, "", &mut Vec::new())
        {
            errors = rules.validate(&value, None);
        }
        for error in &mut errors {
            error.field = match error.field.as_str() {
                "<nil>" => path.to_owned(),
                field => format!("{path}.{field}"),
            };
        }
        errors
    }

    /// Whether this is the schema of a custom resource.
    pub fn is_custom(&self) -> bool {
        self.rules.is_some()
    }

    /// The `openAPIV3Schema` that this schema of a custom resource was read from.
    pub fn source(&self) -> Option<Value> {
        self.source.as_ref().and_then(|text| serde_json::from_str(text).ok())
    }

    /// Whether this schema of a custom resource was read from this `openAPIV3Schema`.
    pub(crate) fn was_read_from(&self, open_api_v3_schema: &Value) -> bool {
        self.source.as_deref().is_some_and(|text| *text == *open_api_v3_schema.to_string())
    }

    /// The node that says the type: the definition where this one refers to one.
    fn resolve(&self) -> &Self {
        match &self.shape {
            Shape::Definition(number) => builtin::definition(*number),
            _ => self,
        }
    }

    /// The schema of a field, or of a key of a map.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        match &self.resolve().shape {
            Shape::Object { fields, others } => fields.get(name).or(others.as_deref()),
            _ => None,
        }
    }

    /// Whether the type itself names the field: it is no key of a map.
    pub(crate) fn is_named_field(&self, name: &str) -> bool {
        matches!(&self.resolve().shape, Shape::Object { fields, .. } if fields.contains_key(name))
    }

    /// Whether the field is a list that Go's type always has, be it as null.
    pub(crate) fn is_required_list(&self) -> bool {
        self.required && matches!(self.shape, Shape::List(_))
    }

    /// What structured-merge-diff calls the structure of the type; `None` if any will do.
    pub(crate) fn expected_structure(&self, value: &Value) -> Option<&'static str> {
        match (&self.resolve().shape, value) {
            (Shape::Object { .. }, _) => Some("map"),
            (Shape::List(_), _) => Some("list"),
            (Shape::Bool, Value::Bool(_)) | (Shape::Any, _) => None,
            (Shape::Bool, _) => Some("boolean"),
            (Shape::Integer { .. } | Shape::Number, Value::Number(_)) => None,
            (Shape::Integer { .. } | Shape::Number, _) => Some("numeric (int or float)"),
            (Shape::Quantity | Shape::IntOrString, Value::String(_) | Value::Number(_)) => None,
            (Shape::String | Shape::Bytes | Shape::Time { .. }, Value::String(_)) => None,
            _ => Some("string"),
        }
    }

    /// The schema of a list's items.
    pub(crate) fn items(&self) -> Option<&Self> {
        match &self.resolve().shape {
            Shape::List(items) => Some(items),
            _ => None,
        }
    }

    /// How a list is merged and owned.
    pub(crate) fn list_type(&self) -> &ListType {
        &self.list_type
    }

    /// How a strategic merge patch merges the field.
    pub(crate) fn merge(&self) -> Option<&Merge> {
        self.merge.as_ref()
    }

    /// Whether the value is owned and replaced as one.
    ///
    /// A definition may be so as a whole, and an object of which no part is known is.
    pub(crate) fn is_atomic(&self) -> bool {
        let resolved = self.resolve();
        self.atomic
            || resolved.atomic
            || match &resolved.shape {
                Shape::Object { fields, others } => {
                    fields.is_empty() && others.is_none() && !resolved.preserve_unknown && resolved.rules.is_none()
                }
                _ => false,
            }
    }

    /// Whether the type is an object with fields or a map, so that its parts can be owned by different managers.
    pub(crate) fn is_object(&self) -> bool {
        matches!(self.resolve().shape, Shape::Object { .. })
    }

    /// Whether nothing is known of the type: its parts are then typed by what they are.
    pub(crate) fn is_any(&self) -> bool {
        matches!(self.resolve().shape, Shape::Any)
    }

    /// Whether fields that are not specified are kept.
    pub(crate) fn preserves_unknown(&self) -> bool {
        self.preserve_unknown || self.resolve().preserve_unknown
    }

    /// The default of the value.
    pub(crate) fn default_value(&self) -> Option<&Value> {
        self.default.as_ref()
    }
}
