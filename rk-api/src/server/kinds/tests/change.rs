//! Changes of good objects: what may change, and what is said of the rest.

use serde_json::{Value, json};

use super::{Sample, assert_said, create, edit, good, rules_of, update};

/// Changes a good object, as it is stored, through a subresource. `before` are edits of the stored object.
fn change(
    kind: &str,
    subresource: &str,
    before: &[(&str, Value)],
    after: &[(&str, Value)],
    expected: &[&str],
) -> Value {
    let Sample { resource, mut object } = good(kind);
    assert_said(&create(&resource, &mut object), &[], kind);
    for (pointer, value) in before {
        edit(&mut object, pointer, value.clone());
    }
    let mut new = object.clone();
    for (pointer, value) in after {
        edit(&mut new, pointer, value.clone());
    }
    let errors = update(&resource, &mut new, &object, subresource);
    assert_said(&errors, expected, &format!("{kind} {subresource} {before:?} {after:?}"));
    new
}

fn check(kind: &str, pointer: &str, value: Value, expected: &[&str]) {
    change(kind, "", &[], &[(pointer, value)], expected);
}

const POD: &str = "Forbidden spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
                   `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
                   tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n…";

#[test]
fn a_pod_changes_in_few_ways() {
    check("Pod", "/spec/containers/0/image", json!("nginx:2"), &[]);
    check("Pod", "/metadata/labels", json!({"a": "b"}), &[]);
    check("Pod", "/spec/activeDeadlineSeconds", json!(5), &[]);
    check("Pod", "/spec/tolerations", json!([{"key": "k", "operator": "Exists"}]), &[]);
    check("Pod", "/spec/containers/0/command", json!(["x"]), &[POD]);
    check("Pod", "/spec/nodeName", json!("n"), &[POD]);
    check("Pod", "/spec/hostNetwork", json!(true), &[POD]);
    let more = "Forbidden spec.containers: Forbidden: pod updates may not add or remove containers";
    check("Pod", "/spec/containers/-", json!({"name": "d", "image": "i"}), &[more]);
    let gate = "Forbidden spec.schedulingGates: Forbidden: only deletion is allowed, but found new scheduling gate 'g'";
    check("Pod", "/spec/schedulingGates", json!([{"name": "g"}]), &[gate]);
    change(
        "Pod",
        "",
        &[("/spec/activeDeadlineSeconds", json!(5))],
        &[("/spec/activeDeadlineSeconds", json!(6))],
        &["Invalid spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"],
    );
    change(
        "Pod",
        "",
        &[("/spec/tolerations", json!([{"key": "k", "operator": "Exists"}]))],
        &[("/spec/tolerations", json!([]))],
        &[
            "Forbidden spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
        ],
    );
}

#[test]
fn a_gated_pod_may_be_told_where_to_run() {
    let gated = ("/spec/schedulingGates", json!([{"name": "g"}]));
    change("Pod", "", std::slice::from_ref(&gated), &[("/spec/schedulingGates", json!([]))], &[]);
    change("Pod", "", std::slice::from_ref(&gated), &[("/spec/nodeSelector", json!({"a": "b"}))], &[]);
    change(
        "Pod",
        "",
        &[gated, ("/spec/nodeSelector", json!({"a": "b"}))],
        &[("/spec/nodeSelector", json!({"a": "c"}))],
        &[
            "Invalid spec.nodeSelector: Invalid value: {\"a\":\"c\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        ],
    );
}

#[test]
fn subresources_of_pods_change_what_is_theirs() {
    let debug = json!([{"name": "e", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}]);
    let pointer = "/spec/ephemeralContainers";
    change("Pod", "ephemeralcontainers", &[], &[(pointer, debug.clone())], &[]);
    change(
        "Pod",
        "ephemeralcontainers",
        &[(pointer, debug)],
        &[(pointer, json!([]))],
        &["Forbidden spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n"],
    );
    change(
        "Pod",
        "resize",
        &[],
        &[("/spec/containers/0/image", json!("i"))],
        &["Forbidden spec: Forbidden: only cpu and memory resources are mutable"],
    );
    let bound = [("/spec/containers/0/resources", json!({"requests": {"cpu": "1"}}))];
    let status = json!({"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 1}}}]});
    change(
        "Pod",
        "status",
        &[("/spec/restartPolicy", json!("Never")), ("/status", status)],
        &[("/status/containerStatuses/0/state", json!({"running": {}}))],
        &["Forbidden status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"],
    );
    change(
        "Pod",
        "resize",
        &[],
        &bound,
        &["Invalid spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"],
    );
}

#[test]
fn a_pod_on_a_node_ends_gracefully() {
    let rules = rules_of(&good("Pod").resource);
    let pod = |node: &str, phase: &str| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 20}, "status": {"phase": phase}});
    for (node, phase, asked, seconds) in [
        ("", "Pending", None, 0),
        ("n", "Running", None, 20),
        ("n", "Running", Some(5), 5),
        ("n", "Running", Some(0), 0),
        ("n", "Running", Some(-1), 1),
        ("n", "Succeeded", Some(5), 0),
        ("n", "Failed", None, 0),
    ] {
        assert_eq!(rules.grace_period(&pod(node, phase), asked), seconds, "{node} {phase} {asked:?}");
    }
    let deployment = good("Deployment");
    assert_eq!(rules_of(&deployment.resource).grace_period(&deployment.object, Some(30)), 0);
}

#[test]
fn selectors_and_templates_stay() {
    let other = json!({"matchLabels": {"app": "b"}});
    for kind in ["Deployment", "ReplicaSet", "DaemonSet"] {
        let labels = ("/spec/template/metadata/labels/app", json!("b"));
        change(
            kind,
            "",
            &[],
            &[("/spec/selector", other.clone()), labels],
            &["Invalid spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable"],
        );
        change(kind, "", &[], &[("/spec/template/spec/containers/0/image", json!("i"))], &[]);
    }
    check("StatefulSet", "/spec/replicas", json!(3), &[]);
    check(
        "StatefulSet",
        "/spec/serviceName",
        json!("b"),
        &[
            "Forbidden spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ],
    );
    check("Job", "/spec/parallelism", json!(3), &[]);
    check("Job", "/spec/completions", json!(3), &["Invalid spec.completions: Invalid value: 3: field is immutable"]);
    check("Job", "/spec/template/spec/containers/0/image", json!("i"), &["Invalid spec.template: Invalid value: {…"]);
    change(
        "Job",
        "",
        &[("/spec/suspend", json!(true))],
        &[("/spec/template/spec/nodeSelector", json!({"a": "b"}))],
        &[],
    );
    change(
        "Job",
        "",
        &[("/spec/suspend", json!(true))],
        &[("/spec/template/spec/containers/0/image", json!("i"))],
        &["Invalid spec.template: Invalid value: {…"],
    );
    change(
        "Deployment",
        "scale",
        &[],
        &[("/spec/replicas", json!(-1))],
        &["Invalid spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    );
    change(
        "ReplicaSet",
        "status",
        &[],
        &[("/status", json!({"replicas": 1, "readyReplicas": 2}))],
        &["Invalid status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"],
    );
}

#[test]
fn what_is_immutable_stays() {
    let immutable = ("/immutable", json!(true));
    change(
        "ConfigMap",
        "",
        std::slice::from_ref(&immutable),
        &[("/data/k", json!("w"))],
        &["Forbidden data: Forbidden: field is immutable when `immutable` is set"],
    );
    change(
        "ConfigMap",
        "",
        std::slice::from_ref(&immutable),
        &[("/immutable", json!(false))],
        &["Forbidden immutable: Forbidden: field is immutable when `immutable` is set"],
    );
    change(
        "Secret",
        "",
        &[immutable],
        &[("/stringData", json!({"k": "x"}))],
        &["Forbidden data: Forbidden: field is immutable when `immutable` is set"],
    );
    check("Secret", "/type", json!("x"), &["Invalid type: Invalid value: \"x\": field is immutable"]);
    check("RoleBinding", "/roleRef/name", json!("edit"), &["Invalid roleRef: Invalid value: {…"]);
    check("PriorityClass", "/value", json!(1), &["Forbidden value: Forbidden: may not be changed in an update."]);
    check(
        "StorageClass",
        "/provisioner",
        json!("x"),
        &["Forbidden provisioner: Forbidden: updates to provisioner are forbidden."],
    );
    check(
        "StorageClass",
        "/volumeBindingMode",
        json!("WaitForFirstConsumer"),
        &["Invalid volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable"],
    );
    check(
        "IngressClass",
        "/spec/controller",
        json!("example.com/d"),
        &["Invalid spec.controller: Invalid value: \"example.com/d\": field is immutable"],
    );
    check("RuntimeClass", "/handler", json!("x"), &["Invalid handler: Invalid value: \"x\": field is immutable"]);
    check(
        "EndpointSlice",
        "/addressType",
        json!("FQDN"),
        &["Invalid addressType: Invalid value: \"FQDN\": field is immutable"],
    );
    check(
        "PersistentVolumeClaim",
        "/spec/accessModes",
        json!(["ReadWriteMany"]),
        &[
            "Forbidden spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ],
    );
    change(
        "PersistentVolumeClaim",
        "",
        &[("/status/phase", json!("Bound"))],
        &[("/spec/resources/requests/storage", json!("2Gi"))],
        &[],
    );
    check(
        "CustomResourceDefinition",
        "/spec/group",
        json!("b.c"),
        &[
            "Invalid metadata.name: Invalid value: \"widgets.example.com\": must be spec.names.plural+\".\"+spec.group",
            "Invalid spec.group: Invalid value: \"b.c\": field is immutable",
        ],
    );
    check(
        "CustomResourceDefinition",
        "/spec/versions/0/name",
        json!("v2"),
        &["Invalid status.storedVersions[0]: Invalid value: \"v1\": must appear in spec.versions"],
    );
}

#[test]
fn a_namespace_ends_through_its_finalizers() {
    let kept = change("Namespace", "", &[], &[("/spec/finalizers", json!([]))], &[]);
    assert_eq!(kept["spec"]["finalizers"], json!(["kubernetes"]), "an update does not change them");
    let done = change("Namespace", "finalize", &[], &[("/spec/finalizers", json!([]))], &[]);
    assert_eq!(done["spec"]["finalizers"], json!([]));
    change(
        "Namespace",
        "status",
        &[],
        &[("/status/phase", json!("Terminating"))],
        &["Invalid status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"],
    );
}

#[test]
fn a_service_keeps_its_addresses() {
    let ip = [("/spec/clusterIP", json!("10.96.0.9")), ("/spec/clusterIPs", json!(["10.96.0.9"]))];
    let kept = change("Service", "", &ip, &[("/spec/clusterIP", json!(null)), ("/spec/clusterIPs", json!(null))], &[]);
    assert_eq!(kept["spec"]["clusterIP"], "10.96.0.9");
    change(
        "Service",
        "",
        &ip,
        &[("/spec/clusterIP", json!("10.96.0.8"))],
        &["Invalid spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set"],
    );
    let named =
        change("Service", "", &ip, &[("/spec/type", json!("ExternalName")), ("/spec/externalName", json!("a.b"))], &[]);
    assert!(named["spec"].get("clusterIP").is_none() && named["spec"].get("internalTrafficPolicy").is_none());
    let node_port =
        [ip[0].clone(), ip[1].clone(), ("/spec/type", json!("NodePort")), ("/spec/ports/0/nodePort", json!(30_001))];
    let kept = change("Service", "", &node_port, &[("/spec/ports/0/nodePort", json!(null))], &[]);
    assert_eq!(kept["spec"]["ports"][0]["nodePort"], 30_001);
    let dropped = change("Service", "", &node_port, &[("/spec/type", json!("ClusterIP"))], &[]);
    assert!(dropped["spec"]["ports"][0].get("nodePort").is_none());
}

#[test]
fn a_signing_request_is_decided_once() {
    let made = change("CertificateSigningRequest", "", &[], &[("/spec/username", json!("root"))], &[]);
    assert_eq!(made["spec"]["username"], "alice", "who asks is what the server knows");
    let approved = ("/status/conditions", json!([{"type": "Approved", "status": "True"}]));
    change("CertificateSigningRequest", "approval", &[], std::slice::from_ref(&approved), &[]);
    change(
        "CertificateSigningRequest",
        "approval",
        &[approved],
        &[("/status/conditions", json!([]))],
        &["Forbidden status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""],
    );
}

#[test]
fn addresses_and_storage_drivers_hardly_change() {
    let parent = r#"Invalid spec.parentRef: Invalid value: {"name":"b","namespace":"default","resource":"services"}: field is immutable"#;
    check("IPAddress", "/spec/parentRef/name", json!("b"), &[parent]);
    check("IPAddress", "/metadata/labels", json!({"a": "b"}), &[]);
    let range = r#"Invalid spec.cidrs[0]: Invalid value: "10.0.1.0/24": field is immutable"#;
    check("ServiceCIDR", "/spec/cidrs", json!(["10.0.1.0/24"]), &[range]);
    check("ServiceCIDR", "/spec/cidrs", json!(["10.0.0.0/24", "2001:db8::/64"]), &[]);
    check("ServiceCIDR", "/spec/cidrs", json!(["10.0.1.0/24", "2001:db8::/64"]), &[range]);
    let both = r#"Invalid spec.cidrs: Invalid value: {"cidrs":["10.0.0.0/24","10.0.1.0/24"]}: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"#;
    check("ServiceCIDR", "/spec/cidrs", json!(["10.0.0.0/24", "10.0.1.0/24"]), &[both]);
    let none = "Invalid spec.cidrs: Invalid value: []: field is immutable";
    check("ServiceCIDR", "/spec/cidrs", json!([]), &[none]);
    let attach = "Invalid spec.attachedRequired: Invalid value: false: field is immutable";
    check("CSIDriver", "/spec/attachRequired", json!(false), &[attach]);
    let modes = r#"Invalid spec.volumeLifecycleModes: Invalid value: ["Ephemeral"]: field is immutable"#;
    check("CSIDriver", "/spec/volumeLifecycleModes", json!(["Ephemeral"]), &[modes]);
    check("CSIDriver", "/spec/tokenRequests", json!([{"audience": "a"}]), &[]);
    check("CSIDriver", "/spec/fsGroupPolicy", json!("File"), &[]);
    check("CSINode", "/spec/drivers/0/allocatable/count", json!(9), &[]);
    check("CSINode", "/spec/drivers", json!([]), &[]);
    check("CSINode", "/spec/drivers/0/nodeID", json!("m"), &["Invalid spec.drivers: Invalid value: {…"]);
    check("CSIStorageCapacity", "/capacity", json!("2Gi"), &[]);
    let class = r#"Invalid storageClassName: Invalid value: "slow": field is immutable"#;
    check("CSIStorageCapacity", "/storageClassName", json!("slow"), &[class]);
    check(
        "CSIStorageCapacity",
        "/nodeTopology",
        json!({}),
        &["Invalid nodeTopology: Invalid value: {}: field is immutable"],
    );
    check("VolumeAttachment", "/spec/nodeName", json!("m"), &["Invalid spec: Invalid value: {…"]);
    let driver = "Forbidden driverName: Forbidden: updates to driverName are forbidden.";
    check("VolumeAttributesClass", "/driverName", json!("e.example.com"), &[driver]);
    let parameters = "Forbidden parameters: Forbidden: updates to parameters are forbidden.";
    check("VolumeAttributesClass", "/parameters", json!({"iops": "2"}), &[parameters]);
    let account = change("ServiceAccount", "", &[], &[("/secrets", json!([{"name": "t", "uid": "u"}]))], &[]);
    assert_eq!(account["secrets"], json!([{"name": "t"}]));
}

#[test]
fn the_status_of_an_attachment_is_bounded() {
    let error = |status: Value, expected: &[&str]| {
        change("VolumeAttachment", "status", &[], &[("/status", status)], expected);
    };
    error(json!({"attached": true, "attachmentMetadata": {"device": "/dev/x"}}), &[]);
    let long = "TooLong status.attachError.message: Too long: may not be more than 262144 bytes";
    error(json!({"attached": false, "attachError": {"message": "x".repeat(1025)}}), &[long]);
    let code = "Invalid status.detachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive";
    error(json!({"attached": true, "detachError": {"errorCode": -1}}), &[code]);
    let metadata = "TooLong status.attachmentMetadata: Too long: may not be more than 262144 bytes";
    error(json!({"attached": true, "attachmentMetadata": {"x": "y".repeat(256 << 10)}}), &[metadata]);
}
