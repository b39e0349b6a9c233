//! The API in miniature: objects, the rules of requests that the scheduler makes, and a log that watches read.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use rk_api::{Error, Object, Request, Verb};
use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Class,
    Claim,
    Volume,
    Group,
    Node,
    Pod,
}

impl Kind {
    pub const ALL: [Self; 6] = [Self::Class, Self::Claim, Self::Volume, Self::Group, Self::Node, Self::Pod];

    /// Version, kind and plural.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Class => ("storage.k8s.io/v1", "StorageClass", "storageclasses"),
            Self::Claim => ("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
            Self::Volume => ("v1", "PersistentVolume", "persistentvolumes"),
            Self::Group => ("scheduling.k8s.io/v1alpha2", "PodGroup", "podgroups"),
            Self::Node => ("v1", "Node", "nodes"),
            Self::Pod => ("v1", "Pod", "pods"),
        }
    }

    fn is_namespaced(self) -> bool {
        matches!(self, Self::Claim | Self::Group | Self::Pod)
    }
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

/// What the API says where it does not do what it is asked.
fn refusal(code: i32, reason: &str) -> Error {
    let status = Status { code: Some(code), reason: Some(reason.to_owned()), ..Status::default() };
    Error::Api(Box::new(status))
}

fn not_found() -> Error {
    refusal(404, "NotFound")
}

fn conflict() -> Error {
    refusal(409, "Conflict")
}

pub fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
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

/// The claim that a pod uses; empty for none.
pub fn claim_of(pod: &Value) -> &str {
    text(pod, "/spec/volumes/0/persistentVolumeClaim/claimName")
}

/// The group that a pod is one of; empty for none.
pub fn group_of(pod: &Value) -> &str {
    text(pod, "/spec/schedulingGroup/podGroupName")
}

pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
pub const BOUND: &str = "pv.kubernetes.io/bind-completed";

pub fn annotation<'a>(object: &'a Value, name: &str) -> &'a str {
    object["metadata"]["annotations"][name].as_str().unwrap_or_default()
}

/// The node that a volume is on.
pub fn place_of(volume: &Value) -> &str {
    text(volume, "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0")
}

/// Changes an object as a merge patch does (RFC 7386).
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        object.clone_from(patch);
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            object.as_object_mut().expect("it is one now").remove(name);
        } else {
            merge(&mut object[name], value);
        }
    }
}

impl Api {
    /// Writes an object, a new one or a new version.
    pub fn set(&mut self, kind: Kind, name: &str, mut object: Value) {
        if object["metadata"]["uid"].is_null() {
            self.uids += 1;
            object["metadata"]["uid"] = format!("uid-{}", self.uids).into();
        }
        let (version, called, _) = kind.names();
        (object["apiVersion"], object["kind"]) = (version.into(), called.into());
        object["metadata"]["name"] = name.into();
        if kind.is_namespaced() {
            object["metadata"]["namespace"] = "default".into();
        }
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

    /// Copies of all of a kind, to go through while they are changed.
    pub fn copies(&self, kind: Kind) -> Vec<(String, Value)> {
        self.all(kind).map(|(name, object)| (name.to_owned(), object.clone())).collect()
    }

    /// Pods that are bound to a node and have not ended.
    pub fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.all(Kind::Pod).filter(move |(_, pod)| node_of(pod) == node && !ended(pod))
    }

    /// Does what is asked.
    pub fn request(&mut self, request: &Request) -> Result<Arc<Object>, Error> {
        let kind =
            Kind::ALL.into_iter().find(|kind| kind.names().2 == request.resource.plural).ok_or_else(not_found)?;
        match (&request.verb, request.subresource.as_str()) {
            (Verb::Get, "") => {}
            (Verb::Create(body, _), "binding") => {
                self.bind(&request.name, uid(body), text(body, "/target/name"))?;
            }
            (Verb::Patch(patch, _), _) => self.patch(kind, &request.name, patch.body.clone())?,
            _ => return Err(refusal(405, "MethodNotAllowed")),
        }
        let object = self.get(kind, &request.name).ok_or_else(not_found)?;
        Object::from_value(object).map(Arc::new)
    }

    fn patch(&mut self, kind: Kind, name: &str, mut patch: Value) -> Result<(), Error> {
        let object = self.get(kind, name).ok_or_else(not_found)?;
        for field in ["uid", "resourceVersion"] {
            let Some(meta) = patch["metadata"].as_object_mut() else { break };
            if meta.remove(field).is_some_and(|wanted| wanted != object["metadata"][field]) {
                return Err(conflict());
            }
        }
        self.change(kind, name, |object| merge(object, &patch));
        Ok(())
    }

    /// `POST pods/NAME/binding`: the pod has to be there, of that uid, not bound and not leaving. Nobody asks whether there is room.
    fn bind(&mut self, name: &str, of: &str, node: &str) -> Result<(), Error> {
        let pod = self.get(Kind::Pod, name).ok_or_else(not_found)?;
        if uid(pod) != of || !node_of(pod).is_empty() || leaving(pod) {
            return Err(conflict());
        }
        self.change(Kind::Pod, name, |pod| {
            pod["spec"]["nodeName"] = node.into();
            pod["status"]["nominatedNodeName"] = Value::Null;
        });
        Ok(())
    }

    /// `DELETE pods/NAME` of that uid: a pod on a node is told to leave, another is gone at once.
    pub fn delete_pod(&mut self, name: &str, of: &str) {
        let Some(pod) = self.get(Kind::Pod, name).filter(|pod| uid(pod) == of) else { return };
        if node_of(pod).is_empty() || ended(pod) {
            self.remove(Kind::Pod, name);
        } else if !leaving(pod) {
            self.change(Kind::Pod, name, |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
        }
    }

    /// Whether a pod's claim, if it has one, can be used on a node, or bound there, as things are.
    pub fn volumes_allow(&self, pod: &Value, node: &str) -> bool {
        let name = claim_of(pod);
        if name.is_empty() {
            return true;
        }
        let Some(claim) = self.get(Kind::Claim, name) else { return false };
        let volume = text(claim, "/spec/volumeName");
        if !volume.is_empty() {
            return self.get(Kind::Volume, volume).is_some_and(|volume| place_of(volume) == node);
        }
        if text(claim, "/spec/storageClassName") == "made" {
            return ["", node].contains(&annotation(claim, SELECTED_NODE));
        }
        let kept = |volume: &Value| text(volume, "/spec/claimRef/uid") == uid(claim);
        let free = |volume: &Value| !volume["spec"]["claimRef"].is_object();
        let mut volumes = self.all(Kind::Volume).map(|(_, volume)| volume);
        match volumes.find(|volume| kept(volume)) {
            Some(kept) => place_of(kept) == node,
            None => self.all(Kind::Volume).any(|(_, volume)| {
                free(volume) && place_of(volume) == node && text(volume, "/spec/storageClassName") == "local"
            }),
        }
    }
}
