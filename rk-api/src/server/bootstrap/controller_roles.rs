//! The roles of the controllers: `system:controller:NAME`, bound to the service account NAME in kube-system.
//! Each may also write events.

use super::roles::{READ, Rule, named, on};

const NODE_STATUS: Rule = on("core", "nodes/status", "patch update");
const POD_STATUS: Rule = on("core", "pods/status", "patch update");
const HISTORY: Rule = on("apps", "controllerrevisions", "create delete get list patch update watch");
/// What a controller of pods does with them.
const PODS: Rule = on("core", "pods", "create delete list patch watch");

/// Controller, and its rules besides events.
pub(super) const CONTROLLER_ROLES: &[(&str, &[Rule])] = &[
    (
        "attachdetach-controller",
        &[
            on("core", "persistentvolumeclaims persistentvolumes", "list watch"),
            on("core", "nodes", READ),
            NODE_STATUS,
            on("core", "pods", "list watch"),
            on("storage.k8s.io", "volumeattachments", "create delete get list watch"),
            on("storage.k8s.io", "csidrivers csinodes", READ),
        ],
    ),
    (
        "certificate-controller",
        &[
            on("certificates.k8s.io", "certificatesigningrequests", "delete get list watch"),
            on(
                "certificates.k8s.io",
                "certificatesigningrequests/approval certificatesigningrequests/status",
                "update",
            ),
            named("certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client-kubelet", "approve"),
            named(
                "certificates.k8s.io",
                "signers",
                "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet \
                 kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown",
                "sign",
            ),
            on("authorization.k8s.io", "subjectaccessreviews", "create"),
        ],
    ),
    (
        "clusterrole-aggregation-controller",
        &[on("rbac.authorization.k8s.io", "clusterroles", "escalate get list patch update watch")],
    ),
    (
        "cronjob-controller",
        &[
            on("batch", "cronjobs", "get list update watch"),
            on("batch", "jobs", "create delete get list patch update watch"),
            on("batch", "cronjobs/status cronjobs/finalizers", "update"),
            on("core", "pods", "delete list watch"),
        ],
    ),
    (
        "daemon-set-controller",
        &[
            on("apps extensions", "daemonsets", READ),
            on("apps extensions", "daemonsets/status daemonsets/finalizers", "update"),
            on("core", "nodes", "list watch"),
            PODS,
            on("core", "pods/binding", "create"),
            HISTORY,
        ],
    ),
    (
        "deployment-controller",
        &[
            on("apps extensions", "deployments", "get list update watch"),
            on("apps extensions", "deployments/status deployments/finalizers", "update"),
            on("apps extensions", "replicasets", "create delete get list patch update watch"),
            on("core", "pods", "get list update watch"),
        ],
    ),
    (
        "device-taint-eviction-controller",
        &[
            on("core", "pods", "delete get list watch"),
            POD_STATUS,
            on("resource.k8s.io", "deviceclasses resourceclaims resourceslices", READ),
        ],
    ),
    (
        "disruption-controller",
        &[
            on("apps extensions", "deployments replicasets", READ),
            on("core", "replicationcontrollers", READ),
            on("policy", "poddisruptionbudgets", READ),
            on("apps", "statefulsets", READ),
            on("policy", "poddisruptionbudgets/status", "update"),
            on("core", "pods", READ),
            POD_STATUS,
            on("*", "*/scale", "get"),
        ],
    ),
    (
        "endpoint-controller",
        &[
            on("core", "pods services", READ),
            on("core", "endpoints", "create delete get list update watch"),
            on("core", "endpoints/restricted", "create"),
        ],
    ),
    (
        "endpointslice-controller",
        &[
            on("core", "nodes pods services", READ),
            on("core", "services/finalizers", "update"),
            on("discovery.k8s.io", "endpointslices", "create delete get list update watch"),
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            on("core", "endpoints services", READ),
            on("core", "services/finalizers endpoints/finalizers", "update"),
            on("discovery.k8s.io", "endpointslices", "create delete get list update watch"),
        ],
    ),
    (
        "ephemeral-volume-controller",
        &[
            on("core", "pods", READ),
            on("core", "pods/finalizers", "update"),
            on("core", "persistentvolumeclaims", "create get list watch"),
        ],
    ),
    (
        "expand-controller",
        &[
            on("core", "persistentvolumes", "get list patch update watch"),
            on("core", "persistentvolumeclaims/status", "patch update"),
            on("core", "persistentvolumeclaims", READ),
        ],
    ),
    ("generic-garbage-collector", &[on("*", "*", "delete get list patch update watch")]),
    (
        "horizontal-pod-autoscaler",
        &[
            on("autoscaling", "horizontalpodautoscalers", READ),
            on("autoscaling", "horizontalpodautoscalers/status", "update"),
            on("*", "*/scale", "get update"),
            on("core", "pods", "list watch"),
            on("metrics.k8s.io", "pods", "list watch"),
            on("custom.metrics.k8s.io external.metrics.k8s.io", "*", READ),
        ],
    ),
    (
        "job-controller",
        &[
            on("batch", "jobs", "get list patch update watch"),
            on("batch", "jobs/status jobs/finalizers", "update"),
            PODS,
        ],
    ),
    (
        "legacy-service-account-token-cleaner",
        &[
            named("core", "configmaps", "kube-apiserver-legacy-service-account-token-tracking", "get"),
            on("core", "secrets", "delete patch"),
        ],
    ),
    (
        "namespace-controller",
        &[
            on("core", "namespaces", "delete get list watch"),
            on("core", "namespaces/finalize namespaces/status", "update"),
            on("*", "*", "delete deletecollection get list watch"),
        ],
    ),
    (
        "node-controller",
        &[
            on("core", "nodes", "delete get list patch update watch"),
            NODE_STATUS,
            POD_STATUS,
            on("core", "pods", "delete get list watch"),
            on("coordination.k8s.io", "leases", READ),
        ],
    ),
    (
        "persistent-volume-binder",
        &[
            on("core", "persistentvolumes", "create delete get list update watch"),
            on("core", "persistentvolumes/status persistentvolumeclaims/status", "update"),
            on("core", "persistentvolumeclaims", "get list update watch"),
            on("core", "pods", "create delete get list watch"),
            on("storage.k8s.io", "storageclasses", READ),
            on("core", "nodes", "list watch"),
            on("core", "events", "watch"),
        ],
    ),
    (
        "pod-garbage-collector",
        &[on("core", "pods", "delete list watch"), on("core", "nodes", READ), on("core", "pods/status", "patch")],
    ),
    ("pv-protection-controller", &[on("core", "persistentvolumes", "get list update watch")]),
    (
        "pvc-protection-controller",
        &[
            on("core", "persistentvolumeclaims", "get list update watch"),
            on("core", "persistentvolumeclaims/status", "update"),
            on("core", "pods", READ),
        ],
    ),
    (
        "replicaset-controller",
        &[
            on("apps extensions", "replicasets", "get list update watch"),
            on("apps extensions", "replicasets/status replicasets/finalizers", "update"),
            PODS,
        ],
    ),
    (
        "replication-controller",
        &[
            on("core", "replicationcontrollers", "get list update watch"),
            on("core", "replicationcontrollers/status replicationcontrollers/finalizers", "update"),
            PODS,
        ],
    ),
    (
        "resource-claim-controller",
        &[
            on("core", "pods", READ),
            on("core", "pods/finalizers", "update"),
            on("resource.k8s.io", "resourceclaims", "create delete get list patch update watch"),
            on("resource.k8s.io", "resourceclaims/status resourceclaims/binding", "patch update"),
            on("resource.k8s.io", "resourceclaimtemplates", READ),
            POD_STATUS,
        ],
    ),
    ("resourcequota-controller", &[on("*", "*", "list watch"), on("core", "resourcequotas/status", "update")]),
    ("root-ca-cert-publisher", &[on("core", "configmaps", "create update")]),
    ("route-controller", &[on("core", "nodes", "list watch"), on("core", "nodes/status", "patch")]),
    (
        "selinux-warning-controller",
        &[on("core", "persistentvolumes persistentvolumeclaims pods", READ), on("storage.k8s.io", "csidrivers", READ)],
    ),
    ("service-account-controller", &[on("core", "serviceaccounts", "create")]),
    (
        "service-cidrs-controller",
        &[
            on("networking.k8s.io", "servicecidrs", "get list patch update watch"),
            on("networking.k8s.io", "servicecidrs/finalizers servicecidrs/status", "patch update"),
            on("networking.k8s.io", "ipaddresses", READ),
        ],
    ),
    (
        "service-controller",
        &[
            on("core", "services", READ),
            on("core", "services/status", "patch update"),
            on("core", "nodes", "list watch"),
        ],
    ),
    (
        "statefulset-controller",
        &[
            on("apps", "statefulsets", READ),
            on("apps", "statefulsets/status statefulsets/finalizers", "update"),
            on("core", "pods", "create delete get list patch update watch"),
            HISTORY,
            on("core", "persistentvolumeclaims", "create delete get list update watch"),
            on("core", "pods/finalizers", "update"),
        ],
    ),
    ("ttl-after-finished-controller", &[on("batch", "jobs", "delete get list watch")]),
    ("ttl-controller", &[on("core", "nodes", "list patch update watch")]),
    (
        "validatingadmissionpolicy-status-controller",
        &[
            on("admissionregistration.k8s.io", "validatingadmissionpolicies", READ),
            on("admissionregistration.k8s.io", "validatingadmissionpolicies/status", "get patch update"),
        ],
    ),
    (
        "volumeattributesclass-protection-controller",
        &[
            on("core", "persistentvolumeclaims persistentvolumes", READ),
            on("storage.k8s.io", "volumeattributesclasses", "get list update watch"),
        ],
    ),
];
