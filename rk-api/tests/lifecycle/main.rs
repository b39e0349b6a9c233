//! A life of an object of each built-in resource, through all its verbs over HTTP: every resource that discovery names with
//! verbs for objects has a sample, and every answer is checked.
#![cfg(feature = "server")]
#![allow(missing_docs)]

mod samples;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use rk_api::server::{Server, UserInfo, bootstrap};
use rk_store::MemoryStore;
use samples::{Sample, samples};
use serde_json::{Value, json};
use tower::ServiceExt;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// An answer: code, content type and body.
struct Answer(u16, String, Bytes);

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.2).unwrap_or_else(|_| panic!("{} {}: {:?}", self.0, self.1, self.2))
    }

    /// The body of an answer with this code.
    fn is(self, code: u16, what: &str) -> Value {
        assert_eq!(self.0, code, "{what}: {}", String::from_utf8_lossy(&self.2));
        self.json()
    }
}

#[derive(Clone)]
struct Api(Server);

impl Api {
    async fn start() -> Self {
        let builder = Server::builder(Arc::new(MemoryStore::new())).anonymous(true);
        let server = builder.build().await.unwrap();
        bootstrap::ensure(&*server.client(UserInfo::loopback()), &bootstrap::Config::default()).await.unwrap();
        Self(server)
    }

    async fn raw(&self, method: &str, path: &str, accept: &str, kind: &str, body: Bytes) -> Answer {
        let request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
        let request = request.header(header::CONTENT_TYPE, kind).body(Full::new(body)).unwrap();
        let answer = self.0.service().oneshot(request).await.unwrap();
        let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let (code, kind) = (answer.status().as_u16(), kind.to_owned());
        Answer(code, kind, answer.into_body().collect().await.unwrap().to_bytes())
    }

    async fn call(&self, method: &str, path: &str, kind: &str, body: &Value) -> Answer {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        self.raw(method, path, JSON, kind, body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, JSON, &Value::Null).await
    }

    /// The events of a watch, up to the one of this type.
    async fn watch_until(&self, path: &str, last: &str) -> Vec<(String, Value)> {
        let request = Request::get(path).body(Full::new(Bytes::new())).unwrap();
        let mut body = self.0.service().oneshot(request).await.unwrap().into_body();
        let (mut events, mut read) = (Vec::new(), Vec::new());
        while events.last().is_none_or(|(kind, _): &(String, Value)| kind != last) {
            let frame = body.frame().await.expect("the watch goes on").unwrap();
            read.extend_from_slice(&frame.into_data().unwrap());
            while let Some(end) = read.iter().position(|byte| *byte == b'\n') {
                let mut event: Value = serde_json::from_slice(&read[..end]).unwrap();
                read.drain(..=end);
                events.push((event["type"].as_str().unwrap().to_owned(), event["object"].take()));
            }
        }
        events
    }
}

/// What discovery says of a resource.
struct Known {
    namespaced: bool,
    kind: String,
    verbs: Vec<String>,
    subresources: Vec<String>,
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

async fn known(api: &Api, version: &str, plural: &str) -> Known {
    let root = if version.contains('/') { "apis" } else { "api" };
    let list = api.get(&format!("/{root}/{version}")).await.is(200, version);
    let resources = list["resources"].as_array().unwrap();
    let own = resources.iter().find(|r| r["name"] == plural).unwrap_or_else(|| panic!("{version} {plural} is served"));
    let below = format!("{plural}/");
    Known {
        namespaced: own["namespaced"] == true,
        kind: own["kind"].as_str().unwrap().to_owned(),
        verbs: texts(&own["verbs"]),
        subresources: resources
            .iter()
            .filter_map(|r| r["name"].as_str()?.strip_prefix(&below).map(str::to_owned))
            .collect(),
    }
}

fn version_of(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

/// One object's life.
async fn live(api: Api, sample: Sample) {
    let Sample { version, plural, .. } = sample;
    let known = known(&api, version, plural).await;
    let what = |step: &str| format!("{version} {plural}: {step}");
    let root = if version.contains('/') { "apis" } else { "api" };
    let scope = if known.namespaced { "namespaces/default/" } else { "" };
    let all = format!("/{root}/{version}/{scope}{plural}");
    let name = match plural {
        "csidrivers" => "d.example.com".to_owned(),
        "ipaddresses" => "10.96.7.7".to_owned(),
        "apiservices" => "v1.lives.example.com".to_owned(),
        // Some versions are versions of the same objects.
        _ => format!("a-{}", version.replace('/', "-")),
    };
    let one = format!("{all}/{name}");
    let life = version.replace('/', "-");
    let selector = format!("labelSelector=life%3D{life}");
    let mut object = sample.body.clone();
    object["apiVersion"] = version.into();
    object["kind"] = known.kind.as_str().into();
    object["metadata"]["name"] = name.as_str().into();
    object["metadata"]["labels"]["life"] = life.as_str().into();

    // create, also on trial
    let tried = api.call("POST", &format!("{all}?dryRun=All"), JSON, &object).await.is(201, &what("dry run"));
    assert!(tried["metadata"]["uid"].is_string(), "{}", what("dry run"));
    api.get(&one).await.is(404, &what("get after a dry run"));
    let made = api.call("POST", &all, JSON, &object).await.is(201, &what("create"));
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        assert!(made["metadata"][field].is_string(), "{} sets {field}", what("create"));
    }
    assert_eq!((&made["kind"], &made["apiVersion"]), (&object["kind"], &object["apiVersion"]));
    let again = api.call("POST", &all, JSON, &object).await.is(409, &what("create again"));
    assert_eq!(again["reason"], "AlreadyExists");

    // read: JSON, table, metadata, protobuf
    let got = api.get(&one).await.is(200, &what("get"));
    assert_eq!(got, made, "{}", what("get answers what create did"));
    let list = api.get(&format!("{all}?{selector}")).await.is(200, &what("list"));
    assert_eq!(list["kind"], format!("{}List", known.kind));
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{}", what("list"));
    for path in [&one, &format!("{all}?{selector}")] {
        let table = api.raw("GET", path, TABLE, JSON, Bytes::new()).await.is(200, &what("table"));
        let columns = table["columnDefinitions"].as_array().unwrap();
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        assert_eq!(columns.len(), cells.len(), "{}", what("table"));
        let first = columns[0]["name"].as_str().unwrap();
        assert!(cells[0] == name.as_str() || first == "Last Seen", "{}: {first} {}", what("table"), cells[0]);
    }
    let partial = format!("{JSON};as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
    let partial = api.raw("GET", &one, &partial, JSON, Bytes::new()).await.is(200, &what("metadata"));
    assert_eq!((&partial["kind"], partial.get("spec")), (&json!("PartialObjectMetadata"), None));
    let encoded = api.raw("GET", &one, PROTOBUF, JSON, Bytes::new()).await;
    assert_eq!((encoded.0, encoded.1.as_str()), (200, PROTOBUF), "{}", what("protobuf"));
    let back = api.raw("PUT", &format!("{one}?dryRun=All"), JSON, PROTOBUF, encoded.2).await;
    assert_eq!(back.is(200, &what("what protobuf said, put")), made, "{}", what("protobuf says the same"));

    // update
    let mut newer = made.clone();
    newer["metadata"]["annotations"]["put"] = "yes".into();
    let put = api.call("PUT", &one, JSON, &newer).await.is(200, &what("update"));
    assert_ne!(version_of(&put), version_of(&made), "{}", what("update"));
    assert_eq!(put["metadata"]["generation"], made["metadata"]["generation"], "{}", what("metadata is not counted"));
    newer["metadata"]["annotations"]["put"] = "too late".into();
    let stale = api.call("PUT", &one, JSON, &newer).await.is(409, &what("stale update"));
    assert_eq!(stale["reason"], "Conflict");

    // patch
    let json_patch = json!([{"op": "test", "path": "/metadata/annotations/put", "value": "yes"},
        {"op": "add", "path": "/metadata/annotations/json", "value": "yes"}]);
    let kinds = [
        ("application/json-patch+json", "json", json_patch),
        ("application/merge-patch+json", "merge", json!({"metadata": {"annotations": {"merge": "yes"}}})),
        (
            "application/strategic-merge-patch+json",
            "strategic",
            json!({"metadata": {"annotations": {"strategic": "yes"}}}),
        ),
    ];
    for (kind, key, patch) in kinds {
        let patched = api.call("PATCH", &one, kind, &patch).await.is(200, &what(kind));
        assert_eq!(patched["metadata"]["annotations"][key], "yes", "{}", what(kind));
    }
    let applied = json!({"apiVersion": version, "kind": known.kind, "metadata": {"name": name, "annotations": {"applied": "yes"}}});
    let path = format!("{one}?fieldManager=lives&force=true");
    let applied = api.call("PATCH", &path, "application/apply-patch+yaml", &applied).await.is(200, &what("apply"));
    let managers = applied["metadata"]["managedFields"].as_array().unwrap();
    let own = managers.iter().find(|m| m["manager"] == "lives" && m["operation"] == "Apply");
    let own = own.unwrap_or_else(|| panic!("{}", what("apply says who manages what")));
    assert_eq!(own["fieldsV1"], json!({"f:metadata": {"f:annotations": {"f:applied": {}}}}), "{}", what("apply"));
    let changed =
        api.call("PATCH", &one, "application/merge-patch+json", &sample.change).await.is(200, &what("change"));
    let generation = |object: &Value| object["metadata"]["generation"].as_i64().unwrap_or(0);
    let counted = i64::from(sample.counted);
    assert_eq!(generation(&changed), generation(&applied) + counted, "{}", what("generation after a change"));

    // status and scale
    if known.subresources.iter().any(|sub| sub == "status") {
        assert!(!sample.status.is_null(), "{}", what("the sample has a status"));
        let patch = json!({"status": sample.status, "metadata": {"labels": {"life": life}}});
        let path = format!("{one}/status");
        let told = api.call("PATCH", &path, "application/merge-patch+json", &patch).await.is(200, &what("status"));
        for (field, value) in sample.status.as_object().unwrap() {
            let same = match (&told["status"][field], value) {
                (Value::Object(now), Value::Object(wanted)) => {
                    wanted.iter().all(|(key, value)| now.get(key) == Some(value))
                }
                (now, wanted) => now == wanted,
            };
            assert!(same, "{}: {field} {}", what("status"), told["status"][field]);
        }
        assert_eq!(told["spec"], changed["spec"], "{}", what("status leaves the spec"));
        assert_eq!(generation(&told), generation(&changed), "{}", what("status is not counted"));
        // A write of the object leaves the status.
        let mut object = told.clone();
        object["status"] = json!({});
        object["metadata"]["annotations"]["last"] = "yes".into();
        let kept = api.call("PUT", &one, JSON, &object).await.is(200, &what("update beside a status"));
        assert_eq!(kept["status"], told["status"], "{}", what("an update leaves the status"));
    }
    if known.subresources.iter().any(|sub| sub == "scale") {
        let path = format!("{one}/scale");
        let mut scale = api.get(&path).await.is(200, &what("scale"));
        assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
        scale["spec"]["replicas"] = 5.into();
        api.call("PUT", &path, JSON, &scale).await.is(200, &what("scale"));
        assert_eq!(api.get(&one).await.json()["spec"]["replicas"], 5, "{}", what("scale"));
    }

    // delete, alone and all
    let finalizers = json!({"metadata": {"finalizers": null}});
    api.call("PATCH", &one, "application/merge-patch+json", &finalizers).await.is(200, &what("no finalizers"));
    // By default a Job leaves its pods behind.
    let background = "propagationPolicy=Background";
    api.call("DELETE", &format!("{one}?{background}"), JSON, &Value::Null).await.is(200, &what("delete"));
    api.get(&one).await.is(404, &what("get after delete"));
    let path = format!("{all}?watch=true&{selector}&resourceVersion={}", version_of(&made));
    let events = api.watch_until(&path, "DELETED").await;
    let (last, changes) = events.split_last().unwrap();
    assert!(changes.len() >= 6 && changes.iter().all(|(kind, _)| kind == "MODIFIED"), "{}", what("watch"));
    let versions: Vec<u64> = events.iter().map(|(_, object)| version_of(object).parse().unwrap()).collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{}: {versions:?}", what("watch"));
    assert_eq!(last.1["metadata"]["uid"], made["metadata"]["uid"], "{}", what("watch"));
    api.call("POST", &all, JSON, &object).await.is(201, &what("create after delete"));
    if known.verbs.iter().any(|verb| verb == "deletecollection") {
        let path = format!("{all}?{selector}");
        api.call("PATCH", &one, "application/merge-patch+json", &finalizers).await.is(200, &what("no finalizers"));
        let delete = format!("{path}&{background}");
        api.call("DELETE", &delete, JSON, &Value::Null).await.is(200, &what("deletecollection"));
        let list = api.get(&path).await.is(200, &what("list"));
        assert_eq!(list["items"], json!([]), "{}", what("deletecollection"));
    }
}

#[tokio::test]
async fn every_resource_lives_through_its_verbs() {
    let api = Api::start().await;
    // Each panics with what went wrong; all are told.
    let lives = samples().into_iter().map(|sample| tokio::spawn(live(api.clone(), sample)));
    let wrong = join_all(lives).await.into_iter().filter(Result::is_err).count();
    assert_eq!(wrong, 0, "resources with a wrong answer");
}

#[tokio::test]
async fn every_resource_has_a_sample() {
    let api = Api::start().await;
    let groups = api.get("/apis").await.is(200, "groups");
    let mut versions = vec!["v1".to_owned()];
    for group in groups["groups"].as_array().unwrap() {
        versions.extend(
            group["versions"].as_array().unwrap().iter().map(|v| v["groupVersion"].as_str().unwrap().to_owned()),
        );
    }
    let samples = samples();
    // A namespace ends only when it is empty: another story.
    let elsewhere = [("v1", "namespaces"), ("apiextensions.k8s.io/v1", "customresourcedefinitions")];
    let mut missing = Vec::new();
    for version in &versions {
        let root = if version.contains('/') { "apis" } else { "api" };
        let list = api.get(&format!("/{root}/{version}")).await.is(200, version);
        for resource in list["resources"].as_array().unwrap() {
            let plural = resource["name"].as_str().unwrap();
            let alive = !plural.contains('/')
                && ["create", "get", "delete"]
                    .iter()
                    .all(|verb| texts(&resource["verbs"]).contains(&(*verb).to_owned()));
            let told = samples.iter().any(|s| s.version == version && s.plural == plural);
            if alive && !told && !elsewhere.contains(&(version.as_str(), plural)) {
                missing.push(format!("{version} {plural}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn a_watch_speaks_protobuf() {
    let api = Api::start().await;
    let all = "/api/v1/namespaces/default/configmaps";
    let object = json!({"metadata": {"name": "a", "labels": {"life": "one"}}, "data": {"k": "v"}});
    api.call("POST", all, JSON, &object).await.is(201, "create");
    let encoded = api.raw("GET", &format!("{all}/a"), PROTOBUF, JSON, Bytes::new()).await.2;
    let request = Request::get(format!("{all}?watch=true&labelSelector=life%3Done")).header(header::ACCEPT, PROTOBUF);
    let answer = api.0.service().oneshot(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
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
