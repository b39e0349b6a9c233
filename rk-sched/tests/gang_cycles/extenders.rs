//! Extenders and the pods of groups: what they are asked, and what happens while they are.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use rk_sched::{
    SchedulerConfig,
    engine::{Decision, Engine, Question, Refusal},
    framework::{Extender, ExtenderError, ExtenderFilter, ExtenderParts, NodeVictims, VictimIds},
    model::PodInfo,
};
use tokio::time::Instant;

use super::{decided, engine, filler, gang_of, node_of, pod_of};

/// Leaves some nodes, and notes for which pods it was asked.
#[derive(Default)]
pub struct Picky {
    /// The nodes that it leaves.
    pub leaves: Mutex<BTreeSet<String>>,
    /// Whether it fails.
    fails: AtomicBool,
    asked: Mutex<Vec<String>>,
    /// The pods for which it was asked about victims.
    asked_victims: Mutex<Vec<String>>,
}

impl Picky {
    pub fn new(leaves: &[&str]) -> Arc<Self> {
        let leaves = leaves.iter().map(ToString::to_string).collect();
        Arc::new(Self { leaves: Mutex::new(leaves), ..Self::default() })
    }

    pub fn engine(self: &Arc<Self>, seed: u64, now: Instant) -> Engine {
        let extenders: Vec<Arc<dyn Extender>> = vec![self.clone()];
        engine(SchedulerConfig { extenders, seed: Some(seed), ..SchedulerConfig::default() }, now)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock())
    }
}

#[async_trait::async_trait]
impl Extender for Picky {
    fn name(&self) -> &str {
        "picky"
    }

    fn parts(&self) -> ExtenderParts {
        ExtenderParts { filter: true, prioritize: true, preempt: true, ..ExtenderParts::default() }
    }

    async fn filter(&self, pod: &PodInfo, nodes: &[Arc<Node>]) -> Result<ExtenderFilter, ExtenderError> {
        self.asked.lock().push(pod.name.to_string());
        if self.fails.load(Ordering::Relaxed) {
            return Err(ExtenderError("out of order".to_owned()));
        }
        let (leaves, names) = (self.leaves.lock(), nodes.iter().filter_map(|node| node.metadata.name.clone()));
        let (nodes, others): (Vec<String>, Vec<String>) = names.partition(|name| leaves.contains(name));
        let failed = others.into_iter().map(|name| (name, "picky".to_owned())).collect();
        Ok(ExtenderFilter { nodes, failed, ..ExtenderFilter::default() })
    }

    async fn prioritize(&self, _: &PodInfo, _: &[Arc<Node>]) -> Result<Vec<(String, i64)>, ExtenderError> {
        Ok(vec![("best".to_owned(), 10)])
    }

    async fn preempt(&self, pod: &PodInfo, proposals: &[NodeVictims]) -> Result<Vec<VictimIds>, ExtenderError> {
        self.asked_victims.lock().push(pod.name.to_string());
        let ids = |proposal: &NodeVictims| VictimIds {
            node: proposal.node.to_string(),
            uids: proposal.pods.iter().map(|pod| pod.uid.to_string()).collect(),
            violations: proposal.violations,
        };
        let leaves = self.leaves.lock();
        Ok(proposals.iter().map(ids).filter(|ids| leaves.contains(&ids.node)).collect())
    }
}

/// The pods of a gang with so much cpu each.
fn add_gang(engine: &mut Engine, name: &str, min_count: usize, pods: &[(&str, &str)], now: &mut Instant) {
    engine.set_group("default", name, Some(gang_of(name, min_count)), *now);
    for (pod, cpu) in pods {
        *now += Duration::from_millis(1);
        engine.set_pod(pod_of(pod, Some(name), cpu, 5), *now);
    }
}

/// The pods that got a node, with that.
fn placed(decisions: &[Decision]) -> Vec<(String, String)> {
    let place = |decision: &Decision| match decision {
        Decision::Place(placement) => Some((placement.pod.name.to_string(), placement.node.to_string())),
        _ => None,
    };
    decisions.iter().filter_map(place).collect()
}

fn refused(decisions: Vec<Decision>) -> Vec<Refusal> {
    let refusal = |decision| match decision {
        Decision::Refused(refusal) => Some(refusal),
        _ => None,
    };
    decisions.into_iter().filter_map(refusal).collect()
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(pod, node)| (pod.to_string(), node.to_string())).collect()
}

#[tokio::test]
async fn extenders_are_asked_about_each_pod_of_a_gang() {
    for (leaves, expected) in [(&["good", "best"][..], Some("best")), (&["good"], Some("good")), (&[], None)] {
        let (picky, mut now) = (Picky::new(leaves), Instant::now());
        let mut engine = picky.engine(1, now);
        for name in ["good", "best", "bad"] {
            engine.set_node(node_of(name, "8"), now);
        }
        engine.set_pod(filler("f", "bad", "1"), now);
        add_gang(&mut engine, "g", 2, &[("a", "1"), ("b", "1")], &mut now);
        let decisions = decided(&mut engine, now).await;
        assert_eq!(decisions.len(), 3);
        let groups = decisions.iter().filter_map(|decision| match decision {
            Decision::Group(outcome) => Some(outcome.scheduled),
            _ => None,
        });
        assert_eq!(groups.collect::<Vec<_>>(), [expected.is_some()]);
        match expected {
            Some(node) => {
                assert_eq!(placed(&decisions), owned(&[("a", node), ("b", node)]));
                assert_eq!(picky.asked(), ["a", "b"]);
            }
            None => {
                // The less important pod stays: the extender would not have it otherwise with that gone.
                for refusal in refused(decisions) {
                    let said = refusal.message();
                    assert!(refusal.eviction.is_none() && said.contains("picky"), "{said}");
                    assert!(said.contains("would not fit if all less important pods were gone"), "{said}");
                }
                assert_eq!(picky.asked(), ["a", "a"]);
            }
        }
    }
}

#[tokio::test]
async fn less_important_pods_go_for_a_gang_where_extenders_let_it_go() {
    let (picky, mut now) = (Picky::new(&["good"]), Instant::now());
    let mut engine = picky.engine(1, now);
    for name in ["good", "bad"] {
        engine.set_node(node_of(name, "2"), now);
        engine.set_pod(filler(&format!("on-{name}"), name, "2"), now);
    }
    add_gang(&mut engine, "g", 2, &[("a", "1"), ("b", "1")], &mut now);
    let refusals = refused(decided(&mut engine, now).await);
    assert_eq!(picky.asked(), ["a", "b"], "they are asked as if the less important pods were gone");
    assert!(refusals.iter().all(|refusal| refusal.nominated.as_deref() == Some("good")), "{refusals:?}");
    let victims = refusals.iter().flat_map(|refusal| &refusal.eviction).flat_map(|eviction| &eviction.victims);
    assert_eq!(victims.map(|victim| &*victim.name).collect::<Vec<_>>(), ["on-good"]);
    assert!(picky.asked_victims.lock().is_empty(), "extenders have no say on who goes for a group");
    // All are where they were.
    assert_eq!(engine.snapshot().node_of("on-good").map(AsRef::as_ref), Some("good"));
    assert_eq!(engine.snapshot().node_of("on-bad").map(AsRef::as_ref), Some("bad"));
    engine.remove_pod("on-good", now);
    now += Duration::from_secs(10);
    assert_eq!(placed(&decided(&mut engine, now).await), owned(&[("a", "good"), ("b", "good")]));
}

#[tokio::test]
async fn a_gang_is_tried_again_after_a_while_where_an_extender_fails() {
    let (picky, mut now) = (Picky::new(&["n"]), Instant::now());
    let mut engine = picky.engine(1, now);
    engine.set_node(node_of("n", "2"), now);
    engine.set_pod(filler("f", "n", "2"), now);
    picky.fails.store(true, Ordering::Relaxed);
    add_gang(&mut engine, "g", 2, &[("a", "1"), ("b", "1")], &mut now);
    let decisions = decided(&mut engine, now).await;
    let Some(Decision::Group(outcome)) = decisions.last() else { panic!("{decisions:?}") };
    assert!(outcome.failed && outcome.message.contains("out of order"), "{}", outcome.message);
    let refusals = refused(decisions);
    assert!(refusals.iter().all(|refusal| refusal.eviction.is_none()));
    assert_eq!(refusals.iter().map(Refusal::reason).collect::<Vec<_>>(), ["SchedulerError", "Unschedulable"]);
    assert!(engine.next(now).is_none());
    picky.fails.store(false, Ordering::Relaxed);
    now = engine.wake_at().unwrap();
    let refusals = refused(decided(&mut engine, now).await);
    assert_eq!(refusals.iter().filter(|refusal| refusal.eviction.is_some()).count(), 1, "{refusals:?}");
}

#[tokio::test]
async fn beyond_the_minimum_extenders_have_a_say_on_who_goes() {
    let (picky, mut now) = (Picky::new(&["x", "y"]), Instant::now());
    let mut engine = picky.engine(1, now);
    for (name, priority) in [("x", 1), ("y", 2)] {
        engine.set_node(node_of(name, "2"), now);
        let mut pod = (*filler(&format!("on-{name}"), name, "1500m")).clone();
        pod.spec.as_mut().unwrap().priority = Some(priority);
        engine.set_pod(Arc::new(pod), now);
    }
    add_gang(&mut engine, "g", 1, &[("a", "500m"), ("b", "1500m")], &mut now);
    let decision = engine.next(now).unwrap();
    let Decision::Ask(question) = decision else { panic!("{decision:?}") };
    let answer = question.ask().await;
    // From here on one of the nodes won't do any more.
    picky.leaves.lock().remove("x");
    let first = engine.answer(*question, answer, now);
    let Decision::Place(placement) = &first else { panic!("{first:?}") };
    assert_eq!(&*placement.pod.name, "a");
    let rest = decided(&mut engine, now).await;
    assert_eq!(*picky.asked_victims.lock(), ["b"]);
    let refusals = refused(rest);
    let victims = refusals.iter().flat_map(|refusal| &refusal.eviction).flat_map(|eviction| &eviction.victims);
    assert_eq!(victims.map(|victim| &*victim.name).collect::<Vec<_>>(), ["on-y"], "on x a less important one would go");
}

/// How a pod leaves the cycle while extenders are asked.
#[derive(Debug, Clone, Copy)]
enum Exit {
    Deleted,
    /// It has finalizers, or its grace period.
    Terminating,
    /// Somebody else has bound it.
    Bound,
}

fn leave(engine: &mut Engine, name: &str, exit: Exit, now: Instant) {
    let mut pod: Pod = (*pod_of(name, Some("g"), "1", 5)).clone();
    match exit {
        Exit::Deleted => return engine.remove_pod(name, now),
        Exit::Terminating => {
            pod.metadata.deletion_timestamp = serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap();
        }
        Exit::Bound => pod.spec.as_mut().unwrap().node_name = Some("m".to_owned()),
    }
    engine.set_pod(Arc::new(pod), now);
}

/// The question about a pod, with the answers to those before it given.
async fn question_about(engine: &mut Engine, name: &str, now: Instant) -> Question {
    let mut decision = engine.next(now).unwrap();
    loop {
        let Decision::Ask(question) = decision else { panic!("{decision:?}") };
        if &*question.pod().name == name {
            return *question;
        }
        let answer = question.ask().await;
        decision = engine.answer(*question, answer, now);
    }
}

/// All decisions, from the answer to a question on.
async fn answered(engine: &mut Engine, question: Question, now: Instant) -> Vec<Decision> {
    let answer = question.ask().await;
    let mut decision = engine.answer(question, answer, now);
    while let Decision::Ask(question) = decision {
        let answer = question.ask().await;
        decision = engine.answer(*question, answer, now);
    }
    let mut all = vec![decision];
    all.extend(decided(engine, now).await);
    all
}

#[tokio::test]
async fn pods_of_a_gang_that_go_while_extenders_are_asked_are_left_out() {
    for exit in [Exit::Deleted, Exit::Terminating, Exit::Bound] {
        // One that has its place, the one that is asked about, and one whose turn is still to come.
        for name in ["a", "b", "c"] {
            for min_count in [2, 3] {
                let case = format!("{exit:?} {name}, {min_count} needed");
                let (picky, mut now) = (Picky::new(&["n"]), Instant::now());
                let mut engine = picky.engine(1, now);
                engine.set_node(node_of("n", "8"), now);
                engine.set_node(node_of("m", "1"), now);
                add_gang(&mut engine, "g", min_count, &[("a", "1"), ("b", "1"), ("c", "1")], &mut now);
                let question = question_about(&mut engine, "b", now).await;
                leave(&mut engine, name, exit, now);
                let decisions = answered(&mut engine, question, now).await;
                let skipped = decisions.iter().filter(|decision| matches!(decision, Decision::Skip(_)));
                assert_eq!(
                    skipped.map(|decision| &*decision.pod().unwrap().name).collect::<Vec<_>>(),
                    [name],
                    "{case}"
                );
                // One that got a node elsewhere counts as one of the gang.
                let enough = min_count == 2 || matches!(exit, Exit::Bound);
                let others: Vec<(String, String)> = owned(&[("a", "n"), ("b", "n"), ("c", "n")])
                    .into_iter()
                    .filter(|(other, _)| other != name)
                    .collect();
                assert_eq!(placed(&decisions), if enough { others } else { Vec::new() }, "{case}");
                let node = engine.snapshot().node_of(name).map(ToString::to_string);
                let expected = matches!(exit, Exit::Bound).then(|| "m".to_owned());
                assert_eq!(node, expected, "{case}");
                // Nothing is kept of it.
                let room = engine.snapshot().node(engine.snapshot().find("n").unwrap());
                assert_eq!(room.pods.len(), if enough { 2 } else { 0 }, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn where_all_of_a_gang_go_nothing_is_said_of_it() {
    let (picky, mut now) = (Picky::new(&["n"]), Instant::now());
    let mut engine = picky.engine(1, now);
    engine.set_node(node_of("n", "8"), now);
    add_gang(&mut engine, "g", 2, &[("a", "1"), ("b", "1")], &mut now);
    let question = question_about(&mut engine, "b", now).await;
    for name in ["a", "b"] {
        engine.remove_pod(name, now);
    }
    let decisions = answered(&mut engine, question, now).await;
    assert!(decisions.iter().all(|decision| matches!(decision, Decision::Skip(_))), "{decisions:?}");
    assert_eq!((decisions.len(), engine.counts()), (2, (0, 0, 0)));
}

#[tokio::test]
async fn a_running_pod_of_the_gang_that_goes_meanwhile_does_not_count() {
    let (picky, mut now) = (Picky::new(&["n"]), Instant::now());
    let mut engine = picky.engine(1, now);
    engine.set_node(node_of("n", "8"), now);
    engine.set_group("default", "g", Some(gang_of("g", 2)), now);
    let mut running = (*pod_of("running", Some("g"), "1", 5)).clone();
    running.spec.as_mut().unwrap().node_name = Some("n".to_owned());
    engine.set_pod(Arc::new(running), now);
    add_gang(&mut engine, "g", 2, &[("a", "1")], &mut now);
    let question = question_about(&mut engine, "a", now).await;
    engine.remove_pod("running", now);
    let decisions = answered(&mut engine, question, now).await;
    assert!(placed(&decisions).is_empty(), "two are needed");
    let said: Vec<String> = refused(decisions).iter().map(Refusal::message).collect();
    assert!(said.len() == 1 && said[0].contains("minCount (2) cannot be satisfied"), "{said:?}");
}

#[tokio::test]
async fn a_pod_that_is_on_its_way_out_is_left_out_after_extenders_were_asked() {
    let (picky, now) = (Picky::new(&["n"]), Instant::now());
    let mut engine = picky.engine(1, now);
    engine.set_node(node_of("n", "8"), now);
    engine.set_pod(pod_of("p", None, "1", 0), now);
    let Some(Decision::Ask(question)) = engine.next(now) else { panic!("there is an extender") };
    let mut pod = (*pod_of("p", None, "1", 0)).clone();
    pod.metadata.deletion_timestamp = serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap();
    engine.set_pod(Arc::new(pod), now);
    let answer = question.ask().await;
    assert!(matches!(engine.answer(*question, answer, now), Decision::Skip(_)));
    assert_eq!(engine.counts(), (0, 0, 0));
}
