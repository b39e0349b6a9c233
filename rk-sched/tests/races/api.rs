//! The API in miniature: pods and nodes, the rule of binding, and a log that watches read.

use std::{collections::BTreeMap, sync::Arc};

use rk_api::Object;
use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Node,
    Pod,
}

/// A change: the object's new version, or that it is gone.
pub struct Entry {
    pub kind: Kind,
    pub name: String,
    pub object: Option<Arc<Object>>,
}

#[derive(Default)]
pub struct Api {
    pub objects: BTreeMap<(Kind, String), Value>,
    pub log: Vec<Entry>,
    uids: u64,
}

/// Why a binding was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    NotFound,
    Conflict,
}

pub fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub fn node_of(pod: &Value) -> &str {
    text(pod, "/spec/nodeName")
}

pub fn ended(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

pub fn leaving(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_string()
}

/// Whole cores.
pub fn cores(pod: &Value) -> u64 {
    text(pod, "/spec/containers/0/resources/requests/cpu").parse().unwrap_or(0)
}

pub fn number(node: &Value, resource: &str) -> u64 {
    text(node, &format!("/status/allocatable/{resource}")).parse().unwrap_or(0)
}

impl Api {
    /// Writes an object, a new one or a new version.
    pub fn set(&mut self, kind: Kind, name: &str, mut object: Value) {
        if object["metadata"]["uid"].is_null() {
            self.uids += 1;
            object["metadata"]["uid"] = format!("uid-{}", self.uids).into();
        }
        object["apiVersion"] = "v1".into();
        object["kind"] = format!("{kind:?}").into();
        object["metadata"]["name"] = name.into();
        object["metadata"]["resourceVersion"] = (self.log.len() + 1).to_string().into();
        let shared = Arc::new(Object::from_value(&object).expect("it is an object"));
        self.log.push(Entry { kind, name: name.to_owned(), object: Some(shared) });
        self.objects.insert((kind, name.to_owned()), object);
    }

    pub fn get(&self, kind: Kind, name: &str) -> Option<&Value> {
        self.objects.get(&(kind, name.to_owned()))
    }

    /// Changes an object if it is there.
    pub fn change(&mut self, kind: Kind, name: &str, change: impl FnOnce(&mut Value)) {
        if let Some(mut object) = self.get(kind, name).cloned() {
            change(&mut object);
            self.set(kind, name, object);
        }
    }

    pub fn remove(&mut self, kind: Kind, name: &str) {
        if self.objects.remove(&(kind, name.to_owned())).is_some() {
            self.log.push(Entry { kind, name: name.to_owned(), object: None });
        }
    }

    pub fn all(&self, kind: Kind) -> impl Iterator<Item = (&str, &Value)> {
        self.objects.iter().filter(move |((of, _), _)| *of == kind).map(|((_, name), object)| (name.as_str(), object))
    }

    /// Pods that are bound to a node and have not ended.
    pub fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.all(Kind::Pod).filter(move |(_, pod)| node_of(pod) == node && !ended(pod))
    }

    /// `POST pods/NAME/binding`: the pod has to be there, of that uid, not bound and not leaving. Nobody asks whether there is room.
    pub fn bind(&mut self, name: &str, uid: &str, node: &str) -> Result<(), Refused> {
        let pod = self.get(Kind::Pod, name).ok_or(Refused::NotFound)?;
        if text(pod, "/metadata/uid") != uid || !node_of(pod).is_empty() || leaving(pod) {
            return Err(Refused::Conflict);
        }
        self.change(Kind::Pod, name, |pod| {
            pod["spec"]["nodeName"] = node.into();
            pod["status"]["nominatedNodeName"] = Value::Null;
        });
        Ok(())
    }

    /// `DELETE pods/NAME` of that uid: a pod on a node is told to leave, another is gone at once.
    pub fn delete_pod(&mut self, name: &str, uid: &str) {
        let Some(pod) = self.get(Kind::Pod, name) else { return };
        if text(pod, "/metadata/uid") != uid {
            return;
        }
        if node_of(pod).is_empty() || ended(pod) {
            self.remove(Kind::Pod, name);
        } else if !leaving(pod) {
            self.change(Kind::Pod, name, |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
        }
    }
}
