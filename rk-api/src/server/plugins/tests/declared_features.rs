//! What changes of pods their nodes can follow.

use super::*;

#[tokio::test]
async fn a_change_that_its_node_can_not_follow_is_refused() {
    let node = |name: &str, features: Value| {
        ("nodes", json!({"metadata": {"name": name}, "status": {"declaredFeatures": features}}))
    };
    let both = json!(["GuaranteedQoSPodCPUResize", "InPlacePodLevelResourcesVerticalScaling"]);
    let all = cluster([node("old", json!(null)), node("half", json!([both[0]])), node("new", both)]);
    let of = |node: &str, cpu: &str, whole: Value| {
        let resources = json!({"requests": {"cpu": cpu, "memory": "1Gi"}, "limits": {"cpu": cpu, "memory": "1Gi"}});
        let mut pod = pod("p", json!({"nodeName": node, "containers": [{"name": "c", "resources": resources}]}));
        if !whole.is_null() {
            pod["spec"]["resources"] = json!({"requests": whole});
        }
        pod
    };
    let class = |mut pod: Value, class: &str| {
        pod["status"]["qosClass"] = class.into();
        pod
    };
    let cpu = |node: &str, cpu: &str| of(node, cpu, Value::Null);
    let whole = |node: &str, cpu: &str| of(node, "1", json!({"cpu": cpu}));
    let refused = |why: &str| Some(format!("pods \"p\" is forbidden: {why}"));
    let lacks = |features: &str, node: &str| {
        refused(&format!("pod update requires features {features} which are not available on node {node:?}"))
    };
    for (old, new, wanted) in [
        (class(cpu("old", "1"), "Guaranteed"), cpu("old", "2"), lacks("GuaranteedQoSPodCPUResize", "old")),
        (class(cpu("half", "1"), "Guaranteed"), cpu("half", "2"), None),
        (class(cpu("old", "1"), "Guaranteed"), cpu("old", "1000m"), None),
        (class(cpu("old", "1"), "Burstable"), cpu("old", "2"), None),
        (class(cpu("", "1"), "Guaranteed"), cpu("", "2"), None),
        (class(cpu("gone", "1"), "Guaranteed"), cpu("gone", "2"), refused("node \"gone\" not found")),
        (whole("half", "1"), whole("half", "2"), lacks("InPlacePodLevelResourcesVerticalScaling", "half")),
        (cpu("half", "1"), whole("half", "2"), lacks("InPlacePodLevelResourcesVerticalScaling", "half")),
        (whole("half", "1"), whole("half", "1000m"), None),
        (whole("new", "1"), whole("new", "2"), None),
        (
            class(whole("old", "1"), "Guaranteed"),
            of("old", "2", json!({"cpu": "2"})),
            lacks("GuaranteedQoSPodCPUResize, InPlacePodLevelResourcesVerticalScaling", "old"),
        ),
    ] {
        for subresource in ["", "resize"] {
            let case = Case::pods(&all).update(old.clone()).sub(subresource);
            let seen = case.run(&NodeDeclaredFeatureValidator, new.clone()).await.map(drop);
            assert_eq!(seen, wanted.clone().map_or(Ok(()), |why| Err((403, why))), "{old} becomes {new}");
        }
        let status = Case::pods(&all).update(old).sub("status");
        status.run(&NodeDeclaredFeatureValidator, new).await.unwrap();
    }
}
