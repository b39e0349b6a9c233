//! The conformance of every built-in resource: every verb that discovery names for it and for its subresources is called over HTTP, and
//! every answer is checked. What can't be called here is listed with its reason.
#![cfg(feature = "server")]
#![allow(missing_docs)]

mod api;
mod life;
mod others;
mod published;
mod samples;

use std::time::Duration;

use api::{Api, JSON, PROTOBUF};
use bytes::Bytes;
use futures::{FutureExt, future::join_all};
use http::header;
use http_body_util::BodyExt;
use samples::samples;
use serde_json::json;

/// What is not called, and why.
const ELSEWHERE: [(&str, &str); 8] = [
    ("v1 componentstatuses get", "there are no components to tell of: see `others::questions`"),
    ("v1 nodes/proxy ", "needs a kubelet: see `tests/nodes.rs`"),
    ("v1 pods/attach ", "needs a node: see `examples/tests/kubectl.rs`"),
    ("v1 pods/exec ", "needs a kubelet: see `tests/nodes.rs`"),
    ("v1 pods/log ", "needs a kubelet: see `tests/nodes.rs`"),
    ("v1 pods/portforward ", "needs a node: see `examples/tests/kubectl.rs`"),
    ("v1 pods/proxy ", "needs a pod that answers: see `tests/nodes.rs`"),
    ("v1 services/proxy ", "needs a pod that answers: see `tests/nodes.rs`"),
];

#[tokio::test]
async fn every_verb_of_discovery_is_called() {
    let api = Api::start().await;
    // Each panics with what went wrong; all are told.
    let mut tasks: Vec<_> = samples().into_iter().map(|sample| tokio::spawn(life::live(api.clone(), sample))).collect();
    tasks.push(tokio::spawn(others::namespaces(api.clone())));
    let definitions = tokio::time::timeout(Duration::from_secs(120), others::definitions(api.clone()));
    tasks.push(tokio::spawn(definitions.map(|done| done.expect("definitions are served and go"))));
    tasks.push(tokio::spawn(others::questions(api.clone())));
    tasks.push(tokio::spawn(others::pods(api.clone())));
    tasks.push(tokio::spawn(others::approval(api.clone())));
    let wrong = join_all(tasks).await.into_iter().filter(Result::is_err).count();
    assert_eq!(wrong, 0, "resources with a wrong answer");

    let not_called = api.not_called().await;
    let unexplained = not_called.iter().filter(|called| !ELSEWHERE.iter().any(|(one, _)| called.starts_with(one)));
    assert_eq!(unexplained.collect::<Vec<_>>(), Vec::<&String>::new(), "verbs that nobody called");
    let called = ELSEWHERE.iter().filter(|(one, _)| !not_called.iter().any(|called| called.starts_with(one)));
    assert_eq!(called.collect::<Vec<_>>(), Vec::<&(&str, &str)>::new(), "exceptions that are none");
}

#[tokio::test]
async fn discovery_is_as_published() {
    let api = Api::start().await;
    published::is_as_published(&api).await;
    published::is_as_in_kubernetes(&api).await;
    published::is_the_same_aggregated(&api).await;
}

#[tokio::test]
async fn a_watch_speaks_protobuf() {
    let api = Api::start().await;
    let all = "/api/v1/namespaces/default/configmaps";
    let object = json!({"metadata": {"name": "a", "labels": {"life": "one"}}, "data": {"k": "v"}});
    api.post(all, &object).await.is(201, "create");
    let encoded = api.raw("GET", &format!("{all}/a"), PROTOBUF, JSON, Bytes::new()).await.2;
    let answer = api.watch(&format!("{all}?watch=true&labelSelector=life%3Done"), PROTOBUF).await;
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/vnd.kubernetes.protobuf;stream=watch");
    let frame = answer.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    // The frame's length, then a WatchEvent: type, and the object as `get` answers it.
    let (length, event) = frame.split_at(4);
    assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, event.len());
    assert_eq!(event[..7], *b"\x0a\x05ADDED");
    assert!(event.ends_with(&encoded) && encoded.starts_with(b"k8s\0"));
    // A list holds its objects in the same form: both bodies share the object's bytes.
    let list = api.raw("GET", &format!("{all}?labelSelector=life%3Done"), PROTOBUF, JSON, Bytes::new()).await;
    assert_eq!((list.0, list.1.as_str()), (200, PROTOBUF));
    assert!(list.2.starts_with(b"k8s\0") && list.2.windows(13).any(|bytes| bytes == b"ConfigMapList"));
    // What can't be had in protobuf is had in JSON, or refused.
    let table =
        api.raw("GET", all, &format!("{PROTOBUF};as=Table;v=v1;g=meta.k8s.io,{JSON}"), JSON, Bytes::new()).await;
    assert_eq!(table.1, JSON);
    let missing = api.raw("GET", &format!("{all}/missing"), PROTOBUF, JSON, Bytes::new()).await;
    assert_eq!((missing.0, missing.1.as_str()), (404, PROTOBUF));
}
