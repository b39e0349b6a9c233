//! Priority and fairness through the server: seats are shared out, those who get none are told to try again.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use rk_api::{
    Resource, Status,
    server::{AdmissionRequest, Admit, FlowControl, Limits, Operation, Reader, UserInfo, bootstrap},
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::common::{Answer, Api, Caller, bearer};

/// Holds creates of ConfigMaps until there is a permit.
struct Hold(Arc<Semaphore>);

#[async_trait]
impl Admit for Hold {
    fn name(&self) -> &str {
        "Hold"
    }

    fn handles(&self, operation: Operation, resource: &Resource, _: &str) -> bool {
        operation == Operation::Create && resource.plural == "configmaps"
    }

    async fn validate(&self, _: &AdmissionRequest, _: &dyn Reader) -> Result<(), Status> {
        self.0.acquire().await.unwrap().forget();
        Ok(())
    }
}

async fn start(control: FlowControl) -> (Arc<Api>, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let hold = Arc::new(Hold(Arc::clone(&permits)));
    let more = |builder: rk_api::server::ServerBuilder| builder.flow_control(control).admission(hold);
    let api = Api::build(|_, security| security, |_, builder| more(builder)).await;
    let config = bootstrap::Config { flow_control: true, ..bootstrap::Config::default() };
    bootstrap::ensure(&*api.server.client(UserInfo::loopback()), &config).await.unwrap();
    let binding = json!({"metadata": {"name": "dev"}, "subjects": [
        {"kind": "Group", "name": "dev", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "edit", "apiGroup": "rbac.authorization.k8s.io"}});
    api.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    (Arc::new(api), permits)
}

fn make(api: &Arc<Api>, name: &str) -> tokio::task::JoinHandle<Answer> {
    let (api, map) = (Arc::clone(api), json!({"metadata": {"name": name}}));
    tokio::spawn(async move { api.call(&bearer("jane"), "POST", "/api/v1/namespaces/default/configmaps", map).await })
}

#[tokio::test]
async fn more_than_may_be_in_flight_are_told_to_try_again() {
    let (api, permits) = start(FlowControl::MaxInFlight { reading: 1, writing: 1 }).await;
    let held = make(&api, "a");
    let refused = loop {
        let answer = api.call(&bearer("jane"), "DELETE", "/api/v1/namespaces/default/configmaps/x", Value::Null).await;
        if answer.code == 429 {
            break answer;
        }
        assert_eq!(answer.code, 404);
    };
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.body["reason"], "TooManyRequests");
    // Those who read, watch or are masters are not in the way.
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(api.get(&bearer("jane"), maps).await.code, 200);
    assert_eq!(api.get(&bearer("jane"), &format!("{maps}?watch=1&timeoutSeconds=1")).await.code, 200);
    assert_eq!(api.call(&bearer("admin"), "DELETE", &format!("{maps}/x"), Value::Null).await.code, 404);
    // Others don't get past by calling a write a watch.
    assert_eq!(api.call(&bearer("jane"), "DELETE", &format!("{maps}/x?watch=1"), Value::Null).await.code, 429);
    permits.add_permits(1);
    assert_eq!(held.await.unwrap().code, 201);
}

const FLOWS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

/// Gives jane a level of her own, of one seat and with no queue. Its FlowSchema and itself.
async fn one_seat_for_jane(api: &Api) -> (Value, Value) {
    let limited = json!({"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}});
    let level = json!({"metadata": {"name": "jane"}, "spec": {"type": "Limited", "limited": limited}});
    let level = api.create(&format!("{FLOWS}/prioritylevelconfigurations"), level).await;
    let rules = json!([{"subjects": [{"kind": "User", "user": {"name": "jane"}}], "resourceRules": [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}]);
    let schema = json!({"metadata": {"name": "jane"}, "spec": {"matchingPrecedence": 50, "rules": rules,
        "priorityLevelConfiguration": {"name": "jane"}}});
    (api.create(&format!("{FLOWS}/flowschemas"), schema).await, level)
}

#[tokio::test]
async fn seats_are_shared_out_by_priority_levels() {
    let (api, permits) = start(FlowControl::Fair { total: 12 }).await;
    let (schema, level) = one_seat_for_jane(&api).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let answer = api.get(&bearer("jane"), maps).await;
    assert_eq!(answer.headers["x-kubernetes-pf-flowschema-uid"], schema["metadata"]["uid"].as_str().unwrap());
    assert_eq!(answer.headers["x-kubernetes-pf-prioritylevel-uid"], level["metadata"]["uid"].as_str().unwrap());
    let held = make(&api, "a");
    while api.get(&bearer("jane"), maps).await.code != 429 {
        tokio::task::yield_now().await;
    }
    // Others have seats of their own, and the exempt need none.
    let joe = Caller { headers: &[("Impersonate-User", "joe"), ("Impersonate-Group", "dev")], ..bearer("admin") };
    assert_eq!(api.get(&joe, maps).await.code, 200);
    assert_eq!(api.get(&bearer("admin"), maps).await.code, 200);
    permits.add_permits(1);
    assert_eq!(held.await.unwrap().code, 201);
    assert_eq!(api.get(&bearer("jane"), maps).await.code, 200);
    let schemas = api.get(&bearer("admin"), &format!("{FLOWS}/flowschemas")).await.body;
    assert_eq!(schemas["items"].as_array().unwrap().len(), 14);
}

#[tokio::test]
async fn a_watch_holds_its_seat_until_what_is_there_is_sent() {
    let (api, _permits) = start(FlowControl::Fair { total: 12 }).await;
    let (schema, _) = one_seat_for_jane(&api).await;
    let get = async |user: UserInfo, path: &str| {
        let request = http::Request::get(path).body(Full::<Bytes>::default()).unwrap();
        api.server.service_as(user).handle(request).await
    };
    let jane = || UserInfo::new("jane", ["dev"]);
    let maps = "/api/v1/namespaces/default/configmaps";
    let code = async || {
        let (head, body) = get(jane(), maps).await.into_parts();
        body.collect().await.unwrap();
        head.status.as_u16()
    };
    let free = async || {
        let wait = async {
            while code().await != 200 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
    };
    let initial = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let watch = get(jane(), &format!("{maps}?{initial}")).await;
    assert_eq!(watch.headers()["x-kubernetes-pf-flowschema-uid"], schema["metadata"]["uid"].as_str().unwrap());
    assert_eq!(code().await, 429);
    let mut events = watch.into_body();
    let first = events.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("initial-events-end"));
    assert!(tokio::time::timeout(Duration::from_millis(50), events.frame()).await.is_err());
    free().await;
    // One that is refused holds none. (A list's seat is free a moment after its end.)
    let wrong = format!("{maps}?watch=1&resourceVersion=nonsense");
    let refused = loop {
        let status = get(jane(), &wrong).await.status();
        if status != 429 {
            break status;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((refused.as_u16(), code().await), (400, 200));
    // All this is told.
    let metrics = get(UserInfo::new("admin", ["system:masters"]), "/metrics").await.into_body();
    let text = String::from_utf8(metrics.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let jane = r#"priority_level="jane",flow_schema="jane""#;
    for line in [
        format!("dispatched_requests_total{{{jane}}} "),
        format!("rejected_requests_total{{{jane},reason=\"concurrency-limit\"}} "),
        format!("current_inqueue_requests{{{jane}}} 0"),
        r#"nominal_limit_seats{priority_level="jane"} 1"#.to_owned(),
        r#"current_limit_seats{priority_level="jane"} 1"#.to_owned(),
        r#"current_executing_requests{priority_level="exempt",flow_schema="exempt"} 1"#.to_owned(),
    ] {
        let head = format!("apiserver_flowcontrol_{line}");
        assert!(text.lines().any(|found| found.starts_with(&head)), "{line}: {text}");
    }
}

#[tokio::test]
async fn a_write_takes_seats_by_those_who_watch() {
    let (api, permits) = start(FlowControl::Fair { total: 12 }).await;
    one_seat_for_jane(&api).await;
    let get = async |path: String| {
        let request = http::Request::get(path).body(Full::<Bytes>::default()).unwrap();
        api.server.service_as(UserInfo::new("admin", ["system:masters"])).handle(request).await.into_body()
    };
    let mut watches = Vec::new();
    for (namespace, name) in
        [("default/", ""), ("", ""), ("other/", ""), ("default/", "&fieldSelector=metadata.name%3Dx")]
    {
        let namespace = if namespace.is_empty() { String::new() } else { format!("namespaces/{namespace}") };
        for _ in 0..15 {
            watches.push(get(format!("/api/v1/{namespace}configmaps?watch=1{name}")).await);
        }
    }
    let seats = async || {
        let text = get("/metrics".to_owned()).await.collect().await.unwrap().to_bytes();
        let head = r#"apiserver_flowcontrol_current_executing_seats{priority_level="jane",flow_schema="jane"} "#;
        let text = String::from_utf8(text.to_vec()).unwrap();
        text.lines().find_map(|line| line.strip_prefix(head)).map(|count| count.parse::<usize>().unwrap())
    };
    let held = make(&api, "a");
    let counted = async |wanted: usize| {
        while seats().await != Some(wanted) {
            tokio::task::yield_now().await;
        }
    };
    // 30 of them are concerned, ten to a seat.
    tokio::time::timeout(Duration::from_secs(10), counted(3)).await.unwrap();
    permits.add_permits(1);
    assert_eq!(held.await.unwrap().code, 201);
    tokio::time::timeout(Duration::from_secs(10), counted(0)).await.unwrap();
    drop(watches);
}

#[tokio::test]
async fn a_list_holds_its_seat_until_it_is_sent() {
    let (api, _permits) = start(FlowControl::MaxInFlight { reading: 1, writing: 1 }).await;
    let service = api.server.service_as(UserInfo::new("jane", ["dev"]));
    let list = async |query: &str| {
        let request = http::Request::get(format!("/api/v1/namespaces/default/configmaps{query}"));
        service.clone().handle(request.body(Full::<Bytes>::default()).unwrap()).await
    };
    let free = async || {
        let wait = async {
            loop {
                let answer = list("").await;
                if answer.status() == 200 {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap()
    };
    let watch = list("?watch=1&timeoutSeconds=1").await;
    let sent = list("").await;
    assert_eq!((sent.status().as_u16(), list("").await.status().as_u16()), (200, 429));
    sent.into_body().collect().await.unwrap();
    // Who does not read in time keeps nobody waiting.
    let unread = free().await;
    assert_eq!(list("").await.status(), 429);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    free().await;
    drop((watch, unread));
}

#[tokio::test]
async fn bodies_are_no_longer_than_they_may_be() {
    let limits = Limits { body: 4096, ..Limits::default() };
    let api = Api::build(|_, security| security, |_, builder| builder.limits(limits)).await;
    let map = |size: usize| json!({"metadata": {"name": "m"}, "data": {"k": "x".repeat(size)}});
    let admin = bearer("admin");
    let make = |size| api.call(&admin, "POST", "/api/v1/namespaces/default/configmaps", map(size));
    let refused = make(5000).await;
    assert_eq!((refused.code, &refused.body["reason"]), (413, &json!("RequestEntityTooLarge")));
    assert_eq!(make(1000).await.code, 201);
}
