//! The fields of the file, and its plugin sets.

use std::time::Duration;

use rk_sched::{Profile, SchedulerConfig, config::KubeSchedulerConfiguration};
use serde_json::{Value, json};

use super::{file, labels_config, load, node, placed, pod, profile, registry, wrong};

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
