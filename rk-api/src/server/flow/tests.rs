use serde_json::{Value, json};

use super::{level::Queuing, *};
use crate::server::{UserInfo, fixture::Objects};

fn asked(user: &str, groups: &[&str], verb: &'static str, what: &'static str, namespace: &str) -> Attributes {
    let user = Arc::new(UserInfo::new(user, groups.iter().copied()));
    if what.starts_with('/') {
        return Attributes { user, verb: verb.into(), path: what.into(), ..Attributes::default() };
    }
    Attributes { user, verb: verb.into(), resource: what.into(), namespace: namespace.into(), ..Attributes::default() }
}

fn level(name: &str, shares: usize, queues: usize) -> (&'static str, Value) {
    let response = if queues == 0 {
        json!({"type": "Reject"})
    } else {
        json!({"type": "Queue", "queuing": {"queues": queues, "handSize": 1, "queueLengthLimit": 2}})
    };
    let limited = json!({"nominalConcurrencyShares": shares, "limitResponse": response});
    let value = json!({"metadata": {"name": name, "uid": format!("level-{name}")},
        "spec": {"type": "Limited", "limited": limited}});
    ("prioritylevelconfigurations", value)
}

fn schema(name: &str, precedence: i32, level: &str, subject: Value) -> (&'static str, Value) {
    let rules = json!([{"subjects": [subject],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz*"]}]}]);
    let value = json!({"metadata": {"name": name, "uid": format!("schema-{name}")}, "spec": {
        "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level},
        "distinguisherMethod": {"type": "ByUser"}, "rules": rules}});
    ("flowschemas", value)
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

#[tokio::test(start_paused = true)]
async fn too_many_in_flight_are_told_to_try_again() {
    let gate = Gate::new(FlowControl::MaxInFlight { reading: 1, writing: 1 });
    let none = Objects::new([]);
    let enter = async |asked: Attributes| gate.enter(&asked, &*none).await;
    let read = enter(asked("a", &[], "get", "pods", "x")).await.unwrap();
    let refused = enter(asked("b", &[], "list", "pods", "x")).await.err().unwrap();
    let Error::Api(status) = &refused else { panic!() };
    assert_eq!((refused.code(), status.details.as_ref().unwrap().retry_after_seconds), (429, Some(1)));
    let _write = enter(asked("b", &[], "create", "pods", "x")).await.unwrap();
    enter(asked("root", &["system:masters"], "get", "pods", "x")).await.unwrap();
    drop(read);
    enter(asked("b", &[], "get", "pods", "x")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_have_the_level_of_the_first_schema_that_is_about_them() {
    let objects = Objects::new([
        level("low", 10, 0),
        level("high", 30, 0),
        schema("all", 1000, "low", group("system:authenticated")),
        schema("nodes", 100, "high", group("system:nodes")),
        schema(
            "accounts",
            500,
            "high",
            json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "ops", "name": "*"}}),
        ),
        schema("lost", 1, "absent", group("lost")),
    ]);
    let gate = Gate::new(FlowControl::Fair { total: 90 });
    let all = &["system:authenticated"][..];
    for (asked, schema, level) in [
        (asked("jane", all, "get", "pods", "x"), "schema-all", "level-low"),
        (asked("jane", all, "get", "/healthz/ping", ""), "schema-all", "level-low"),
        (asked("jane", all, "get", "/metrics", ""), "", ""),
        (
            asked("system:node:n", &["system:nodes", "system:authenticated"], "get", "nodes", ""),
            "schema-nodes",
            "level-high",
        ),
        (asked("system:serviceaccount:ops:x", all, "get", "pods", "x"), "schema-accounts", "level-high"),
        (asked("system:serviceaccount:dev:x", all, "get", "pods", "x"), "schema-all", "level-low"),
        (asked("x", &["lost"], "get", "pods", "x"), "", ""),
        (asked("x", &["lost", "system:authenticated"], "get", "pods", "x"), "schema-all", "level-low"),
    ] {
        let admitted = gate.enter(&asked, &*objects).await.unwrap();
        let (by_schema, by_level) = admitted.by.unwrap();
        assert_eq!((&*by_schema, &*by_level), (schema, level), "{asked:?}");
    }
    // 90 seats for 10, 30 and the catch-all's 5 shares: 20 are low's.
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(gate.enter(&asked("jane", all, "get", "pods", "x"), &*objects).await.unwrap());
    }
    assert_eq!(gate.enter(&asked("joe", all, "get", "pods", "x"), &*objects).await.err().unwrap().code(), 429);
    gate.enter(&asked("x", &["system:nodes"], "get", "pods", "x"), &*objects).await.unwrap();
    gate.enter(&asked("root", &["system:masters"], "get", "pods", "x"), &*objects).await.unwrap();
    // Another share counts at once, for those who wait as well as for those who come.
    let (plural, more) = level("low", 100, 0);
    objects.put(plural, more);
    gate.enter(&asked("joe", all, "get", "pods", "x"), &*objects).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn queues_are_served_in_turn() {
    let level = Level::new(1, Queuing { queues: 8, hand: 1, length: 3 });
    let first = level.take(0, PATIENCE).await.unwrap();
    let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
    // One flow asks for much before the other asks for little.
    for (flow, name) in [(1, "greedy"), (1, "greedy"), (1, "greedy"), (2, "modest")] {
        let (level, told) = (Arc::clone(&level), told.clone());
        tokio::spawn(async move {
            let seat = level.take(flow, PATIENCE).await;
            told.send((name, seat.is_some())).unwrap();
        });
        tokio::task::yield_now().await;
    }
    assert!(level.take(1, PATIENCE).await.is_none(), "its queue is full");
    drop((first, told));
    let mut served = Vec::new();
    while let Some((name, seated)) = order.recv().await {
        assert!(seated);
        served.push(name);
    }
    assert_eq!(served, ["greedy", "modest", "greedy", "greedy"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let level = Level::new(1, Queuing { queues: 1, hand: 1, length: 10 });
    let seat = level.take(0, PATIENCE).await.unwrap();
    let waited = tokio::time::Instant::now();
    assert!(level.take(0, PATIENCE).await.is_none());
    assert!(waited.elapsed() >= PATIENCE);
    // The one that gave up does not get the seat.
    let next = tokio::spawn({
        let level = Arc::clone(&level);
        async move { level.take(0, PATIENCE).await.is_some() }
    });
    tokio::task::yield_now().await;
    drop(seat);
    assert!(next.await.unwrap());
    // A level without queues any more tells those who wait.
    let seat = level.take(0, PATIENCE).await.unwrap();
    let waiting = tokio::spawn({
        let level = Arc::clone(&level);
        async move { level.take(0, PATIENCE).await.is_some() }
    });
    tokio::task::yield_now().await;
    level.configure(1, Queuing::REJECT);
    assert!(!waiting.await.unwrap());
    drop(seat);
    assert!(level.take(0, PATIENCE).await.is_some());
}
