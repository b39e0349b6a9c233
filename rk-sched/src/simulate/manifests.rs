//! Clusters as kubectl dumps them: `kubectl get nodes,pods -A -o yaml`, and any other objects that scheduling looks at.

use std::{collections::HashSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::Value;

use super::{
    objects::{self, BadObject, cluster_scoped},
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
        // JSON is read faster as what it is.
        let json = document.trim_start().starts_with('{').then(|| serde_json::from_str(document).ok()).flatten();
        let value: Value = match json {
            Some(value) => value,
            None => objects::yaml(document).map_err(malformed)?,
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
            // What stands behind it belongs to the document, be it a comment.
            documents.push(format!("{}\n", line.trim_start_matches("---")));
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
/// Pods that have ended, are being deleted or are to stay on a node that is not among the objects are left out. A pod that a controller
/// owns is replaced when it fails or has to go. What kubelets run of their own (mirror pods) stays where it is, however the others are replayed. Where
/// pods are scheduled anew, so is what their claims hold of devices.
///
/// # Errors
/// An object is none or has no name, or there is no node.
pub fn workload(name: &str, objects: Vec<Value>, replay: Replay) -> Result<Workload, ManifestError> {
    let (mut cluster, mut pods) = (Vec::new(), Vec::new());
    let mut nodes = HashSet::new();
    for mut value in objects {
        objects::has_name(&value)?;
        let kind = value["kind"].as_str().unwrap_or_default();
        match kind {
            "Pod" => pods.push(objects::pod(value, "", "default")?),
            "Node" => {
                let node = objects::node(value, "")?;
                nodes.extend(node.metadata.name.clone());
                cluster.push(Action::SetNode(Arc::new(node)));
            }
            _ => {
                let namespace = (!cluster_scoped(kind)).then_some("default");
                if kind == "ResourceClaim" && replay != Replay::Keep {
                    value["status"] = Value::Null;
                }
                cluster.push(Action::Apply(objects::other(value, "", namespace)?));
            }
        }
    }
    if nodes.is_empty() {
        return Err(ManifestError::NoNode);
    }
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    pods.retain(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).filter(|_| stays(pod, replay));
        !matches!(phase, Some("Succeeded" | "Failed"))
            && pod.metadata.deletion_timestamp.is_none()
            && on.is_none_or(|node| nodes.contains(node))
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
        let mut owners = pod.metadata.owner_references.iter().flatten();
        let restarts = !is_mirror(&pod) && owners.any(|owner| owner.controller == Some(true));
        if !stays(&pod, replay) {
            let claims = pod.status.take().and_then(|status| status.resource_claim_statuses);
            pod.status = claims.map(|made| PodStatus { resource_claim_statuses: Some(made), ..PodStatus::default() });
            if let Some(spec) = &mut pod.spec {
                spec.node_name = None;
            }
        }
        let job = Job { pod: Arc::new(pod), duration: None, restarts };
        actions.push((after, Action::CreatePod(Arc::new(job))));
    }
    Ok(Workload { name: name.to_owned(), steps: vec![Step::Play { actions, background: false }] })
}

/// Whether a kubelet runs the pod of its own.
fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key("kubernetes.io/config.mirror"))
}

/// Whether a pod that is on a node stays there.
fn stays(pod: &Pod, replay: Replay) -> bool {
    replay == Replay::Keep || is_mirror(pod)
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
    fn pods_stay_on_nodes_that_are_there_and_mirrors_always_do() {
        let of = |name: &str, node: &str, annotations: &str| {
            let meta = format!("{{name: {name}, namespace: a, annotations: {annotations}}}");
            format!("--- {{kind: Pod, metadata: {meta}, spec: {{nodeName: {node}, containers: []}}}}\n")
        };
        let mirror = "{kubernetes.io/config.mirror: x}";
        let text = [of("p", "one", "{}"), of("elsewhere", "two", "{}"), of("static", "one", mirror)].concat();
        let node = "--- # the only one\nkind: Node\nmetadata: {name: one}\n";
        let replayed =
            |replay| pods(&workload("w", parse(&format!("{node}{text}")).unwrap(), replay).unwrap()).into_iter();
        let (one, name) = (Some("one".to_owned()), str::to_owned);
        let anew: Vec<_> = replayed(Replay::Anew).map(|(_, name, node)| (name, node)).collect();
        assert_eq!(anew, [(name("elsewhere"), None), (name("p"), None), (name("static"), one.clone())]);
        let kept: Vec<_> = replayed(Replay::Keep).map(|(_, name, node)| (name, node)).collect();
        assert_eq!(kept, [(name("p"), one.clone()), (name("static"), one)]);
    }

    #[test]
    fn what_is_no_manifest_is_told() {
        assert!(parse("a: [").unwrap_err().to_string().starts_with("document 1: "));
        assert_eq!(parse("a: 1").unwrap_err().to_string(), "document 1: an object has no kind");
        assert_eq!(parse("kind: Pod\n---\n- 1").unwrap_err().to_string(), "document 2: expected an object, found [1]");
        assert_eq!(workload("w", Vec::new(), Replay::Anew).unwrap_err(), ManifestError::NoNode);
        let nameless = workload("w", parse("kind: Service\nspec: {}").unwrap(), Replay::Anew).unwrap_err();
        assert_eq!(nameless.to_string(), "Service \"\": it has no name");
    }
}
