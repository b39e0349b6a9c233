//! What plugins set in pods, nodes and claims.

use super::*;

#[tokio::test(start_paused = true)]
async fn service_account_mounts_the_token_everywhere() {
    let plugin = ServiceAccount::default();
    let all = cluster([(
        "serviceaccounts",
        json!({"metadata": {"name": "bot", "namespace": "dev"}, "imagePullSecrets": [{"name": "pull"}],
            "automountServiceAccountToken": false}),
    )]);
    let spec = json!({"initContainers": [{"name": "i"}],
        "containers": [{"name": "a"}, {"name": "b", "volumeMounts": [
            {"name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}]});
    let (done, _) = Case::pods(&all).run(&plugin, pod("p", spec)).await.unwrap();
    let spec = &done["spec"];
    assert_eq!((text(&spec["serviceAccountName"]), text(&spec["serviceAccount"])), ("default", "default"));
    let volume = text(&spec["volumes"][0]["name"]);
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21, "{volume}");
    let sources = list(&spec["volumes"][0]["projected"]["sources"]);
    assert_eq!(sources[0]["serviceAccountToken"]["expirationSeconds"], 3607);
    assert_eq!(sources[1]["configMap"]["name"], "kube-root-ca.crt");
    for container in [&spec["initContainers"][0], &spec["containers"][0]] {
        assert_eq!(container["volumeMounts"][0]["name"], volume);
        assert_eq!(container["volumeMounts"][0]["readOnly"], true);
    }
    assert_eq!(list(&spec["containers"][1]["volumeMounts"]).len(), 1);

    let (done, _) = Case::pods(&all).run(&plugin, pod("p", json!({"serviceAccountName": "bot"}))).await.unwrap();
    assert_eq!(done["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    assert!(done["spec"]["volumes"].is_null());
    let wanted = json!({"serviceAccountName": "bot", "automountServiceAccountToken": true});
    let (done, _) = Case::pods(&all).run(&plugin, pod("p", wanted)).await.unwrap();
    assert_eq!(list(&done["spec"]["volumes"]).len(), 1);

    let lost = json!({"serviceAccountName": "lost"});
    let why = "pods \"p\" is forbidden: error looking up service account dev/lost: serviceaccount \"lost\" not found";
    assert_eq!(Case::pods(&all).run(&plugin, pod("p", lost)).await, Err((403, why.into())));
    let mut mirror = pod("p", json!({"serviceAccountName": "bot"}));
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    assert!(Case::pods(&all).run(&plugin, mirror).await.unwrap_err().1.contains("a mirror pod may not reference"));
}

#[tokio::test(start_paused = true)]
async fn service_account_waits_for_the_default_account_of_a_new_namespace() {
    let all = Objects::new([]);
    let late = Arc::clone(&all);
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(350)).await;
        late.put("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "dev"}}));
    });
    Case::pods(&all).run(&ServiceAccount::default(), pod("p", json!({}))).await.unwrap();
}

#[tokio::test]
async fn priority_is_resolved_from_the_class() {
    let class = |name: &str, value: i64, default: bool| {
        (
            "priorityclasses",
            json!({"metadata": {"name": name}, "value": value, "globalDefault": default,
            "preemptionPolicy": if value > 50 { "Never" } else { "PreemptLowerPriority" }}),
        )
    };
    let none = cluster([class("high", 100, false)]);
    let (done, _) = Case::pods(&none).run(&Priority, pod("p", json!({}))).await.unwrap();
    assert_eq!((&done["spec"]["priority"], done["spec"].get("priorityClassName")), (&json!(0), None));
    let (done, _) = Case::pods(&none).run(&Priority, pod("p", json!({"priorityClassName": "high"}))).await.unwrap();
    assert_eq!((&done["spec"]["priority"], &done["spec"]["preemptionPolicy"]), (&json!(100), &json!("Never")));
    let why = "pods \"p\" is forbidden: no PriorityClass with name low was found";
    let low = json!({"priorityClassName": "low"});
    assert_eq!(Case::pods(&none).run(&Priority, pod("p", low)).await, Err((403, why.into())));
    let given = json!({"priorityClassName": "high", "priority": 7});
    let error = Case::pods(&none).run(&Priority, pod("p", given)).await.unwrap_err().1;
    assert!(error.contains("the integer value of priority (7) must not be provided"), "{error}");

    let old = pod("p", json!({"priority": 100, "preemptionPolicy": "Never"}));
    let (kept, _) = Case::pods(&none).update(old.clone()).run(&Priority, pod("p", json!({}))).await.unwrap();
    assert_eq!(kept, old);

    let some = cluster([class("usual", 10, true)]);
    let (done, _) = Case::pods(&some).run(&Priority, pod("p", json!({}))).await.unwrap();
    assert_eq!((&done["spec"]["priority"], &done["spec"]["priorityClassName"]), (&json!(10), &json!("usual")));
    let second = json!({"metadata": {"name": "other"}, "value": 1, "globalDefault": true});
    let case = Case::create(&some, "scheduling.k8s.io", "priorityclasses", false);
    assert!(case.run(&Priority, second).await.unwrap_err().1.contains("usual is already marked as default"));
}

#[tokio::test]
async fn pods_tolerate_broken_nodes_for_five_minutes() {
    let plugin = DefaultTolerationSeconds::default();
    let all = cluster([]);
    let (done, _) = Case::pods(&all).run(&plugin, pod("p", json!({}))).await.unwrap();
    let seconds: Vec<_> = list(&done["spec"]["tolerations"]).iter().map(|t| t["tolerationSeconds"].as_i64()).collect();
    assert_eq!(seconds, [Some(300), Some(300)]);
    let own = json!({"tolerations": [{"operator": "Exists"}]});
    let (done, _) = Case::pods(&all).run(&plugin, pod("p", own)).await.unwrap();
    assert_eq!(list(&done["spec"]["tolerations"]).len(), 1);
    let gpu = json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1", "cpu": "1"}}}]});
    let (done, _) = Case::pods(&all).run(&ExtendedResourceToleration, pod("p", gpu)).await.unwrap();
    assert_eq!(done["spec"]["tolerations"], json!([{"key": "example.com/gpu", "operator": "Exists"}]));
}

#[tokio::test]
async fn new_nodes_are_tainted_once() {
    let all = cluster([]);
    let case = || Case::create(&all, "", "nodes", false);
    let (done, _) = case().run(&TaintNodesByCondition, json!({"metadata": {"name": "n"}})).await.unwrap();
    assert_eq!(done["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
    let (again, _) = case().run(&TaintNodesByCondition, done.clone()).await.unwrap();
    assert_eq!(again, done);
}

#[tokio::test]
async fn the_newest_default_class_is_given() {
    let class = |plural: &'static str, name: &str, key: &str, at: &str| {
        (plural, json!({"metadata": {"name": name, "creationTimestamp": at, "annotations": {key: "true"}}}))
    };
    let (storage, ingress) =
        ("storageclass.kubernetes.io/is-default-class", "ingressclass.kubernetes.io/is-default-class");
    let all = cluster([
        class("storageclasses", "old", storage, "2026-01-01T00:00:00Z"),
        class("storageclasses", "b", storage, "2026-02-01T00:00:00Z"),
        class("storageclasses", "a", storage, "2026-02-01T00:00:00Z"),
        class("ingressclasses", "nginx", ingress, "2026-01-01T00:00:00Z"),
    ]);
    let claims = || Case::create(&all, "", "persistentvolumeclaims", true);
    let (done, _) = claims().run(&DefaultStorageClass, json!({"metadata": {"name": "c"}, "spec": {}})).await.unwrap();
    assert_eq!(done["spec"]["storageClassName"], "a");
    let none = json!({"metadata": {"name": "c"}, "spec": {"storageClassName": ""}});
    assert_eq!(claims().run(&DefaultStorageClass, none.clone()).await.unwrap().0, none);
    let ingresses = || Case::create(&all, "networking.k8s.io", "ingresses", true);
    let (done, _) =
        ingresses().run(&DefaultIngressClass, json!({"metadata": {"name": "i"}, "spec": {}})).await.unwrap();
    assert_eq!(done["spec"]["ingressClassName"], "nginx");
}

#[tokio::test]
async fn pods_get_the_zone_and_the_region_of_their_node() {
    let labels =
        json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "kubernetes.io/os": "linux"});
    let all = cluster([("nodes", json!({"metadata": {"name": "n", "labels": labels}}))]);
    let mut given = pod("p", json!({"nodeName": "n"}));
    given["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": "own"});
    let (done, _) = Case::pods(&all).run(&PodTopologyLabels, given).await.unwrap();
    let wanted = json!({"topology.kubernetes.io/zone": "own", "topology.kubernetes.io/region": "r"});
    assert_eq!(done["metadata"]["labels"], wanted);
    let binding = |kind: &str, node: &str| json!({"metadata": {"name": "p"}, "target": {"kind": kind, "name": node}});
    let (done, _) = Case::pods(&all).sub("binding").run(&PodTopologyLabels, binding("Node", "n")).await.unwrap();
    assert_eq!(
        done["metadata"]["labels"],
        json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"})
    );
    for given in [binding("Node", "lost"), binding("Other", "n")] {
        let (done, _) = Case::pods(&all).sub("binding").run(&PodTopologyLabels, given.clone()).await.unwrap();
        assert_eq!(done, given);
    }
    let waits = pod("p", json!({}));
    assert_eq!(Case::pods(&all).run(&PodTopologyLabels, waits.clone()).await.unwrap().0, waits);
}

#[tokio::test]
async fn claims_grow_where_their_class_lets_them() {
    let class = |name: &str, grows: bool| {
        ("storageclasses", json!({"metadata": {"name": name}, "allowVolumeExpansion": grows}))
    };
    let all = cluster([class("grows", true), class("stays", false)]);
    let claim = |class: &str, size: &str, phase: &str| {
        json!({"metadata": {"name": "c", "namespace": "dev"}, "status": {"phase": phase},
            "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}})
    };
    let change = async |old: Value, new: Value| {
        let case = Case::create(&all, "", "persistentvolumeclaims", true).update(old);
        case.run(&PersistentVolumeClaimResize, new).await.map(drop)
    };
    change(claim("grows", "1Gi", "Bound"), claim("grows", "2Gi", "Bound")).await.unwrap();
    change(claim("stays", "2Gi", "Bound"), claim("stays", "2048Mi", "Bound")).await.unwrap();
    change(claim("stays", "2Gi", "Bound"), claim("stays", "1Gi", "Bound")).await.unwrap();
    let why = "persistentvolumeclaims \"c\" is forbidden: only dynamically provisioned pvc can be resized and the \
               storageclass that provisions the pvc must support resize";
    for class in ["stays", "lost", ""] {
        let grown = change(claim(class, "1Gi", "Bound"), claim(class, "2Gi", "Bound")).await;
        assert_eq!(grown, Err((403, why.to_owned())), "{class}");
    }
    let early = change(claim("grows", "1Gi", "Pending"), claim("grows", "2Gi", "Pending")).await.unwrap_err().1;
    assert!(early.ends_with("Only bound persistent volume claims can be expanded"), "{early}");
}

#[tokio::test]
async fn a_runtime_class_adds_overhead_and_nodes() {
    let all = cluster([(
        "runtimeclasses",
        json!({"metadata": {"name": "vm"}, "handler": "vm",
        "overhead": {"podFixed": {"memory": "64Mi"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm"}]}}),
    )]);
    let (done, _) = Case::pods(&all).run(&RuntimeClass, pod("p", json!({"runtimeClassName": "vm"}))).await.unwrap();
    let spec = &done["spec"];
    assert_eq!((&spec["overhead"], &spec["nodeSelector"]), (&json!({"memory": "64Mi"}), &json!({"vm": "yes"})));
    assert_eq!(list(&spec["tolerations"]).len(), 1);
    for (spec, word) in [
        (json!({"runtimeClassName": "lost"}), "RuntimeClass \"lost\" not found"),
        (json!({"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}}), "conflict: runtimeClass"),
        (json!({"overhead": {"cpu": "1"}}), "without corresponding RuntimeClass"),
    ] {
        let error = Case::pods(&all).run(&RuntimeClass, pod("p", spec)).await.unwrap_err().1;
        assert!(error.contains(word), "{error}");
    }
}

#[tokio::test]
async fn claims_volumes_and_their_classes_are_protected_once() {
    let all = cluster([]);
    for (group, plural, namespaced, finalizer) in [
        ("", "persistentvolumeclaims", true, "kubernetes.io/pvc-protection"),
        ("", "persistentvolumes", false, "kubernetes.io/pv-protection"),
        ("storage.k8s.io", "volumeattributesclasses", false, "kubernetes.io/vac-protection"),
    ] {
        let case = || Case::create(&all, group, plural, namespaced);
        let given = json!({"metadata": {"name": "x", "finalizers": ["example.com/own"]}});
        let (done, _) = case().run(&StorageObjectInUseProtection, given).await.unwrap();
        assert_eq!(done["metadata"]["finalizers"], json!(["example.com/own", finalizer]), "{plural}");
        let (again, _) = case().run(&StorageObjectInUseProtection, done.clone()).await.unwrap();
        assert_eq!(again, done);
    }
    let map = json!({"metadata": {"name": "x"}});
    let maps = Case::create(&all, "", "configmaps", true);
    assert_eq!(maps.run(&StorageObjectInUseProtection, map.clone()).await.unwrap().0, map);
}
