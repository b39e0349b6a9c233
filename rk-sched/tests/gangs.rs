//! Gangs against the real API server: all of their pods are bound, or none.

mod cluster;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cluster::{Cluster, bound, object, unscheduled};
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    scheduling::v1alpha2::PodGroup,
};
use rk_api::{
    Api, DeleteOptions, Patch, Resource,
    server::{Row, Strategy, Subresource},
};
use rk_sched::{
    Profile, SchedulerConfig,
    engine::{Cause, Decision, Engine, Explanations},
    framework::{Extender, ExtenderError, ExtenderFilter, ExtenderParts},
    model::PodInfo,
};
use serde_json::json;
use tokio::time::Instant;

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
#[derive(Default)]
struct Picky {
    leaves: &'static [&'static str],
    asked: parking_lot::Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl Extender for Picky {
    fn name(&self) -> &str {
        "picky"
    }

    fn parts(&self) -> ExtenderParts {
        ExtenderParts { filter: true, prioritize: true, ..ExtenderParts::default() }
    }

    async fn filter(&self, pod: &PodInfo, nodes: &[Arc<Node>]) -> Result<ExtenderFilter, ExtenderError> {
        self.asked.lock().push(pod.name.to_string());
        let names = nodes.iter().filter_map(|node| node.metadata.name.clone());
        let (nodes, others): (Vec<String>, Vec<String>) = names.partition(|name| self.leaves.contains(&name.as_str()));
        let failed = others.into_iter().map(|name| (name, "picky".to_owned())).collect();
        Ok(ExtenderFilter { nodes, failed, ..ExtenderFilter::default() })
    }

    async fn prioritize(&self, _: &PodInfo, _: &[Arc<Node>]) -> Result<Vec<(String, i64)>, ExtenderError> {
        Ok(vec![("best".to_owned(), 10)])
    }
}

fn node_of(name: &str, cpu: &str) -> Arc<Node> {
    let node = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "pods": "100"}}});
    Arc::new(serde_json::from_value(node).unwrap())
}

fn pod_of(name: &str, group: Option<&str>, cpu: &str, priority: i32) -> Arc<Pod> {
    let pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {
            "priority": priority, "schedulingGroup": group.map(|group| json!({"podGroupName": group})),
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}],
        },
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn gang_of(name: &str, min_count: usize) -> Arc<PodGroup> {
    let group = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"schedulingPolicy": {"gang": {"minCount": min_count}}},
    });
    Arc::new(serde_json::from_value(group).unwrap())
}

fn engine(config: SchedulerConfig, now: Instant) -> Engine {
    let profiles = vec![Profile::kubernetes("default-scheduler").with_gangs()];
    Engine::new(&SchedulerConfig { profiles, ..config }, now).unwrap()
}

/// All decisions, with what extenders say.
async fn decided(engine: &mut Engine, now: Instant) -> Vec<Decision> {
    let mut all = Vec::new();
    while let Some(mut decision) = engine.next(now) {
        while let Decision::Ask(question) = decision {
            let answer = question.ask().await;
            decision = engine.answer(*question, answer, now);
        }
        all.push(decision);
    }
    all
}

#[tokio::test]
async fn extenders_are_asked_about_each_pod_of_a_gang() {
    for (leaves, expected) in [(&["good", "best"][..], Some("best")), (&["good"], Some("good")), (&[], None)] {
        let picky = Arc::new(Picky { leaves, ..Picky::default() });
        let extenders: Vec<Arc<dyn Extender>> = vec![picky.clone()];
        let mut now = Instant::now();
        let mut engine = engine(SchedulerConfig { extenders, seed: Some(1), ..SchedulerConfig::default() }, now);
        for name in ["good", "best", "bad"] {
            engine.set_node(node_of(name, "8"), now);
        }
        // Whoever is less important stays: the extender might refuse the nodes afterwards.
        let filler = json!({"metadata": {"name": "f", "namespace": "default", "uid": "f"}, "spec": {"nodeName": "bad", "containers": []}});
        engine.set_pod(Arc::new(serde_json::from_value(filler).unwrap()), now);
        engine.set_group("default", "g", Some(gang_of("g", 2)), now);
        for name in ["a", "b"] {
            now += Duration::from_millis(1);
            engine.set_pod(pod_of(name, Some("g"), "1", 5), now);
        }
        let decisions = decided(&mut engine, now).await;
        let mut placed = 0;
        for decision in &decisions {
            match decision {
                Decision::Place(placement) => {
                    placed += 1;
                    assert_eq!(Some(&*placement.node), expected);
                }
                Decision::Refused(refusal) => {
                    assert!(refusal.eviction.is_none() && refusal.message().contains("picky"), "{}", refusal.message());
                }
                Decision::Group(outcome) => assert_eq!(outcome.scheduled, expected.is_some()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((decisions.len(), placed), (3, if expected.is_some() { 2 } else { 0 }));
        let asked = picky.asked.lock().clone();
        assert_eq!(asked, if expected.is_some() { vec!["a", "b"] } else { vec!["a"] });
    }
}

#[tokio::test]
async fn the_pods_of_a_gang_are_explained() {
    let explanations = Explanations::keep(10);
    let mut now = Instant::now();
    let config = SchedulerConfig { explanations: explanations.clone(), seed: Some(1), ..SchedulerConfig::default() };
    let mut engine = engine(config, now);
    engine.set_node(node_of("n", "2"), now);
    engine.set_group("default", "g", Some(gang_of("g", 3)), now);
    engine.set_pod(pod_of("a", Some("g"), "2", 0), now);
    let held = engine.explain("a").unwrap().to_string();
    assert!(held.contains("group g: 0 of 1 pods on nodes, 3 together or none"), "{held}");
    let why = "not tried: GangScheduling refused: waiting for minCount pods from a gang to appear in scheduling queue";
    assert!(held.contains(why), "{held}");
    for name in ["b", "c"] {
        now += Duration::from_millis(1);
        engine.set_pod(pod_of(name, Some("g"), "2", 0), now);
    }
    assert_eq!(decided(&mut engine, now).await.len(), 4);
    let of = |name: &str| explanations.of("default", name).unwrap();
    let given_up = "minCount (3) cannot be satisfied: 1 scheduled, 1 remaining; pod \"b\": 0/1 nodes are available: 1 Insufficient cpu.";
    for name in ["a", "c"] {
        assert!(of(name).decision.starts_with(given_up), "{}", of(name));
    }
    assert_eq!(of("a").nodes[0].refusal, None, "it had a node while it was tried");
    // The second one was tried with the first one on the node.
    assert_eq!(of("b").nodes[0].refusal.as_ref().unwrap().reasons, ["Insufficient cpu"]);
    assert!(of("b").decision.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{}", of("b").decision);
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
    let mut evicted = 0;
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut now = Instant::now();
        let mut engine = engine(SchedulerConfig { seed: Some(seed), ..SchedulerConfig::default() }, now);
        let (mut nodes, mut fillers) = (0, 0);
        // Who has to go, and when it will have gone.
        let mut leaving: Vec<(Instant, String)> = Vec::new();
        let mut minimum = BTreeMap::new();
        for gang in 0..random.random_range(1..4) {
            let (size, name) = (random.random_range(1..5_usize), format!("g{gang}"));
            let least = random.random_range(1..=size);
            engine.set_group("default", &name, Some(gang_of(&name, least)), now);
            minimum.insert(name.clone(), least);
            for at in 0..size {
                let cpu = random.random_range(1..3).to_string();
                engine.set_pod(pod_of(&format!("{name}-{at}"), Some(&name), &cpu, 1), now);
            }
        }
        let mut placed: BTreeMap<String, String> = BTreeMap::new();
        for step in 0..200 {
            now += Duration::from_millis(random.random_range(0..3000));
            if random.random_bool(0.05) && nodes < 4 || step == 100 {
                nodes += 1;
                let cpu = if step == 100 { 40 } else { random.random_range(1..5) };
                engine.set_node(node_of(&format!("n{nodes}"), &cpu.to_string()), now);
            }
            // Less important pods of no group.
            if step < 100 && random.random_bool(0.1) {
                fillers += 1;
                engine.set_pod(pod_of(&format!("f-{fillers}"), None, "1", 0), now);
            }
            leaving.retain(|(at, victim)| {
                if *at <= now {
                    placed.remove(victim);
                    engine.remove_pod(victim, now);
                }
                *at > now
            });
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
                        for victim in refusal.eviction.into_iter().flat_map(|eviction| eviction.victims) {
                            evicted += 1;
                            let wait = Duration::from_millis(random.random_range(0..4000));
                            leaving.push((now + wait, victim.name.to_string()));
                        }
                    }
                    Decision::Group(_) => {}
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
    assert!(evicted > 20, "{evicted} had to go");
}
