//! Clusters as kubectl dumps them: `kubectl get nodes,pods -A -o yaml`, and any other objects that scheduling looks at.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::{
    objects::{self, BadObject, cluster_scoped},
    pods::uid,
    workload::{Action, Job, Step, Workload},
};

/// Manifests that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// No YAML or JSON.
    #[error("document {0}: {1}")]
    Malformed(usize, String),
    /// Not an object.
    #[error(transparent)]
    Object(#[from] BadObject),
    /// There is nothing to schedule on.
    #[error("there is no node in the manifests")]
    NoNode,
}

/// What is done with the pods of a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replay {
    /// All are scheduled anew, in the order in which they were created.
    #[default]
    Anew,
    /// All are scheduled anew, and come as long after one another as they were created.
    Timed,
    /// Those on nodes stay there; the others are scheduled.
    Keep,
}

/// Reads objects from YAML (any number of documents) or JSON; lists are taken apart.
///
/// # Errors
/// [`ManifestError::Malformed`] names the document.
pub fn parse(text: &str) -> Result<Vec<Value>, ManifestError> {
    let mut objects = Vec::new();
    for (number, document) in documents(text).iter().enumerate() {
        let malformed = |error| ManifestError::Malformed(number + 1, error);
        let value: Value = match document.trim_start().starts_with('{') {
            true => serde_json::from_str(document).map_err(|error| malformed(error.to_string()))?,
            false => objects::yaml(document).map_err(malformed)?,
        };
        flatten(value, &mut objects).map_err(malformed)?;
    }
    Ok(objects)
}

/// The documents between lines of `---`.
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
    documents.retain(|document| !document.trim().is_empty());
    documents
}

fn flatten(value: Value, objects: &mut Vec<Value>) -> Result<(), String> {
    match value {
        Value::Null => Ok(()),
        Value::Object(mut fields) => {
            let kind = fields.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
            match (kind.strip_suffix("List"), fields.remove("items")) {
                (Some(of), Some(Value::Array(items))) => items.into_iter().try_for_each(|mut item| {
                    // The items of a typed list don't say what they are.
                    if let Some(item) = item.as_object_mut().filter(|item| !item.contains_key("kind")) {
                        item.insert("kind".to_owned(), of.into());
                        item.insert("apiVersion".to_owned(), fields.get("apiVersion").cloned().unwrap_or_default());
                    }
                    flatten(item, objects)
                }),
                _ if kind.is_empty() => Err("an object has no kind".to_owned()),
                (_, items) => {
                    fields.extend(items.map(|items| ("items".to_owned(), items)));
                    objects.push(Value::Object(fields));
                    Ok(())
                }
            }
        }
        other => Err(format!("expected an object, found {other}")),
    }
}

/// A workload of the objects: the cluster first, then its pods.
///
/// Pods that have ended or are being deleted are left out. A pod that a controller owns is replaced when it fails or has to go.
///
/// # Errors
/// An object is none, or there is no node.
pub fn workload(name: &str, objects: Vec<Value>, replay: Replay) -> Result<Workload, ManifestError> {
    let (mut cluster, mut pods) = (Vec::new(), Vec::new());
    let mut nodes = 0;
    for value in objects {
        let kind = value["kind"].as_str().unwrap_or_default();
        match kind {
            "Pod" => pods.push(objects::pod(value, "", "default")?),
            "Node" => {
                nodes += 1;
                cluster.push(Action::SetNode(Arc::new(objects::node(value, "")?)));
            }
            _ => {
                let namespace = (!cluster_scoped(kind)).then_some("default");
                cluster.push(Action::Apply(objects::other(value, "", namespace)?));
            }
        }
    }
    if nodes == 0 {
        return Err(ManifestError::NoNode);
    }
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    pods.retain(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        !matches!(phase, Some("Succeeded" | "Failed")) && pod.metadata.deletion_timestamp.is_none()
    });
    pods.sort_by_key(|pod| (created(pod), pod.metadata.namespace.clone(), pod.metadata.name.clone()));
    let first = pods.iter().find_map(created);
    let mut actions: Vec<_> = cluster.into_iter().map(|action| (Duration::ZERO, action)).collect();
    for mut pod in pods {
        let after = match (replay, created(&pod), first) {
            (Replay::Timed, Some(time), Some(first)) => {
                Duration::try_from(time.duration_since(first)).unwrap_or_default()
            }
            _ => Duration::ZERO,
        };
        let meta = &mut pod.metadata;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        meta.uid = Some(uid(&text(&meta.namespace), &text(&meta.name)));
        let restarts = meta.owner_references.iter().flatten().any(|owner| owner.controller == Some(true));
        if replay != Replay::Keep {
            pod.status = None;
            if let Some(spec) = &mut pod.spec {
                spec.node_name = None;
            }
        }
        let job = Job { pod: Arc::new(pod), duration: None, restarts };
        actions.push((after, Action::CreatePod(Arc::new(job))));
    }
    Ok(Workload { name: name.to_owned(), steps: vec![Step::Play { actions, background: false }] })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = r#"
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Node
  metadata: {name: one}
  status: {allocatable: {cpu: "4", memory: 8Gi, pods: "10"}}
- apiVersion: v1
  kind: Pod
  metadata: {name: late, namespace: a, uid: u1, creationTimestamp: "2026-01-01T00:01:00Z"}
  spec: {nodeName: one, containers: [{name: c}]}
  status: {phase: Running}
- apiVersion: v1
  kind: Pod
  metadata: {name: done, namespace: a, uid: u2, creationTimestamp: "2026-01-01T00:00:00Z"}
  spec: {nodeName: one, containers: [{name: c}]}
  status: {phase: Succeeded}
---
{"kind": "PodList", "apiVersion": "v1", "items": [
  {"metadata": {"name": "early", "namespace": "b", "creationTimestamp": "2026-01-01T00:00:30Z"}, "spec": {"containers": []}}
]}
"#;

    fn pods(workload: &Workload) -> Vec<(u64, String, Option<String>)> {
        let Step::Play { actions, .. } = &workload.steps[0] else { panic!("one step plays all") };
        let pod = |(after, action): &(Duration, Action)| match action {
            Action::CreatePod(job) => {
                let spec = job.pod.spec.as_ref().unwrap();
                Some((after.as_secs(), job.pod.metadata.name.clone().unwrap(), spec.node_name.clone()))
            }
            _ => None,
        };
        actions.iter().filter_map(pod).collect()
    }

    #[test]
    fn dumps_are_taken_apart_and_replayed() {
        let replayed = |replay| pods(&workload("dump", parse(DUMP).unwrap(), replay).unwrap());
        let (early, late) = ("early".to_owned(), "late".to_owned());
        assert_eq!(replayed(Replay::Anew), [(0, early.clone(), None), (0, late.clone(), None)]);
        assert_eq!(replayed(Replay::Timed), [(0, early.clone(), None), (30, late.clone(), None)]);
        assert_eq!(replayed(Replay::Keep), [(0, early, None), (0, late, Some("one".to_owned()))]);
    }

    #[test]
    fn what_is_no_manifest_is_told() {
        assert!(parse("a: [").unwrap_err().to_string().starts_with("document 1: "));
        assert_eq!(parse("a: 1").unwrap_err().to_string(), "document 1: an object has no kind");
        assert_eq!(parse("kind: Pod\n---\n- 1").unwrap_err().to_string(), "document 2: expected an object, found [1]");
        assert_eq!(workload("w", Vec::new(), Replay::Anew).unwrap_err(), ManifestError::NoNode);
    }
}
