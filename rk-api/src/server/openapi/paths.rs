//! `paths`: the operations on each row.

use serde_json::{Map, Value, json};

use super::{
    Entry,
    schemas::{Names, REFERENCE},
};
use crate::{PatchKind, Resource, server::Subresource};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
/// How the names of built-in definitions begin.
const BUILT_IN: &str = "io.k8s.";

/// Name, type and meaning of the parameters in queries.
const PARAMETERS: [(&str, &str, &str); 20] = [
    ("allowWatchBookmarks", "boolean", "Asks for events of type BOOKMARK in a watch."),
    ("continue", "string", "Continues a list where the last answer ended."),
    (
        "dryRun",
        "string",
        "When present, indicates that modifications should not be persisted. Valid values are: - All: all dry run stages will be processed",
    ),
    (
        "fieldManager",
        "string",
        "The name of the actor that makes the change, at most 128 characters. Required for apply requests.",
    ),
    (
        "fieldSelector",
        "string",
        "A selector to restrict the list of returned objects by their fields. Defaults to everything.",
    ),
    (
        "fieldValidation",
        "string",
        "How unknown and duplicate fields are treated. Valid values are: - Ignore - Warn (the default) - Strict: the request fails.",
    ),
    ("force", "boolean", "Takes over fields that others own. Must be unset for non-apply patch requests."),
    (
        "gracePeriodSeconds",
        "integer",
        "The duration in seconds before the object should be deleted. Zero deletes immediately.",
    ),
    (
        "labelSelector",
        "string",
        "A selector to restrict the list of returned objects by their labels. Defaults to everything.",
    ),
    ("limit", "integer", "The most items in one answer; more are got with continue."),
    ("name", "string", "name of the object"),
    ("namespace", "string", "object name and auth scope, such as for teams and projects"),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("pretty", "string", "If 'true', then the output is pretty printed."),
    (
        "propagationPolicy",
        "string",
        "Whether and how garbage collection will be performed: Orphan, Background or Foreground.",
    ),
    ("resourceVersion", "string", "A constraint on what resource versions a request may be served from."),
    ("resourceVersionMatch", "string", "How resourceVersion is applied to list calls."),
    ("sendInitialEvents", "boolean", "Begins a watch with events that make up the current state."),
    ("timeoutSeconds", "integer", "The most seconds that a list or watch may take."),
    ("watch", "boolean", "Watch for changes to the described resources and return them as a stream."),
];

const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
const DELETE: &[&str] = &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];
const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const DELETE_COLLECTION: &[&str] = &[
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "labelSelector",
    "limit",
    "orphanDependents",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
];

/// The paths of these rows.
pub(super) fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Map<String, Value> {
    let names = Names::read();
    let mut paths = Map::new();
    for entry in entries {
        add(entry, &names, &mut paths);
    }
    paths
}

fn add(entry: &Entry, names: &Names, paths: &mut Map<String, Value>) {
    let resource = &entry.resource;
    let (kind, list) = (names.of(resource, ""), names.of(resource, "List"));
    let has = |verb: &str| entry.verbs.iter().any(|other| other == verb);
    let collection = resource.path("{namespace}", "", "");
    let place = Place::of(resource);

    let mut path = place.parameters(false);
    if has("list") {
        path.insert("get".to_owned(), place.operation("list", "list or watch objects of kind", LIST, &list));
    }
    if has("create") {
        path.insert("post".to_owned(), with_body(place.operation("create", "create a", WRITE, &kind), &kind));
    }
    if has("deletecollection") {
        let operation = place.operation("deleteCollection", "delete collection of", DELETE_COLLECTION, &meta("Status"));
        path.insert("delete".to_owned(), with_body(operation, &meta("DeleteOptions")));
    }
    insert(paths, collection.clone(), path);

    if resource.namespaced && has("list") {
        let all = Place { namespaced: false, suffix: "ForAllNamespaces".to_owned(), ..Place::of(resource) };
        let mut path = all.parameters(false);
        path.insert("get".to_owned(), all.operation("list", "list or watch objects of kind", LIST, &list));
        insert(paths, resource.path("", "", ""), path);
    }

    let item = resource.path("{namespace}", "{name}", "");
    let mut path = place.parameters(true);
    item_operations(&mut path, &place, &entry.verbs, &kind);
    if has("delete") {
        let operation = place.operation("delete", "delete a", DELETE, &meta("Status"));
        path.insert("delete".to_owned(), with_body(operation, &meta("DeleteOptions")));
    }
    insert(paths, item.clone(), path);

    for sub in &entry.subresources {
        let place = Place::of_subresource(resource, sub);
        let mut path = place.parameters(true);
        match names.builtin(&place.group, &place.version, &place.kind) {
            _ if sub.kind == resource.kind => item_operations(&mut path, &place, &sub.verbs, &kind),
            Some(kind) => item_operations(&mut path, &place, &sub.verbs, kind),
            None => connect_operations(&mut path, &place, &sub.verbs),
        }
        if sub.verbs.iter().any(|verb| verb == "create")
            && let Some(kind) = names.builtin(&place.group, &place.version, &place.kind)
        {
            path.insert("post".to_owned(), with_body(place.operation("create", "create a", WRITE, kind), kind));
        }
        insert(paths, format!("{item}/{}", sub.name), path);
    }
}

fn item_operations(path: &mut Map<String, Value>, place: &Place<'_>, verbs: &[String], kind: &str) {
    for verb in verbs {
        let (method, operation) = match verb.as_str() {
            "get" => ("get", place.operation("read", "read the specified", &[], kind)),
            "update" => ("put", with_body(place.operation("replace", "replace the specified", WRITE, kind), kind)),
            "patch" => {
                let mut operation = place.operation("patch", "partially update the specified", PATCH, kind);
                let body = json!({"schema": {"$ref": format!("{REFERENCE}{}", meta("Patch"))}});
                // kubectl sends strategic merge patches where this says that they are taken.
                let strategic = kind.starts_with(BUILT_IN).then_some(PatchKind::Strategic);
                let kinds = [PatchKind::Apply, PatchKind::Json, PatchKind::Merge].into_iter().chain(strategic);
                let content = kinds.map(|kind| (kind.content_type().to_owned(), body.clone()));
                operation["requestBody"] = json!({"content": Map::from_iter(content), "required": true});
                ("patch", operation)
            }
            _ => continue,
        };
        path.insert(method.to_owned(), operation);
    }
}

/// A subresource that is a connection (`exec`) or plain text (`log`).
fn connect_operations(path: &mut Map<String, Value>, place: &Place<'_>, verbs: &[String]) {
    for verb in verbs {
        let method = match verb.as_str() {
            "get" => "get",
            "create" => "post",
            "update" => "put",
            "patch" => "patch",
            "delete" => "delete",
            _ => continue,
        };
        let name = format!("connect{}", pascal(method));
        let mut operation = place.operation(&name, "connect requests to", &[], "");
        operation["responses"]["200"]["content"] = json!({"*/*": {"schema": {"type": "string"}}});
        path.insert(method.to_owned(), operation);
    }
}

fn insert(paths: &mut Map<String, Value>, path: String, item: Map<String, Value>) {
    if item.values().any(Value::is_object) {
        paths.insert(path, Value::Object(item));
    }
}

fn meta(kind: &str) -> String {
    format!("{META}{kind}")
}

fn with_body(mut operation: Value, definition: &str) -> Value {
    operation["requestBody"] = json!({"content": {"*/*": {"schema": {"$ref": format!("{REFERENCE}{definition}")}}}});
    operation
}

/// What the operations of one path have in common.
struct Place<'a> {
    resource: &'a Resource,
    namespaced: bool,
    /// What ends the identifiers of the operations.
    suffix: String,
    group: String,
    version: String,
    kind: String,
}

impl<'a> Place<'a> {
    fn of(resource: &'a Resource) -> Self {
        Self {
            resource,
            namespaced: resource.namespaced,
            suffix: String::new(),
            group: resource.group.to_string(),
            version: resource.version.to_string(),
            kind: resource.kind.to_string(),
        }
    }

    fn of_subresource(resource: &'a Resource, sub: &Subresource) -> Self {
        let own = sub.version.is_empty();
        Self {
            suffix: pascal(&sub.name),
            group: if own { resource.group.to_string() } else { sub.group.clone() },
            version: if own { resource.version.to_string() } else { sub.version.clone() },
            kind: sub.kind.clone(),
            ..Self::of(resource)
        }
    }

    fn parameters(&self, named: bool) -> Map<String, Value> {
        let mut names = vec!["pretty"];
        names.extend(self.namespaced.then_some("namespace"));
        names.extend(named.then_some("name"));
        let list = names.into_iter().map(|name| {
            let mut parameter = parameter(name);
            if name != "pretty" {
                parameter["in"] = "path".into();
                parameter["required"] = true.into();
            }
            parameter
        });
        Map::from_iter([("parameters".to_owned(), list.collect())])
    }

    fn operation(&self, verb: &str, description: &str, parameters: &[&str], definition: &str) -> Value {
        let (group, version) = (pascal(group_name(&self.resource.group)), pascal(&self.resource.version));
        let scope = if self.namespaced { "Namespaced" } else { "" };
        let kind = &self.resource.kind;
        let (verb, collection) = if verb == "deleteCollection" { ("delete", "Collection") } else { (verb, "") };
        let action = match verb {
            _ if !collection.is_empty() => "deletecollection",
            "read" => "get",
            "create" => "post",
            "replace" => "put",
            verb if verb.starts_with("connect") => "connect",
            verb => verb,
        };
        let answer = json!({"schema": {"$ref": format!("{REFERENCE}{definition}")}});
        let answer = json!({"application/json": answer, "application/yaml": answer});
        let mut responses =
            json!({"200": {"description": "OK", "content": answer}, "401": {"description": "Unauthorized"}});
        if matches!(verb, "create" | "replace" | "patch") {
            responses["201"] = json!({"description": "Created", "content": answer});
        }
        if matches!(action, "post" | "delete") {
            responses["202"] = json!({"description": "Accepted", "content": answer});
        }
        let mut operation = json!({
            "description": format!("{description} {kind}"),
            "operationId": format!("{verb}{group}{version}{collection}{scope}{kind}{}", self.suffix),
            "tags": [format!("{}_{}", camel(group_name(&self.resource.group)), self.resource.version)],
            "responses": responses,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": self.group, "version": self.version, "kind": self.kind},
        });
        if !parameters.is_empty() {
            operation["parameters"] = parameters.iter().map(|name| parameter(name)).collect();
        }
        operation
    }
}

fn parameter(name: &str) -> Value {
    let (_, kind, description) =
        PARAMETERS.iter().find(|(other, ..)| *other == name).copied().unwrap_or((name, "string", ""));
    json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}})
}

/// The group as identifiers name it.
fn group_name(group: &str) -> &str {
    if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) }
}

/// `rbac.authorization` is `RbacAuthorization`.
fn pascal(text: &str) -> String {
    let words = text.split(['.', '-', '/']);
    words.map(|word| word[..word.len().min(1)].to_uppercase() + &word[word.len().min(1)..]).collect()
}

/// `rbac.authorization` is `rbacAuthorization`.
fn camel(text: &str) -> String {
    let name = pascal(text);
    name[..name.len().min(1)].to_lowercase() + &name[name.len().min(1)..]
}
