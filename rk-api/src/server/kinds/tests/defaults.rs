//! What a minimal object of each kind looks like once it is stored.

use serde_json::{Value, json};

use super::{Sample, create, good};

fn made(kind: &str) -> Value {
    let Sample { resource, mut object } = good(kind);
    create(&resource, &mut object);
    object
}

/// Whether `object` holds all of `expected`, and `null` where nothing may be.
fn assert_holds(object: &Value, expected: &Value, at: &str) {
    match (object, expected) {
        (Value::Object(have), Value::Object(want)) => {
            for (key, want) in want {
                assert_holds(have.get(key).unwrap_or(&Value::Null), want, &format!("{at}.{key}"));
            }
        }
        (have, want) => assert_eq!(have, want, "{at}"),
    }
}

fn check(kind: &str, expected: Value) {
    assert_holds(&made(kind), &expected, kind);
}

#[test]
fn workloads() {
    check(
        "Pod",
        json!({
            "spec": {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                "securityContext": {}, "enableServiceLinks": true, "terminationGracePeriodSeconds": 30},
            "status": {"phase": "Pending", "qosClass": "BestEffort"},
        }),
    );
    check(
        "Deployment",
        json!({"spec": {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
            "template": {"spec": {"restartPolicy": "Always", "enableServiceLinks": null}}}}),
    );
    check("ReplicaSet", json!({"spec": {"replicas": 1}, "status": {"replicas": 0}}));
    check(
        "ReplicationController",
        json!({"spec": {"replicas": 1, "selector": {"app": "a"}}, "metadata": {"labels": {"app": "a"}}}),
    );
    check(
        "StatefulSet",
        json!({"spec": {"replicas": 1, "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"}}}),
    );
    check(
        "DaemonSet",
        json!({"spec": {"revisionHistoryLimit": 10,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}}}),
    );
    let labels = json!({"controller-uid": "u-1", "job-name": "a", "batch.kubernetes.io/controller-uid": "u-1",
        "batch.kubernetes.io/job-name": "a"});
    check(
        "Job",
        json!({"spec": {"completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
            "manualSelector": false, "podReplacementPolicy": "TerminatingOrFailed",
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}},
            "template": {"metadata": {"labels": labels}}}}),
    );
    check(
        "CronJob",
        json!({"spec": {"concurrencyPolicy": "Allow", "suspend": false, "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 1}}),
    );
}

#[test]
fn services_and_configuration() {
    check(
        "Service",
        json!({"spec": {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "externalTrafficPolicy": null, "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]},
            "status": {"loadBalancer": {}}}),
    );
    check(
        "Namespace",
        json!({"metadata": {"labels": {"kubernetes.io/metadata.name": "a"}}, "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"}}),
    );
    check("Secret", json!({"type": "Opaque", "data": {"k": "dg=="}}));
    check("EndpointSlice", json!({"ports": [{"port": 80, "name": "", "protocol": "TCP"}]}));
    check("PersistentVolumeClaim", json!({"spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}));
    check(
        "PersistentVolume",
        json!({"spec": {"persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem", "hostPath": {"type": ""}}}),
    );
    check("StorageClass", json!({"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"}));
    check("PriorityClass", json!({"preemptionPolicy": "PreemptLowerPriority"}));
    let range = made("LimitRange");
    assert_eq!(
        range["spec"]["limits"][0],
        json!({"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1"}})
    );
    check("NetworkPolicy", json!({"spec": {"policyTypes": ["Ingress"]}}));
    check("RoleBinding", json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io"}}));
    check(
        "HorizontalPodAutoscaler",
        json!({"spec": {"minReplicas": 1, "metrics": [{"type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]}}),
    );
    check(
        "CustomResourceDefinition",
        json!({"spec": {"names": {"singular": "widget", "listKind": "WidgetList"}, "conversion": {"strategy": "None"}},
            "status": {"storedVersions": ["v1"]}}),
    );
    let webhook = &made("ValidatingWebhookConfiguration")["webhooks"][0];
    assert_holds(
        webhook,
        &json!({"failurePolicy": "Fail", "matchPolicy": "Equivalent", "timeoutSeconds": 10, "namespaceSelector": {},
            "objectSelector": {}}),
        "webhook",
    );
    check("CertificateSigningRequest", json!({"spec": {"username": "alice", "groups": ["devs"]}}));
}

#[test]
fn string_data_of_a_secret_becomes_data() {
    let Sample { resource, mut object } = good("Secret");
    object["stringData"] = json!({"k": "new", "l": "é"});
    create(&resource, &mut object);
    assert_eq!(object["data"], json!({"k": "bmV3", "l": "w6k="}));
    assert!(object.get("stringData").is_none());
}

#[test]
fn storage_drivers_and_what_they_say() {
    check(
        "CSIDriver",
        json!({"spec": {"attachRequired": true, "podInfoOnMount": false, "storageCapacity": false,
            "requiresRepublish": false, "seLinuxMount": false, "fsGroupPolicy": "ReadWriteOnceWithFSType",
            "volumeLifecycleModes": ["Persistent"]}}),
    );
    check("VolumeAttachment", json!({"status": {"attached": false}}));
    check("ServiceCIDR", json!({"status": {}}));
    check("ServiceAccount", json!({"secrets": [{"name": "s"}]}));
}
