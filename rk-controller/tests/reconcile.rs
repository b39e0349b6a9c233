//! What the runtime promises to a reconciler, on a paused clock: the clock moves on only once nobody has anything to do.

mod cluster;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use cluster::Cluster;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use parking_lot::Mutex;
use rk_api::{Informers, Key};
use rk_controller::{Action, Context, Controller, Error, Reconcile};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::Instant};

/// One call: of which object, what it said (`None` if it was gone), and when it began.
#[derive(Debug, Clone)]
struct Call {
    name: String,
    value: Option<String>,
    at: Instant,
}

#[derive(Default)]
struct Seen {
    calls: Vec<Call>,
    running: BTreeSet<String>,
    /// Calls that began while another one of the same object ran.
    overlaps: usize,
    /// The most calls that ran at a time.
    most: usize,
}

/// How a call ends.
enum Outcome {
    Done,
    Again(Duration),
    Fails,
    Panics,
}

/// Notes its calls, holds each of them until the gate lets it go, and ends it as told.
struct Recorder<F> {
    seen: Arc<Mutex<Seen>>,
    gate: Arc<Semaphore>,
    /// The outcome of an object's call, told its name and how many calls it had.
    outcome: F,
}

impl<F: Fn(&str, usize) -> Outcome + Send + Sync + 'static> Recorder<F> {
    async fn call(&self, name: &str, value: Option<&str>) -> Result<Action, Error> {
        let count = {
            let mut seen = self.seen.lock();
            let call = Call { name: name.to_owned(), value: value.map(str::to_owned), at: Instant::now() };
            seen.calls.push(call);
            seen.overlaps += usize::from(!seen.running.insert(name.to_owned()));
            seen.most = seen.most.max(seen.running.len());
            seen.calls.iter().filter(|call| call.name == name).count()
        };
        let _turn = self.gate.acquire().await;
        self.seen.lock().running.remove(name);
        match (self.outcome)(name, count) {
            Outcome::Done => Ok(Action::await_change()),
            Outcome::Again(after) => Ok(Action::requeue(after)),
            Outcome::Fails => Err(Error::other("planned")),
            Outcome::Panics => panic!("planned"),
        }
    }
}

#[async_trait]
impl<F: Fn(&str, usize) -> Outcome + Send + Sync + 'static> Reconcile for Recorder<F> {
    type Object = ConfigMap;

    async fn reconcile(&self, object: Arc<ConfigMap>, _context: &Context) -> Result<Action, Error> {
        let value = object.data.iter().flatten().next().map(|(_, value)| value.as_str());
        self.call(object.metadata.name.as_deref().unwrap_or_default(), value).await
    }

    async fn gone(&self, key: &Key, _context: &Context) -> Result<Action, Error> {
        self.call(&key.1, None).await
    }
}

/// A controller at work, and what its reconciler saw.
struct Run {
    cluster: Cluster,
    seen: Arc<Mutex<Seen>>,
    gate: Arc<Semaphore>,
}

/// So many calls may run at a time once the gate is open.
const OPEN: usize = 100;

impl Run {
    /// Starts a controller of ConfigMaps, which it also reconciles when the Secret of the same name changes.
    fn start(cluster: Cluster, open: bool, outcome: impl Fn(&str, usize) -> Outcome + Send + Sync + 'static) -> Self {
        let gate = Arc::new(Semaphore::new(if open { OPEN } else { 0 }));
        let seen = Arc::<Mutex<Seen>>::default();
        let recorder = Recorder { seen: seen.clone(), gate: gate.clone(), outcome };
        let controller = Controller::new("recorder", recorder, &Informers::new(cluster.client.clone()));
        let controller = controller.watches::<Secret>(|secret| {
            vec![(
                secret.metadata.namespace.clone().unwrap_or_default(),
                secret.metadata.name.clone().unwrap_or_default(),
            )]
        });
        tokio::spawn(controller.run(cluster.shutdown.clone()));
        Self { cluster, seen, gate }
    }

    async fn until_calls(&self, name: &str, count: usize) -> Vec<Call> {
        let look = async || Some(self.calls(name)).filter(|calls| calls.len() >= count);
        self.cluster.look_until(look, || format!("{count} calls of {name}, not {:#?}", self.calls(name))).await
    }

    fn calls(&self, name: &str) -> Vec<Call> {
        self.seen.lock().calls.iter().filter(|call| call.name == name).cloned().collect()
    }

    /// Lets everything come that has to come.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    fn values(&self, name: &str) -> Vec<Option<String>> {
        self.calls(name).into_iter().map(|call| call.value).collect()
    }
}

fn object(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"value": value}})
}

fn said(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|value| Some((*value).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_there_at_the_start_is_reconciled_once_and_then_what_changes() {
    let cluster = Cluster::bare().await;
    let names: Vec<String> = (0..20).map(|i| format!("object-{i}")).collect();
    for name in &names {
        cluster.create::<ConfigMap>(object(name, "old")).await;
        cluster.create::<Secret>(json!({"metadata": {"name": name}})).await;
    }
    let run = Run::start(cluster, true, |_, _| Outcome::Done);
    run.settle().await;
    for name in &names {
        assert_eq!(run.values(name), said(&["old"]), "{name}");
    }
    run.cluster.patch::<ConfigMap>("object-3", json!({"data": {"value": "new"}})).await;
    run.settle().await;
    assert_eq!(run.values("object-3"), said(&["old", "new"]));
    // Another object that the controller watches for it.
    run.cluster.patch::<Secret>("object-3", json!({"metadata": {"labels": {"changed": "yes"}}})).await;
    run.settle().await;
    assert_eq!(run.values("object-3"), said(&["old", "new", "new"]));
    run.cluster.delete::<ConfigMap>("object-3").await;
    run.settle().await;
    assert_eq!(run.values("object-3").last(), Some(&None), "it is gone");
    assert_eq!(run.seen.lock().calls.len(), 20 + 3, "and nothing else was called");
}

#[tokio::test(start_paused = true)]
async fn one_object_has_one_call_at_a_time_and_what_changes_meanwhile_comes_again() {
    let cluster = Cluster::bare().await;
    for name in ["a", "b", "c"] {
        cluster.create::<ConfigMap>(object(name, "0")).await;
    }
    let run = Run::start(cluster, false, |_, _| Outcome::Done);
    for name in ["a", "b", "c"] {
        run.until_calls(name, 1).await;
    }
    for value in ["1", "2", "3"] {
        run.cluster.patch::<ConfigMap>("a", json!({"data": {"value": value}})).await;
        run.settle().await;
    }
    assert_eq!(run.values("a"), said(&["0"]), "nobody else calls while a call runs");
    run.gate.add_permits(OPEN);
    run.settle().await;
    assert_eq!(run.values("a"), said(&["0", "3"]), "three changes came as one call");
    assert_eq!((run.values("b"), run.values("c")), (said(&["0"]), said(&["0"])));
    let seen = run.seen.lock();
    assert_eq!((seen.overlaps, seen.most), (0, 3), "several objects are reconciled at a time, each by one call");
}

#[tokio::test(start_paused = true)]
async fn failures_and_panics_come_again_later_each_time_until_one_call_is_good() {
    let cluster = Cluster::bare().await;
    for name in ["bad", "good"] {
        cluster.create::<ConfigMap>(object(name, "0")).await;
    }
    let outcome = |name: &str, count: usize| match (name, count) {
        ("bad", 1 | 2 | 4 | 8) => Outcome::Fails,
        ("bad", 3 | 5) => Outcome::Panics,
        _ => Outcome::Done,
    };
    let run = Run::start(cluster, true, outcome);
    let calls = run.until_calls("bad", 6).await;
    let gaps: Vec<_> = calls.windows(2).map(|pair| (pair[1].at - pair[0].at).as_millis()).collect();
    assert_eq!(gaps, [5, 10, 20, 40, 80], "twice as long after each failure in a row");
    run.settle().await;
    assert_eq!(run.calls("bad").len(), 6, "the good call was the last");
    assert_eq!(run.calls("good").len(), 1, "the failures of one are not another's");

    // A good call ends the row: the next failure is a first one.
    run.cluster.patch::<ConfigMap>("bad", json!({"data": {"value": "1"}})).await;
    run.until_calls("bad", 7).await;
    run.cluster.patch::<ConfigMap>("bad", json!({"data": {"value": "2"}})).await;
    let calls = run.until_calls("bad", 9).await;
    assert_eq!((calls[8].at - calls[7].at).as_millis(), 5);
    assert_eq!(run.seen.lock().overlaps, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_comes_again_after_the_time_that_it_asks_for() {
    let cluster = Cluster::bare().await;
    cluster.create::<ConfigMap>(object("a", "0")).await;
    let again = |_: &str, count: usize| match count {
        1 => Outcome::Again(Duration::from_secs(30)),
        2 => Outcome::Again(Duration::from_secs(300)),
        _ => Outcome::Done,
    };
    let run = Run::start(cluster, true, again);
    let calls = run.until_calls("a", 2).await;
    assert_eq!((calls[1].at - calls[0].at).as_secs(), 30);
    // A change does not wait for that time.
    run.cluster.patch::<ConfigMap>("a", json!({"data": {"value": "1"}})).await;
    let calls = run.until_calls("a", 3).await;
    assert!((calls[2].at - calls[1].at).as_secs() < 5);
    assert_eq!(run.values("a").last(), Some(&Some("1".to_owned())));
}
