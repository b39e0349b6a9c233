//! The life of one object over HTTP, through every verb of its resource, its status and its scale.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    api::{APPLY, Api, JSON, MERGE, PROTOBUF, TABLE, texts},
    samples::Sample,
};

/// What discovery says of a resource.
struct Known {
    namespaced: bool,
    kind: String,
    verbs: Vec<String>,
    subresources: Vec<String>,
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

pub fn version_of(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap_or(0)
}

/// What a manager applied, on a subresource or (`""`) on the object.
fn applied_by(object: &Value, manager: &str, subresource: &str) -> Value {
    let managers = object["metadata"]["managedFields"].as_array().unwrap().iter();
    let mut own = managers.filter(|m| m["manager"] == manager && m["operation"] == "Apply");
    let own = own.find(|m| m["subresource"].as_str().unwrap_or_default() == subresource);
    own.map(|own| own["fieldsV1"].clone()).unwrap_or_default()
}

/// Another value of the same type.
fn other(value: &Value) -> Value {
    match value {
        Value::Number(number) => (number.as_i64().unwrap() + 1).into(),
        Value::Bool(yes) => (!yes).into(),
        _ => Value::Null,
    }
}

struct Life {
    api: Api,
    sample: Sample,
    known: Known,
    name: String,
    /// The paths of the collection (in its namespace and in all) and of the object.
    all: String,
    everywhere: String,
    one: String,
    /// Chooses this object among the collection's.
    selector: String,
}

impl Life {
    async fn new(api: Api, sample: Sample) -> Self {
        let Sample { version, plural, .. } = sample;
        let known = known(&api, version, plural).await;
        let root = if version.contains('/') { "apis" } else { "api" };
        let scope = if known.namespaced { "namespaces/default/" } else { "" };
        let all = format!("/{root}/{version}/{scope}{plural}");
        let life = version.replace('/', "-");
        let name = match plural {
            "csidrivers" => "d.example.com".to_owned(),
            "ipaddresses" => "10.96.7.7".to_owned(),
            "apiservices" => "v1.lives.example.com".to_owned(),
            // Some versions are versions of the same objects.
            _ => format!("a-{life}"),
        };
        let everywhere = format!("/{root}/{version}/{plural}");
        let (one, selector) = (format!("{all}/{name}"), format!("labelSelector=life%3D{life}"));
        Self { api, sample, known, name, all, everywhere, one, selector }
    }

    fn what(&self, step: &str) -> String {
        format!("{} {}: {step}", self.sample.version, self.sample.plural)
    }

    fn has(&self, subresource: &str) -> bool {
        self.known.subresources.iter().any(|sub| sub == subresource)
    }

    async fn create(&self) -> Value {
        let (api, what) = (&self.api, |step: &str| self.what(step));
        let mut object = self.sample.body.clone();
        object["apiVersion"] = self.sample.version.into();
        object["kind"] = self.known.kind.as_str().into();
        object["metadata"]["name"] = self.name.as_str().into();
        object["metadata"]["labels"]["life"] = self.sample.version.replace('/', "-").into();
        let tried = api.post(&format!("{}?dryRun=All", self.all), &object).await.is(201, &what("dry run"));
        assert!(tried["metadata"]["uid"].is_string(), "{}", what("dry run"));
        api.get(&self.one).await.is(404, &what("get after a dry run"));
        let made = api.post(&self.all, &object).await.is(201, &what("create"));
        for field in ["uid", "resourceVersion", "creationTimestamp"] {
            assert!(made["metadata"][field].is_string(), "{} sets {field}", what("create"));
        }
        assert_eq!((&made["kind"], &made["apiVersion"]), (&object["kind"], &object["apiVersion"]));
        let again = api.post(&self.all, &object).await.is(409, &what("create again"));
        assert_eq!(again["reason"], "AlreadyExists");
        made
    }

    /// Reads in all forms: JSON, table, metadata, protobuf.
    async fn read(&self, made: &Value) {
        let (api, what) = (&self.api, |step: &str| self.what(step));
        let got = api.get(&self.one).await.is(200, &what("get"));
        assert_eq!(got, *made, "{}", what("get answers what create did"));
        for all in [&self.all, &self.everywhere] {
            let list = api.get(&format!("{all}?{}", self.selector)).await.is(200, &what("list"));
            assert_eq!(list["kind"], format!("{}List", self.known.kind));
            let items = list["items"].as_array().unwrap();
            assert_eq!(items.len(), 1, "{}", what("list"));
            assert_eq!(items[0]["metadata"], made["metadata"], "{}", what("list"));
        }
        for path in [&self.one, &format!("{}?{}", self.all, self.selector)] {
            let table = api.raw("GET", path, TABLE, JSON, Bytes::new()).await.is(200, &what("table"));
            let columns = table["columnDefinitions"].as_array().unwrap();
            let cells = table["rows"][0]["cells"].as_array().unwrap();
            assert_eq!(columns.len(), cells.len(), "{}", what("table"));
            let first = columns[0]["name"].as_str().unwrap();
            assert!(cells[0] == self.name.as_str() || first == "Last Seen", "{}: {first} {}", what("table"), cells[0]);
        }
        let partial = format!("{JSON};as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
        let partial = api.raw("GET", &self.one, &partial, JSON, Bytes::new()).await.is(200, &what("metadata"));
        assert_eq!((&partial["kind"], partial.get("spec")), (&json!("PartialObjectMetadata"), None));
        let encoded = api.raw("GET", &self.one, PROTOBUF, JSON, Bytes::new()).await;
        assert_eq!((encoded.0, encoded.1.as_str()), (200, PROTOBUF), "{}", what("protobuf"));
        let back = api.raw("PUT", &format!("{}?dryRun=All", self.one), JSON, PROTOBUF, encoded.2).await;
        assert_eq!(back.is(200, &what("what protobuf said, put")), *made, "{}", what("protobuf says the same"));
    }

    /// Changes the object by update, patch and apply.
    async fn change(&self, made: &Value) -> Value {
        let (api, what) = (&self.api, |step: &str| self.what(step));
        let mut newer = made.clone();
        newer["metadata"]["annotations"]["put"] = "yes".into();
        let put = api.put(&self.one, &newer).await.is(200, &what("update"));
        assert_ne!(version_of(&put), version_of(made), "{}", what("update"));
        assert_eq!(generation(&put), generation(made), "{}", what("metadata is not counted"));
        newer["metadata"]["annotations"]["put"] = "too late".into();
        let stale = api.put(&self.one, &newer).await.is(409, &what("stale update"));
        assert_eq!(stale["reason"], "Conflict");

        let json_patch = json!([{"op": "test", "path": "/metadata/annotations/put", "value": "yes"},
            {"op": "add", "path": "/metadata/annotations/json", "value": "yes"}]);
        let annotated = |key: &str| json!({"metadata": {"annotations": {key: "yes"}}});
        for (kind, key, patch) in [
            ("application/json-patch+json", "json", json_patch),
            (MERGE, "merge", annotated("merge")),
            ("application/strategic-merge-patch+json", "strategic", annotated("strategic")),
        ] {
            let patched = api.call("PATCH", &self.one, kind, &patch).await.is(200, &what(kind));
            assert_eq!(patched["metadata"]["annotations"][key], "yes", "{}", what(kind));
        }
        let mut applied_body = annotated("applied");
        applied_body["apiVersion"] = self.sample.version.into();
        applied_body["kind"] = self.known.kind.as_str().into();
        applied_body["metadata"]["name"] = self.name.as_str().into();
        let path = format!("{}?fieldManager=lives&force=true", self.one);
        let applied = api.call("PATCH", &path, APPLY, &applied_body).await.is(200, &what("apply"));
        let fields = json!({"f:metadata": {"f:annotations": {"f:applied": {}}}});
        assert_eq!(applied_by(&applied, "lives", ""), fields, "{}", what("apply"));
        for (path, kind, body) in [
            (format!("{}?dryRun=All", self.one), MERGE, annotated("tried")),
            (format!("{path}&dryRun=All"), APPLY, {
                let mut more = applied_body.clone();
                more["metadata"]["annotations"]["tried"] = "yes".into();
                more
            }),
        ] {
            let tried = api.call("PATCH", &path, kind, &body).await.is(200, &what("dry run of a patch"));
            assert_eq!(tried["metadata"]["annotations"]["tried"], "yes", "{}", what("dry run of a patch"));
            assert_eq!(api.get(&self.one).await.json(), applied, "{}", what("dry run of a patch"));
        }
        let changed = api.merge(&self.one, &self.sample.change).await.is(200, &what("change"));
        let counted = i64::from(self.sample.counted);
        assert_eq!(generation(&changed), generation(&applied) + counted, "{}", what("generation after a change"));
        changed
    }

    async fn status(&self, changed: &Value) {
        let (api, what, status) = (&self.api, |step: &str| self.what(step), &self.sample.status);
        assert!(!status.is_null(), "{}", what("the sample has a status"));
        let path = format!("{}/status", self.one);
        let shown = api.get(&path).await.is(200, &what("get of the status"));
        assert_eq!(shown, *changed, "{}", what("the status is shown with its object"));
        let mut newer = shown.clone();
        for (field, value) in status.as_object().unwrap() {
            match (&mut newer["status"][field], value) {
                (Value::Object(now), Value::Object(wanted)) => now.extend(wanted.clone()),
                (now, wanted) => *now = wanted.clone(),
            }
        }
        let told = api.put(&path, &newer).await.is(200, &what("update of the status"));
        self.has_status(&told, changed);
        let counter = status.as_object().unwrap().iter().find(|(_, value)| !other(value).is_null());
        if let Some((field, value)) = counter {
            let patch = json!({"status": {field: other(value)}});
            let patched = api.merge(&path, &patch).await.is(200, &what("patch of the status"));
            assert_eq!(patched["status"][field], other(value), "{}", what("patch of the status"));
        }
        let told = api.merge(&path, &json!({"status": status})).await.is(200, &what("patch of the status"));
        self.has_status(&told, changed);

        // Applied it has an owner, whom others ask before they change it.
        let mut wanted = json!({"apiVersion": self.sample.version, "kind": self.known.kind,
            "metadata": {"name": self.name}, "status": status});
        let apply = async |manager: &str, body: &Value| {
            let path = format!("{path}?fieldManager={manager}");
            api.call("PATCH", &path, APPLY, body).await
        };
        let told = apply("teller", &wanted).await.is(200, &what("apply of the status"));
        self.has_status(&told, changed);
        let owned = applied_by(&told, "teller", "status");
        let owned: Vec<_> = owned.as_object().unwrap_or_else(|| panic!("{}", what("apply says who"))).keys().collect();
        assert_eq!(owned, ["f:status"], "{}", what("apply of the status owns nothing else"));
        if let Some((field, value)) = counter {
            wanted["status"] = json!({field: other(value)});
            let refused = apply("another", &wanted).await.is(409, &what("apply of another's status"));
            assert_eq!(refused["details"]["causes"][0]["field"], format!(".status.{field}"), "{refused}");
        }

        // A write of the object leaves the status.
        let mut object = told.clone();
        object["status"] = json!({});
        object["metadata"]["annotations"]["last"] = "yes".into();
        let kept = api.put(&self.one, &object).await.is(200, &what("update beside a status"));
        assert_eq!(kept["status"], told["status"], "{}", what("an update leaves the status"));
    }

    /// The status is the sample's, and all else as it was.
    fn has_status(&self, told: &Value, before: &Value) {
        for (field, value) in self.sample.status.as_object().unwrap() {
            let same = match (&told["status"][field], value) {
                (Value::Object(now), Value::Object(wanted)) => {
                    wanted.iter().all(|(key, value)| now.get(key) == Some(value))
                }
                (now, wanted) => now == wanted,
            };
            assert!(same, "{}: {field} {}", self.what("status"), told["status"][field]);
        }
        assert_eq!(told["spec"], before["spec"], "{}", self.what("status leaves the spec"));
        assert_eq!(generation(told), generation(before), "{}", self.what("status is not counted"));
    }

    async fn scale(&self) {
        let (api, what, path) = (&self.api, |step: &str| self.what(step), format!("{}/scale", self.one));
        let mut scale = api.get(&path).await.is(200, &what("scale"));
        assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
        scale["spec"]["replicas"] = 5.into();
        api.put(&path, &scale).await.is(200, &what("update of the scale"));
        assert_eq!(api.get(&self.one).await.json()["spec"]["replicas"], 5, "{}", what("update of the scale"));
        let patched = api.merge(&path, &json!({"spec": {"replicas": 6}})).await.is(200, &what("patch of the scale"));
        assert_eq!((&patched["kind"], &patched["spec"]["replicas"]), (&json!("Scale"), &json!(6)));
    }

    async fn end(&self, made: &Value) {
        let (api, what) = (&self.api, |step: &str| self.what(step));
        let finalizers = json!({"metadata": {"finalizers": null}});
        api.merge(&self.one, &finalizers).await.is(200, &what("no finalizers"));
        // By default a Job leaves its pods behind.
        let background = "propagationPolicy=Background";
        let before = api.get(&self.one).await.is(200, &what("get"));
        api.delete(&format!("{}?{background}&dryRun=All", self.one)).await.is(200, &what("dry run of a delete"));
        assert_eq!(api.get(&self.one).await.json(), before, "{}", what("dry run of a delete"));
        api.delete(&format!("{}?{background}", self.one)).await.is(200, &what("delete"));
        api.get(&self.one).await.is(404, &what("get after delete"));
        for all in [&self.all, &self.everywhere] {
            let path = format!("{all}?watch=true&{}&resourceVersion={}", self.selector, version_of(made));
            let events = api.watch_until(&path, "DELETED").await;
            let (last, changes) = events.split_last().unwrap();
            assert!(changes.len() >= 6 && changes.iter().all(|(kind, _)| kind == "MODIFIED"), "{}", what("watch"));
            let versions: Vec<u64> = events.iter().map(|(_, object)| version_of(object).parse().unwrap()).collect();
            assert!(versions.is_sorted_by(|a, b| a < b), "{}: {versions:?}", what("watch"));
            assert_eq!(last.1["metadata"]["uid"], made["metadata"]["uid"], "{}", what("watch"));
        }
        if self.known.verbs.iter().any(|verb| verb == "deletecollection") {
            self.create().await;
            api.merge(&self.one, &finalizers).await.is(200, &what("no finalizers"));
            let path = format!("{}?{}", self.all, self.selector);
            let tried = format!("{path}&{background}&dryRun=All");
            let tried = api.delete(&tried).await.is(200, &what("dry run of a deletecollection"));
            assert_eq!(tried["items"][0]["metadata"]["name"], self.name, "{}", what("dry run of a deletecollection"));
            api.get(&self.one).await.is(200, &what("get after a dry run of a deletecollection"));
            api.delete(&format!("{path}&{background}")).await.is(200, &what("deletecollection"));
            let list = api.get(&path).await.is(200, &what("list"));
            assert_eq!(list["items"], json!([]), "{}", what("deletecollection"));
        }
    }
}

/// One object's life.
pub async fn live(api: Api, sample: Sample) {
    let life = Life::new(api, sample).await;
    let made = life.create().await;
    life.read(&made).await;
    let changed = life.change(&made).await;
    if life.has("status") {
        life.status(&changed).await;
    }
    if life.has("scale") {
        life.scale().await;
    }
    life.end(&made).await;
}
