//! Whether a pod that was bound to this node can run here: the kubelet's own check of what the scheduler promised.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::api::resource::Quantity as QuantityText};
use rk_api::Quantity;

use crate::pod::spec;

/// Why a pod is refused: the status's reason and message.
pub(crate) type Refusal = (String, String);

fn amount(list: Option<&BTreeMap<String, QuantityText>>, resource: &str) -> i64 {
    let text = list.and_then(|list| list.get(resource));
    let quantity = text.and_then(|text| text.0.parse::<Quantity>().ok());
    quantity.map_or(0, |quantity| if resource == "cpu" { quantity.milli_value() } else { quantity.value() })
}

/// What a pod asks for: the sum of its containers and sidecars, or its largest init container, and its overhead.
pub(crate) fn request(pod: &Pod, resource: &str) -> i64 {
    let spec = spec::spec(pod);
    let of = |container: &k8s_openapi::api::core::v1::Container| {
        amount(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()), resource)
    };
    let mut sidecars = 0;
    let mut highest = 0;
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars += of(container);
            highest = highest.max(sidecars);
        } else {
            highest = highest.max(sidecars + of(container));
        }
    }
    let containers: i64 = spec.containers.iter().map(of).sum();
    highest.max(sidecars + containers) + amount(spec.overhead.as_ref(), resource)
}

fn host_ports(pod: &Pod) -> impl Iterator<Item = (String, String, i32)> + '_ {
    let spec = spec::spec(pod);
    let host_network = spec.host_network == Some(true);
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    ports.filter_map(move |port| {
        let number = port.host_port.or(host_network.then_some(port.container_port)).filter(|number| *number > 0)?;
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some((port.host_ip.clone().unwrap_or_default(), protocol, number))
    })
}

/// Checks a new pod against those that run.
///
/// # Errors
/// Why the pod fails.
pub(crate) fn admit(
    pod: &Pod,
    running: &[Arc<Pod>],
    allocatable: &BTreeMap<String, QuantityText>,
) -> Result<(), Refusal> {
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    for (ip, protocol, port) in host_ports(pod) {
        let taken = running.iter().flat_map(|other| host_ports(other)).any(|(other_ip, other_protocol, other_port)| {
            port == other_port && protocol == other_protocol && (any(&ip) || any(&other_ip) || ip == other_ip)
        });
        if taken {
            let message = "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
            return Err(("NodePorts".to_owned(), message.to_owned()));
        }
    }
    let pods = amount(Some(allocatable), "pods");
    let used = i64::try_from(running.len()).unwrap_or(i64::MAX);
    let short = |resource: &str, requested: i64, used: i64, capacity: i64| {
        let message = format!(
            "Pod was rejected: Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Err((format!("OutOf{resource}"), message))
    };
    if allocatable.contains_key("pods") && used >= pods {
        return short("pods", 1, used, pods);
    }
    for resource in ["cpu", "memory", "ephemeral-storage"] {
        let wanted = request(pod, resource);
        if wanted == 0 || !allocatable.contains_key(resource) {
            continue;
        }
        let used: i64 = running.iter().map(|other| request(other, resource)).sum();
        let capacity = amount(Some(allocatable), resource);
        if used + wanted > capacity {
            return short(resource, wanted, used, capacity);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Arc<Pod> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap())
    }

    #[test]
    fn requests_count_init_containers_and_sidecars() {
        let cpu = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pod = pod(json!({
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": cpu("100m")},
                {"name": "i", "resources": cpu("700m")},
            ],
            "containers": [{"name": "a", "resources": cpu("200m")}, {"name": "b", "resources": cpu("300m")}],
        }));
        assert_eq!(request(&pod, "cpu"), 800);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let allocatable: BTreeMap<String, QuantityText> =
            [("cpu".to_owned(), QuantityText("1".to_owned())), ("pods".to_owned(), QuantityText("3".to_owned()))]
                .into();
        let web = pod(json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}],
            "resources": {"requests": {"cpu": "600m"}}}]}));
        let small = pod(json!({"containers": [{"name": "a"}]}));
        assert!(admit(&web, &[], &allocatable).is_ok());
        assert_eq!(admit(&web, &[Arc::clone(&web)], &allocatable).unwrap_err().0, "NodePorts");
        let big = pod(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "500m"}}}]}));
        let (reason, message) = admit(&big, &[web], &allocatable).unwrap_err();
        assert_eq!(reason, "OutOfcpu");
        assert!(message.ends_with("requested: 500, used: 600, capacity: 1000"), "{message}");
        assert_eq!(admit(&small, &vec![Arc::clone(&small); 3], &allocatable).unwrap_err().0, "OutOfpods");
    }
}
