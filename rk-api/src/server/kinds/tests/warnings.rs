//! What is said of objects that are valid all the same.

use serde_json::{Value, json};

use super::{edit, good, strategy};

/// What is said of a good object with this change.
fn said(kind: &str, pointer: &str, value: Value) -> Vec<String> {
    let sample = good(kind);
    let strategy = strategy(&sample.resource.group, kind);
    let mut object = sample.object;
    strategy.default(&mut object);
    assert_eq!(strategy.warnings(&object, None), Vec::<String>::new(), "{kind} as it is");
    edit(&mut object, pointer, value);
    strategy.warnings(&object, None)
}

#[test]
fn pods_and_templates() {
    let old = r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#;
    let selector = json!({"beta.kubernetes.io/arch": "amd64"});
    for (kind, path) in [
        ("Pod", "spec"),
        ("Deployment", "spec.template.spec"),
        ("DaemonSet", "spec.template.spec"),
        ("Job", "spec.template.spec"),
        ("CronJob", "spec.jobTemplate.spec.template.spec"),
    ] {
        let pointer = format!("/{}/nodeSelector", path.replace('.', "/"));
        let wanted = format!("{path}.nodeSelector[beta.kubernetes.io/arch]: {old}");
        assert_eq!(said(kind, &pointer, selector.clone()), [wanted]);
    }
    let env = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "3"}]);
    let hides = r#"spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply"#;
    assert_eq!(said("Pod", "/spec/containers/0/env", env), [hides]);
    let port = |host: i64, ip: &str| json!({"containerPort": 80, "protocol": "TCP", "hostPort": host, "hostIP": ip});
    let ports = json!([port(0, ""), port(0, ""), port(1, ""), port(1, "127.0.0.2")]);
    let of = |place: usize, how: &str, other: usize| {
        format!("spec.containers[0].ports[{place}]: {how} port definition with spec.containers[0].ports[{other}]")
    };
    let wanted = [
        of(1, "duplicate", 0),
        of(2, "overlapping", 0),
        of(2, "overlapping", 1),
        of(3, "overlapping", 0),
        of(3, "overlapping", 1),
        of(3, "dangerously ambiguous", 2),
    ];
    assert_eq!(said("Pod", "/spec/containers/0/ports", ports), wanted);
    for (pointer, value, wanted) in [
        ("/metadata/name", json!("a.b"), "metadata.name: this is used in the Pod's hostname, which can result in"),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"memory": "100m"}}),
            r#"spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, must be an integer"#,
        ),
        (
            "/spec/terminationGracePeriodSeconds",
            json!(-1),
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
        ),
        ("/spec/imagePullSecrets", json!([{"name": ""}]), r#"spec.imagePullSecrets[0].name: invalid empty name """#),
        (
            "/spec/hostAliases",
            json!([{"ip": "127.0.0.3"}, {"ip": "127.0.0.3"}]),
            r#"spec.hostAliases[1].ip: duplicate ip "127.0.0.3""#,
        ),
        (
            "/spec/volumes",
            json!([{"name": "v", "gitRepo": {"repository": "r"}}]),
            "spec.volumes[0].gitRepo: deprecated in v1.11",
        ),
        (
            "/spec/topologySpreadConstraints",
            json!([{"topologyKey": "k", "maxSkew": 1}]),
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
        ),
        (
            "/spec/affinity",
            json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": {"topologyKey": "k"}}]}}),
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: \
             a null labelSelector results in matching no pod",
        ),
        (
            "/metadata/annotations",
            json!({"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}),
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use the \
             \"appArmorProfile\" field instead",
        ),
    ] {
        let found = said("Pod", pointer, value);
        assert!(found.len() == 1 && found[0].starts_with(wanted), "{pointer}: {found:?}");
    }
}

#[test]
fn nothing_is_said_again_of_what_stays() {
    let sample = good("Deployment");
    let mut object = sample.object;
    edit(&mut object, "/spec/template/spec/nodeSelector", json!({"beta.kubernetes.io/os": "linux"}));
    let strategy = strategy("apps", "Deployment");
    let mut labelled = object.clone();
    edit(&mut labelled, "/metadata/labels", json!({"a": "b"}));
    assert_eq!(strategy.warnings(&labelled, Some(&object)), Vec::<String>::new());
    edit(&mut labelled, "/spec/replicas", json!(7));
    assert_eq!(strategy.warnings(&labelled, Some(&object)).len(), 1);
    // Pods are changed by programs.
    let mut pod = good("Pod").object;
    edit(&mut pod, "/spec/nodeSelector", json!({"beta.kubernetes.io/os": "linux"}));
    assert_eq!(super::strategy("", "Pod").warnings(&pod, Some(&good("Pod").object)), Vec::<String>::new());
}

#[test]
fn services_volumes_and_others() {
    for (kind, pointer, value, wanted) in [
        (
            "Service",
            "/spec/externalIPs",
            json!(["192.0.2.1"]),
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        ),
        (
            "Service",
            "/spec/externalName",
            json!("a.b"),
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
        ),
        (
            "Service",
            "/spec/trafficDistribution",
            json!("PreferClose"),
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ),
        (
            "Ingress",
            "/metadata/annotations",
            json!({"kubernetes.io/ingress.class": "nginx"}),
            "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead",
        ),
        (
            "PersistentVolume",
            "/spec/persistentVolumeReclaimPolicy",
            json!("Recycle"),
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is \
             to use dynamic provisioning.",
        ),
        (
            "PersistentVolumeClaim",
            "/spec/resources/requests",
            json!({"storage": "1500m"}),
            "spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer",
        ),
    ] {
        assert_eq!(said(kind, pointer, value), [wanted], "{kind}");
    }
}

#[test]
fn volumes_with_files_in_each_others_way() {
    let item = |path: &str| json!({"key": "k", "path": path});
    let field = |path: &str| json!({"path": path, "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}});
    let volume = |source: &str, content: Value| json!([{"name": "v", source: content}]);
    let projected = |sources: Value| volume("projected", json!({"sources": sources, "defaultMode": 420}));
    for (volumes, wanted) in [
        (volume("configMap", json!({"name": "c", "items": [item("a"), item("ab"), item("b/c")]})), vec![]),
        (
            volume("configMap", json!({"name": "c", "items": [item("a"), item("a/b"), item("a/")]})),
            vec![
                r#"volume "v" (ConfigMap "c"): overlapping paths: "a/b" with "a""#,
                r#"volume "v" (ConfigMap "c"): overlapping paths: "a" with "a""#,
                r#"volume "v" (ConfigMap "c"): overlapping paths: "a" with "a/b""#,
            ],
        ),
        (
            volume("secret", json!({"secretName": "s", "items": [item("a/b"), item("a")]})),
            vec![r#"volume "v" (Secret "s"): overlapping paths: "a" with "a/b""#],
        ),
        (
            volume("downwardAPI", json!({"items": [field("a"), field("a")]})),
            vec![r#"volume "v" (DownwardAPI): overlapping paths: "a" with "a""#],
        ),
        (
            projected(
                json!([{"configMap": {"name": "c", "items": [item("a")]}}, {"serviceAccountToken": {"path": "a"}}, {}]),
            ),
            vec![
                r#"volume "v" (Projected): overlapping paths: "a" (ServiceAccountToken) with "a" (ConfigMap "c")"#,
                r#"volume "v" (Projected) has no sources provided"#,
            ],
        ),
        (
            projected(json!([
                {"podCertificate": {"signerName": "example.com/s", "keyType": "ED25519", "keyPath": "k", "certificateChainPath": "c/"}},
                {"podCertificate": {"signerName": "example.com/s", "keyType": "ED25519", "credentialBundlePath": "c/b"}},
            ])),
            vec![
                r#"volume "v" (Projected): overlapping paths: "c/b" (PodCertificate credential bundle) with "c" (PodCertificate chain)"#,
            ],
        ),
    ] {
        assert_eq!(said("Pod", "/spec/volumes", volumes.clone()), wanted, "{volumes}");
    }
}
