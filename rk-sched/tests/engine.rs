//! The engine where pods go, plugins say no, and evictions fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Pod};
use rk_sched::{
    Profile, Registration, SchedulerConfig,
    engine::{Decision, Engine},
    framework::{
        CycleState, Extender, ExtenderParts, Filter, Permit, PermitAnswer, Plugin, PreFilter, Reserve, Status,
    },
    model::{NodeInfo, PodInfo, Snapshot},
};
use serde_json::json;
use tokio::time::Instant;

fn node(name: &str, cpu: &str) -> Arc<Node> {
    let node =
        json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "9"}}});
    Arc::new(serde_json::from_value(node).unwrap())
}

fn pod(name: &str, cpu: &str, priority: i32) -> Arc<Pod> {
    let pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn on(pod: &Arc<Pod>, node: &str) -> Arc<Pod> {
    let mut pod = Pod::clone(pod);
    pod.spec.as_mut().unwrap().node_name = Some(node.to_owned());
    Arc::new(pod)
}

fn engine(profile: Profile, now: Instant) -> Engine {
    Engine::new(&SchedulerConfig { profiles: vec![profile], seed: Some(1), ..SchedulerConfig::default() }, now).unwrap()
}

/// Gives a thing to one pod at a time.
#[derive(Clone, Default)]
struct Holder(Arc<AtomicBool>);

impl Plugin for Holder {
    fn name(&self) -> &'static str {
        "Holder"
    }
}

impl Filter for Holder {
    fn filter(&self, _: &CycleState, _: &PodInfo, _: &NodeInfo) -> Status {
        if self.0.load(Ordering::SeqCst) { Status::unschedulable("taken") } else { Status::success() }
    }
}

impl Reserve for Holder {
    fn reserve(&self, _: &mut CycleState, _: &PodInfo, _: &str) -> Status {
        self.0.store(true, Ordering::SeqCst);
        Status::success()
    }

    fn unreserve(&self, _: &CycleState, _: &PodInfo, _: &str) {
        self.0.store(false, Ordering::SeqCst);
    }
}

#[test]
fn what_a_deleted_pod_held_is_offered_once_it_is_free() {
    let mut now = Instant::now();
    let holder = Registration::new(Holder::default()).filter().reserve();
    let mut engine = engine(Profile::kubernetes("default-scheduler").with(holder), now);
    engine.set_node(node("n", "8"), now);
    engine.set_pod(pod("a", "1", 0), now);
    let Some(Decision::Place(placement)) = engine.next(now) else { panic!("the node would do") };
    engine.set_pod(pod("b", "1", 0), now);
    assert!(matches!(engine.next(now), Some(Decision::Refused(_))), "a holds it");
    engine.remove_pod("a", now);
    now += Duration::from_secs(2);
    assert!(matches!(engine.next(now), Some(Decision::Refused(_))), "it still does: its binding has not ended");
    placement.unreserve();
    engine.bound("a", Status::unschedulable("the pod was deleted"), now);
    now += Duration::from_secs(5);
    let Some(Decision::Place(placement)) = engine.next(now) else { panic!("nobody holds it") };
    assert_eq!(&*placement.pod.name, "b");
}

/// Denies all, and counts them.
#[derive(Clone, Default)]
struct Denies(Arc<AtomicU32>);

impl Plugin for Denies {
    fn name(&self) -> &'static str {
        "Denies"
    }
}

impl Permit for Denies {
    fn permit(&self, _: &CycleState, _: &PodInfo, _: &str) -> PermitAnswer {
        self.0.fetch_add(1, Ordering::SeqCst);
        PermitAnswer::Deny(Status::unschedulable("no"))
    }
}

#[test]
fn pods_that_are_denied_do_not_wake_each_other() {
    let now = Instant::now();
    let denies = Denies::default();
    let profile = Profile::kubernetes("default-scheduler").with(Registration::new(denies.clone()).permit());
    let mut engine = engine(profile, now);
    engine.set_node(node("n", "8"), now);
    engine.set_pod(pod("a", "1", 0), now);
    engine.set_pod(pod("b", "1", 0), now);
    for _ in 0..10 {
        engine.next(now);
    }
    assert_eq!(denies.0.load(Ordering::SeqCst), 2);
}

#[test]
fn a_preemptor_waits_for_its_victims_and_looks_for_others_where_they_can_not_go() {
    let mut now = Instant::now();
    let mut engine = engine(Profile::kubernetes("default-scheduler"), now);
    let low = pod("low", "4", 0);
    for name in ["one", "two"] {
        engine.set_node(node(name, "4"), now);
    }
    engine.set_pod(on(&low, "one"), now);
    engine.set_pod(on(&pod("other", "4", 1), "two"), now);
    engine.set_pod(pod("high", "4", 9), now);
    let Some(Decision::Refused(refusal)) = engine.next(now) else { panic!("all is full") };
    let eviction = refusal.eviction.expect("somebody can go");
    assert_eq!((&*eviction.node, eviction.victims.len()), ("one", 1));

    // Another pod's end wakes it while its victim has not begun to go.
    engine.set_pod(on(&pod("gone", "0", 0), "two"), now);
    engine.remove_pod("gone", now);
    now += Duration::from_secs(2);
    let Some(Decision::Refused(refusal)) = engine.next(now) else { panic!("all is still full") };
    assert!(refusal.eviction.is_none(), "nobody else has to go");
    assert_eq!(refusal.nominated.as_deref(), Some("one"));

    engine.not_evicted("high", "low", now);
    now += Duration::from_secs(10);
    let Some(Decision::Refused(refusal)) = engine.next(now) else { panic!("it is tried again") };
    assert!(refusal.eviction.is_some());
    engine.remove_pod("low", now);
    now += Duration::from_secs(10);
    let Some(Decision::Place(placement)) = engine.next(now) else { panic!("there is room") };
    assert_eq!(&*placement.node, "one");
}

#[test]
fn a_promise_ends_where_the_node_refuses_the_pod_whoever_goes() {
    let mut now = Instant::now();
    let mut engine = engine(Profile::kubernetes("default-scheduler"), now);
    engine.set_node(node("n", "4"), now);
    engine.set_pod(on(&pod("low", "4", 0), "n"), now);
    engine.set_pod(pod("high", "4", 9), now);
    let Some(Decision::Refused(refusal)) = engine.next(now) else { panic!("all is full") };
    assert_eq!(refusal.nominated.as_deref(), Some("n"));

    let mut tainted = Node::clone(&node("n", "4"));
    tainted.spec = serde_json::from_value(json!({"taints": [{"key": "t", "effect": "NoSchedule"}]})).unwrap();
    engine.set_node(Arc::new(tainted), now);
    engine.set_pod(on(&pod("gone", "0", 0), "n"), now);
    engine.remove_pod("gone", now);
    now += Duration::from_secs(2);
    let Some(Decision::Refused(refusal)) = engine.next(now) else { panic!("it does not tolerate the taint") };
    assert_eq!(refusal.nominated, None);

    engine.remove_pod("low", now);
    let mut tolerant = Pod::clone(&pod("tolerant", "4", 5));
    tolerant.spec.as_mut().unwrap().tolerations = serde_json::from_value(json!([{"operator": "Exists"}])).unwrap();
    engine.set_pod(Arc::new(tolerant), now);
    let Some(Decision::Place(placement)) = engine.next(now) else { panic!("the room is nobody's") };
    assert_eq!(&*placement.pod.uid, "tolerant");
}

#[test]
fn a_promise_goes_with_the_word_of_the_api() {
    let now = Instant::now();
    let mut engine = engine(Profile::kubernetes("default-scheduler"), now);
    engine.set_node(node("n", "4"), now);
    let promised = |node: Option<&str>| {
        let mut pod = Pod::clone(&pod("promised", "8", 5));
        pod.status = node.map(|node| serde_json::from_value(json!({"nominatedNodeName": node})).unwrap());
        Arc::new(pod)
    };
    let fits = |engine: &mut Engine, name: &str| {
        engine.set_pod(pod(name, "1", 0), now);
        let fits = matches!(engine.next(now), Some(Decision::Place(_)));
        engine.remove_pod(name, now);
        fits
    };
    engine.set_pod(promised(None), now);
    assert!(matches!(engine.next(now), Some(Decision::Refused(_))), "it asks for too much");
    assert!(fits(&mut engine, "a"));
    engine.set_pod(promised(Some("n")), now);
    assert!(!fits(&mut engine, "b"), "the room is promised");
    engine.set_pod(promised(None), now);
    assert!(fits(&mut engine, "c"), "it is no more");
}

/// An extender that takes every node.
struct Agreeable;

#[async_trait::async_trait]
impl Extender for Agreeable {
    fn name(&self) -> &str {
        "Agreeable"
    }

    fn parts(&self) -> ExtenderParts {
        ExtenderParts { filter: true, ..ExtenderParts::default() }
    }
}

fn asked(decision: Option<Decision>) -> rk_sched::engine::Question {
    match decision {
        Some(Decision::Ask(question)) => *question,
        other => panic!("extenders are to be asked: {other:?}"),
    }
}

#[tokio::test]
async fn what_changes_while_extenders_are_asked_does_no_harm() {
    let now = Instant::now();
    let config = SchedulerConfig { seed: Some(1), extenders: vec![Arc::new(Agreeable)], ..SchedulerConfig::default() };
    let mut engine = Engine::new(&config, now).unwrap();
    engine.set_node(node("a", "4"), now);
    engine.set_node(node("b", "2"), now);
    engine.set_pod(pod("p", "3", 0), now);
    let question = asked(engine.next(now));
    // The node is gone, and another one has its place.
    engine.remove_node("a", now);
    engine.set_node(node("c", "2"), now);
    let answer = question.ask().await;
    let decision = engine.answer(question, answer, now);
    let Decision::Refused(refusal) = decision else { panic!("{decision:?}") };
    assert!(refusal.message().starts_with("0/2 nodes are available: 2 Insufficient cpu."), "{}", refusal.message());

    // With nodes that are there still it is asked anew.
    engine.set_node(node("d", "4"), now);
    let question = asked(engine.next(now + Duration::from_secs(10)));
    engine.remove_node("d", now);
    engine.set_node(node("e", "8"), now);
    let answer = question.ask().await;
    let question = asked(Some(engine.answer(question, answer, now)));
    let answer = question.ask().await;
    let decision = engine.answer(question, answer, now);
    let Decision::Place(placement) = decision else { panic!("{decision:?}") };
    assert_eq!(&*placement.node, "e");

    // The pod is gone.
    engine.set_pod(pod("q", "1", 0), now);
    let question = asked(engine.next(now));
    engine.remove_pod("q", now);
    let answer = question.ask().await;
    assert!(matches!(engine.answer(question, answer, now), Decision::Skip(_)));
    assert!(!engine.is_assumed("q"));
}

#[tokio::test]
async fn a_pod_that_changes_while_extenders_are_asked_comes_back_as_it_is_then() {
    let now = Instant::now();
    let config = SchedulerConfig { seed: Some(1), extenders: vec![Arc::new(Agreeable)], ..SchedulerConfig::default() };
    let mut engine = Engine::new(&config, now).unwrap();
    engine.set_node(node("a", "4"), now);
    engine.set_pod(pod("p", "3", 0), now);
    let question = asked(engine.next(now));
    engine.set_pod(pod("p", "1", 7), now);
    engine.set_node(node("a", "2"), now);
    // Asked anew of the old version, it fits nowhere; the new one is tried once its back-off is over.
    engine.set_node(
        {
            let mut node = Node::clone(&node("b", "1"));
            node.spec = None;
            Arc::new(node)
        },
        now,
    );
    let answer = question.ask().await;
    assert!(matches!(engine.answer(question, answer, now), Decision::Refused(_)));
    let question = asked(engine.next(now + Duration::from_secs(2)));
    assert_eq!(question.pod().priority, 7);
}

/// Skips its Filter for all pods, which would refuse them.
struct Idle(&'static str);

impl Plugin for Idle {
    fn name(&self) -> &'static str {
        self.0
    }
}

impl PreFilter for Idle {
    fn pre_filter(&self, _: &mut CycleState, _: &PodInfo, _: &Snapshot) -> Result<Option<Vec<Arc<str>>>, Status> {
        Err(Status::skip())
    }
}

impl Filter for Idle {
    fn filter(&self, _: &CycleState, _: &PodInfo, _: &NodeInfo) -> Status {
        Status::unschedulable("it was to be skipped")
    }
}

#[test]
fn a_profile_may_have_many_plugins() {
    let names = (0..200).map(|number| &*Box::leak(format!("Idle{number}").into_boxed_str()));
    let profile = names.fold(Profile::empty("default-scheduler"), |profile, name| {
        profile.with(Registration::new(Idle(name)).pre_filter().filter())
    });
    let now = Instant::now();
    let mut engine = engine(profile, now);
    engine.set_node(node("n", "4"), now);
    engine.set_pod(pod("p", "1", 0), now);
    assert!(matches!(engine.next(now), Some(Decision::Place(_))));
}

/// Fails on a node, once.
struct FailsOnce(AtomicU32);

impl Plugin for FailsOnce {
    fn name(&self) -> &'static str {
        "FailsOnce"
    }
}

impl Filter for FailsOnce {
    fn filter(&self, _: &CycleState, _: &PodInfo, _: &NodeInfo) -> Status {
        if self.0.fetch_add(1, Ordering::SeqCst) == 0 { Status::error("no luck") } else { Status::success() }
    }
}

#[test]
fn errors_and_refusals_have_back_offs_of_their_own() {
    let mut now = Instant::now();
    let failing = Registration::new(FailsOnce(AtomicU32::new(0))).filter();
    let mut engine = engine(Profile::kubernetes("default-scheduler").with(failing), now);
    engine.set_node(node("n", "1"), now);
    engine.set_pod(pod("p", "1", 0), now);
    let Some(Decision::Refused(refusal)) = engine.next(now) else { panic!("the plugin fails") };
    assert_eq!(
        (refusal.reason(), &*refusal.message()),
        ("SchedulerError", "running \"FailsOnce\" filter plugin: no luck")
    );
    // The first error: a second. Then it is refused for the first time: a second too, not two.
    engine.set_pod(on(&pod("other", "1", 9), "n"), now);
    now += Duration::from_secs(1);
    let Some(Decision::Refused(refusal)) = engine.next(now) else { panic!("there is no room") };
    assert_eq!(refusal.reason(), "Unschedulable");
    engine.remove_pod("other", now);
    assert_eq!(engine.wake_at(), Some(now + Duration::from_secs(1)));
}
