//! The quality-of-service class of a pod, by what its containers request of cpu and memory.

use serde_json::Value;

use crate::{Quantity, server::kinds::value::Peek};

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(pod: &Value) -> &'static str {
    let spec = pod.at("spec");
    // Resources of the pod as a whole, where it has some, stand for those of its containers.
    let whole = spec.at("resources");
    let parts: Vec<&Value> = if ["requests", "limits"].iter().any(|list| asks(whole, list)) {
        vec![whole]
    } else {
        let lists = [spec.list("containers"), spec.list("initContainers")];
        lists.into_iter().flatten().map(|container| container.at("resources")).collect()
    };
    if !parts.iter().any(|part| asks(part, "requests") || asks(part, "limits")) {
        return "BestEffort";
    }
    let guaranteed = |part: &&Value| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = amount(part.at("limits").get(*name));
            let request = amount(part.at("requests").get(*name));
            limit.is_some() && (request.is_none() || request == limit)
        })
    };
    if parts.iter().all(guaranteed) { "Guaranteed" } else { "Burstable" }
}

fn asks(resources: &Value, list: &str) -> bool {
    ["cpu", "memory"].iter().any(|name| amount(resources.at(list).get(*name)).is_some())
}

/// A quantity above zero.
fn amount(value: Option<&Value>) -> Option<Quantity> {
    value?.as_str()?.parse::<Quantity>().ok().filter(|quantity| !quantity.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes_follow_requests_and_limits() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        for (resources, expected) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "0"}}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}),
                "Guaranteed",
            ),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable"),
        ] {
            assert_eq!(class(&pod(resources.clone())), expected, "{resources}");
        }
    }
}
