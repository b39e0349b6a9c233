//! The queue against a naive model of it: every pod is in exactly one place, and is tried again in time.

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    Registration,
    framework::{Hint, Plugin},
};

const PODS: usize = 6;
const COLOURS: [&str; 2] = ["red", "blue"];
const WAITS: Waits = Waits {
    initial_backoff: Duration::from_secs(1),
    max_backoff: Duration::from_secs(10),
    unschedulable: Duration::from_secs(300),
};

/// Refused pods wait for the end of a pod of their colour.
struct Colour;

impl Plugin for Colour {
    fn name(&self) -> &'static str {
        "Colour"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        Hint::queue_if(
            matches!(event, ClusterEvent::AssignedPodDelete(gone) if gone.labels().get("colour") == pod.labels().get("colour")),
        )
    }
}

#[derive(Debug, Clone)]
enum Op {
    Add {
        pod: usize,
        priority: i32,
        gated: bool,
    },
    /// A new version, without gates.
    Update(usize),
    Remove(usize),
    Pop,
    /// The oldest of the pods in flight is refused by `Colour`, or fails.
    Refuse,
    Fail,
    /// A pod of a colour ends.
    Event(usize),
    Pass(u64),
    Flush,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..PODS, 0..3, prop::bool::weighted(0.15))
            .prop_map(|(pod, priority, gated)| Op::Add { pod, priority, gated }),
        1 => (0..PODS).prop_map(Op::Update),
        1 => (0..PODS).prop_map(Op::Remove),
        5 => Just(Op::Pop),
        3 => Just(Op::Refuse),
        2 => Just(Op::Fail),
        2 => (0..COLOURS.len()).prop_map(Op::Event),
        3 => (0..6_000_u64).prop_map(Op::Pass),
        1 => Just(Op::Pass(301_000)),
        2 => Just(Op::Flush),
    ]
}

fn uid(number: usize) -> String {
    format!("pod-{number}")
}

fn pod(number: usize, priority: i32, gated: bool) -> Arc<PodInfo> {
    let gates = if gated { json!([{"name": "gate"}]) } else { json!([]) };
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": uid(number), "uid": uid(number), "labels": {"colour": COLOURS[number % 2]}},
        "spec": {"containers": [], "priority": priority, "schedulingGates": gates},
    }))
    .expect("it is a pod");
    Arc::new(PodInfo::new(Arc::new(pod)))
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Active,
    Backoff {
        until: Instant,
        failed: bool,
    },
    Unschedulable,
    /// Whether an event came that it would have waited for.
    InFlight {
        missed: bool,
    },
}

#[derive(Debug, Clone)]
struct Known {
    number: usize,
    priority: i32,
    gated: bool,
    attempts: u32,
    refusals: u32,
    failures: u32,
    since: Instant,
    /// The last that was put to its place comes last.
    order: u64,
    at: At,
}

struct Model {
    pods: Vec<Known>,
    orders: u64,
}

impl Model {
    fn find(&mut self, number: usize) -> Option<&mut Known> {
        self.pods.iter_mut().find(|pod| pod.number == number)
    }

    /// Puts pods to places, in the order of their numbers in the list.
    fn put(&mut self, number: usize, at: At) {
        self.orders += 1;
        let order = self.orders;
        if let Some(pod) = self.find(number) {
            (pod.at, pod.order) = (at, order);
        }
    }

    fn activate(&mut self, number: usize, now: Instant) {
        let Some(pod) = self.find(number) else { return };
        let at = if pod.gated { At::Unschedulable } else { At::Active };
        if pod.gated {
            pod.since = now;
        }
        self.put(number, at);
    }

    fn requeue(&mut self, number: usize, now: Instant) {
        let Some(pod) = self.find(number) else { return };
        let until = pod.since + pod.backoff();
        if until > now { self.put(number, At::Backoff { until, failed: false }) } else { self.activate(number, now) }
    }

    /// Those at a place, by a key and then in the order in which they came there.
    fn sorted<K: Ord>(&self, at: impl Fn(&Known) -> Option<K>) -> Vec<usize> {
        let mut found: Vec<_> = self.pods.iter().filter_map(|pod| Some((at(pod)?, pod.order, pod.number))).collect();
        found.sort();
        found.into_iter().map(|(_, _, number)| number).collect()
    }

    fn pop(&mut self, now: Instant) -> Option<usize> {
        let due = self.sorted(|pod| match pod.at {
            At::Backoff { until, .. } if until <= now => Some(until),
            _ => None,
        });
        due.into_iter().for_each(|number| self.activate(number, now));
        let number = loop {
            let active = self.sorted(|pod| (pod.at == At::Active).then_some((-pod.priority, pod.since)));
            if let Some(number) = active.first() {
                break *number;
            }
            let idle = self.sorted(|pod| match pod.at {
                At::Backoff { until, failed: false } => Some(until),
                _ => None,
            });
            self.activate(*idle.first()?, now);
        };
        self.put(number, At::InFlight { missed: false });
        let pod = self.find(number)?;
        pod.attempts += 1;
        Some(number)
    }

    /// The pod that is in flight for the longest time.
    fn oldest(&self) -> Option<usize> {
        self.sorted(|pod| matches!(pod.at, At::InFlight { .. }).then_some(())).first().copied()
    }

    fn event(&mut self, colour: usize, now: Instant) {
        let of = |pod: &Known| pod.number % 2 == colour;
        for pod in self.pods.iter_mut().filter(|pod| of(pod)) {
            if let At::InFlight { missed } = &mut pod.at {
                *missed = true;
            }
        }
        let waiting = self.sorted(|pod| (pod.at == At::Unschedulable && !pod.gated && of(pod)).then_some(()));
        waiting.into_iter().for_each(|number| self.requeue(number, now));
    }

    fn counts(&self) -> (usize, usize, usize) {
        let count = |of: fn(&At) -> bool| self.pods.iter().filter(|pod| of(&pod.at)).count();
        (
            count(|at| matches!(at, At::Active)),
            count(|at| matches!(at, At::Backoff { .. })),
            count(|at| matches!(at, At::Unschedulable)),
        )
    }
}

impl Known {
    fn backoff(&self) -> Duration {
        let count = if self.failures > 0 { self.failures } else { self.refusals };
        let doubled = (1..count).fold(WAITS.initial_backoff, |wait, _| (wait * 2).min(WAITS.max_backoff));
        if count == 0 { Duration::ZERO } else { doubled }
    }
}

struct Run {
    queue: Queue,
    model: Model,
    flying: Vec<QueuedPod>,
    now: Instant,
}

impl Run {
    fn new() -> Self {
        let profile = Profile::kubernetes("default-scheduler").with(Registration::new(Colour));
        let sort = Arc::clone(profile.queue_sort());
        let profiles = HashMap::from([("default-scheduler".to_owned(), Arc::new(profile))]);
        Self {
            queue: Queue::new(Arc::new(profiles), sort, WAITS),
            model: Model { pods: Vec::new(), orders: 0 },
            flying: Vec::new(),
            now: Instant::now(),
        }
    }

    fn land(&mut self) -> Option<(usize, QueuedPod)> {
        let number = self.model.oldest()?;
        let at = self.flying.iter().position(|flying| *flying.pod.uid == *uid(number))?;
        Some((number, self.flying.remove(at)))
    }

    /// Makes the operation in both; what pop answers differs if it is an error.
    fn apply(&mut self, op: &Op) -> Result<(), TestCaseError> {
        let now = self.now;
        match *op {
            Op::Add { pod: number, priority, gated } => {
                self.queue.add(pod(number, priority, gated), &Snapshot::default(), now);
                if self.model.find(number).is_none() {
                    let (order, at) = (0, At::Active);
                    let (attempts, refusals, failures) = (0, 0, 0);
                    let known = Known { number, priority, gated, attempts, refusals, failures, since: now, order, at };
                    self.model.pods.push(known);
                    self.model.activate(number, now);
                }
            }
            Op::Update(number) => {
                let Some(known) = self.model.find(number) else { return Ok(()) };
                if matches!(known.at, At::InFlight { .. }) {
                    return Ok(());
                }
                let was_gated = std::mem::replace(&mut known.gated, false);
                let (priority, place) = (known.priority, known.at);
                self.queue.update(pod(number, priority, false), &Snapshot::default(), now);
                match place {
                    At::Active => self.model.put(number, At::Active),
                    At::Unschedulable if was_gated => self.model.requeue(number, now),
                    _ => {}
                }
            }
            Op::Remove(number) => {
                self.queue.remove(&uid(number));
                self.flying.retain(|flying| *flying.pod.uid != *uid(number));
                self.model.pods.retain(|pod| pod.number != number);
            }
            Op::Pop => {
                let popped = self.queue.pop(&Snapshot::default(), now);
                let expected = self.model.pop(now);
                prop_assert_eq!(popped.as_ref().map(|pod| pod.pod.uid.to_string()), expected.map(uid));
                if let Some(popped) = popped {
                    let known = expected.and_then(|number| self.model.find(number).cloned());
                    prop_assert_eq!(Some(popped.attempts), known.as_ref().map(|known| known.attempts));
                    prop_assert!(known.is_some_and(|known| !known.gated), "a gated pod is tried");
                    self.flying.push(popped);
                }
            }
            Op::Refuse => {
                let Some((number, mut landed)) = self.land() else { return Ok(()) };
                landed.plugins = BTreeSet::from(["Colour"]);
                self.queue.refused(landed, &Snapshot::default(), now);
                let missed = self.model.find(number).is_some_and(|pod| pod.at == At::InFlight { missed: true });
                if let Some(pod) = self.model.find(number) {
                    pod.since = now;
                    (pod.refusals, pod.failures) = (pod.refusals + 1, 0);
                }
                if missed { self.model.requeue(number, now) } else { self.model.put(number, At::Unschedulable) }
            }
            Op::Fail => {
                let Some((number, landed)) = self.land() else { return Ok(()) };
                self.queue.failed(landed, now);
                let Some(pod) = self.model.find(number) else { return Ok(()) };
                pod.since = now;
                pod.failures += 1;
                let until = now + pod.backoff();
                self.model.put(number, At::Backoff { until, failed: true });
            }
            Op::Event(colour) => {
                // An odd or even number above all others: a pod of that colour that is not in the queue.
                let gone = pod(PODS * 2 + colour, 0, false);
                self.queue.on_event(&ClusterEvent::AssignedPodDelete(gone), &Snapshot::default(), now);
                self.model.event(colour, now);
            }
            Op::Pass(milliseconds) => self.now += Duration::from_millis(milliseconds),
            Op::Flush => {
                self.queue.flush_unschedulable(&Snapshot::default(), now);
                let stale = self.model.sorted(|pod| {
                    (pod.at == At::Unschedulable && pod.since + WAITS.unschedulable <= now).then_some(())
                });
                stale.into_iter().for_each(|number| self.model.requeue(number, now));
            }
        }
        self.check()
    }

    /// Every pod is in one place, the right one.
    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.queue.counts(), self.model.counts());
        prop_assert_eq!(self.queue.places.len(), self.model.pods.len());
        for known in &self.model.pods {
            let (uid, place) = (uid(known.number), self.queue.places.get(uid(known.number).as_str()));
            let right = match (known.at, place) {
                (At::Active, Some(Place::Active)) => self.queue.active.get(&uid).is_some(),
                (At::Backoff { until, failed }, Some(Place::Backoff(key))) => {
                    key.until == until && self.queue.backoff.get(key).is_some_and(|waiting| waiting.failed == failed)
                }
                (At::Unschedulable, Some(Place::Unschedulable(number))) => {
                    self.queue.unschedulable.get(number).is_some_and(|waiting| *waiting.pod.uid == *uid)
                }
                (At::InFlight { .. }, Some(Place::InFlight(..))) => {
                    self.flying.iter().any(|flying| *flying.pod.uid == *uid)
                }
                _ => false,
            };
            prop_assert!(right, "{known:?}");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_pod_is_lost_and_each_is_where_it_should_be(ops in prop::collection::vec(op(), 1..120)) {
        let mut run = Run::new();
        for op in &ops {
            run.apply(op)?;
        }
        // Each pod that is not gated is tried within the longest wait, one round of flushing, and the longest back-off.
        let end = run.now;
        for landed in std::mem::take(&mut run.flying) {
            run.queue.failed(landed, run.now);
        }
        let waiting: BTreeSet<usize> = run.model.pods.iter().filter(|pod| !pod.gated).map(|pod| pod.number).collect();
        let mut tried = BTreeSet::new();
        while run.now <= end + WAITS.unschedulable + WAITS.max_backoff {
            run.queue.flush_unschedulable(&Snapshot::default(), run.now);
            while let Some(popped) = run.queue.pop(&Snapshot::default(), run.now) {
                tried.extend((0..PODS).filter(|number| *popped.pod.uid == *uid(*number)));
                run.queue.failed(popped, run.now);
            }
            run.now += Duration::from_secs(1);
        }
        prop_assert_eq!(tried, waiting);
    }
}
