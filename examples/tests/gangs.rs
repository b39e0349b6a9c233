//! Gangs in a whole cluster: PodGroups that are served because they were asked for, and a scheduler that places their pods all or none.
#![allow(missing_docs)]

mod common;

use common::MiniCluster;

/// A PodGroup of three, and three pods of it that ask for so much CPU each.
fn gang(name: &str, cpu: &str) -> String {
    let mut all = format!(
        "apiVersion: scheduling.k8s.io/v1alpha2\nkind: PodGroup\nmetadata: {{name: {name}}}\n\
         spec: {{schedulingPolicy: {{gang: {{minCount: 3}}}}}}\n"
    );
    for i in 0..3 {
        all += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}-{i}, labels: {{gang: {name}}}}}\nspec:\n  \
             schedulingGroup: {{podGroupName: {name}}}\n  containers:\n  - {{name: c, image: i, command: [sleep, infinity], \
             resources: {{requests: {{cpu: \"{cpu}\"}}}}}}\n"
        );
    }
    all
}

fn nodes_of(cluster: &MiniCluster, name: &str) -> String {
    let path = "jsonpath={range .items[*]}{.spec.nodeName}{\"\\n\"}{end}";
    cluster.k(&["get", "pods", "-l", &format!("gang={name}"), "-o", path])
}

#[test]
fn a_gang_is_placed_as_a_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let on = ["--runtime-config", "scheduling.k8s.io/v1alpha2=true", "--agents", "1"];
    let cluster = MiniCluster::start(folder.path(), &on);
    assert!(cluster.k(&["api-resources", "--api-group=scheduling.k8s.io"]).contains("podgroups"));
    // Each of its pods would fit alone, but a node has room for no two.
    let cpu = cluster.k(&["get", "nodes", "-o", "jsonpath={.items[0].status.allocatable.cpu}"]);
    let cpu: f64 = cpu.strip_suffix('m').map_or_else(|| cpu.parse().unwrap(), |m| m.parse::<f64>().unwrap() / 1000.0);
    let count = cluster.k(&["get", "nodes", "-o", "name"]).lines().count();
    assert_eq!(count, 2, "too few nodes for three such pods");
    cluster.k_in(&["apply", "-f", "-"], &gang("large", &format!("{}m", (cpu * 600.0) as u64)));
    cluster.k_in(&["apply", "-f", "-"], &gang("small", "10m"));
    cluster.until(&["get", "pods", "-l", "gang=small", "-o", "jsonpath={.items[*].spec.nodeName}"], |nodes| {
        nodes.split_whitespace().count() == 3
    });
    // Each has been told why it waits, and none has a node.
    let reasons = "jsonpath={.items[*].status.conditions[?(@.type==\"PodScheduled\")].reason}";
    cluster.until(&["get", "pods", "-l", "gang=large", "-o", reasons], |reasons| {
        reasons.split_whitespace().filter(|reason| *reason == "Unschedulable").count() == 3
    });
    assert_eq!(nodes_of(&cluster, "large").trim(), "");
    cluster.k(&["delete", "podgroup", "small", "large"]);
    cluster.k(&["delete", "pods", "--all", "--grace-period=1"]);
}
