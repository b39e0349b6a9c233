use prometheus_client::encoding::text::encode;
use serde_json::{Value, json};

use super::*;
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
    let enter = async |asked: Attributes| gate.enter(&asked, Cost::default, &*none).await;
    let read = enter(asked("a", &[], "get", "pods", "x")).await.unwrap();
    let refused = enter(asked("b", &[], "list", "pods", "x")).await.err().unwrap();
    let Error::Api(status) = &refused else { panic!() };
    assert_eq!((refused.code(), status.details.as_ref().unwrap().retry_after_seconds), (429, Some(1)));
    let _write = enter(asked("b", &[], "create", "pods", "x")).await.unwrap();
    enter(asked("root", &["system:masters"], "get", "pods", "x")).await.unwrap();
    drop(read);
    enter(asked("b", &[], "get", "pods", "x")).await.unwrap();
    // 0 is any number.
    let gate = Gate::new(FlowControl::MaxInFlight { reading: 0, writing: 1 });
    let enter = async |verb| gate.enter(&asked("a", &[], verb, "pods", "x"), Cost::default, &*none).await;
    let _held = (enter("get").await.unwrap(), enter("get").await.unwrap(), enter("update").await.unwrap());
    assert_eq!(enter("update").await.err().unwrap().code(), 429);
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
        let admitted = gate.enter(&asked, Cost::default, &*objects).await.unwrap();
        let (by_schema, by_level) = admitted.by.unwrap();
        assert_eq!((&*by_schema, &*by_level), (schema, level), "{asked:?}");
    }
    // 90 seats for 10, 30 and the catch-all's 5 shares: 20 are low's.
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(gate.enter(&asked("jane", all, "get", "pods", "x"), Cost::default, &*objects).await.unwrap());
    }
    assert_eq!(
        gate.enter(&asked("joe", all, "get", "pods", "x"), Cost::default, &*objects).await.err().unwrap().code(),
        429
    );
    gate.enter(&asked("x", &["system:nodes"], "get", "pods", "x"), Cost::default, &*objects).await.unwrap();
    gate.enter(&asked("root", &["system:masters"], "get", "pods", "x"), Cost::default, &*objects).await.unwrap();
    // Another share counts at once, for those who wait as well as for those who come.
    let (plural, more) = level("low", 100, 0);
    objects.put(plural, more);
    gate.enter(&asked("joe", all, "get", "pods", "x"), Cost::default, &*objects).await.unwrap();
}

/// A metric of these labels, in their order.
fn metric(gate: &Gate, name: &str, labels: &str) -> Option<usize> {
    let (mut registry, mut text) = (Registry::default(), String::new());
    gate.register(&mut registry);
    encode(&mut text, &registry).unwrap();
    let head = format!("apiserver_flowcontrol_{name}{{{labels}}} ");
    text.lines().find_map(|line| line.strip_prefix(&head)).map(|value| value.parse().unwrap())
}

/// A list of so many objects, each of a kilobyte.
fn kilobytes(objects: usize) -> Cost {
    Cost::read(objects, (10_000, 10_000_000), true)
}

#[tokio::test(start_paused = true)]
async fn a_request_that_reads_much_takes_more_seats() {
    let objects = Objects::new([level("low", 85, 4), schema("all", 1000, "low", group("jane"))]);
    let gate = Arc::new(Gate::new(FlowControl::Fair { total: 90 }));
    let asked = || asked("jane", &["jane"], "list", "pods", "x");
    let enter = async |read: usize| gate.enter(&asked(), || kilobytes(read), &*objects).await.unwrap();
    let flow = |name: &str| metric(&gate, name, r#"priority_level="low",flow_schema="all""#);
    let mut held = Vec::new();
    for (read, seats) in [(0, 1), (100, 2), (101, 4), (950, 14), (5000, 24)] {
        held.push(enter(read).await);
        assert_eq!(flow("current_executing_seats"), Some(seats), "{read}");
    }
    for _ in 0..6 {
        held.push(enter(1000).await);
    }
    held.push(enter(0).await);
    assert_eq!((flow("current_executing_requests"), flow("current_executing_seats")), (Some(12), Some(85)));
    // Who wants more than there is waits, and who comes later waits with them.
    let wait = |read: usize| {
        let (gate, objects, asked) = (Arc::clone(&gate), Arc::clone(&objects), asked());
        tokio::spawn(
            async move { gate.enter(&asked, || kilobytes(read), &*objects).await.map(drop).map_err(|e| e.code()) },
        )
    };
    let (wide, narrow) = (wait(1000), wait(0));
    tokio::task::yield_now().await;
    assert_eq!(flow("current_inqueue_requests"), Some(2));
    let rejected = |reason: &str| {
        metric(
            &gate,
            "rejected_requests_total",
            &format!(r#"priority_level="low",flow_schema="all",reason="{reason}""#),
        )
    };
    assert_eq!(wait(0).await.unwrap(), Err(429));
    assert_eq!(rejected("queue-full"), Some(1));
    drop(held.split_off(10));
    assert_eq!((wide.await.unwrap(), narrow.await.unwrap()), (Ok(()), Ok(())));
    assert_eq!((flow("current_inqueue_requests"), flow("dispatched_requests_total")), (Some(0), Some(14)));
    // Whoever gives up, and whoever waits in vain, is counted.
    held.push(enter(1000).await);
    let (gone, late) = (wait(1000), wait(1000));
    tokio::task::yield_now().await;
    gone.abort();
    assert_eq!(late.await.unwrap(), Err(429));
    assert_eq!((rejected("cancelled"), rejected("time-out")), (Some(1), Some(1)));
    assert_eq!(flow("current_inqueue_requests"), Some(0));
}

#[tokio::test(start_paused = true)]
async fn metrics_of_a_schema_go_with_it() {
    let objects = Objects::new([level("low", 85, 4), schema("all", 1000, "low", group("jane"))]);
    let gate = Gate::new(FlowControl::Fair { total: 90 });
    let shown = || metric(&gate, "dispatched_requests_total", r#"priority_level="low",flow_schema="all""#);
    let enter = async |name| {
        gate.enter(&asked(name, &[name], "get", "pods", "x"), Cost::default, &*objects).await.unwrap();
    };
    enter("jane").await;
    assert_eq!(shown(), Some(1));
    let (plural, other) = schema("all", 1000, "low", group("joe"));
    objects.put(plural, other);
    enter("joe").await;
    assert_eq!(shown(), Some(2), "it is the same one");
    let (plural, other) = schema("all", 1000, "absent", group("joe"));
    objects.put(plural, other);
    enter("joe").await;
    assert_eq!(shown(), None);
}

/// A level with long queues that lends and borrows.
fn lending(name: &str, shares: usize, lendable: usize, borrowing: Option<usize>) -> (&'static str, Value) {
    let (plural, mut value) = level(name, shares, 4);
    let limited = &mut value["spec"]["limited"];
    limited["limitResponse"]["queuing"]["queueLengthLimit"] = json!(100);
    limited["lendablePercent"] = json!(lendable);
    limited["borrowingLimitPercent"] = json!(borrowing);
    (plural, value)
}

#[tokio::test(start_paused = true)]
async fn levels_lend_what_they_do_not_need() {
    for (borrowing, borrowed) in [(None, 25), (Some(50), 15), (Some(0), 10)] {
        let objects = Objects::new([
            lending("busy", 10, 0, borrowing),
            lending("idle", 30, 50, None),
            schema("busy", 1000, "busy", group("busy")),
            schema("idle", 1000, "idle", group("idle")),
        ]);
        // As many seats as there are shares, with the catch-all's 5.
        let gate = Arc::new(Gate::new(FlowControl::Fair { total: 45 }));
        let stop = CancellationToken::new();
        gate.lend(stop.clone());
        let hold = |group: &'static str| {
            let (gate, objects) = (Arc::clone(&gate), Arc::clone(&objects));
            let asked = asked(group, &[group], "get", "pods", "x");
            tokio::spawn(async move {
                let admitted = gate.enter(&asked, Cost::default, &*objects).await;
                std::future::pending::<()>().await;
                drop(admitted);
            })
        };
        let executing = |level: &str| {
            let labels = format!(r#"priority_level="{level}",flow_schema="{level}""#);
            metric(&gate, "current_executing_requests", &labels)
        };
        let limits = |level: &str| {
            let labels = format!(r#"priority_level="{level}""#);
            (metric(&gate, "nominal_limit_seats", &labels), metric(&gate, "current_limit_seats", &labels))
        };
        let mut held: Vec<_> = (0..30).map(|_| hold("busy")).collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((limits("busy"), limits("idle")), ((Some(10), Some(10)), (Some(30), Some(23))));
        assert_eq!(executing("busy"), Some(10));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!((limits("busy"), executing("busy")), ((Some(10), Some(borrowed)), Some(borrowed)));
        if borrowing.is_none() {
            // What it lent is its own again when it needs it, once those who have it are done.
            held.extend((0..30).map(|_| hold("idle")));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(executing("idle"), Some(15));
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!((limits("busy").1, limits("idle").1, executing("idle")), (Some(10), Some(30), Some(30)));
            assert_eq!(metric(&gate, "current_limit_seats", r#"priority_level="catch-all""#), Some(5));
        }
        held.iter().for_each(tokio::task::JoinHandle::abort);
        stop.cancel();
    }
}
