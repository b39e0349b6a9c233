//! The downward API: fields of a pod and resources of its containers, as strings.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceFieldSelector, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as QuantityText,
};
use rk_api::Quantity;

/// What only the agent knows of a pod that runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) node: String,
    pub(crate) host_ip: String,
    pub(crate) pod_ips: Vec<String>,
    /// What stands for limits that a container does not have.
    pub(crate) allocatable: BTreeMap<String, QuantityText>,
}

/// The value of a field; `None` if the path names none.
pub(crate) fn field(pod: &Pod, place: &Place, path: &str) -> Option<String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return None,
        };
        return Some(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Some(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => map_lines(meta.labels.as_ref()),
        "metadata.annotations" => map_lines(meta.annotations.as_ref()),
        "spec.nodeName" => place.node.clone(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => place.host_ip.clone(),
        "status.podIP" => place.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => place.pod_ips.join(","),
        _ => return None,
    })
}

/// `key="value"` lines, as files of the downward API hold maps.
fn map_lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The value of a resource of a container, divided and rounded up; `None` if the selector names none.
pub(crate) fn resource(
    pod: &Pod,
    own: Option<&Container>,
    place: &Place,
    of: &ResourceFieldSelector,
) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let container = match of.container_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => {
            let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            all.into_iter().find(|container| container.name == name)?
        }
        None => own?,
    };
    let (list, resource) = of.resource.split_once('.')?;
    let none = ResourceRequirements::default();
    let resources = container.resources.as_ref().unwrap_or(&none);
    let found = match list {
        "limits" => resources.limits.as_ref().and_then(|list| list.get(resource)).or(place.allocatable.get(resource)),
        "requests" => resources.requests.as_ref().and_then(|list| list.get(resource)),
        _ => return None,
    };
    let value = found.map_or(Some(0), |text| Some(text.0.parse::<Quantity>().ok()?.milli_value()))?;
    let divisor = of.divisor.as_ref().and_then(|text| text.0.parse::<Quantity>().ok()).map_or(0, |d| d.milli_value());
    let divisor = if divisor == 0 { 1000 } else { divisor };
    Some((i128::from(value) + i128::from(divisor) - 1).div_euclid(i128::from(divisor)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1", "b/c": "x\"y"}},
            "spec": {"serviceAccountName": "sa", "containers": [{"name": "c", "resources":
                {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}}]},
        }))
        .unwrap()
    }

    #[test]
    fn fields_are_read() {
        let place = Place { node: "node".into(), pod_ips: vec!["127.0.0.2".into()], ..Place::default() };
        let get = |path: &str| field(&pod(), &place, path);
        assert_eq!(get("metadata.labels['a']").unwrap(), "1");
        assert_eq!(get("metadata.annotations['none']").unwrap(), "");
        assert_eq!(get("metadata.labels").unwrap(), "a=\"1\"\nb/c=\"x\\\"y\"");
        assert_eq!(get("status.podIP").unwrap(), "127.0.0.2");
        assert_eq!(get("spec.nodeName").unwrap(), "node");
        assert_eq!(get("spec.containers"), None);
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let pod = pod();
        let place = Place {
            allocatable: [("ephemeral-storage".into(), QuantityText("10Gi".into()))].into(),
            ..Place::default()
        };
        let own = &pod.spec.as_ref().unwrap().containers[0];
        let get = |resource_: &str, divisor: &str| {
            let of = ResourceFieldSelector {
                resource: resource_.into(),
                divisor: Some(QuantityText(divisor.into())),
                ..Default::default()
            };
            resource(&pod, Some(own), &place, &of)
        };
        assert_eq!(get("limits.cpu", "1").unwrap(), "2");
        assert_eq!(get("limits.cpu", "1m").unwrap(), "1500");
        assert_eq!(get("requests.cpu", "0").unwrap(), "1");
        assert_eq!(get("limits.memory", "1Mi").unwrap(), "64");
        assert_eq!(get("requests.memory", "1").unwrap(), "0");
        assert_eq!(get("limits.ephemeral-storage", "1Gi").unwrap(), "10");
        assert_eq!(get("bounds.cpu", "1"), None);
    }
}
