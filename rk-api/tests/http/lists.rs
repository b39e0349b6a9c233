//! Lists that are made as they are sent, and lists through indexes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http_body_util::BodyExt;
use rk_api::{
    Resource,
    server::{Column, Row, Strategy, UserInfo},
};
use serde_json::{Value, json};

use crate::api::Api;

/// Cells that were made.
static CELLS: AtomicUsize = AtomicUsize::new(0);

struct Plain;

impl Strategy for Plain {}

/// A resource whose cells are counted.
fn counted() -> Row {
    let cell = |object: &Value| {
        CELLS.fetch_add(1, Ordering::Relaxed);
        object["metadata"]["name"].clone()
    };
    let column = Column { name: "Name", kind: "string", priority: 0, description: "The name.", cell };
    Row {
        resource: Resource::new("example.com", "v1", "Thing", "things", true),
        singular: "thing".to_owned(),
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: ["create", "get", "list"].map(str::to_owned).to_vec(),
        subresources: Vec::new(),
        stored: true,
        columns: [column].into(),
        selectable_fields: Vec::new(),
        strategy: Arc::new(Plain),
    }
}

#[tokio::test]
async fn an_answer_begins_before_its_last_object_is_encoded() {
    const COUNT: usize = 2000;
    let api = Api::with(|builder| builder.row(counted())).await;
    let things = "/apis/example.com/v1/namespaces/default/things";
    for number in 0..COUNT {
        let body = json!({"metadata": {"name": format!("t{number:04}"), "annotations": {"filling": "x".repeat(100)}}});
        api.post(things, &body).await.is(201);
    }
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let mut body = api.open("GET", things, &accept, "").await.into_body();
    let mut read = body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
    let begun = CELLS.load(Ordering::Relaxed);
    assert!(read.len() > 50_000 && (1..COUNT / 2).contains(&begun), "{begun} cells, {} bytes", read.len());
    read.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    assert_eq!(CELLS.load(Ordering::Relaxed), COUNT);
    let table: Value = serde_json::from_slice(&read).unwrap();
    let rows = table["rows"].as_array().unwrap();
    assert_eq!((table["kind"].as_str(), rows.len()), (Some("Table"), COUNT));
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(row["cells"], json!([format!("t{number:04}")]));
        assert_eq!(row["object"]["metadata"]["name"], row["cells"][0]);
    }
}

#[tokio::test]
async fn custom_resources_are_converted_as_they_are_sent() {
    let api = Api::start().await;
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    let definition = json!({"metadata": {"name": "parts.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
        "names": {"plural": "parts", "kind": "Part"}, "versions": [version("v1", true), version("v2", false)]}});
    api.0.define(definition).await.unwrap();
    for (number, version) in ["v1", "v2", "v1"].into_iter().enumerate() {
        let (api_version, name) = (format!("example.com/{version}"), format!("p{number}"));
        let body = json!({"apiVersion": api_version, "kind": "Part", "metadata": {"name": name}, "n": number});
        api.post(&format!("/apis/example.com/{version}/parts"), &body).await.is(201);
    }
    for version in ["v1", "v2"] {
        let path = format!("/apis/example.com/{version}/parts");
        let list = api.get(&path, &[]).await.is(200);
        assert_eq!(
            (&list["kind"], &list["apiVersion"]),
            (&json!("PartList"), &json!(format!("example.com/{version}")))
        );
        for (number, item) in list["items"].as_array().unwrap().iter().enumerate() {
            assert_eq!((&item["apiVersion"], &item["n"]), (&list["apiVersion"], &json!(number)));
            assert_eq!(*item, api.get(&format!("{path}/p{number}"), &[]).await.is(200));
        }
        let table = api.get(&path, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")]).await.is(200);
        let names: Vec<_> = table["rows"].as_array().unwrap().iter().map(|row| row["cells"][0].clone()).collect();
        assert_eq!(names, ["p0", "p1", "p2"]);
    }
}

/// Pods on nodes, enough of them for an index: what is listed and watched of a node is what is there, also while pods come and go.
#[tokio::test]
async fn pods_of_a_node_are_found() {
    let api = Api::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    for number in 0..1100 {
        let spec = json!({"nodeName": format!("n{}", number % 100), "containers": [{"name": "c", "image": "i"}]});
        let body = json!({"metadata": {"name": format!("p{number:04}"), "labels": {"hundred": format!("h{}", number / 100)}}, "spec": spec});
        api.post(pods, &body).await.is(201);
    }
    let names = async |query: &str| -> Vec<String> {
        let list = api.get(&format!("/api/v1/pods?{query}"), &[]).await.is(200);
        let items = list["items"].as_array().unwrap().iter();
        items.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let of_node = (0..11).map(|hundred| format!("p{hundred:02}07")).collect::<Vec<_>>();
    assert_eq!(names("fieldSelector=spec.nodeName%3Dn7").await, of_node);
    assert_eq!(names("fieldSelector=spec.nodeName%3Dn7,metadata.name!%3Dp0007").await, of_node[1..]);
    assert_eq!(names("fieldSelector=spec.nodeName%3Dn7&labelSelector=hundred%3Dh3").await, ["p0307"]);
    assert_eq!(names("fieldSelector=spec.nodeName%3Dnone").await, Vec::<String>::new());
    let first = api.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn7&limit=4", &[]).await.is(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    assert_eq!(names(&format!("fieldSelector=spec.nodeName%3Dn7&limit=100&continue={token}")).await, of_node[4..]);

    // A pod goes, one comes.
    let now = "?gracePeriodSeconds=0";
    api.send("DELETE", &format!("{pods}/p0007{now}"), &[], "").await.is(200);
    let spec = json!({"nodeName": "n7", "containers": [{"name": "c", "image": "i"}]});
    api.post(pods, &json!({"metadata": {"name": "late"}, "spec": spec})).await.is(201);
    assert_eq!(names("fieldSelector=spec.nodeName%3Dn7").await, [&["late".to_owned()], &of_node[1..]].concat());
    let node = api.0.client(UserInfo::loopback());
    let on_node = rk_api::ListOptions { fields: "spec.nodeName=n7".parse().unwrap(), ..Default::default() };
    let resource = Resource::of::<k8s_openapi::api::core::v1::Pod>();
    assert_eq!(node.list(&resource, "default", on_node).await.unwrap().items.len(), 11);
}
