//! Which part of its objects an informer keeps.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use serde_json::Value;

use crate::{Error, Object};

/// What an informer keeps of each object. Informers of a server in the same process share the server's own objects, so there a
/// projection costs memory; over a network it saves what it leaves out.
#[derive(Debug, Clone, Copy, Default)]
pub enum Projection {
    /// All of it.
    #[default]
    Whole,
    /// `apiVersion`, `kind` and `metadata` without `managedFields`.
    Metadata,
    /// What a function leaves of the tree. Those of the same name share an informer.
    Of(&'static str, fn(&mut Value)),
}

impl Projection {
    fn name(&self) -> (bool, &'static str) {
        match self {
            Self::Whole => (true, "whole"),
            Self::Metadata => (true, "metadata"),
            Self::Of(name, _) => (false, name),
        }
    }
}

impl PartialEq for Projection {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Projection {}

impl Hash for Projection {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl Projection {
    pub(super) fn apply(self, object: Arc<Object>) -> Result<Arc<Object>, Error> {
        let project: fn(&mut Value) = match self {
            Self::Whole => return Ok(object),
            Self::Metadata => metadata_only,
            Self::Of(_, project) => project,
        };
        let mut value = object.value()?;
        project(&mut value);
        Ok(Arc::new(Object::from_value(&value)?))
    }
}

fn metadata_only(value: &mut Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
    }
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_keeps_what_it_says() {
        let whole = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n", "containers": []},
            "metadata": {"name": "p", "resourceVersion": "7", "managedFields": [{}]}});
        let whole = Arc::new(Object::from_value(&whole).unwrap());
        let of = |projection: Projection| projection.apply(Arc::clone(&whole)).unwrap().value().unwrap();
        let metadata = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "resourceVersion": "7"}});
        assert_eq!(of(Projection::Metadata), metadata);
        let node = of(Projection::Of("node", |pod| pod["spec"] = json!({"nodeName": pod["spec"]["nodeName"]})));
        assert_eq!(node["spec"], json!({"nodeName": "n"}));
        assert_eq!(of(Projection::Whole), whole.value().unwrap());
    }
}
