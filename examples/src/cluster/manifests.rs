//! Manifests: YAML or JSON documents, applied in order.

use std::sync::Arc;

use rk_api::{Client, Error, Patch, Request, Resource, Verb, WriteOptions};
use serde_json::Value;

/// Manifests that can't be applied.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A document that is no YAML, or no object with `apiVersion`, `kind` and `metadata.name`.
    #[error("document {document}: {message}")]
    Malformed {
        /// Its number in the file, from 1.
        document: usize,
        /// What is wrong.
        message: String,
    },
    /// The API refused one.
    #[error("{what}: {error}")]
    Refused {
        /// Kind and name.
        what: String,
        /// The API's words.
        error: Error,
    },
}

/// The objects of a multi-document file; `List`s are taken apart.
///
/// # Errors
/// [`ManifestError::Malformed`] names the document.
pub fn parse(text: &str) -> Result<Vec<Value>, ManifestError> {
    let mut objects = Vec::new();
    for (i, document) in documents(text).into_iter().enumerate() {
        let malformed = |message: String| ManifestError::Malformed { document: i + 1, message };
        let mut value: Value = serde_saphyr::from_str(&document).map_err(|e| malformed(e.to_string()))?;
        if value.is_null() {
            continue;
        }
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        if kind.is_empty() || !value["apiVersion"].is_string() {
            return Err(malformed("apiVersion or kind is missing".to_owned()));
        }
        match value.get_mut("items") {
            Some(Value::Array(items)) if kind == "List" => objects.append(items),
            _ => objects.push(value),
        }
    }
    Ok(objects)
}

/// The text between lines of `---`.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line == "---" || line.starts_with("--- ") {
            documents.push(String::new());
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    documents
        .retain(|document| document.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')));
    documents
}

/// Applies objects (server-side, taking over conflicts) in order; calls `done` with each one's kind and name. `resource_of` finds
/// the resource of an `apiVersion` and `kind`.
///
/// # Errors
/// The first object that is malformed or refused; those before it are applied.
pub async fn apply(
    client: &Arc<dyn Client>,
    resource_of: impl Fn(&str, &str) -> Option<Resource>,
    objects: Vec<Value>,
    mut done: impl FnMut(&str),
) -> Result<(), ManifestError> {
    for (i, body) in objects.into_iter().enumerate() {
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        let malformed = |message: String| ManifestError::Malformed { document: i + 1, message };
        if name.is_empty() {
            return Err(malformed(format!("{kind} without metadata.name")));
        }
        let resource = resource_of(&api_version, &kind)
            .ok_or_else(|| malformed(format!("no matches for kind {kind:?} in version {api_version:?}")))?;
        let namespace = match text("/metadata/namespace") {
            _ if !resource.namespaced => String::new(),
            namespace if namespace.is_empty() => "default".to_owned(),
            namespace => namespace,
        };
        let what = format!("{}/{name}", resource.group_resource());
        let request = Request {
            resource,
            namespace,
            name,
            subresource: String::new(),
            verb: Verb::Patch(Patch::apply(body).force(), WriteOptions::manager("mini-cluster")),
        };
        client.request(request).await.map_err(|error| ManifestError::Refused { what: what.clone(), error })?;
        done(&what);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_apart() {
        let objects = parse("# a\n---\napiVersion: v1\nkind: A\n---\n\n--- \n{apiVersion: v1, kind: List, items: [{kind: B}, {kind: C}]}\n").unwrap();
        let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        for bad in ["kind: A", "- a", "a: [", "apiVersion: v1\nkind: A\n---\nplain"] {
            assert!(matches!(parse(bad), Err(ManifestError::Malformed { .. })), "{bad}");
        }
    }
}
