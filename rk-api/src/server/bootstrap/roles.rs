//! The default roles and bindings of Kubernetes, as a table
//! (<https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings>).

/// A rule; each field is a list of words. The core group is written `core`.
pub(super) struct Rule {
    pub groups: &'static str,
    pub resources: &'static str,
    pub names: &'static str,
    pub paths: &'static str,
    pub verbs: &'static str,
}

/// Verbs on resources.
pub(super) const fn on(groups: &'static str, resources: &'static str, verbs: &'static str) -> Rule {
    Rule { groups, resources, names: "", paths: "", verbs }
}

/// Verbs on resources of these names only.
pub(super) const fn named(
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
    verbs: &'static str,
) -> Rule {
    Rule { groups, resources, names, paths: "", verbs }
}

const fn paths(paths: &'static str) -> Rule {
    Rule { groups: "", resources: "", names: "", paths, verbs: "get" }
}

pub(super) const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const ALL: &str = "create delete deletecollection get list patch update watch";

/// Writing events, which nearly every component does.
pub(super) const EVENTS: Rule = on("core events.k8s.io", "events", "create patch update");

const TOKEN_REVIEWS: Rule = on("authentication.k8s.io", "tokenreviews", "create");
const ACCESS_REVIEWS: Rule = on("authorization.k8s.io", "subjectaccessreviews", "create");

/// Cluster roles: name, the role it is a part of (empty for none), rules. `admin`, `edit` and `view` are made of the
/// `system:aggregate-to-*` roles.
pub(super) const CLUSTER_ROLES: &[(&str, &str, &[Rule])] = &[
    ("cluster-admin", "", &[on("*", "*", "*"), Rule { groups: "", resources: "", names: "", paths: "*", verbs: "*" }]),
    (
        "system:aggregate-to-admin",
        "admin",
        &[
            on("authorization.k8s.io", "localsubjectaccessreviews", "create"),
            on("rbac.authorization.k8s.io", "rolebindings roles", ALL),
        ],
    ),
    (
        "system:aggregate-to-edit",
        "edit",
        &[
            on("core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy", READ),
            on("core", "serviceaccounts", "impersonate"),
            on("core", "pods pods/attach pods/exec pods/portforward pods/proxy", WRITE),
            on("core", "pods/eviction", "create"),
            on(
                "core",
                "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale \
                 secrets serviceaccounts services services/proxy",
                WRITE,
            ),
            on("core", "serviceaccounts/token", "create"),
            on(
                "apps",
                "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale \
                 statefulsets statefulsets/scale",
                WRITE,
            ),
            on("autoscaling", "horizontalpodautoscalers", WRITE),
            on("batch", "cronjobs jobs", WRITE),
            on(
                "extensions",
                "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets \
                 replicasets/scale replicationcontrollers/scale",
                WRITE,
            ),
            on("policy", "poddisruptionbudgets", WRITE),
            on("networking.k8s.io", "ingresses networkpolicies", WRITE),
            on("coordination.k8s.io", "leases", ALL),
            on("resource.k8s.io", "resourceclaims resourceclaimtemplates", WRITE),
        ],
    ),
    (
        "system:aggregate-to-view",
        "view",
        &[
            on(
                "core",
                "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers \
                 replicationcontrollers/scale serviceaccounts services services/status",
                READ,
            ),
            on(
                "core",
                "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status \
                 resourcequotas resourcequotas/status",
                READ,
            ),
            on("core", "namespaces", READ),
            on("discovery.k8s.io", "endpointslices", READ),
            on(
                "apps",
                "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status \
                 replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
                READ,
            ),
            on("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status", READ),
            on("batch", "cronjobs cronjobs/status jobs jobs/status", READ),
            on(
                "extensions",
                "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses \
                 ingresses/status networkpolicies replicasets replicasets/scale replicasets/status \
                 replicationcontrollers/scale",
                READ,
            ),
            on("policy", "poddisruptionbudgets poddisruptionbudgets/status", READ),
            on("networking.k8s.io", "ingresses ingresses/status networkpolicies", READ),
            on("resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates", READ),
        ],
    ),
    ("system:auth-delegator", "", &[TOKEN_REVIEWS, ACCESS_REVIEWS]),
    (
        "system:basic-user",
        "",
        &[
            on("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", "create"),
            on("authentication.k8s.io", "selfsubjectreviews", "create"),
        ],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        "",
        &[on("certificates.k8s.io", "certificatesigningrequests/nodeclient", "create")],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        "",
        &[on("certificates.k8s.io", "certificatesigningrequests/selfnodeclient", "create")],
    ),
    (
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        "",
        &[named("certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client", "approve")],
    ),
    (
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        "",
        &[named("certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client-kubelet", "approve")],
    ),
    (
        "system:certificates.k8s.io:kubelet-serving-approver",
        "",
        &[named("certificates.k8s.io", "signers", "kubernetes.io/kubelet-serving", "approve")],
    ),
    (
        "system:certificates.k8s.io:legacy-unknown-approver",
        "",
        &[named("certificates.k8s.io", "signers", "kubernetes.io/legacy-unknown", "approve")],
    ),
    (
        "system:discovery",
        "",
        &[paths("/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/")],
    ),
    ("system:public-info-viewer", "", &[paths("/healthz /livez /readyz /version /version/")]),
    (
        "system:monitoring",
        "",
        &[paths("/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/* /flagz /statusz")],
    ),
    (
        "system:service-account-issuer-discovery",
        "",
        &[paths(
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    ),
    ("system:heapster", "", &[on("core", "events namespaces nodes pods", READ), on("extensions", "deployments", READ)]),
    ("system:kube-aggregator", "", &[on("core", "endpoints services", READ)]),
    (
        "system:kube-dns",
        "",
        &[on("core", "endpoints services", "list watch"), on("discovery.k8s.io", "endpointslices", "list watch")],
    ),
    (
        "system:kube-controller-manager",
        "",
        &[
            EVENTS,
            on("coordination.k8s.io", "leases", "create"),
            named("coordination.k8s.io", "leases", "kube-controller-manager", "get update"),
            on("core", "secrets serviceaccounts", "create"),
            on("core", "secrets", "delete"),
            on("core", "configmaps namespaces secrets serviceaccounts", "get"),
            on("core", "secrets serviceaccounts", "update"),
            TOKEN_REVIEWS,
            ACCESS_REVIEWS,
            on("*", "*", "list watch"),
            on("core", "serviceaccounts/token", "create"),
        ],
    ),
    (
        "system:kube-scheduler",
        "",
        &[
            EVENTS,
            on("coordination.k8s.io", "leases", "create"),
            named("coordination.k8s.io", "leases", "kube-scheduler", "get update"),
            on("coordination.k8s.io", "leasecandidates", "create get list update watch"),
            on("core", "nodes", READ),
            on("core", "pods", "delete get list watch"),
            on("core", "bindings pods/binding", "create"),
            on("core", "pods/status", "patch update"),
            on("core", "replicationcontrollers services namespaces", READ),
            on("apps extensions", "replicasets", READ),
            on("apps", "statefulsets", READ),
            on("policy", "poddisruptionbudgets", READ),
            on("core", "persistentvolumeclaims persistentvolumes", READ),
            on("storage.k8s.io", "csinodes csidrivers csistoragecapacities volumeattachments", READ),
            on("resource.k8s.io", "deviceclasses resourceslices", READ),
            on("resource.k8s.io", "resourceclaims", "create delete get list patch update watch"),
            on("resource.k8s.io", "resourceclaims/status resourceclaims/binding", "patch update"),
            // Of use where `scheduling.k8s.io/v1alpha2` is served; Kubernetes has them only there.
            on("scheduling.k8s.io", "podgroups workloads", READ),
            on("scheduling.k8s.io", "podgroups/status", "patch update"),
            TOKEN_REVIEWS,
            ACCESS_REVIEWS,
        ],
    ),
    (
        "system:volume-scheduler",
        "",
        &[
            on("core", "persistentvolumes", "get list patch update watch"),
            on("storage.k8s.io", "storageclasses", READ),
            on("core", "persistentvolumeclaims", "get list patch update watch"),
        ],
    ),
    (
        "system:kubelet-api-admin",
        "",
        &[
            on("core", "nodes", "get list watch proxy"),
            on(
                "core",
                "nodes/checkpoint nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy \
                 nodes/stats",
                "*",
            ),
        ],
    ),
    (
        "system:node",
        "",
        &[
            TOKEN_REVIEWS,
            on("authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews", "create"),
            on("core", "services", READ),
            on("core", "nodes", "create get list watch patch update"),
            on("core", "nodes/status", "patch update"),
            on("core events.k8s.io", "events", "create patch update"),
            on("core", "pods", "create delete get list watch"),
            on("core", "pods/status", "patch update"),
            on("core", "pods/eviction", "create"),
            on("core", "configmaps secrets", READ),
            on("core", "persistentvolumeclaims persistentvolumes", "get"),
            on("core", "persistentvolumeclaims/status", "get patch update"),
            on("core", "endpoints", "get"),
            on("core", "serviceaccounts/token", "create"),
            on("core", "serviceaccounts", "get"),
            on("certificates.k8s.io", "certificatesigningrequests", "create get list watch"),
            on("certificates.k8s.io", "clustertrustbundles", READ),
            on("coordination.k8s.io", "leases", "create delete get patch update"),
            on("storage.k8s.io", "volumeattachments", "get"),
            on("storage.k8s.io", "csidrivers", READ),
            on("storage.k8s.io", "csinodes", "create delete get patch update"),
            on("node.k8s.io", "runtimeclasses", READ),
            on("resource.k8s.io", "resourceclaims", "get"),
            on("resource.k8s.io", "resourceslices", "create delete deletecollection get list patch update watch"),
        ],
    ),
    (
        "system:node-bootstrapper",
        "",
        &[on("certificates.k8s.io", "certificatesigningrequests", "create get list watch")],
    ),
    ("system:node-problem-detector", "", &[on("core", "nodes", "get"), on("core", "nodes/status", "patch"), EVENTS]),
    (
        "system:node-proxier",
        "",
        &[
            on("core", "endpoints services", "list watch"),
            on("core", "nodes", READ),
            EVENTS,
            on("discovery.k8s.io", "endpointslices", "list watch"),
            on("networking.k8s.io", "servicecidrs", "list watch"),
        ],
    ),
    (
        "system:persistent-volume-provisioner",
        "",
        &[
            on("core", "persistentvolumes", "create delete get list watch"),
            on("core", "persistentvolumeclaims", "get list update watch"),
            on("storage.k8s.io", "storageclasses", READ),
            on("core", "events", "watch"),
            EVENTS,
        ],
    ),
];

/// Cluster role bindings: name, role, subjects.
pub(super) const CLUSTER_ROLE_BINDINGS: &[(&str, &str, &[&str])] = &[
    ("cluster-admin", "cluster-admin", &["Group system:masters"]),
    ("system:monitoring", "system:monitoring", &["Group system:monitoring"]),
    ("system:discovery", "system:discovery", &["Group system:authenticated"]),
    ("system:basic-user", "system:basic-user", &["Group system:authenticated"]),
    (
        "system:public-info-viewer",
        "system:public-info-viewer",
        &["Group system:authenticated", "Group system:unauthenticated"],
    ),
    // What nodes may do is the Node authorizer's to say; the binding is there for clusters without it.
    ("system:node", "system:node", &[]),
    ("system:node-proxier", "system:node-proxier", &["User system:kube-proxy"]),
    ("system:kube-controller-manager", "system:kube-controller-manager", &["User system:kube-controller-manager"]),
    ("system:kube-dns", "system:kube-dns", &["ServiceAccount kube-dns"]),
    ("system:kube-scheduler", "system:kube-scheduler", &["User system:kube-scheduler"]),
    ("system:volume-scheduler", "system:volume-scheduler", &["User system:kube-scheduler"]),
    (
        "system:service-account-issuer-discovery",
        "system:service-account-issuer-discovery",
        &["Group system:serviceaccounts"],
    ),
];

const LEADER: &[Rule] = &[
    on("coordination.k8s.io", "leases", "create get list update watch"),
    on("coordination.k8s.io", "leasecandidates", "create get list update watch"),
];

/// Roles in namespaces, each with its binding: namespace, role, rules, binding, subjects.
#[expect(clippy::type_complexity, reason = "a table of literals")]
pub(super) const ROLES: &[(&str, &str, &[Rule], &str, &[&str])] = &[
    (
        "kube-public",
        "system:controller:bootstrap-signer",
        &[on("core", "configmaps", READ), named("core", "configmaps", "cluster-info", "update"), EVENTS],
        "system:controller:bootstrap-signer",
        &["ServiceAccount bootstrap-signer"],
    ),
    (
        "kube-system",
        "extension-apiserver-authentication-reader",
        &[named("core", "configmaps", "extension-apiserver-authentication", READ)],
        "system::extension-apiserver-authentication-reader",
        &["User system:kube-controller-manager", "User system:kube-scheduler"],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        LEADER,
        "system::leader-locking-kube-controller-manager",
        &["User system:kube-controller-manager", "ServiceAccount kube-controller-manager"],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-scheduler",
        LEADER,
        "system::leader-locking-kube-scheduler",
        &["User system:kube-scheduler", "ServiceAccount kube-scheduler"],
    ),
    (
        "kube-system",
        "system:controller:bootstrap-signer",
        &[on("core", "secrets", READ)],
        "system:controller:bootstrap-signer",
        &["ServiceAccount bootstrap-signer"],
    ),
    (
        "kube-system",
        "system:controller:cloud-provider",
        &[on("core", "configmaps", "create get list watch")],
        "system:controller:cloud-provider",
        &["ServiceAccount cloud-provider"],
    ),
    (
        "kube-system",
        "system:controller:token-cleaner",
        &[on("core", "secrets", "delete get list watch"), EVENTS],
        "system:controller:token-cleaner",
        &["ServiceAccount token-cleaner"],
    ),
];
