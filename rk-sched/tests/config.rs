//! Kubernetes' configuration file: what is refused and how that is told, and what comes of it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use rk_sched::{
    Profile, Registration, SchedulerConfig,
    config::{ArgsError, ConfigurationError, KubeSchedulerConfiguration, Registry},
    framework::{CycleState, Filter, Plugin, QueueSort, Score, Status},
    model::{NodeInfo, PodInfo},
    queue::QueuedPod,
    simulate::Simulator,
};
use serde_json::{Value, json};

/// A configuration with these fields.
fn file(fields: Value) -> Value {
    let mut file = json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"});
    file.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    file
}

fn load(fields: Value) -> Result<SchedulerConfig, ConfigurationError> {
    SchedulerConfig::from_json(&file(fields), &registry())
}

/// What is told of a configuration with these fields.
fn wrong(fields: Value) -> Vec<String> {
    let error = load(fields.clone()).err().unwrap_or_else(|| panic!("{fields} is right"));
    error.errors.iter().map(ToString::to_string).collect()
}

fn profile(profile: Value) -> Profile {
    load(json!({"profiles": [profile]})).unwrap_or_else(|error| panic!("{error}")).profiles.remove(0)
}

/// What is told of the arguments of a plugin, without the path of the arguments.
fn wrong_args(name: &str, args: Value) -> Vec<String> {
    let told = wrong(json!({"profiles": [{"pluginConfig": [{"name": name, "args": args}]}]}));
    told.into_iter().map(|text| text.replace("profiles[0].pluginConfig[0].args", "")).collect()
}

/// Filters by a label and scores by another.
struct Labels {
    filter: String,
    score: String,
}

impl Plugin for Labels {
    fn name(&self) -> &'static str {
        "Labels"
    }
}

impl Filter for Labels {
    fn filter(&self, _: &CycleState, _: &PodInfo, node: &NodeInfo) -> Status {
        if node.labels().contains_key(&self.filter) {
            Status::success()
        } else {
            Status::unresolvable("node(s) lacked the label")
        }
    }
}

impl Score for Labels {
    fn score(&self, _: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        Ok(node.labels().get(&self.score).and_then(|value| value.parse().ok()).unwrap_or(0))
    }
}

struct ByName;

impl Plugin for ByName {
    fn name(&self) -> &'static str {
        "ByName"
    }
}

impl QueueSort for ByName {
    fn less(&self, a: &QueuedPod, b: &QueuedPod) -> bool {
        a.pod.name < b.pod.name
    }
}

fn registry() -> Registry {
    Registry::kubernetes()
        .with("Labels", |args| {
            let text = |field: &str| {
                let wrong = || ArgsError { path: field.to_owned(), reason: "a label is wanted".to_owned() };
                args.json()[field].as_str().map(str::to_owned).ok_or_else(wrong)
            };
            Ok(Registration::new(Labels { filter: text("filter")?, score: text("score")? }).filter().score(1))
        })
        .with("ByName", |_| Ok(Registration::new(ByName).queue_sort()))
}

fn labels_config() -> Value {
    json!([{"name": "Labels", "args": {"filter": "in", "score": "rank"}}])
}

fn node(name: &str, change: Value) -> Node {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110", "example.com/gpu": "1"}},
    });
    json_patch(&mut node, change);
    serde_json::from_value(node).unwrap()
}

fn pod(name: &str, change: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
    });
    json_patch(&mut pod, change);
    serde_json::from_value(pod).unwrap()
}

fn json_patch(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                json_patch(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

/// Where a pod goes among these nodes.
fn placed(profile: Profile, nodes: &[Node], pod: Pod) -> Result<String, String> {
    let mut cluster = Simulator::new(profile, 1);
    for node in nodes {
        cluster.set_node(node.clone());
    }
    cluster.schedule(pod).map(|node| node.to_string()).map_err(|error| error.to_string())
}

#[test]
fn an_empty_configuration_is_kubernetes_defaults() {
    let config = load(json!({})).unwrap();
    assert_eq!((config.initial_backoff, config.max_backoff), (Duration::from_secs(1), Duration::from_secs(10)));
    assert_eq!(config.percentage_of_nodes_to_score, 0);
    let names: Vec<&str> = config.profiles.iter().map(Profile::scheduler_name).collect();
    assert_eq!(names, ["default-scheduler"]);
    assert_eq!(config.profiles[0].queue_sort().name(), "PrioritySort");
    let read = KubeSchedulerConfiguration::from_json(&file(json!({}))).unwrap();
    assert!(read.leader_election.leader_elect);
    assert_eq!(read.leader_election.lease_duration.as_secs(), 15);
    assert_eq!(read.leader_election.resource_name, "kube-scheduler");
    assert_eq!(read.unused_fields(), [] as [&str; 0]);
}

#[test]
fn every_field_is_taken() {
    let all = file(json!({
        "parallelism": 4,
        "leaderElection": {
            "leaderElect": false, "leaseDuration": "30s", "renewDeadline": "20s", "retryPeriod": "1m30s",
            "resourceLock": "leases", "resourceName": "mine", "resourceNamespace": "here",
        },
        "clientConnection": {
            "kubeconfig": "/etc/kubernetes/scheduler.conf", "acceptContentTypes": "application/json",
            "contentType": "application/json", "qps": 5000.5, "burst": 5000,
        },
        "enableProfiling": false,
        "enableContentionProfiling": false,
        "percentageOfNodesToScore": 60,
        "podInitialBackoffSeconds": 2,
        "podMaxBackoffSeconds": 20,
        "delayCacheUntilActive": true,
        "profiles": [
            {"schedulerName": "one", "percentageOfNodesToScore": 10, "plugins": {}, "pluginConfig": []},
            {"schedulerName": "two", "plugins": null},
        ],
        "extenders": [],
    }));
    let read = KubeSchedulerConfiguration::from_json(&all).unwrap();
    assert_eq!(read.leader_election.retry_period.as_secs(), 90);
    assert_eq!(read.client_connection.kubeconfig, "/etc/kubernetes/scheduler.conf");
    let unused = [
        "parallelism",
        "enableProfiling",
        "enableContentionProfiling",
        "delayCacheUntilActive",
        "clientConnection.acceptContentTypes",
        "clientConnection.contentType",
        "clientConnection.qps",
        "clientConnection.burst",
    ];
    assert_eq!(read.unused_fields(), unused);
    let config = SchedulerConfig::from_configuration(&read, &registry()).unwrap();
    assert_eq!((config.initial_backoff, config.max_backoff), (Duration::from_secs(2), Duration::from_secs(20)));
    assert_eq!(config.percentage_of_nodes_to_score, 60);
    assert_eq!(config.profiles.iter().map(Profile::scheduler_name).collect::<Vec<_>>(), ["one", "two"]);
    // What is written is read again.
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(KubeSchedulerConfiguration::from_json(&written).unwrap(), read);
}

#[test]
fn wrong_fields_are_told_by_their_paths_and_all_at_once() {
    let mut told = wrong(json!({
        "parallelism": 0,
        "leaderElection": {"leaseDuration": "5s", "renewDeadline": "5s", "retryPeriod": "-1s", "resourceLock": "endpoints"},
        "clientConnection": {"burst": -1},
        "percentageOfNodesToScore": 101,
        "podInitialBackoffSeconds": 0,
        "podMaxBackoffSeconds": -1,
        "healthzBindAddress": "0.0.0.0:10251",
        "profiles": [
            {"schedulerName": "one", "percentageOfNodesToScore": -1, "pluginConfigs": []},
            {"schedulerName": "one"},
            {},
        ],
        "extenders": [
            {"urlPrefix": "http://a", "prioritizeVerb": "score", "bindVerb": "bind"},
            {"urlPrefix": "http://b", "bindVerb": "bind", "managedResources": [
                {"name": "cpu"}, {"name": "example.com/gpu"}, {"name": "example.com/gpu"}, {"name": "a/b/c"},
            ]},
        ],
    }));
    let expected = [
        "healthzBindAddress: unknown field",
        "profiles[0].pluginConfigs: unknown field",
        "clientConnection.burst: Invalid value: -1: must be non-negative",
        "leaderElection.retryPeriod: Invalid value: \"-1s\": must be greater than zero",
        "leaderElection.leaseDuration: Invalid value: \"5s\": LeaseDuration must be greater than RenewDeadline",
        "leaderElection.resourceLock: Invalid value: \"endpoints\": resourceLock value must be \"leases\"",
        "parallelism: Invalid value: 0: should be an integer value greater than zero",
        "profiles[0].percentageOfNodesToScore: Invalid value: -1: not in valid range [0-100]",
        "profiles[1].schedulerName: Duplicate value: \"profiles[0].schedulerName\"",
        "profiles[2].schedulerName: Required value",
        "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]",
        "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0",
        "podMaxBackoffSeconds: Invalid value: -1: must be greater than or equal to PodInitialBackoffSeconds",
        "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
        "extenders[1].managedResources[0].name: Invalid value: \"cpu\": is an invalid extended resource name",
        "extenders[1].managedResources[2].name: Invalid value: \"example.com/gpu\": duplicate extender managed resource name",
        "extenders[1].managedResources[3].name: Invalid value: \"a/b/c\": name part must consist of at most 63 \
         alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName')",
        "extenders: Invalid value: \"found 2 extenders implementing bind\": only one extender can implement bind",
    ];
    if !cfg!(feature = "extender") {
        let without = "extenders: Forbidden: this program is built without the feature `extender`";
        assert_eq!(told.pop().as_deref(), Some(without));
    }
    assert_eq!(told, expected);
}

#[test]
fn other_kinds_and_values_of_wrong_types_are_refused() {
    let told = |value: Value| SchedulerConfig::from_json(&value, &registry()).err().unwrap().to_string();
    assert_eq!(
        told(json!({"apiVersion": "kubescheduler.config.k8s.io/v1beta3", "kind": "KubeSchedulerConfiguration"})),
        "no kind \"KubeSchedulerConfiguration\" is registered for version \"kubescheduler.config.k8s.io/v1beta3\""
    );
    assert_eq!(told(json!({})), "[apiVersion: Required value, kind: Required value]");
    assert!(told(json!([])).contains("invalid type: sequence"), "{}", told(json!([])));
    let types = [
        (json!({"parallelism": "4"}), "parallelism: invalid type: string \"4\", expected i32"),
        (json!({"profiles": {}}), "profiles: invalid type: map, expected a sequence"),
        (
            json!({"profiles": [{}, {"plugins": {"score": {"enabled": [{"name": 5}]}}}]}),
            "profiles[1].plugins.score.enabled[0].name: invalid type: integer `5`, expected a string",
        ),
        (
            json!({"leaderElection": {"renewDeadline": "6s", "retryPeriod": "5s"}}),
            "leaderElection.renewDeadline: Invalid value: \"6s\": renewDeadline must be greater than retryPeriod*JitterFactor",
        ),
        (
            json!({"leaderElection": {"leaseDuration": "15 seconds"}}),
            "leaderElection.leaseDuration: time: invalid duration \"15 seconds\"",
        ),
    ];
    for (fields, text) in types {
        assert_eq!(told(file(fields)), text);
    }
}

#[test]
fn plugins_that_are_not_known_or_have_no_part_are_refused() {
    let enabled = |point: &str, names: &[&str]| {
        let names: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"profiles": [{"plugins": {point: {"enabled": names}}}]})
    };
    assert_eq!(
        wrong(enabled("filter", &["NodeName", "Nobody"])),
        ["profiles[0].plugins.filter.enabled[1].name: Not found: \"Nobody\""]
    );
    assert_eq!(
        wrong(enabled("multiPoint", &["Nobody"])),
        ["profiles[0].plugins.multiPoint.enabled[0].name: Not found: \"Nobody\""]
    );
    assert_eq!(
        wrong(enabled("score", &["NodeName"])),
        ["profiles[0].plugins.score.enabled[0].name: Invalid value: \"NodeName\": the plugin has no part in this \
          extension point (Score)"]
    );
    assert_eq!(
        wrong(enabled("multiPoint", &["NodeName", "NodeName"])),
        ["profiles[0].plugins.multiPoint.enabled[0].name: Duplicate value: \"NodeName\""]
    );
    let removed = wrong(enabled("filter", &["EBSLimits"]));
    assert!(removed[0].contains("Invalid value: \"EBSLimits\": was invalid in version"), "{removed:?}");
    // The arguments of a plugin of the user's, and of none.
    assert_eq!(
        wrong(enabled("multiPoint", &["Labels"])),
        ["profiles[0].plugins.multiPoint.enabled[0].filter: a label is wanted"]
    );
    assert_eq!(
        wrong(json!({"profiles": [{
            "plugins": {"multiPoint": {"enabled": [{"name": "Labels"}]}},
            "pluginConfig": [{"name": "Labels", "args": {"filter": "a"}}, {"name": "Nobody"}, {"name": "NodeName", "args": {"a": 1}}],
        }]})),
        ["profiles[0].pluginConfig[0].args.score: a label is wanted",]
    );
    // Arguments for plugins that are not known, or that have none, are none of a scheduler's business.
    load(json!({"profiles": [{"pluginConfig": [{"name": "Nobody"}, {"name": "NodeName", "args": {"a": 1}}]}]}))
        .unwrap();
    let removed = wrong(json!({"profiles": [{"pluginConfig": [{"name": "EBSLimits"}]}]}));
    assert!(
        removed[0].starts_with("profiles[0].pluginConfig[0]: Invalid value: \"EBSLimits\": was invalid"),
        "{removed:?}"
    );
    // What is disabled need not be known: files are shared between versions.
    load(json!({"profiles": [{"plugins": {"multiPoint": {"disabled": [{"name": "Nobody"}]}}}]})).unwrap();
    let none = json!({"plugins": {"multiPoint": {"disabled": [{"name": "*"}]}}});
    assert_eq!(
        wrong(json!({"profiles": [none]})),
        [
            "profiles[0].plugins.bind: at least one bind plugin is needed for profile with scheduler name \"default-scheduler\"",
            "profiles[0].plugins.queueSort: one queue sort plugin required for profile with scheduler name \
         \"default-scheduler\", but got 0",
        ]
    );
}

#[test]
fn queues_are_sorted_by_one_plugin() {
    let sort = |name: &str| json!({"enabled": [{"name": name}], "disabled": [{"name": "*"}]});
    let one = profile(json!({"plugins": {"queueSort": sort("ByName")}}));
    assert_eq!(one.queue_sort().name(), "ByName");
    let both = json!({"enabled": [{"name": "ByName"}]});
    assert_eq!(
        wrong(json!({"profiles": [{"plugins": {"queueSort": both}}]})),
        ["profiles[0].plugins.queueSort: one queue sort plugin required for profile with scheduler name \
         \"default-scheduler\", but got 2"]
    );
    let told = wrong(json!({"profiles": [
        {"schedulerName": "a", "plugins": {"queueSort": sort("ByName")}},
        {"schedulerName": "b"},
    ]}));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("profiles[1].plugins.queueSort: Invalid value: "), "{told:?}");
    assert!(told[0].ends_with(": must be the same for all profiles"), "{told:?}");
}

#[test]
fn a_plugin_of_the_users_is_used_where_the_file_says() {
    let nodes = [
        node("out", json!({"metadata": {"labels": {"rank": "100"}}})),
        node("low", json!({"metadata": {"labels": {"in": "", "rank": "10"}}})),
        node("high", json!({"metadata": {"labels": {"in": "", "rank": "90"}}})),
    ];
    let with = |plugins: Value| profile(json!({"plugins": plugins, "pluginConfig": labels_config()}));
    let everywhere = with(json!({"multiPoint": {"enabled": [{"name": "Labels", "weight": 50}]}}));
    assert_eq!(placed(everywhere, &nodes, pod("p", json!({}))).unwrap(), "high");
    let scored = with(json!({"score": {"enabled": [{"name": "Labels", "weight": 50}]}}));
    assert_eq!(placed(scored, &nodes, pod("p", json!({}))).unwrap(), "out");
    let filtered = with(json!({
        "multiPoint": {"enabled": [{"name": "Labels", "weight": 50}]}, "score": {"disabled": [{"name": "Labels"}]},
    }));
    let busy = node("high", json!({"metadata": {"labels": {"in": ""}}, "status": {"allocatable": {"cpu": "1"}}}));
    let nodes = [nodes[0].clone(), nodes[1].clone(), busy];
    assert_eq!(placed(filtered, &nodes, pod("p", json!({}))).unwrap(), "low");
}

#[test]
fn the_order_of_an_extension_point_is_the_files() {
    // Two plugins refuse the node; the first one's reason is told.
    let cordoned = node("n", json!({"spec": {"unschedulable": true}}));
    let said = |plugins: Value| {
        let profile = profile(json!({"plugins": plugins, "pluginConfig": labels_config()}));
        placed(profile, std::slice::from_ref(&cordoned), pod("p", json!({}))).unwrap_err()
    };
    let behind = said(json!({"multiPoint": {"enabled": [{"name": "Labels"}]}}));
    assert!(behind.contains("1 node(s) were unschedulable"), "{behind}");
    let named = said(json!({"filter": {"enabled": [{"name": "Labels"}]}}));
    assert!(named.contains("1 node(s) were unschedulable"), "{named}");
    let first = said(json!({
        "multiPoint": {"enabled": [{"name": "Labels"}]}, "filter": {"enabled": [{"name": "Labels"}]},
    }));
    assert!(first.contains("1 node(s) lacked the label"), "{first}");
    let without = said(json!({
        "multiPoint": {"enabled": [{"name": "Labels"}]}, "filter": {"disabled": [{"name": "NodeUnschedulable"}]},
    }));
    assert!(without.contains("1 node(s) lacked the label"), "{without}");
}

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
