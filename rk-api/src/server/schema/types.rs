//! The types of objects in the expressions of admission policies, from the schemas of all kinds.

use std::{collections::HashMap, sync::Arc};

use super::{Schema, Shape, builtin};
use crate::server::cel::{
    schema::escape,
    types::{Field, ListOf, ObjectType, Type},
};

/// Makes types; those of built-in definitions once.
#[derive(Default)]
struct Types {
    /// By the definition's number; nothing while it is being made, for then it holds itself.
    definitions: HashMap<usize, Option<Type>>,
}

impl Schema {
    /// The type of an object of this schema (apiserver's `SchemaDeclType`). Of parts that may be of several types, or hold what no schema
    /// names, expressions may say anything.
    pub(crate) fn cel_type(&self, name: &str) -> Type {
        Types::default().of(self, name)
    }
}

impl Types {
    fn of(&mut self, schema: &Schema, name: &str) -> Type {
        if schema.preserve_unknown {
            return Type::Dyn;
        }
        let format = schema.rules.as_ref().and_then(|rules| rules.format.as_deref());
        match &schema.shape {
            Shape::Any | Shape::Quantity | Shape::IntOrString => Type::Dyn,
            Shape::Bool => Type::Bool,
            Shape::Integer { .. } => Type::Int,
            Shape::Number => Type::Double,
            Shape::String => match format {
                Some("byte") => Type::Bytes,
                Some("date" | "date-time" | "datetime") => Type::Timestamp,
                Some("duration") => Type::Duration,
                _ => Type::String,
            },
            Shape::Bytes => Type::Bytes,
            Shape::Time { .. } => Type::Timestamp,
            Shape::List(items) => {
                let items = self.of(items, &format!("{name}.@idx"));
                Type::List(Arc::new(ListOf { items, kind: schema.list_type.clone() }))
            }
            Shape::Object { fields, others: Some(others) } if fields.is_empty() => {
                Type::map(Type::String, self.of(others, &format!("{name}.@elem")))
            }
            // What other keys may be there, nobody knows.
            Shape::Object { others: Some(_), .. } => Type::Dyn,
            Shape::Object { fields, .. } => {
                let mut field = |json: &str, schema: &Schema| {
                    let kind = self.of(schema, &format!("{name}.{json}"));
                    Some((escape(json)?.into(), Field { json: json.into(), kind }))
                };
                let fields = fields.iter().filter_map(|(json, schema)| field(json, schema)).collect();
                Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields }))
            }
            Shape::Definition(number) => match self.definitions.get(number) {
                Some(known) => known.clone().unwrap_or(Type::Dyn),
                None => {
                    self.definitions.insert(*number, None);
                    let made = self.of(builtin::definition(*number), name);
                    self.definitions.insert(*number, Some(made.clone()));
                    made
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(kind: &Type, path: &str) -> String {
        let found = path.split('.').try_fold(kind.clone(), |kind, name| match kind {
            Type::Object(object) => object.fields.get(name).map(|field| field.kind.clone()),
            Type::List(list) if name == "[]" => Some(list.items.clone()),
            _ => None,
        });
        found.map_or_else(|| "nothing".to_owned(), |kind| kind.to_string())
    }

    #[test]
    fn built_in_kinds_have_types() {
        let kind = Schema::builtin("apps", "v1", "Deployment").unwrap().cel_type("Deployment");
        for (path, wanted) in [
            ("spec.replicas", "int"),
            ("metadata.labels", "map(string, string)"),
            ("metadata.creationTimestamp", "google.protobuf.Timestamp"),
            ("spec.template.spec.containers.[].image", "string"),
            ("spec.template.spec.containers.[].resources.limits", "map(string, dyn)"),
            ("spec.strategy.rollingUpdate.maxSurge", "dyn"),
            ("spec.foo", "nothing"),
        ] {
            assert_eq!(at(&kind, path), wanted, "{path}");
        }
        // A schema holds schemas.
        let kind = Schema::builtin("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap().cel_type("CRD");
        assert_eq!(at(&kind, "spec.versions.[].schema.openAPIV3Schema.not"), "dyn");
    }

    #[test]
    fn custom_resources_have_types() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "when": {"type": "string", "format": "date-time"}, "x-y": {"type": "number"},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}});
        let kind = Schema::from_crd(&schema).unwrap().cel_type("Custom");
        for (path, wanted) in [
            ("spec.when", "google.protobuf.Timestamp"),
            ("spec.x__dash__y", "double"),
            ("spec.any", "dyn"),
            ("metadata.name", "string"),
        ] {
            assert_eq!(at(&kind, path), wanted, "{path}");
        }
    }
}
