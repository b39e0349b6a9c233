//! Extenders over HTTP, configured by a file, against the real API server.
#![cfg(feature = "extender")]

mod cluster;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use cluster::{Cluster, unscheduled};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rk_sched::{
    SchedulerConfig,
    config::{ConfigurationError, Registry},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

type Reply = Box<dyn Fn(&str, &Value) -> (StatusCode, Value) + Send + Sync>;

/// An extender that answers as it is told, and notes what it was asked.
struct Extender {
    url: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Extender {
    async fn start(reply: impl Fn(&str, &Value) -> (StatusCode, Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/scheduler/", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let (reply, notes): (Arc<Reply>, _) = (Arc::new(Box::new(reply)), Arc::clone(&asked));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (reply, notes) = (Arc::clone(&reply), Arc::clone(&notes));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (reply, notes) = (Arc::clone(&reply), Arc::clone(&notes));
                    async move {
                        let verb = request.uri().path().trim_start_matches("/scheduler/").to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let question: Value = serde_json::from_slice(&body).unwrap();
                        let (status, answer) = reply(&verb, &question);
                        notes.lock().push((verb, question));
                        let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
                        *response.status_mut() = status;
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, asked }
    }

    fn asked(&self, verb: &str) -> Vec<Value> {
        self.asked.lock().iter().filter(|(asked, _)| asked == verb).map(|(_, question)| question.clone()).collect()
    }
}

fn load(extenders: Value) -> Result<SchedulerConfig, ConfigurationError> {
    let file = json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "extenders": extenders,
    });
    let config = SchedulerConfig::from_json(&file, &Registry::kubernetes())?;
    Ok(SchedulerConfig { seed: Some(1), ..config })
}

fn ok(answer: Value) -> (StatusCode, Value) {
    (StatusCode::OK, answer)
}

/// The names of the nodes of a question, in either form.
fn nodes(question: &Value) -> Vec<String> {
    let text = |name: &Value| name.as_str().unwrap().to_owned();
    match &question["NodeNames"] {
        Value::Array(names) => names.iter().map(text).collect(),
        _ => {
            let items = question["Nodes"]["items"].as_array().unwrap();
            items.iter().map(|node| text(&node["metadata"]["name"])).collect()
        }
    }
}

#[tokio::test]
async fn an_extender_filters_and_scores() {
    for by_name in [true, false] {
        let extender = Extender::start(move |verb, question| match verb {
            "filter" => {
                let left: Vec<String> = nodes(question).into_iter().filter(|name| name != "bad").collect();
                let failed = json!({"bad": "it is bad"});
                if by_name {
                    ok(json!({"NodeNames": left, "FailedNodes": failed}))
                } else {
                    let items: Vec<Value> = left.iter().map(|name| json!({"metadata": {"name": name}})).collect();
                    ok(json!({"Nodes": {"items": items}, "FailedNodes": failed}))
                }
            }
            _ => ok(json!([{"Host": "good", "Score": 1}, {"Host": "best", "Score": 10}])),
        })
        .await;
        let config = load(json!([{
            "urlPrefix": extender.url, "filterVerb": "filter", "prioritizeVerb": "prioritize", "weight": 100,
            "nodeCacheCapable": by_name,
        }]));
        let cluster = Cluster::start(config.unwrap()).await;
        // Without the extender the bad one would be the emptiest.
        cluster.node("bad", "32", json!({})).await;
        cluster.node("good", "16", json!({})).await;
        cluster.node("best", "2", json!({})).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.pod("p", "1", json!({})).await;
        assert_eq!(cluster.node_of("p").await, "best");
        assert_eq!(extender.asked("filter")[0]["Pod"]["metadata"]["name"], "p");
        let mut scored = nodes(&extender.asked("prioritize")[0]);
        scored.sort();
        assert_eq!(scored, ["best", "good"]);
    }
}

#[tokio::test]
async fn what_extenders_refuse_is_told_in_their_words() {
    let extender = Extender::start(|_, _| {
        ok(json!({"NodeNames": [], "FailedNodes": {"a": "no licence"}, "FailedAndUnresolvableNodes": {"b": "no port"}}))
    })
    .await;
    let settings = json!([{"urlPrefix": extender.url, "filterVerb": "filter", "nodeCacheCapable": true}]);
    let cluster = Cluster::start(load(settings).unwrap()).await;
    cluster.node("a", "4", json!({})).await;
    cluster.node("b", "4", json!({})).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.pod("p", "1", json!({})).await;
    let pod = cluster.pod_until("p", |pod| unscheduled(pod).is_some_and(|(_, m)| m.contains("port"))).await;
    let (reason, message) = unscheduled(&pod).unwrap();
    assert_eq!(reason, "Unschedulable");
    assert!(message.starts_with("0/2 nodes are available: 1 no licence, 1 no port."), "{message}");
    // Any event may have changed an extender's mind.
    let before = extender.asked("filter").len();
    cluster.node("c", "1", json!({"spec": {"unschedulable": true}})).await;
    for _ in 0..200 {
        if extender.asked("filter").len() > before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the pod was not tried again");
}

#[tokio::test]
async fn an_extender_that_fails_fails_the_pod_unless_it_is_ignorable() {
    let broken = Extender::start(|_, _| (StatusCode::INTERNAL_SERVER_ERROR, Value::Null)).await;
    for (ignorable, url) in [(false, &broken.url), (true, &broken.url), (true, &"http://127.0.0.1:1/".to_owned())] {
        let settings = json!([{"urlPrefix": url, "filterVerb": "filter", "ignorable": ignorable}]);
        let cluster = Cluster::start(load(settings).unwrap()).await;
        cluster.node("n", "4", json!({})).await;
        cluster.pod("p", "1", json!({})).await;
        if ignorable {
            assert_eq!(cluster.node_of("p").await, "n");
        } else {
            let wanted = format!("failed filter with extender at URL {}filter, code 500", broken.url);
            let pod = cluster.pod_until("p", |pod| unscheduled(pod).is_some_and(|(_, m)| m.contains("filter"))).await;
            assert_eq!(unscheduled(&pod).unwrap(), ("SchedulerError".to_owned(), wanted));
        }
    }
}

#[tokio::test]
async fn an_extender_is_asked_about_its_resources_only_and_may_bind() {
    let extender = Extender::start(|_, _| ok(json!({"Error": ""}))).await;
    let config = load(json!([{
        "urlPrefix": extender.url, "bindVerb": "bind",
        "managedResources": [{"name": "example.com/gpu", "ignoredByScheduler": true}],
    }]));
    let cluster = Cluster::start(config.unwrap()).await;
    cluster.node("n", "4", json!({})).await;
    let resources = json!({"limits": {"example.com/gpu": "1"}, "requests": {"example.com/gpu": "1"}});
    let containers = json!([{"name": "c", "image": "i", "resources": resources}]);
    let with_gpu = cluster.pod("gpu", "1", json!({"spec": {"containers": containers}})).await;
    cluster.pod("plain", "1", json!({})).await;
    cluster.node_of("plain").await;
    let asked = async || {
        for _ in 0..200 {
            if let Some(binding) = extender.asked("bind").first() {
                return binding.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the extender was not asked to bind");
    };
    let uid = with_gpu.metadata.uid.clone().unwrap();
    let expected = json!({"PodName": "gpu", "PodNamespace": "default", "PodUID": uid, "Node": "n"});
    assert_eq!(asked().await, expected);
    assert_eq!(extender.asked("bind").len(), 1);
    // It said that it did, and it is its own affair to do it.
    assert_eq!(cluster::bound(&cluster.pods.get("gpu").await.unwrap()), None);
}

#[tokio::test]
async fn an_extender_has_a_say_on_who_is_preempted() {
    let extender = Extender::start(|_, question| {
        // Of both nodes, the one that would be preferred otherwise is left out.
        let victims = question["NodeNameToMetaVictims"].as_object().unwrap();
        assert_eq!(victims.len(), 2);
        ok(json!({"NodeNameToMetaVictims": {"b": victims["b"]}}))
    })
    .await;
    let settings = json!([{"urlPrefix": extender.url, "preemptVerb": "preempt", "nodeCacheCapable": true}]);
    let cluster = Cluster::start(load(settings).unwrap()).await;
    for (name, node, priority) in [("low-a", "a", 1), ("low-b", "b", 2)] {
        cluster.node(node, "1", json!({})).await;
        let selector = json!({"kubernetes.io/hostname": node});
        cluster.pod(name, "1", json!({"spec": {"priority": priority, "nodeSelector": selector}})).await;
        cluster.node_of(name).await;
    }
    cluster.pod("high", "1", json!({"spec": {"priority": 10}})).await;
    cluster.pod_until("low-b", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    assert!(cluster.pods.get("low-a").await.unwrap().metadata.deletion_timestamp.is_none());
    let high = cluster.pods.get("high").await.unwrap();
    let nominated = high.status.as_ref().and_then(|status| status.nominated_node_name.clone());
    assert!(nominated.is_none() || nominated.as_deref() == Some("b"), "{nominated:?}");
}

#[test]
fn extenders_that_cannot_be_called_are_refused() {
    let told = |extender: Value| load(json!([extender])).err().unwrap().to_string();
    assert_eq!(told(json!({"urlPrefix": "nowhere"})), "extenders[0].urlPrefix: must be an URL of http or https");
    let file =
        json!({"urlPrefix": "https://localhost", "enableHTTPS": true, "tlsConfig": {"caFile": "/does/not/exist"}});
    let said = told(file);
    assert!(said.starts_with("extenders[0].tlsConfig.caFile: /does/not/exist: "), "{said}");
    let half = json!({"urlPrefix": "https://localhost", "tlsConfig": {"certData": "QQ=="}});
    assert_eq!(told(half), "extenders[0].tlsConfig.keyData: a certificate needs its key");
}
