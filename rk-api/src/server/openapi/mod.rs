//! The OpenAPI documents: what kinds and paths there are, for `kubectl explain`, for clients that validate, and for
//! generators.
//!
//! `/openapi/v3` is an index of one document per group and version; `/openapi/v2` is one document of everything. They are
//! made from the registry's rows, the tables in `rk-api/data` and the schemas of custom resources when somebody first
//! asks, and kept compressed.

mod legacy;
mod paths;
mod protobuf;
mod schemas;

#[cfg(feature = "serve")]
use std::sync::Arc;
use std::{
    collections::HashMap,
    fmt,
    io::{Read, Write},
};

use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Row, Subresource};
use crate::Resource;

/// The documents of one state of the registry.
pub struct Documents {
    versions: Vec<GroupVersion>,
    /// What servers behind this one serve.
    #[cfg(feature = "serve")]
    remote: Vec<Arc<super::aggregation::RemoteVersion>>,
    /// By path, gzipped.
    made: Mutex<HashMap<String, Bytes>>,
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.versions.iter().map(|version| &version.path)).finish()
    }
}

/// One group and version: its rows, and the schemas of those that are custom resources.
struct GroupVersion {
    /// `api/v1`, `apis/apps/v1`.
    path: String,
    hash: String,
    entries: Vec<Entry>,
}

/// What the documents say of one row.
struct Entry {
    resource: Resource,
    verbs: Vec<String>,
    subresources: Vec<Subresource>,
    /// The `openAPIV3Schema`, of a custom resource.
    schema: Option<Value>,
}

impl Documents {
    /// The documents of these rows; `custom` has the `openAPIV3Schema` of each custom resource.
    pub fn new(rows: &[Row], custom: &[(Resource, Value)]) -> Self {
        let mut versions: Vec<GroupVersion> = Vec::new();
        for row in rows {
            let path = group_version_path(&row.resource);
            let schema =
                custom.iter().find(|(resource, _)| *resource == row.resource).map(|(_, schema)| schema.clone());
            let entry = Entry {
                resource: row.resource.clone(),
                verbs: row.verbs.clone(),
                subresources: row.subresources.clone(),
                schema,
            };
            match versions.iter_mut().find(|version| version.path == path) {
                Some(version) => version.entries.push(entry),
                None => versions.push(GroupVersion { path, hash: String::new(), entries: vec![entry] }),
            }
        }
        for version in &mut versions {
            version.hash = hash(&version.entries);
        }
        Self {
            versions,
            #[cfg(feature = "serve")]
            remote: Vec::new(),
            made: Mutex::default(),
        }
    }

    /// With what servers behind this one serve.
    #[cfg(feature = "serve")]
    pub(crate) fn set_remote(&mut self, remote: &[Arc<super::aggregation::RemoteVersion>]) {
        self.remote = remote.to_vec();
    }

    /// `/openapi/v3`: where the documents are, with their hashes, by which clients cache them.
    pub fn index(&self) -> Bytes {
        let paths = self.versions.iter().map(|GroupVersion { path, hash, .. }| {
            (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}))
        });
        #[cfg(feature = "serve")]
        let paths = paths.chain(self.remote.iter().filter_map(|remote| {
            let url = remote.openapi.as_ref()?;
            Some((format!("apis/{}/{}", remote.group, remote.version), json!({"serverRelativeURL": url})))
        }));
        encode(&json!({"paths": paths.collect::<Map<_, _>>()}))
    }

    /// The document of a path such as `apis/apps/v1`.
    pub fn document(&self, path: &str) -> Option<Document> {
        let version = self.versions.iter().find(|version| version.path == path)?;
        let gzipped = self.made(path, || {
            let paths = paths::of(&version.entries);
            let schemas = schemas::of(&paths, &version.entries);
            encode(&json!({
                "openapi": "3.0.0",
                "info": {"title": "Kubernetes", "version": "v1.36.0"},
                "paths": paths,
                "components": {
                    "schemas": schemas,
                    "securitySchemes": {"BearerToken": {
                        "type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication",
                    }},
                },
            }))
        });
        Some(Document { gzipped, hash: version.hash.clone() })
    }

    /// `/openapi/v2`: everything in one document of the older form (Swagger 2.0), as JSON or as protobuf.
    pub fn v2(&self, as_protobuf: bool) -> Document {
        let gzipped = self.made(if as_protobuf { "v2.pb" } else { "v2" }, || {
            let entries = || self.versions.iter().flat_map(|version| &version.entries);
            let paths = paths::of(entries());
            let schemas = schemas::of(&paths, entries());
            #[cfg_attr(not(feature = "serve"), expect(unused_mut, reason = "there are no other servers"))]
            let mut document = legacy::document(paths, schemas);
            #[cfg(feature = "serve")]
            for remote in &self.remote {
                let (paths, definitions) = &*remote.openapi_v2;
                for (field, more) in [("paths", paths), ("definitions", definitions)] {
                    let Some(known) = document[field].as_object_mut() else { continue };
                    for (name, value) in more {
                        known.entry(name).or_insert_with(|| value.clone());
                    }
                }
            }
            if as_protobuf { protobuf::encode(&document).into() } else { encode(&document) }
        });
        let mut digest = Sha256::new();
        digest.update([u8::from(as_protobuf)]);
        self.versions.iter().for_each(|version| digest.update(&version.hash));
        #[cfg(feature = "serve")]
        for remote in &self.remote {
            digest.update(format!("{}/{} {:?}", remote.group, remote.version, remote.openapi));
        }
        Document { gzipped, hash: hex(&digest.finalize()) }
    }

    fn made(&self, name: &str, make: impl FnOnce() -> Bytes) -> Bytes {
        if let Some(gzipped) = self.made.lock().get(name) {
            return gzipped.clone();
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let gzipped = encoder.write_all(&make()).and_then(|()| encoder.finish());
        let gzipped = Bytes::from(gzipped.expect("memory takes every write"));
        self.made.lock().insert(name.to_owned(), gzipped.clone());
        gzipped
    }
}

/// One document, as it is kept.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its content under gzip.
    pub gzipped: Bytes,
    /// What its URL in the index carries; its entity tag without the quotes.
    pub hash: String,
}

impl Document {
    /// The content itself.
    pub fn content(&self) -> Bytes {
        let mut text = Vec::new();
        GzDecoder::new(&*self.gzipped).read_to_end(&mut text).expect("what was compressed here");
        text.into()
    }
}

fn encode(value: &Value) -> Bytes {
    serde_json::to_vec(value).expect("a JSON value is JSON").into()
}

fn group_version_path(resource: &Resource) -> String {
    let Resource { group, version, .. } = resource;
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Differs whenever the document does.
fn hash(entries: &[Entry]) -> String {
    let mut digest = Sha256::new();
    digest.update(env!("CARGO_PKG_VERSION"));
    for Entry { resource, verbs, subresources, schema } in entries {
        digest.update(format!("{resource:?}{verbs:?}{subresources:?}"));
        digest.update(schema.as_ref().map(Value::to_string).unwrap_or_default());
    }
    hex(&digest.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests;
