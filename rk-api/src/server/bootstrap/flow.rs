//! The priority levels and FlowSchemas of Kubernetes, as tables
//! (<https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#defaults>).

use serde_json::{Value, json};

/// Priority levels that are limited: name, shares, percent that could be lent, queues (0: refuse), hand.
const LEVELS: [(&str, i32, i32, i32, i32); 7] = [
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
    ("catch-all", 5, 0, 0, 0),
];

/// What the rules of a schema are about.
enum Of {
    /// Every resource and every path.
    All,
    /// Only these.
    Resources(&'static str, &'static str, &'static str, bool),
    /// Only these paths.
    Paths(&'static str),
}

/// Schemas: name, precedence, level, what tells flows apart (empty for nothing), subjects, rules.
#[expect(clippy::type_complexity, reason = "a table of literals")]
const SCHEMAS: &[(&str, i32, &str, &str, &[&str], &[Of])] = &[
    ("exempt", 1, "exempt", "", &["Group system:masters"], &[Of::All]),
    (
        "probes",
        2,
        "exempt",
        "",
        &["Group system:unauthenticated", "Group system:authenticated"],
        &[Of::Paths("/healthz /readyz /livez")],
    ),
    (
        "system-leader-election",
        100,
        "leader-election",
        "ByUser",
        &["User system:kube-controller-manager", "User system:kube-scheduler", "ServiceAccount kube-system/*"],
        &[Of::Resources("get create update", "coordination.k8s.io", "leases", false)],
    ),
    (
        "endpoint-controller",
        150,
        "workload-high",
        "ByUser",
        &[
            "User system:kube-controller-manager",
            "ServiceAccount kube-system/endpoint-controller",
            "ServiceAccount kube-system/endpointslicemirroring-controller",
        ],
        &[Of::Resources("get create update", "", "endpoints", false)],
    ),
    (
        "workload-leader-election",
        200,
        "leader-election",
        "ByUser",
        &["ServiceAccount kube-system/*"],
        &[Of::Resources("get create update", "coordination.k8s.io", "leases", false)],
    ),
    (
        "system-node-high",
        400,
        "node-high",
        "ByUser",
        &["Group system:nodes"],
        &[
            Of::Resources("*", "", "nodes nodes/status", true),
            Of::Resources("*", "coordination.k8s.io", "leases", false),
        ],
    ),
    ("system-nodes", 500, "system", "ByUser", &["Group system:nodes"], &[Of::All]),
    (
        "kube-controller-manager",
        800,
        "workload-high",
        "ByNamespace",
        &["User system:kube-controller-manager"],
        &[Of::All],
    ),
    ("kube-scheduler", 800, "workload-high", "ByNamespace", &["User system:kube-scheduler"], &[Of::All]),
    (
        "kube-system-service-accounts",
        900,
        "workload-high",
        "ByNamespace",
        &["ServiceAccount kube-system/*"],
        &[Of::All],
    ),
    ("service-accounts", 9000, "workload-low", "ByUser", &["Group system:serviceaccounts"], &[Of::All]),
    (
        "global-default",
        9900,
        "global-default",
        "ByUser",
        &["Group system:unauthenticated", "Group system:authenticated"],
        &[Of::All],
    ),
    (
        "catch-all",
        10_000,
        "catch-all",
        "ByUser",
        &["Group system:unauthenticated", "Group system:authenticated"],
        &[Of::All],
    ),
];

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}, "spec": spec})
}

/// The priority levels.
pub(super) fn levels() -> impl Iterator<Item = Value> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let limited = LEVELS.iter().map(|&(name, shares, lendable, queues, hand)| {
        let response = if queues == 0 {
            json!({"type": "Reject"})
        } else {
            json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}})
        };
        let limited =
            json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        object("PriorityLevelConfiguration", name, json!({"type": "Limited", "limited": limited}))
    });
    std::iter::once(object("PriorityLevelConfiguration", "exempt", exempt)).chain(limited)
}

fn subject(text: &str) -> Value {
    match text.split_once(' ').unwrap_or_default() {
        ("ServiceAccount", place) => {
            let (namespace, name) = place.split_once('/').unwrap_or_default();
            json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}})
        }
        ("Group", name) => json!({"kind": "Group", "group": {"name": name}}),
        (_, name) => json!({"kind": "User", "user": {"name": name}}),
    }
}

/// The FlowSchemas.
pub(super) fn schemas() -> impl Iterator<Item = Value> {
    SCHEMAS.iter().map(|(name, precedence, level, by, subjects, rules)| {
        let words = |text: &str| text.split_whitespace().map(Value::from).collect::<Vec<_>>();
        let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}]);
        let (mut resources, mut paths) = (Vec::new(), Vec::new());
        for rule in *rules {
            match rule {
                Of::All => {
                    resources.extend(all.as_array().into_iter().flatten().cloned());
                    paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
                }
                Of::Resources(verbs, group, names, cluster) => {
                    let mut rule = json!({"verbs": words(verbs), "apiGroups": [group], "resources": words(names),
                        "namespaces": ["*"]});
                    if *cluster {
                        rule["clusterScope"] = true.into();
                    }
                    resources.push(rule);
                }
                Of::Paths(urls) => paths.push(json!({"verbs": ["get"], "nonResourceURLs": words(urls)})),
            }
        }
        let mut rule = json!({"subjects": subjects.iter().map(|text| subject(text)).collect::<Vec<_>>()});
        for (field, list) in [("resourceRules", resources), ("nonResourceRules", paths)] {
            if !list.is_empty() {
                rule[field] = list.into();
            }
        }
        let mut spec = json!({"matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level}, "rules": [rule]});
        if !by.is_empty() {
            spec["distinguisherMethod"] = json!({"type": by});
        }
        object("FlowSchema", name, spec)
    })
}
