//! Pods that know where they run.

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{is, text};
use crate::{
    Resource, Status,
    server::{AdmissionRequest, Admit, Operation, Reader},
    status,
};

/// Gives pods the zone and the region of the node that they are bound to, as labels, so that containers can be told by the downward API
/// (KEP-4742). Labels that are there already stay. A binding carries them to the pod.
#[derive(Debug, Clone, Copy, Default)]
pub struct PodTopologyLabels;

/// Labels of nodes that are copied.
const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

#[async_trait]
impl Admit for PodTopologyLabels {
    fn name(&self) -> &str {
        "PodTopologyLabels"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Create && is(resource, "", "pods") && matches!(subresource, "" | "binding")
    }

    async fn mutate(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(object) = request.object.as_mut() else { return Ok(()) };
        let name = match (request.attributes.subresource.as_str(), text(&object["target"]["kind"])) {
            ("binding", "Node") => text(&object["target"]["name"]),
            ("binding", _) => "",
            _ => text(&object["spec"]["nodeName"]),
        };
        if name.is_empty() {
            return Ok(());
        }
        let Some(node) = reader.get("", "nodes", "", name).await.map_err(status::internal)? else { return Ok(()) };
        let known = &node.meta().labels;
        for (label, value) in LABELS.iter().filter_map(|label| Some((*label, known.get(*label)?))) {
            let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return Ok(()) };
            let labels = metadata.entry("labels").or_insert(Value::Null);
            if labels.is_null() {
                *labels = Value::Object(Map::new());
            }
            if let Some(labels) = labels.as_object_mut() {
                labels.entry(label).or_insert_with(|| value.as_str().into());
            }
        }
        Ok(())
    }
}
