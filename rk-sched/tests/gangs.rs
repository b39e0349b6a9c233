//! Gangs against the real API server: all of their pods are bound, or none.

mod cluster;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cluster::{Cluster, bound, object, unscheduled};
use k8s_openapi::api::scheduling::v1alpha2::PodGroup;
use rk_api::{
    Api, DeleteOptions, Patch, Resource,
    server::{Row, Strategy},
};
use rk_sched::{
    Profile, SchedulerConfig,
    engine::{Cause, Decision, Engine},
};
use serde_json::{Value, json};
use tokio::time::Instant;

/// The rules of a kind that has none of its own.
struct Plain;

impl Strategy for Plain {}

/// PodGroups, which are an alpha API and not served by default.
fn pod_groups() -> Row {
    let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"].map(str::to_owned);
    Row {
        resource: Resource::of::<PodGroup>(),
        singular: "podgroup".to_owned(),
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: verbs.into(),
        subresources: Vec::new(),
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
    let given_up = "minCount (3) cannot be satisfied: 1 scheduled, 1 remaining";
    assert_eq!(said.iter().filter(|said| *said == given_up).count(), 2, "{said:?}");
    assert_eq!(said.iter().filter(|said| said.contains("2 Insufficient cpu")).count(), 1, "{said:?}");
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
}

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

/// Random gangs on an engine of its own: after every decision each gang has none of its pods on nodes, or as many as it
/// needs; nobody is on a node twice; and once room is made for all, all are placed.
#[test]
fn gangs_are_placed_whole_whatever_happens() {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let profiles = vec![Profile::kubernetes("default-scheduler").with_gangs()];
        let mut now = Instant::now();
        let mut engine =
            Engine::new(&SchedulerConfig { profiles, seed: Some(seed), ..SchedulerConfig::default() }, now).unwrap();
        let node = |name: &str, cpu: u32| -> Value {
            json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu.to_string(), "pods": "100"}}})
        };
        let mut nodes = 0;
        let mut minimum = BTreeMap::new();
        for gang in 0..random.random_range(1..4) {
            let (size, name) = (random.random_range(1..5_usize), format!("g{gang}"));
            let least = random.random_range(1..=size);
            let group = json!({
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"schedulingPolicy": {"gang": {"minCount": least}}},
            });
            engine.set_group("default", &name, Some(Arc::new(serde_json::from_value(group).unwrap())), now);
            minimum.insert(name.clone(), least);
            for at in 0..size {
                let pod = json!({
                    "metadata": {"name": format!("{name}-{at}"), "namespace": "default", "uid": format!("{name}-{at}")},
                    "spec": {
                        "schedulingGroup": {"podGroupName": name},
                        "containers": [{"name": "c", "resources": {"requests": {"cpu": random.random_range(1..3).to_string()}}}],
                    },
                });
                engine.set_pod(Arc::new(serde_json::from_value(pod).unwrap()), now);
            }
        }
        let mut placed: BTreeMap<String, String> = BTreeMap::new();
        for step in 0..200 {
            now += Duration::from_millis(random.random_range(0..3000));
            if random.random_bool(0.05) && nodes < 4 || step == 100 {
                nodes += 1;
                let cpu = if step == 100 { 40 } else { random.random_range(1..5) };
                let made = serde_json::from_value(node(&format!("n{nodes}"), cpu)).unwrap();
                engine.set_node(Arc::new(made), now);
            }
            while let Some(decision) = engine.next(now) {
                match decision {
                    Decision::Place(placement) => {
                        let name = placement.pod.name.to_string();
                        assert_eq!(
                            placed.insert(name.clone(), placement.node.to_string()),
                            None,
                            "seed {seed}: {name}"
                        );
                        let mut pod = (*placement.pod.pod).clone();
                        pod.spec.as_mut().unwrap().node_name = Some(placement.node.to_string());
                        assert!(
                            engine.bound(&placement.pod.uid, rk_sched::framework::Status::success(), now).is_none()
                        );
                        engine.set_pod(Arc::new(pod), now);
                    }
                    Decision::Refused(refusal) => {
                        assert!(!matches!(refusal.cause, Cause::Failed(_)), "seed {seed}: {}", refusal.message());
                    }
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
            // All decisions on a gang are out.
            for (name, least) in &minimum {
                let on_nodes = placed.keys().filter(|pod| pod.starts_with(&format!("{name}-"))).count();
                assert!(on_nodes == 0 || on_nodes >= *least, "seed {seed}, {name}: {on_nodes} of {least}");
            }
        }
        assert!(
            minimum.keys().all(|name| placed.keys().any(|pod| pod.starts_with(&format!("{name}-")))),
            "seed {seed}"
        );
        assert_eq!(engine.counts(), (0, 0, 0), "seed {seed}: all are placed");
    }
}
