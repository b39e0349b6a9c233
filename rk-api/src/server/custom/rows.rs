//! A definition's rows: one per served version, all over one collection.

use std::sync::{Arc, Weak};

use serde_json::Value;

use super::{Converter, Shape, columns, status};
use crate::{
    Object, Resource,
    server::{
        Reader, Row, Strategy, Subresource, WriteContext,
        catalog::{ScalePaths, Served, version_priority},
        schema::Schema,
        storage::Cache,
    },
};

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// A definition as its rows were made of it. What else of it changes, such as its status, changes nothing of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    uid: String,
    generation: i64,
    terminating: bool,
}

impl Definition {
    pub(super) fn of(object: &Object) -> Self {
        let meta = object.meta();
        Self {
            uid: meta.uid.clone(),
            generation: meta.generation.unwrap_or_default(),
            terminating: meta.deletion_timestamp.is_some(),
        }
    }

    /// Whether rows are made of this very definition, as far as can be told: it has to count its changes.
    pub(super) fn made(&self, row: &Served) -> bool {
        self.generation > 0 && row.definition.as_deref() == Some(self)
    }
}

/// The schemas of a definition's versions, in their order; none where a version has none.
pub(super) type Schemas = Vec<Result<Option<Arc<Schema>>, String>>;

/// Reads the schemas of a definition; those that rows `before` have already are taken over, with their compiled rules.
pub(super) fn schemas<'a>(definition: &Value, before: impl Iterator<Item = &'a Arc<Served>> + Clone) -> Schemas {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let read = |version: &Value| {
        let schema = &version["schema"]["openAPIV3Schema"];
        if schema.is_null() {
            return Ok(None);
        }
        let mut known = before.clone().filter_map(|row| row.schema.as_ref());
        match known.find(|known| known.was_read_from(schema)) {
            Some(known) => Ok(Some(Arc::clone(known))),
            None => Schema::from_crd(schema).map(Some),
        }
    };
    versions.map(read).collect()
}

/// The rules of custom resources: their status is not the client's to make.
struct Custom {
    status: bool,
}

impl Strategy for Custom {
    fn allocates(&self) -> bool {
        false
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        if self.status
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let of = |object: &'_ Value| texts(&object["metadata"]["finalizers"]);
        let before = old.map(of).unwrap_or_default();
        let own = |name: &String| matches!(name.as_str(), "orphan" | "foregroundDeletion" | "kubernetes");
        let odd = of(object).into_iter().filter(|name| !before.contains(name) && !name.contains('/') && !own(name));
        let text = "prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with \
                    other finalizer writers";
        odd.map(|name| format!("metadata.finalizers: {name:?}: {text}")).collect()
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What is said of a version that is deprecated.
fn deprecation(version: &Value, spec: &Value) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    if let Some(warning) = version["deprecationWarning"].as_str() {
        return Some(warning.to_owned());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, kind, name) = (text(&spec["group"]), text(&spec["names"]["kind"]), text(&version["name"]));
    let fresh = |other: &&Value| other["served"] == true && other["deprecated"] != true;
    let newer = spec["versions"].as_array().into_iter().flatten().filter(fresh).map(|other| text(&other["name"]));
    let newer = newer
        .filter(|other| version_priority(other) > version_priority(&name))
        .max_by_key(|other| version_priority(other));
    let advice = newer.map(|newer| format!("; use {group}/{newer} {kind}")).unwrap_or_default();
    Some(format!("{group}/{name} {kind} is deprecated{advice}"))
}

/// The rows of a definition with these schemas. While it is being deleted nothing new can be made.
///
/// # Errors
/// What is wrong with a version's schema.
pub(super) fn of(
    definition: &Value,
    schemas: Schemas,
    made_of: Definition,
    cache: &Cache,
    reader: &Weak<dyn Reader>,
) -> Result<Vec<Arc<Served>>, String> {
    let spec = &definition["spec"];
    let names = status::names(spec);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural, kind) = (text(&spec["group"]), text(&names["plural"]), text(&names["kind"]));
    let namespaced = spec["scope"] == "Namespaced";
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let storage = versions.iter().find(|version| version["storage"] == true).ok_or("no version is the stored one")?;
    let stored_as = format!("{group}/{}", text(&storage["name"]));
    let collection = cache.collection_of(&group, &plural);
    let converter = Converter::of(spec, reader).map(Arc::new);
    let made_of = Arc::new(made_of);
    let mut rows = Vec::new();
    for (version, schema) in versions.iter().zip(schemas).filter(|(version, _)| version["served"] == true) {
        let resource = Resource::new(&group, &text(&version["name"]), &kind, &plural, namespaced);
        let mut subresources = Vec::new();
        let mut add = |name: &str, kind: &str, group: &str, version: &str| {
            subresources.push(Subresource {
                name: name.to_owned(),
                kind: kind.to_owned(),
                group: group.to_owned(),
                version: version.to_owned(),
                verbs: owned(&SUBRESOURCE_VERBS),
            });
        };
        let has_status = version["subresources"]["status"].is_object();
        if has_status {
            add("status", &kind, "", "");
        }
        let scale = &version["subresources"]["scale"];
        let scale = scale.is_object().then(|| ScalePaths {
            spec_replicas: text(&scale["specReplicasPath"]),
            status_replicas: text(&scale["statusReplicasPath"]),
            selector: text(&scale["labelSelectorPath"]),
        });
        if scale.is_some() {
            add("scale", "Scale", "autoscaling", "v1");
        }
        let mut verbs = owned(&VERBS);
        if made_of.terminating {
            verbs.retain(|verb| verb != "create");
        }
        let selectable = version["selectableFields"].as_array().into_iter().flatten();
        let row = Row {
            singular: text(&names["singular"]),
            short_names: texts(&names["shortNames"]),
            categories: texts(&names["categories"]),
            verbs,
            subresources,
            stored: true,
            columns: Arc::new([]),
            selectable_fields: selectable.map(|f| text(&f["jsonPath"]).trim_start_matches('.').to_owned()).collect(),
            strategy: Arc::new(Custom { status: has_status }),
            resource,
        };
        let schema = schema?;
        rows.push(Arc::new(Served {
            shape: schema.clone().map(Shape::new),
            api_version: row.resource.api_version(),
            collection: Arc::clone(&collection),
            stored_as: stored_as.clone(),
            schema,
            scale,
            custom: true,
            printer: columns::of(version),
            deprecation: deprecation(version, spec),
            converter: converter.clone(),
            definition: Some(Arc::clone(&made_of)),
            row,
        }));
    }
    Ok(rows)
}
