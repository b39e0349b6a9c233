//! Columns of kinds that have no rules of their own here.

use serde_json::Value;

use super::{
    cells::{AGE, NAME, column, condition, container_images, container_names, labels, number, or_none},
    value::Peek,
};
use crate::server::Column;

/// The columns of APIServices.
pub fn api_service() -> Vec<Column> {
    fn service(api: &Value) -> Value {
        match api.at("spec.service") {
            Value::Null => "Local".into(),
            service => format!("{}/{}", service.text("namespace"), service.text("name")).into(),
        }
    }
    fn available(api: &Value) -> Value {
        match condition(api, "Available") {
            None => "Unknown".into(),
            Some(condition) if condition.text("status") == "True" || condition.text("reason").is_empty() => {
                condition.text("status").into()
            }
            Some(condition) => format!("{} ({})", condition.text("status"), condition.text("reason")).into(),
        }
    }
    vec![NAME, column("Service", "string", service), column("Available", "string", available), AGE]
}

/// The columns of PodTemplates.
pub fn pod_template() -> Vec<Column> {
    vec![
        NAME,
        column("Containers", "string", |t| container_names(t.at("template.spec"))),
        column("Images", "string", |t| container_images(t.at("template.spec"))),
        column("Pod Labels", "string", |t| labels(t.at("template.metadata.labels"))),
    ]
}

/// The columns of ComponentStatuses.
pub fn component_status() -> Vec<Column> {
    fn healthy(component: &Value) -> Option<&Value> {
        component.list("conditions").iter().find(|condition| condition.text("type") == "Healthy")
    }
    fn status(component: &Value) -> Value {
        match healthy(component).map(|condition| condition.text("status")) {
            Some("True") => "Healthy".into(),
            Some("False") => "Unhealthy".into(),
            _ => "Unknown".into(),
        }
    }
    vec![
        NAME,
        column("Status", "string", status),
        column("Message", "string", |c| healthy(c).map_or("", |condition| condition.text("message")).into()),
        column("Error", "string", |c| healthy(c).map_or("", |condition| condition.text("error")).into()),
    ]
}

/// The columns of FlowSchemas.
pub fn flow_schema() -> Vec<Column> {
    fn missing(schema: &Value) -> Value {
        let dangling = schema.list("status.conditions").iter().find(|condition| condition.text("type") == "Dangling");
        dangling.map_or("?", |condition| condition.text("status")).into()
    }
    vec![
        NAME,
        column("PriorityLevel", "string", |s| s.text("spec.priorityLevelConfiguration.name").into()),
        column("MatchingPrecedence", "string", |s| number(s, "spec.matchingPrecedence").into()),
        column("DistinguisherMethod", "string", |s| or_none(s.text("spec.distinguisherMethod.type"))),
        AGE,
        column("MissingPL", "string", missing),
    ]
}

/// The columns of PriorityLevelConfigurations.
pub fn priority_level() -> Vec<Column> {
    fn of(level: &Value, path: &str) -> Value {
        or_none(&level.int(path).map_or(String::new(), |number| number.to_string()))
    }
    vec![
        NAME,
        column("Type", "string", |l| l.text("spec.type").into()),
        column("NominalConcurrencyShares", "string", |l| {
            let kind = if l.text("spec.type") == "Exempt" { "exempt" } else { "limited" };
            of(l.at("spec").at(kind), "nominalConcurrencyShares")
        }),
        column("Queues", "string", |l| of(l, "spec.limited.limitResponse.queuing.queues")),
        column("HandSize", "string", |l| of(l, "spec.limited.limitResponse.queuing.handSize")),
        column("QueueLengthLimit", "string", |l| of(l, "spec.limited.limitResponse.queuing.queueLengthLimit")),
        AGE,
    ]
}

/// The columns of CSIDrivers.
pub fn csi_driver() -> Vec<Column> {
    fn flag(driver: &Value, field: &str, default: bool) -> Value {
        driver.at("spec").at(field).as_bool().unwrap_or(default).into()
    }
    fn joined(values: impl Iterator<Item = String>) -> Value {
        match values.collect::<Vec<_>>().join(",") {
            text if text.is_empty() => "<unset>".into(),
            text => text.into(),
        }
    }
    fn modes(driver: &Value) -> Value {
        match driver.list("spec.volumeLifecycleModes") {
            [] => "Persistent".into(),
            modes => joined(modes.iter().filter_map(Value::as_str).map(str::to_owned)),
        }
    }
    vec![
        NAME,
        column("AttachRequired", "boolean", |d| flag(d, "attachRequired", true)),
        column("PodInfoOnMount", "boolean", |d| flag(d, "podInfoOnMount", false)),
        column("StorageCapacity", "boolean", |d| flag(d, "storageCapacity", false)),
        column("TokenRequests", "string", |d| {
            joined(d.list("spec.tokenRequests").iter().map(|request| request.text("audience").to_owned()))
        }),
        column("RequiresRepublish", "boolean", |d| flag(d, "requiresRepublish", false)),
        column("Modes", "string", modes),
        AGE,
    ]
}

/// The columns of CSINodes.
pub fn csi_node() -> Vec<Column> {
    vec![NAME, column("Drivers", "integer", |node| node.list("spec.drivers").len().into()), AGE]
}

/// The columns of CSIStorageCapacities.
pub fn storage_capacity() -> Vec<Column> {
    vec![
        NAME,
        column("StorageClassName", "string", |c| c.text("storageClassName").into()),
        column("Capacity", "string", |c| match c.text("capacity") {
            "" => "<unset>".into(),
            capacity => capacity.into(),
        }),
        AGE,
    ]
}

/// The columns of VolumeAttachments.
pub fn volume_attachment() -> Vec<Column> {
    vec![
        NAME,
        column("Attacher", "string", |a| a.text("spec.attacher").into()),
        column("PV", "string", |a| a.text("spec.source.persistentVolumeName").into()),
        column("Node", "string", |a| a.text("spec.nodeName").into()),
        column("Attached", "boolean", |a| a.flag("status.attached").into()),
        AGE,
    ]
}

/// The columns of VolumeAttributesClasses.
pub fn volume_attributes_class() -> Vec<Column> {
    vec![NAME, column("DriverName", "string", |class| class.text("driverName").into()), AGE]
}

/// The columns of IPAddresses.
pub fn ip_address() -> Vec<Column> {
    fn parent(address: &Value) -> Value {
        let parent = address.at("spec.parentRef");
        let parts = [parent.text("group"), parent.text("resource"), parent.text("namespace"), parent.text("name")];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("/").into()
    }
    vec![NAME, column("ParentRef", "string", parent), AGE]
}

/// The columns of ServiceCIDRs.
pub fn service_cidr() -> Vec<Column> {
    fn ranges(cidr: &Value) -> Value {
        let all: Vec<_> = cidr.list("spec.cidrs").iter().filter_map(Value::as_str).collect();
        all.join(",").into()
    }
    vec![NAME, column("CIDRs", "string", ranges), AGE]
}
