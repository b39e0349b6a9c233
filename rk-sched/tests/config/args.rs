//! The arguments of plugins.

use rk_sched::simulate::Simulator;
use serde_json::{Value, json};

use super::{json_patch, load, node, placed, pod, profile, wrong_args};

#[test]
fn arguments_that_are_wrong_are_told_by_their_paths() {
    assert_eq!(
        wrong_args("DefaultPreemption", json!({"minCandidateNodesPercentage": 101, "minCandidateNodesAbsolute": -1})),
        [
            ".minCandidateNodesPercentage: Invalid value: 101: not in valid range [0, 100]",
            ".minCandidateNodesAbsolute: Invalid value: -1: not in valid range [0, inf)",
        ]
    );
    assert_eq!(
        wrong_args("DefaultPreemption", json!({"minCandidateNodesPercentage": 0, "minCandidateNodesAbsolute": 0})),
        [
            ".minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the same time as minCandidateNodesAbsolute",
            ".minCandidateNodesAbsolute: Invalid value: 0: cannot be zero at the same time as minCandidateNodesPercentage",
        ]
    );
    assert_eq!(
        wrong_args("InterPodAffinity", json!({"hardPodAffinityWeight": 101, "hardWeight": 1})),
        [".hardWeight: unknown field", ".hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",]
    );
    assert_eq!(
        wrong_args(
            "NodeResourcesFit",
            json!({
                "ignoredResources": ["a/b/c"],
                "ignoredResourceGroups": ["example.com/a"],
                "scoringStrategy": {
                    "type": "LeastAllocated",
                    "resources": [{"name": "cpu", "weight": 101}, {"name": "memory", "weight": -1}],
                    "requestedToCapacityRatio": {},
                },
            })
        )[1..],
        [
            ".ignoredResourceGroups[0]: Invalid value: \"example.com/a\": resource group name can't contain '/'",
            ".scoringStrategy.resources[0].weight: Invalid value: 101: resource weight of cpu not in valid range (0, 100]",
            ".scoringStrategy.resources[1].weight: Invalid value: -1: resource weight of memory not in valid range (0, 100]",
            ".scoringStrategy.requestedToCapacityRatio: Forbidden: must be nil when type is not RequestedToCapacityRatio",
        ]
    );
    let ratio = |shape: Value| {
        let strategy = json!({"type": "RequestedToCapacityRatio", "requestedToCapacityRatio": {"shape": shape}});
        let told = wrong_args("NodeResourcesFit", json!({"scoringStrategy": strategy}));
        told.into_iter()
            .map(|text| text.replace(".scoringStrategy.requestedToCapacityRatio.shape", ""))
            .collect::<Vec<_>>()
    };
    assert_eq!(ratio(json!([])), [": Required value: at least one point must be specified"]);
    assert_eq!(
        ratio(json!([{"utilization": 50, "score": 11}, {"utilization": 50, "score": 1}, {"utilization": 101}])),
        [
            "[1].utilization: Invalid value: 50: values must be sorted in increasing order",
            "[0].score: Invalid value: 11: not in valid range [0, 10]",
            "[2].utilization: Invalid value: 101: not in valid range [0, 100]",
        ]
    );
    assert_eq!(
        wrong_args(
            "NodeResourcesBalancedAllocation",
            json!({"resources": [{"name": "cpu"}, {"name": "cpu", "weight": 2}]})
        ),
        [".resources[1].name: Duplicate value: \"cpu\"", ".resources[1].weight: Invalid value: 2: must be 1",]
    );
    let constraint = json!({"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Never", "labelSelector": {}});
    assert_eq!(
        wrong_args("PodTopologySpread", json!({"defaultConstraints": [constraint, constraint]}))[..6],
        [
            ".defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty",
            ".defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range (0, inf)",
            ".defaultConstraints[0].topologyKey: Required value: can not be empty",
            ".defaultConstraints[0].whenUnsatisfiable: Unsupported value: \"Never\": supported values: \
             \"DoNotSchedule\", \"ScheduleAnyway\"",
            ".defaultConstraints[0].labelSelector: Forbidden: constraint must not define a selector, as they deduced for each pod",
            ".defaultConstraints[1].maxSkew: Invalid value: 0: not in valid range (0, inf)",
        ]
    );
    assert_eq!(
        wrong_args("PodTopologySpread", json!({"defaultingType": "Mine"})),
        [".defaultingType: Unsupported value: \"Mine\": supported values: \"System\", \"List\""]
    );
    assert_eq!(
        wrong_args("VolumeBinding", json!({"bindTimeoutSeconds": -1, "shape": []})),
        [
            ".bindTimeoutSeconds: Invalid value: -1: invalid BindTimeoutSeconds, should not be a negative value",
            ".shape: Invalid value: []: unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring",
        ]
    );
    let terms = json!([
        {"matchExpressions": [
            {"key": "a b", "operator": "In", "values": []}, {"key": "a", "operator": "Gt", "values": ["x"]},
            {"key": "a", "operator": "Is"},
        ]},
        {"matchFields": [{"key": "metadata.uid", "operator": "Exists"}]},
    ]);
    let told = wrong_args(
        "NodeAffinity",
        json!({"addedAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}),
    );
    let told: Vec<String> = told
        .into_iter()
        .map(|text| text.replace(".addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms", ""))
        .collect();
    assert_eq!(
        told[1..],
        [
            "[0].matchExpressions[0].values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            "[0].matchExpressions[1].values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            "[0].matchExpressions[2].operator: Unsupported value: \"Is\": supported values: \"DoesNotExist\", \"Exists\", \
             \"Gt\", \"In\", \"Lt\", \"NotIn\"",
            "[1].matchFields[0].key: Invalid value: \"metadata.uid\": not a valid field selector key",
            "[1].matchFields[0].operator: Unsupported value: \"Exists\": supported values: \"In\", \"NotIn\"",
            "[1].matchFields[0].values: Invalid value: []: must have one element",
        ]
    );
    assert_eq!(
        wrong_args("NodeAffinity", json!({"kind": "NodeResourcesFitArgs"})),
        [": args for plugin NodeAffinity were not of type NodeAffinityArgs of kubescheduler.config.k8s.io/v1, got \
          \"NodeResourcesFitArgs\" of null"]
    );
}

#[test]
fn arguments_reach_the_plugins() {
    let with_args = |name: &str, args: Value| profile(json!({"pluginConfig": [{"name": name, "args": args}]}));
    let small = node("small", json!({"status": {"allocatable": {"cpu": "2"}}}));
    let big = node("big", json!({"status": {"allocatable": {"cpu": "8"}}}));
    let packed = json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "NodeResourcesFitArgs",
        "scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 100}]},
    });
    let nodes = [small, big];
    let heavy = json!({"score": {"enabled": [{"name": "NodeResourcesFit", "weight": 50}]}});
    let profile_of =
        |args: Value| profile(json!({"plugins": heavy, "pluginConfig": [{"name": "NodeResourcesFit", "args": args}]}));
    assert_eq!(placed(profile_of(packed), &nodes, pod("p", json!({}))).unwrap(), "small");
    assert_eq!(placed(profile_of(json!({})), &nodes, pod("p", json!({}))).unwrap(), "big");
    // Half used is best.
    let ratio = json!({"scoringStrategy": {
        "type": "RequestedToCapacityRatio",
        "resources": [{"name": "cpu"}],
        "requestedToCapacityRatio": {"shape": [
            {"utilization": 0, "score": 0}, {"utilization": 50, "score": 10}, {"utilization": 100, "score": 0},
        ]},
    }});
    assert_eq!(placed(profile_of(ratio), &nodes, pod("p", json!({}))).unwrap(), "small");

    let gpus = |amount: &str| {
        let resources = json!({"requests": {"example.com/gpu": amount}, "limits": {"example.com/gpu": amount}});
        pod("p", json!({"spec": {"containers": [{"name": "c", "resources": resources}]}}))
    };
    let gpu_node = [node("n", json!({}))];
    for args in [json!({"ignoredResources": ["example.com/gpu"]}), json!({"ignoredResourceGroups": ["example.com"]})] {
        assert_eq!(placed(with_args("NodeResourcesFit", args), &gpu_node, gpus("5")).unwrap(), "n");
    }
    let strict = placed(with_args("NodeResourcesFit", json!({})), &gpu_node, gpus("5")).unwrap_err();
    assert!(strict.contains("1 Insufficient example.com/gpu"), "{strict}");
    let managed = json!({"extenders": [{
        "urlPrefix": "http://localhost:1",
        "managedResources": [{"name": "example.com/gpu", "ignoredByScheduler": true}],
    }]});
    if cfg!(feature = "extender") {
        let config = load(managed).unwrap();
        assert_eq!(placed(config.profiles[0].clone(), &gpu_node, gpus("5")).unwrap(), "n");
    }
}

#[test]
fn added_affinity_is_all_pods() {
    let zone = |name: &str| node(name, json!({"metadata": {"labels": {"zone": name}}}));
    let nodes = [zone("a"), zone("b"), zone("c")];
    let term = |operator: &str, zone: &str| json!({"matchExpressions": [{"key": "zone", "operator": operator, "values": [zone]}]});
    let added = |affinity: Value| {
        profile(json!({"pluginConfig": [{"name": "NodeAffinity", "args": {"addedAffinity": affinity}}]}))
    };
    let required =
        |term: Value| json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}});
    let only_b = added(required(term("In", "b")));
    assert_eq!(placed(only_b.clone(), &nodes, pod("p", json!({}))).unwrap(), "b");
    let elsewhere = pod("p", json!({"spec": {"nodeSelector": {"zone": "a"}}}));
    let said = placed(only_b, &nodes, elsewhere).unwrap_err();
    let expected = "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, \
                    2 node(s) didn't match scheduler-enforced node affinity.";
    assert!(said.starts_with(expected), "{said}");
    let preferred = json!({"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": term("In", "c")},
    ]});
    assert_eq!(placed(added(preferred), &nodes, pod("p", json!({}))).unwrap(), "c");
}

#[test]
fn values_of_labels_are_checked() {
    let terms = json!([
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["", "a_b", "-a"]}]},
        {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["x".repeat(64)]}]},
    ]);
    let args =
        json!({"addedAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    let told = wrong_args("NodeAffinity", args);
    let path = ".addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    assert_eq!(told.len(), 2, "{told:?}");
    let start = format!("{path}[0].matchExpressions[0].values[2][zone]: Invalid value: \"-a\": a valid label must be");
    assert!(told[0].starts_with(&start), "{told:?}");
    let end = "must be no more than 63 bytes";
    assert!(told[1].starts_with(&format!("{path}[1].matchExpressions[0].values[0][zone]: ")) && told[1].ends_with(end));
}

#[test]
fn a_weight_below_zero_makes_the_best_the_worst() {
    let nodes = [node("a", json!({"metadata": {"labels": {"zone": "a"}}})), node("b", json!({}))];
    let pod = || {
        let term = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]});
        pod(
            "p",
            json!({"spec": {"affinity": {"nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": term}],
            }}}}),
        )
    };
    for (weight, node) in [(50, "a"), (0, "a"), (-50, "b")] {
        let score = json!({"disabled": [{"name": "*"}], "enabled": [{"name": "NodeAffinity", "weight": weight}]});
        assert_eq!(placed(profile(json!({"plugins": {"score": score}})), &nodes, pod()).unwrap(), node, "{weight}");
    }
}

#[test]
fn preferences_of_existing_pods_can_be_left_alone() {
    let nodes = [node("a", json!({})), node("b", json!({}))];
    let near = json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": {
        "labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname",
    }}]}});
    let existing = pod("existing", json!({"spec": {"nodeName": "a", "affinity": near}}));
    let web = json!({"metadata": {"labels": {"app": "web"}}});
    let goes = |ignore: bool, change: Value| {
        let args = json!({"ignorePreferredTermsOfExistingPods": ignore});
        let heavy = json!({"score": {"enabled": [{"name": "InterPodAffinity", "weight": 50}]}});
        let profile = profile(json!({"plugins": heavy, "pluginConfig": [{"name": "InterPodAffinity", "args": args}]}));
        let mut cluster = Simulator::new(profile, 1);
        for node in &nodes {
            cluster.set_node(node.clone());
        }
        cluster.schedule(existing.clone()).unwrap();
        cluster.schedule(pod("p", change)).unwrap().to_string()
    };
    assert_eq!(goes(false, web.clone()), "a");
    assert_eq!(goes(true, web.clone()), "b");
    // Of pods with terms of their own they count all the same.
    let mut own = web;
    json_patch(
        &mut own,
        json!({"spec": {"affinity": {"podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {
                "labelSelector": {"matchLabels": {"app": "other"}}, "topologyKey": "kubernetes.io/hostname",
            }}],
        }}}}),
    );
    assert_eq!(goes(true, own), "a");
}
