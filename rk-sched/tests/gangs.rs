//! Gangs against the real API server: all of their pods are bound, or none.

mod cluster;

use std::{sync::Arc, time::Duration};

use cluster::{Cluster, bound, object, unscheduled};
use k8s_openapi::api::scheduling::v1alpha2::PodGroup;
use rk_api::{
    Api, DeleteOptions, Patch, Resource,
    server::{Row, Strategy, Subresource},
};
use rk_sched::{Profile, SchedulerConfig};
use serde_json::json;

/// The rules of a kind that has none of its own.
struct Plain;

impl Strategy for Plain {}

/// PodGroups, which are an alpha API and not served by default.
fn pod_groups() -> Row {
    let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"].map(str::to_owned);
    let status = Subresource {
        name: "status".to_owned(),
        kind: "PodGroup".to_owned(),
        group: String::new(),
        version: String::new(),
        verbs: ["get", "patch", "update"].map(str::to_owned).into(),
    };
    Row {
        resource: Resource::of::<PodGroup>(),
        singular: "podgroup".to_owned(),
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: verbs.into(),
        subresources: vec![status],
        stored: true,
        columns: Vec::new().into(),
        selectable_fields: Vec::new(),
        strategy: Arc::new(Plain),
    }
}

struct Lab {
    cluster: Cluster,
    groups: Api<PodGroup>,
}

impl Lab {
    async fn start() -> Self {
        let profiles = vec![Profile::kubernetes("default-scheduler").with_gangs()];
        let config = SchedulerConfig { profiles, seed: Some(1), ..SchedulerConfig::default() };
        let cluster = Cluster::serving(vec![pod_groups()], config, |client| client).await;
        Self { groups: Api::namespaced(cluster.client.clone(), "default"), cluster }
    }

    async fn group(&self, name: &str, min_count: i32) {
        let group = json!({
            "metadata": {"name": name}, "spec": {"schedulingPolicy": {"gang": {"minCount": min_count}}},
        });
        self.groups.create(&object(group)).await.unwrap();
    }

    async fn pod(&self, name: &str, group: &str, cpu: &str) {
        let group = json!({"spec": {"schedulingGroup": {"podGroupName": group}}});
        self.cluster.pod(name, cpu, group).await;
    }

    async fn bound(&self, names: &[&str]) -> usize {
        let mut count = 0;
        for name in names {
            count += usize::from(bound(&self.cluster.pods.get(name).await.unwrap()).is_some());
        }
        count
    }

    /// Waits for the condition of a group: status, reason and message.
    async fn condition(&self, group: &str, wanted: impl Fn(&str, &str, &str) -> bool) {
        for _ in 0..2000 {
            let group = self.groups.get(group).await.unwrap();
            let conditions = group.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
            let mut scheduled = conditions.iter().filter(|condition| condition.type_ == "PodGroupScheduled");
            if scheduled.next().is_some_and(|known| wanted(&known.status, &known.reason, &known.message)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the condition of {group} is {:?}", self.groups.get(group).await.unwrap().status);
    }

    async fn says(&self, pod: &str, text: &str) {
        self.cluster.pod_until(pod, |pod| unscheduled(pod).is_some_and(|(_, said)| said.contains(text))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_gang_waits_for_its_group_and_its_pods() {
    let lab = Lab::start().await;
    lab.cluster.node("n", "8", json!({})).await;
    lab.pod("a", "g", "1").await;
    lab.pod("b", "g", "1").await;
    lab.cluster.pod("alone", "1", json!({})).await;
    lab.cluster.node_of("alone").await;
    assert_eq!(lab.bound(&["a", "b"]).await, 0, "there is no group");
    lab.group("g", 3).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(lab.bound(&["a", "b"]).await, 0, "there are two of three");
    lab.pod("c", "g", "1").await;
    for name in ["a", "b", "c"] {
        assert_eq!(lab.cluster.node_of(name).await, "n");
    }
    assert_eq!(lab.cluster.event("c", "Scheduled").await, "Successfully assigned default/c to n");
    // One that comes later joins those that are there.
    lab.pod("d", "g", "1").await;
    assert_eq!(lab.cluster.node_of("d").await, "n");
}

#[tokio::test(start_paused = true)]
async fn of_two_gangs_that_want_more_than_there_is_one_is_placed_whole_and_the_other_not_at_all() {
    let lab = Lab::start().await;
    for name in ["x", "y"] {
        lab.cluster.node(name, "2", json!({})).await;
    }
    // Either gang needs three of the four places. The pods come in turns.
    lab.group("g", 3).await;
    lab.group("h", 3).await;
    for at in 0..3 {
        for group in ["g", "h"] {
            lab.pod(&format!("{group}{at}"), group, "1").await;
        }
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (g, h) = (lab.bound(&["g0", "g1", "g2"]).await, lab.bound(&["h0", "h1", "h2"]).await);
    assert_eq!((g.max(h), g.min(h)), (3, 0), "{g} and {h}");
    let (winner, loser) = if g == 3 { ("g", "h") } else { ("h", "g") };
    let mut said = Vec::new();
    for at in 0..3 {
        let pod = lab.cluster.pod_until(&format!("{loser}{at}"), |pod| unscheduled(pod).is_some()).await;
        said.push(unscheduled(&pod).unwrap().1);
    }
    // One had a place and gave it back; the next had none, and the last was not tried any more.
    let given_up = "minCount (3) cannot be satisfied: 1 scheduled, 1 remaining; pod ";
    assert_eq!(said.iter().filter(|said| said.starts_with(given_up)).count(), 2, "{said:?}");
    // All are told what was missing.
    assert_eq!(
        said.iter().filter(|said| said.contains("0/2 nodes are available: 2 Insufficient cpu.")).count(),
        3,
        "{said:?}"
    );
    lab.condition(winner, |status, reason, message| (status, reason, message) == ("True", "Scheduled", "")).await;
    lab.condition(loser, |status, reason, message| {
        (status, reason) == ("False", "Unschedulable") && message.starts_with(given_up)
    })
    .await;
    // What the loser held while it was tried is free: a pod of no group gets it.
    lab.cluster.pod("single", "1", json!({})).await;
    lab.cluster.node_of("single").await;
    // The winner goes, and the loser comes.
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    for at in 0..3 {
        lab.cluster.pods.delete(&format!("{winner}{at}"), now.clone()).await.unwrap();
    }
    for at in 0..3 {
        lab.cluster.node_of(&format!("{loser}{at}")).await;
    }
    lab.condition(loser, |status, reason, _| (status, reason) == ("True", "Scheduled")).await;
}

#[tokio::test(start_paused = true)]
async fn less_important_pods_go_for_a_gang_and_a_group_that_goes_is_told_so() {
    let lab = Lab::start().await;
    for name in ["x", "y"] {
        lab.cluster.node(name, "2", json!({})).await;
    }
    let group = json!({
        "metadata": {"name": "v"},
        "spec": {"schedulingPolicy": {"gang": {"minCount": 2}}, "disruptionMode": "PodGroup"},
    });
    lab.groups.create(&object(group)).await.unwrap();
    for name in ["v0", "v1"] {
        lab.pod(name, "v", "2").await;
    }
    let nodes = [lab.cluster.node_of("v0").await, lab.cluster.node_of("v1").await];
    assert_ne!(nodes[0], nodes[1]);
    lab.group("g", 3).await;
    for name in ["g0", "g1", "g2"] {
        let spec = json!({"spec": {"schedulingGroup": {"podGroupName": "g"}, "priority": 9}});
        lab.cluster.pod(name, "1", spec).await;
    }
    // They take their leave, and are gone once their node says so.
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    for name in ["v0", "v1"] {
        lab.cluster.pod_until(name, |pod| pod.metadata.deletion_timestamp.is_some()).await;
    }
    lab.cluster.pods.delete("v0", now.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(lab.bound(&["g0", "g1", "g2"]).await, 0, "there is room for two of three");
    lab.cluster.pods.delete("v1", now).await.unwrap();
    for name in ["g0", "g1", "g2"] {
        lab.cluster.node_of(name).await;
    }
    let group = lab.groups.get("v").await.unwrap();
    let conditions = group.status.as_ref().and_then(|status| status.conditions.as_ref()).unwrap();
    let told: Vec<(&str, &str)> = conditions.iter().map(|c| (c.type_.as_str(), c.reason.as_str())).collect();
    assert!(told.contains(&("DisruptionTarget", "PreemptionByScheduler")), "{told:?}");
    assert!(told.contains(&("PodGroupScheduled", "Scheduled")), "{told:?}");
}

/// Leaves some nodes, and notes for which pods it was asked.
#[tokio::test(start_paused = true)]
async fn what_is_beyond_the_minimum_may_wait() {
    let lab = Lab::start().await;
    lab.cluster.node("n", "3", json!({})).await;
    lab.group("g", 2).await;
    for name in ["a", "b", "c"] {
        lab.pod(name, "g", if name == "b" { "2500m" } else { "1" }).await;
    }
    assert_eq!((lab.cluster.node_of("a").await, lab.cluster.node_of("c").await), ("n".to_owned(), "n".to_owned()));
    lab.says("b", "0/1 nodes are available: 1 Insufficient cpu.").await;
}

#[tokio::test(start_paused = true)]
async fn a_lower_minimum_lets_a_gang_go() {
    let lab = Lab::start().await;
    lab.cluster.node("n", "2", json!({})).await;
    lab.group("g", 3).await;
    for name in ["a", "b", "c"] {
        lab.pod(name, "g", "1").await;
    }
    lab.says("a", "minCount (3) cannot be satisfied: 2 scheduled, 0 remaining").await;
    let fewer = json!({"spec": {"schedulingPolicy": {"gang": {"minCount": 2}}}});
    lab.groups.patch("g", Patch::merge(fewer)).await.unwrap();
    lab.cluster.pod_until("a", |pod| bound(pod).is_some()).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(lab.bound(&["a", "b", "c"]).await, 2);
}

#[tokio::test(start_paused = true)]
async fn groups_of_the_basic_policy_are_scheduled_pod_by_pod() {
    let lab = Lab::start().await;
    lab.cluster.node("n", "1", json!({})).await;
    lab.pod("a", "g", "1").await;
    lab.pod("b", "g", "1").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(lab.bound(&["a", "b"]).await, 0, "the policy is not known before the group is there");
    let group = json!({"metadata": {"name": "g"}, "spec": {"schedulingPolicy": {"basic": {}}}});
    lab.groups.create(&object(group)).await.unwrap();
    lab.says("b", "Insufficient cpu").await;
    assert_eq!(lab.bound(&["a", "b"]).await, 1);
}
