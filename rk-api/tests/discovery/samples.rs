//! An object of each kind, and what is changed of it.

use serde_json::{Value, json};

/// An object of one resource.
pub struct Sample {
    /// `group/version`, or `v1`.
    pub version: &'static str,
    pub plural: &'static str,
    /// Beside `apiVersion`, `kind` and `metadata`.
    pub body: Value,
    /// A merge patch that changes what is wanted.
    pub change: Value,
    /// What a controller would write, where there is a `status`.
    pub status: Value,
    /// Whether the change counts in `metadata.generation`.
    pub counted: bool,
}

pub fn template() -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn row(version: &'static str, plural: &'static str, body: Value, change: Value) -> Sample {
    Sample { version, plural, body, change, status: Value::Null, counted: false }
}

/// One with a wanted state that is counted.
fn counted(version: &'static str, plural: &'static str, body: Value, change: Value) -> Sample {
    Sample { version, plural, body, change, status: Value::Null, counted: true }
}

/// One with a wanted state that is counted, and a status.
fn kept(version: &'static str, plural: &'static str, body: Value, change: Value, status: Value) -> Sample {
    Sample { version, plural, body, change, status, counted: true }
}

/// As [`kept`], uncounted.
fn told(version: &'static str, plural: &'static str, body: Value, change: Value, status: Value) -> Sample {
    Sample { version, plural, body, change, status, counted: false }
}

/// A certificate signing request, made with `openssl req -newkey ec -subj /CN=a`.
pub const REQUEST: &str = include_str!("request.b64");

pub fn samples() -> Vec<Sample> {
    let selector = json!({"matchLabels": {"app": "a"}});
    let workload = json!({"spec": {"replicas": 1, "selector": selector, "template": template()}});
    let scaled = json!({"spec": {"replicas": 3}});
    let subject = json!([{"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"}]);
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let more = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
    let hook = json!([{"name": "h.example.com", "clientConfig": {"url": "https://127.0.0.1:1/"}, "failurePolicy": "Ignore",
        "admissionReviewVersions": ["v1"], "sideEffects": "None", "namespaceSelector": {"matchLabels": {"no": "such"}},
        "rules": [{"apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["things"]}]}]);
    let constraints = json!({"resourceRules": [{"apiGroups": ["example.com"], "apiVersions": ["v1"],
        "operations": ["CREATE"], "resources": ["things"]}]});
    let condition = json!([{"type": "T", "status": "True", "reason": "R", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    vec![
        row("v1", "configmaps", json!({"data": {"k": "v"}, "binaryData": {"b": "AAE="}}), json!({"data": {"k": "w"}})),
        row(
            "v1",
            "endpoints",
            json!({"subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]}),
            json!({"subsets": [{"addresses": [{"ip": "10.1.2.4"}], "ports": [{"port": 80}]}]}),
        ),
        row(
            "v1",
            "events",
            json!({"involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "R", "message": "m",
                "type": "Normal", "count": 1, "firstTimestamp": "2026-01-01T00:00:00Z"}),
            json!({"count": 2}),
        ),
        row(
            "v1",
            "limitranges",
            json!({"spec": {"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}}]}}),
            json!({"spec": {"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": "3Gi"}}]}}),
        ),
        told(
            "v1",
            "nodes",
            json!({}),
            json!({"spec": {"unschedulable": true}}),
            json!({"nodeInfo": {"machineID": "m"}}),
        ),
        told(
            "v1",
            "persistentvolumeclaims",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
            json!({"spec": {"volumeName": "chosen"}}),
            json!({"phase": "Pending"}),
        ),
        told(
            "v1",
            "persistentvolumes",
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/p"}}}),
            json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}),
            json!({"phase": "Available"}),
        ),
        kept(
            "v1",
            "pods",
            template(),
            json!({"spec": {"activeDeadlineSeconds": 60}}),
            json!({"phase": "Pending", "message": "m"}),
        ),
        row(
            "v1",
            "podtemplates",
            json!({"template": template()}),
            json!({"template": {"metadata": {"labels": {"b": "b"}}}}),
        ),
        kept(
            "v1",
            "replicationcontrollers",
            json!({"spec": {"replicas": 1, "selector": {"app": "a"}, "template": template()}}),
            scaled.clone(),
            json!({"replicas": 1}),
        ),
        told(
            "v1",
            "resourcequotas",
            json!({"spec": {"hard": {"count/widgets.example.com": "5"}}}),
            json!({"spec": {"hard": {"count/widgets.example.com": "6"}}}),
            json!({"hard": {"count/widgets.example.com": "5"}}),
        ),
        row("v1", "secrets", json!({"type": "Opaque", "data": {"k": "dg=="}}), json!({"data": {"k": "dw=="}})),
        row("v1", "serviceaccounts", json!({}), json!({"automountServiceAccountToken": false})),
        told(
            "v1",
            "services",
            json!({"spec": {"ports": [{"port": 80}], "selector": {"app": "a"}}}),
            json!({"spec": {"ports": [{"port": 81, "protocol": "TCP"}]}}),
            json!({"conditions": condition}),
        ),
        row(
            "apps/v1",
            "controllerrevisions",
            json!({"revision": 1, "data": {"a": [1, {"b": null}]}}),
            json!({"revision": 2}),
        ),
        kept(
            "apps/v1",
            "daemonsets",
            json!({"spec": {"selector": selector, "template": template()}}),
            json!({"spec": {"minReadySeconds": 3}}),
            json!({"currentNumberScheduled": 1, "numberMisscheduled": 0, "desiredNumberScheduled": 1, "numberReady": 0}),
        ),
        kept("apps/v1", "deployments", workload.clone(), scaled.clone(), json!({"replicas": 1})),
        kept("apps/v1", "replicasets", workload.clone(), scaled.clone(), json!({"replicas": 1})),
        kept("apps/v1", "statefulsets", workload, scaled, json!({"replicas": 1})),
        row(
            "events.k8s.io/v1",
            "events",
            json!({"eventTime": "2026-01-01T00:00:00.000001Z", "reportingController": "c.example.com",
                "reportingInstance": "i", "action": "A", "reason": "R", "type": "Normal", "note": "n",
                "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}}),
            json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}),
        ),
        told(
            "autoscaling/v2",
            "horizontalpodautoscalers",
            json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}, "maxReplicas": 3,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}}),
            json!({"spec": {"maxReplicas": 4}}),
            json!({"desiredReplicas": 1}),
        ),
        told(
            "autoscaling/v1",
            "horizontalpodautoscalers",
            json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}, "maxReplicas": 3}}),
            json!({"spec": {"maxReplicas": 4}}),
            json!({"currentReplicas": 1, "desiredReplicas": 1}),
        ),
        kept(
            "batch/v1",
            "cronjobs",
            json!({"spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {"spec":
                {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}}),
            json!({"spec": {"suspend": true}}),
            json!({"lastScheduleTime": "2026-01-01T00:00:00Z"}),
        ),
        kept(
            "batch/v1",
            "jobs",
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}),
            json!({"spec": {"parallelism": 2}}),
            json!({"active": 1, "startTime": "2026-01-01T00:00:00Z"}),
        ),
        told(
            "certificates.k8s.io/v1",
            "certificatesigningrequests",
            json!({"spec": {"request": REQUEST.trim(), "signerName": "example.com/signer", "usages": ["client auth"]}}),
            json!({"metadata": {"labels": {"changed": "yes"}}}),
            json!({"conditions": [{"type": "Failed", "status": "True", "reason": "R"}]}),
        ),
        counted(
            "networking.k8s.io/v1",
            "ingressclasses",
            json!({"spec": {"controller": "example.com/c"}}),
            json!({"spec": {"parameters": {"kind": "P", "name": "p", "scope": "Cluster", "apiGroup": "example.com"}}}),
        ),
        kept(
            "networking.k8s.io/v1",
            "ingresses",
            json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
            json!({"spec": {"defaultBackend": {"service": {"name": "t"}}}}),
            json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}),
        ),
        row(
            "networking.k8s.io/v1",
            "ipaddresses",
            json!({"spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "s"}}}),
            json!({"metadata": {"labels": {"changed": "yes"}}}),
        ),
        counted(
            "networking.k8s.io/v1",
            "networkpolicies",
            json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}),
            json!({"spec": {"policyTypes": ["Ingress", "Egress"]}}),
        ),
        told(
            "networking.k8s.io/v1",
            "servicecidrs",
            json!({"spec": {"cidrs": ["10.9.0.0/24"]}}),
            json!({"metadata": {"labels": {"changed": "yes"}}}),
            json!({"conditions": condition}),
        ),
        kept(
            "policy/v1",
            "poddisruptionbudgets",
            json!({"spec": {"minAvailable": "50%", "selector": selector}}),
            json!({"spec": {"minAvailable": 1}}),
            json!({"currentHealthy": 1, "desiredHealthy": 1, "disruptionsAllowed": 0, "expectedPods": 1}),
        ),
        row(
            "rbac.authorization.k8s.io/v1",
            "clusterrolebindings",
            json!({"roleRef": {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}, "subjects": subject}),
            json!({"subjects": []}),
        ),
        row("rbac.authorization.k8s.io/v1", "clusterroles", json!({"rules": rules}), json!({"rules": more})),
        row(
            "rbac.authorization.k8s.io/v1",
            "rolebindings",
            json!({"roleRef": {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}, "subjects": subject}),
            json!({"subjects": []}),
        ),
        row("rbac.authorization.k8s.io/v1", "roles", json!({"rules": rules}), json!({"rules": more})),
        row(
            "storage.k8s.io/v1",
            "csidrivers",
            json!({"spec": {"attachRequired": false, "podInfoOnMount": true}}),
            json!({"spec": {"requiresRepublish": true}}),
        ),
        row(
            "storage.k8s.io/v1",
            "csinodes",
            json!({"spec": {"drivers": [{"name": "d.example.com", "nodeID": "n", "topologyKeys": ["zone"]}]}}),
            json!({"spec": {"drivers": [{"name": "e.example.com", "nodeID": "n", "topologyKeys": []}]}}),
        ),
        row(
            "storage.k8s.io/v1",
            "csistoragecapacities",
            json!({"storageClassName": "fast", "capacity": "1Gi"}),
            json!({"capacity": "2Gi"}),
        ),
        row(
            "storage.k8s.io/v1",
            "storageclasses",
            json!({"provisioner": "example.com/p", "parameters": {"a": "b"}}),
            json!({"allowVolumeExpansion": true}),
        ),
        told(
            "storage.k8s.io/v1",
            "volumeattachments",
            json!({"spec": {"attacher": "example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
            json!({"metadata": {"labels": {"changed": "yes"}}}),
            json!({"attached": true}),
        ),
        row(
            "storage.k8s.io/v1",
            "volumeattributesclasses",
            json!({"driverName": "d.example.com", "parameters": {"iops": "1"}}),
            json!({"metadata": {"labels": {"changed": "yes"}}}),
        ),
        counted(
            "admissionregistration.k8s.io/v1",
            "mutatingadmissionpolicies",
            json!({"spec": {"matchConstraints": constraints, "reinvocationPolicy": "Never", "mutations":
                [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}]}}),
            json!({"spec": {"failurePolicy": "Ignore"}}),
        ),
        counted(
            "admissionregistration.k8s.io/v1",
            "mutatingadmissionpolicybindings",
            json!({"spec": {"policyName": "p"}}),
            json!({"spec": {"matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}}),
        ),
        counted(
            "admissionregistration.k8s.io/v1",
            "mutatingwebhookconfigurations",
            json!({"webhooks": hook}),
            json!({"webhooks": []}),
        ),
        kept(
            "admissionregistration.k8s.io/v1",
            "validatingadmissionpolicies",
            json!({"spec": {"matchConstraints": constraints, "validations": [{"expression": "true"}]}}),
            json!({"spec": {"failurePolicy": "Ignore"}}),
            json!({"observedGeneration": 1}),
        ),
        counted(
            "admissionregistration.k8s.io/v1",
            "validatingadmissionpolicybindings",
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}}),
            json!({"spec": {"validationActions": ["Warn"]}}),
        ),
        counted(
            "admissionregistration.k8s.io/v1",
            "validatingwebhookconfigurations",
            json!({"webhooks": hook}),
            json!({"webhooks": []}),
        ),
        counted("scheduling.k8s.io/v1", "priorityclasses", json!({"value": 7}), json!({"description": "d"})),
        row(
            "coordination.k8s.io/v1",
            "leases",
            json!({"spec": {"holderIdentity": "h", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.123456Z"}}),
            json!({"spec": {"holderIdentity": "i"}}),
        ),
        row(
            "node.k8s.io/v1",
            "runtimeclasses",
            json!({"handler": "h", "overhead": {"podFixed": {"cpu": "10m"}}}),
            json!({"metadata": {"labels": {"changed": "yes"}}}),
        ),
        counted(
            "discovery.k8s.io/v1",
            "endpointslices",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"], "conditions": {"ready": false}}],
                "ports": [{"name": "p", "port": 80}]}),
            json!({"endpoints": []}),
        ),
        kept(
            "flowcontrol.apiserver.k8s.io/v1",
            "flowschemas",
            json!({"spec": {"priorityLevelConfiguration": {"name": "p"}, "matchingPrecedence": 500}}),
            json!({"spec": {"matchingPrecedence": 600}}),
            json!({"conditions": [{"type": "Dangling", "status": "True"}]}),
        ),
        kept(
            "flowcontrol.apiserver.k8s.io/v1",
            "prioritylevelconfigurations",
            json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}}}}),
            json!({"spec": {"limited": {"nominalConcurrencyShares": 0}}}),
            json!({"conditions": [{"type": "T", "status": "True"}]}),
        ),
        kept(
            "apiregistration.k8s.io/v1",
            "apiservices",
            json!({"spec": {"group": "lives.example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10,
                "service": {"namespace": "default", "name": "s"}, "insecureSkipTLSVerify": true}}),
            json!({"spec": {"versionPriority": 11}}),
            json!({"conditions": [{"type": "T", "status": "True"}]}),
        ),
        counted(
            "resource.k8s.io/v1",
            "deviceclasses",
            json!({"spec": {"selectors": [{"cel": {"expression": "device.driver == 'd.example.com'"}}]}}),
            json!({"spec": {"extendedResourceName": "example.com/gpu"}}),
        ),
        told(
            "resource.k8s.io/v1",
            "resourceclaims",
            json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}}),
            json!({"metadata": {"labels": {"changed": "yes"}}}),
            json!({"devices": [{"driver": "d.example.com", "pool": "p", "device": "d", "data": {"a": 1}}]}),
        ),
        row(
            "resource.k8s.io/v1",
            "resourceclaimtemplates",
            json!({"spec": {"spec": {"devices": {"requests": [{"name": "r", "firstAvailable": [{"name": "a", "deviceClassName": "c"}]}]}}}}),
            json!({"metadata": {"labels": {"changed": "yes"}}}),
        ),
        counted(
            "resource.k8s.io/v1",
            "resourceslices",
            json!({"spec": {"driver": "d.example.com", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
                "devices": [{"name": "d", "attributes": {"model": {"string": "x"}}, "capacity": {"memory": {"value": "1Gi"}}}]}}),
            json!({"spec": {"pool": {"generation": 2}}}),
        ),
    ]
}
