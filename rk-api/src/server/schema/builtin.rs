//! The definitions of the built-in kinds, read at the first use.

use std::{
    collections::HashMap,
    io::Read,
    sync::{Arc, LazyLock},
};

use flate2::read::GzDecoder;
use serde_json::{Map, Value};

use super::{ListType, Merge, Schema, Shape};

const SCHEMAS: &[u8] = include_bytes!("../../../data/schemas.json.gz");
const KINDS: &str = "x-kubernetes-group-version-kind";

struct Definitions {
    nodes: Vec<Arc<Schema>>,
    /// By [`kind_key`].
    kinds: HashMap<Box<str>, usize>,
    names: HashMap<Box<str>, usize>,
}

static DEFINITIONS: LazyLock<Definitions> = LazyLock::new(|| {
    let all = load_definitions();
    let names: HashMap<Box<str>, usize> =
        all.keys().enumerate().map(|(number, name)| (name.as_str().into(), number)).collect();
    let mut kinds = HashMap::new();
    let mut nodes = Vec::with_capacity(all.len());
    for (number, (name, schema)) in all.iter().enumerate() {
        nodes.push(Arc::new(definition_node(name, schema, &names)));
        for kind in schema[KINDS].as_array().into_iter().flatten() {
            let text = |key: &str| kind[key].as_str().unwrap_or_default();
            kinds.insert(kind_key(text("group"), text("version"), text("kind")), number);
        }
    }
    Definitions { nodes, kinds, names }
});

fn kind_key(group: &str, version: &str, kind: &str) -> Box<str> {
    format!("{group}/{version}/{kind}").into()
}

/// All definitions in OpenAPI's form, without descriptions, read anew.
pub(crate) fn load_definitions() -> Map<String, Value> {
    serde_json::from_slice(&gunzip(SCHEMAS)).expect("the tables built in are JSON objects")
}

/// Unpacks one of the tables in `rk-api/data`.
pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut text).expect("the tables built in are gzip");
    text
}

/// The name of the definition that a reference points to.
pub(crate) fn definition_name(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or_default()
}

/// The schema of a built-in kind.
pub(super) fn kind(group: &str, version: &str, kind: &str) -> Option<Arc<Schema>> {
    let number = DEFINITIONS.kinds.get(&kind_key(group, version, kind))?;
    Some(Arc::clone(&DEFINITIONS.nodes[*number]))
}

/// A definition by its number.
pub(super) fn definition(number: usize) -> &'static Schema {
    &DEFINITIONS.nodes[number]
}

/// A node that refers to the metadata of objects.
pub(super) fn object_meta() -> Schema {
    let number = DEFINITIONS.names["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"];
    Schema { shape: Shape::Definition(number), ..Schema::default() }
}

/// `io.k8s.api.core.v1.PodSpec` is `v1.PodSpec` in Go.
fn go_name(name: &str) -> Box<str> {
    let mut parts = name.rsplit('.');
    let (last, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{package}.{last}").into()
}

fn definition_node(name: &str, schema: &Value, names: &HashMap<Box<str>, usize>) -> Schema {
    let shape = match name {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => Shape::Quantity,
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => Shape::IntOrString,
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => Shape::Time { micro: false },
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => Shape::Time { micro: true },
        "io.k8s.apimachinery.pkg.runtime.RawExtension" | "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1" => Shape::Any,
        _ => return Schema { go_name: Some(go_name(name)), ..node(schema, names) },
    };
    // Raw JSON and field sets are owned as one value.
    let atomic = matches!(shape, Shape::Any);
    Schema { shape, atomic, go_name: Some(go_name(name)), ..Schema::default() }
}

fn node(schema: &Value, names: &HashMap<Box<str>, usize>) -> Schema {
    let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
    let shape = match (reference, schema["type"].as_str(), schema["format"].as_str()) {
        (Some(reference), ..) => Shape::Definition(names[definition_name(reference)]),
        (_, Some("object"), _) => object(schema, names),
        (_, Some("array"), _) => Shape::List(Box::new(node(&schema["items"], names))),
        (_, Some("boolean"), _) => Shape::Bool,
        (_, Some("integer"), format) => Shape::Integer { wide: format == Some("int64") },
        (_, Some("number"), _) => Shape::Number,
        (_, Some("string"), Some("byte")) => Shape::Bytes,
        (_, Some("string"), _) => Shape::String,
        _ => Shape::Any,
    };
    Schema {
        shape,
        default: schema.get("default").cloned(),
        list_type: list_type(schema),
        atomic: schema["x-kubernetes-map-type"] == "atomic",
        merge: merge(schema),
        ..Schema::default()
    }
}

fn object(schema: &Value, names: &HashMap<Box<str>, usize>) -> Shape {
    let fields = schema["properties"].as_object().into_iter().flatten();
    let required = schema["required"].as_array();
    let is_required = |name: &str| required.is_some_and(|required| required.iter().any(|other| other == name));
    let field = |(name, field): (&String, &Value)| {
        (name.as_str().into(), Schema { required: is_required(name), ..node(field, names) })
    };
    Shape::Object {
        fields: fields.map(field).collect(),
        others: schema.get("additionalProperties").map(|others| Box::new(node(others, names))),
    }
}

/// What `x-kubernetes-list-type` and `x-kubernetes-list-map-keys` say.
pub(crate) fn list_type(schema: &Value) -> ListType {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListType::Set,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            ListType::Map(keys.filter_map(Value::as_str).map(Into::into).collect())
        }
        _ => ListType::Atomic,
    }
}

fn merge(schema: &Value) -> Option<Merge> {
    let strategies = schema["x-kubernetes-patch-strategy"].as_str()?;
    let has = |name| strategies.split(',').any(|strategy| strategy == name);
    Some(Merge {
        merge: has("merge"),
        retain_keys: has("retainKeys"),
        replace: has("replace"),
        key: schema["x-kubernetes-patch-merge-key"].as_str().map(Into::into),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_loads_and_its_references_resolve() {
        fn check(schema: &Schema) {
            match &schema.shape {
                Shape::Object { fields, others } => fields.values().chain(others.as_deref()).for_each(check),
                Shape::List(items) => check(items),
                Shape::Definition(number) => assert!(!matches!(definition(*number).shape, Shape::Definition(_))),
                _ => {}
            }
        }
        assert!(DEFINITIONS.nodes.len() > 700);
        DEFINITIONS.nodes.iter().for_each(|schema| check(schema));
        assert!(DEFINITIONS.kinds.len() > 150);
    }

    #[test]
    fn merge_rules_are_read() {
        let pod = Schema::builtin("", "v1", "Pod").unwrap();
        let spec = pod.field("spec").unwrap();
        let containers = spec.field("containers").unwrap();
        assert_eq!(containers.merge().unwrap().key.as_deref(), Some("name"));
        assert_eq!(*containers.list_type(), ListType::Map(["name".into()].into()));
        assert!(spec.field("volumes").unwrap().merge().unwrap().retain_keys);
        assert!(spec.field("nodeSelector").unwrap().is_atomic());
        assert!(Schema::builtin("apps", "v1", "Pod").is_none());
    }
}
