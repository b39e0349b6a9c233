//! Objects and lists in YAML, compressed, as metadata alone and in protobuf.

use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::api::{Api, CONFIG_MAPS, JSON, PARTIAL, PARTIAL_LIST, PROTOBUF, TEXT, YAML, envelope, fields};

fn yaml(bytes: &[u8]) -> Value {
    serde_saphyr::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

#[tokio::test]
async fn yaml_and_indented_json_say_what_json_says() {
    let api = Api::start().await;
    let empty = api.get(CONFIG_MAPS, &[]).await.is(200);
    for count in [0, 1, 3] {
        for number in 0..count {
            let data = json!({"text": TEXT, "yes": "yes", "number": "1e3", "none": "", "long": "word ".repeat(60), "tilde": "~"});
            let body = json!({"metadata": {"name": format!("n{count}-{number}")}, "data": data});
            api.post(CONFIG_MAPS, &body).await.is(201);
        }
        let list = api.get(CONFIG_MAPS, &[]).await.is(200);
        assert!(count == 0 || list != empty);
        let told = api.get(CONFIG_MAPS, &[("accept", YAML)]).await;
        assert_eq!((told.header("content-type"), yaml(&told.body)), (YAML, list.clone()));
        let pretty = api.get(&format!("{CONFIG_MAPS}?pretty=true"), &[]).await;
        assert_eq!((pretty.header("content-type"), pretty.json()), (JSON, list.clone()));
        let lines = serde_json::to_string_pretty(&list["items"]).unwrap().replace('\n', "\n  ");
        assert!(String::from_utf8_lossy(&pretty.body).ends_with(&format!("\n  \"items\": {lines}\n}}")));
    }
    let one = api.get(&format!("{CONFIG_MAPS}/n1-0"), &[("accept", YAML)]).await;
    assert_eq!(yaml(&one.body), api.get(&format!("{CONFIG_MAPS}/n1-0"), &[]).await.is(200));
    // What was answered can be sent.
    let sent = String::from_utf8(one.body.to_vec()).unwrap();
    let put = api.send("PUT", &format!("{CONFIG_MAPS}/n1-0"), &[("content-type", YAML), ("accept", YAML)], &sent).await;
    assert_eq!((put.code, yaml(&put.body)), (200, yaml(&one.body)));
    let missing = api.get(&format!("{CONFIG_MAPS}/missing"), &[("accept", YAML)]).await;
    assert_eq!((missing.code, &yaml(&missing.body)["reason"]), (404, &json!("NotFound")));
}

#[tokio::test]
async fn lines_at_the_end_of_a_text_are_part_of_it() {
    let api = Api::start().await;
    let definition = json!({"metadata": {"name": "notes.example.com"}, "spec": {
        "group": "example.com", "scope": "Cluster", "names": {"kind": "Note", "plural": "notes"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
            {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
    }});
    api.0.define(definition).await.unwrap();
    let path = "/apis/example.com/v1/notes";
    for (name, text) in [("a", "two\n\n"), ("b", "\n"), ("c", "none"), ("d", "one\n")] {
        let note = json!({"apiVersion": "example.com/v1", "kind": "Note", "metadata": {"name": name}, "text": text});
        api.post(path, &note).await.is(201);
    }
    let told = api.get(path, &[("accept", YAML)]).await;
    assert_eq!(yaml(&told.body), api.get(path, &[]).await.is(200));
}

/// A table of ConfigMaps but for how old they are, in seconds, one of which may end while they are told.
fn without_ages(table: &[u8]) -> Value {
    let mut table: Value = serde_json::from_slice(table).unwrap();
    for row in table["rows"].as_array_mut().unwrap() {
        let cells = row["cells"].as_array_mut().unwrap();
        assert_eq!(cells.len(), 3);
        cells.pop();
    }
    table
}

#[tokio::test]
async fn long_answers_are_compressed() {
    let api = Api::start().await;
    api.config_maps(40, 4000).await;
    let gzip = ("accept-encoding", "gzip");
    for accept in [JSON, YAML, PROTOBUF, "application/json;as=Table;v=v1;g=meta.k8s.io"] {
        let path = if accept.contains("Table") { &format!("{CONFIG_MAPS}?includeObject=Object") } else { CONFIG_MAPS };
        let plain = api.get(path, &[("accept", accept)]).await;
        let told = api.get(path, &[("accept", accept), gzip]).await;
        assert_eq!(plain.header("content-encoding"), "");
        let (unzipped, body) = (told.unzipped(), plain.body.to_vec());
        if accept.contains("Table") {
            assert_eq!(without_ages(&unzipped), without_ages(&body));
        } else {
            assert!(unzipped == body, "{accept}");
        }
        assert!(told.body.len() * 10 < plain.body.len(), "{accept}");
        assert_eq!(told.header("content-type"), plain.header("content-type"));
    }
    let few = api.get(&format!("{CONFIG_MAPS}?limit=3"), &[gzip]).await;
    assert_eq!((few.header("content-encoding"), few.is(200)["items"].as_array().unwrap().len()), ("", 3));
    let body = json!({"metadata": {"name": "large"}, "data": {"filling": "x".repeat(200_000)}});
    api.post(CONFIG_MAPS, &body).await.is(201);
    let large = api.get(&format!("{CONFIG_MAPS}/large"), &[gzip]).await;
    let plain: Value = serde_json::from_slice(&large.unzipped()).unwrap();
    assert_eq!(plain["data"], body["data"]);
}

#[tokio::test]
async fn a_list_in_protobuf_holds_its_objects() {
    let api = Api::start().await;
    api.config_maps(3, 300).await;
    let partial = PARTIAL.replace(JSON, PROTOBUF);
    for (accept, kind) in [(PROTOBUF, "ConfigMap"), (&partial, "PartialObjectMetadata")] {
        // The second list is made of what the first has encoded.
        for _ in 0..2 {
            let list = api.get(&format!("{CONFIG_MAPS}?limit=2"), &[("accept", accept)]).await;
            assert_eq!((list.code, list.header("content-type")), (200, PROTOBUF));
            let (told, list) = envelope(&list.body);
            assert_eq!(told, format!("{kind}List"));
            let parts = fields(list);
            assert_eq!(parts.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 2]);
            for (number, (_, item)) in parts[1..].iter().enumerate() {
                let one = api.get(&format!("{CONFIG_MAPS}/c000{number}"), &[("accept", accept)]).await;
                let (told, message) = envelope(&one.body);
                assert_eq!(told, kind);
                assert_eq!(message, *item);
            }
        }
    }
    let missing = api.get(&format!("{CONFIG_MAPS}?labelSelector=no"), &[("accept", PROTOBUF)]).await;
    assert_eq!(fields(envelope(&missing.body).1).len(), 1, "metadata, and no items");
}

#[tokio::test]
async fn metadata_alone_is_listed_and_watched() {
    let api = Api::start().await;
    api.config_maps(2, 10).await;
    for accept in [PARTIAL, PARTIAL_LIST] {
        let list = api.get(CONFIG_MAPS, &[("accept", accept)]).await.is(200);
        let whole = api.get(CONFIG_MAPS, &[]).await.is(200);
        assert_eq!(list["kind"], "PartialObjectMetadataList");
        assert_eq!((&list["apiVersion"], &list["metadata"]), (&json!("meta.k8s.io/v1"), &whole["metadata"]));
        for (part, whole) in list["items"].as_array().unwrap().iter().zip(whole["items"].as_array().unwrap()) {
            let wanted =
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": whole["metadata"]});
            assert_eq!(*part, wanted);
        }
    }
    let watch = format!(
        "{CONFIG_MAPS}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    );
    let mut body = api.open("GET", &watch, &[("accept", PARTIAL)], "").await.into_body();
    let mut read = Vec::new();
    while read.iter().filter(|byte| **byte == b'\n').count() < 3 {
        read.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    let events: Vec<Value> = serde_json::Deserializer::from_slice(&read).into_iter().map(Result::unwrap).collect();
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ADDED", "ADDED", "BOOKMARK"]);
    for event in &events {
        assert_eq!((&event["object"]["kind"], event["object"].get("data")), (&json!("PartialObjectMetadata"), None));
    }
    assert_eq!(events[2]["object"]["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));

    let accept = PARTIAL.replace(JSON, PROTOBUF);
    let answer = api
        .open(
            "GET",
            &format!("{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Dc0001"),
            &[("accept", &accept)],
            "",
        )
        .await;
    assert_eq!(answer.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let frame = answer.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    // A length, and a WatchEvent: the type, and an object in an envelope.
    let parts = fields(&frame[4..]);
    assert_eq!(parts[0].1, b"ADDED");
    let one = api.get(&format!("{CONFIG_MAPS}/c0001"), &[("accept", &accept)]).await;
    assert_eq!(fields(parts[1].1)[0].1, &one.body[..]);
}
