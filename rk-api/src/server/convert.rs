//! Conversion between versions of one kind that are served from the same storage: the two Event APIs and the two
//! HorizontalPodAutoscalers. All other kinds (custom resources with the strategy `None` too) differ in their
//! `apiVersion` only.

use serde_json::{Value, json};

/// Moves `from` to `to` in an object, if it is there.
fn rename(object: &mut Value, from: &str, to: &str) {
    let Value::Object(fields) = object else { return };
    if let Some(value) = fields.remove(from) {
        fields.insert(to.to_owned(), value);
    }
}

/// Turns an object into the version `to` of its kind.
pub(crate) fn convert(object: &mut Value, to: &str) {
    let from = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    match (from.as_str(), to) {
        ("v1", "events.k8s.io/v1") => {
            for (core, new) in EVENT_FIELDS {
                rename(object, core, new);
            }
        }
        ("events.k8s.io/v1", "v1") => {
            for (core, new) in EVENT_FIELDS {
                rename(object, new, core);
            }
        }
        ("autoscaling/v2", "autoscaling/v1") => hpa_to_v1(object),
        ("autoscaling/v1", "autoscaling/v2") => hpa_to_v2(object),
        _ => {}
    }
    object["apiVersion"] = to.into();
}

/// Fields of an Event that have another name in the core group (left) than in `events.k8s.io` (right).
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Annotations in which `autoscaling/v1` keeps what it has no fields for.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn take(object: &mut Value, field: &str) -> Option<Value> {
    object.as_object_mut()?.remove(field)
}

fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

fn hpa_to_v1(object: &mut Value) {
    let mut kept = Vec::new();
    let mut metrics = take(&mut object["spec"], "metrics").unwrap_or_default();
    if let Some(list) = metrics.as_array_mut() {
        let utilization = |m: &Value| is_cpu(m) && m["resource"]["target"]["averageUtilization"].is_number();
        if let Some(at) = list.iter().position(utilization) {
            let cpu = list.remove(at);
            object["spec"]["targetCPUUtilizationPercentage"] = cpu["resource"]["target"]["averageUtilization"].clone();
        }
        if !list.is_empty() {
            kept.push((METRICS, metrics));
        }
    }
    if let Some(behavior) = take(&mut object["spec"], "behavior") {
        kept.push((BEHAVIOR, behavior));
    }
    if object["status"].is_object() {
        if let Some(current) = take(&mut object["status"], "currentMetrics") {
            let cpu = current.as_array().and_then(|list| list.iter().find(|m| is_cpu(m)));
            if let Some(percent) =
                cpu.map(|m| &m["resource"]["current"]["averageUtilization"]).filter(|p| p.is_number())
            {
                object["status"]["currentCPUUtilizationPercentage"] = percent.clone();
            }
            kept.push((CURRENT_METRICS, current));
        }
        if let Some(conditions) = take(&mut object["status"], "conditions") {
            kept.push((CONDITIONS, conditions));
        }
        if object["status"]["currentReplicas"].is_null() {
            // Required in this version only.
            object["status"]["currentReplicas"] = 0.into();
        }
    }
    for (annotation, value) in kept {
        object["metadata"]["annotations"][annotation] = value.to_string().into();
    }
}

fn hpa_to_v2(object: &mut Value) {
    let mut annotation = |name: &str| -> Option<Value> {
        let text = take(object.get_mut("metadata")?.get_mut("annotations")?, name)?;
        serde_json::from_str(text.as_str()?).ok()
    };
    let metrics = annotation(METRICS);
    let behavior = annotation(BEHAVIOR);
    let current = annotation(CURRENT_METRICS);
    let conditions = annotation(CONDITIONS);
    if object["metadata"]["annotations"].as_object().is_some_and(serde_json::Map::is_empty) {
        take(&mut object["metadata"], "annotations");
    }
    let mut list = Vec::new();
    if let Some(percent) = object.get_mut("spec").and_then(|spec| take(spec, "targetCPUUtilizationPercentage")) {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        list.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    list.extend(metrics.and_then(|m| if let Value::Array(list) = m { Some(list) } else { None }).unwrap_or_default());
    if !list.is_empty() {
        object["spec"]["metrics"] = list.into();
    }
    if let Some(behavior) = behavior {
        object["spec"]["behavior"] = behavior;
    }
    if object["status"].is_object() {
        take(&mut object["status"], "currentCPUUtilizationPercentage");
        if let Some(current) = current {
            object["status"]["currentMetrics"] = current;
        }
        if let Some(conditions) = conditions {
            object["status"]["conditions"] = conditions;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(object: Value, other: &str) -> Value {
        let original = object["apiVersion"].as_str().unwrap().to_owned();
        let mut converted = object.clone();
        convert(&mut converted, other);
        let seen = converted.clone();
        convert(&mut converted, &original);
        assert_eq!(converted, object);
        seen
    }

    #[test]
    fn events_have_both_forms() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "m", "count": 2,
            "involvedObject": {"kind": "Pod"}, "reportingComponent": "kubelet", "reason": "Started"});
        let new = round_trip(core, "events.k8s.io/v1");
        assert_eq!(
            (&new["note"], &new["regarding"]["kind"], &new["deprecatedCount"]),
            (&json!("m"), &json!("Pod"), &json!(2))
        );
        assert_eq!((&new["reportingController"], &new["reason"]), (&json!("kubelet"), &json!("Started")));
    }

    #[test]
    fn autoscalers_have_both_forms() {
        let v2 = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"maxReplicas": 5, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 70}}}]}});
        let v1 = round_trip(v2, "autoscaling/v1");
        assert_eq!(v1["spec"]["targetCPUUtilizationPercentage"], 80);
        assert!(v1["spec"].get("metrics").is_none());
    }
}
