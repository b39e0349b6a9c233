//! Resources and subresources with a story of their own: namespaces, definitions, questions, and what pods, service accounts and
//! requests for certificates have.

use serde_json::{Value, json};

use crate::{
    api::{APPLY, Api, JSON},
    samples::{REQUEST, template},
};

/// Changes an object in all the ways there are, by an annotation of each.
async fn annotate(api: &Api, path: &str, version: &str, kind: &str, name: &str) {
    let annotated = |key: &str| json!({"metadata": {"annotations": {key: "yes"}}});
    let merged = api.merge(path, &annotated("merge")).await.is(200, path);
    let mut newer = merged;
    newer["metadata"]["annotations"]["put"] = "yes".into();
    // Whoever keeps the object's status may be faster.
    newer["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    if kind != "CustomResourceDefinition" {
        api.put(path, &newer).await.is(200, path);
    } else {
        // Here a version has to be named.
        loop {
            newer["metadata"]["resourceVersion"] =
                api.get(path).await.is(200, path)["metadata"]["resourceVersion"].take();
            match api.put(path, &newer).await {
                put if put.0 == 409 => {}
                put => break drop(put.is(200, path)),
            }
        }
    }
    let json_patch = json!([{"op": "add", "path": "/metadata/annotations/json", "value": "yes"}]);
    api.call("PATCH", path, "application/json-patch+json", &json_patch).await.is(200, path);
    let strategic = "application/strategic-merge-patch+json";
    api.call("PATCH", path, strategic, &annotated("strategic")).await.is(200, path);
    let mut applied = annotated("applied");
    applied["apiVersion"] = version.into();
    applied["kind"] = kind.into();
    applied["metadata"]["name"] = name.into();
    let applied = api.call("PATCH", &format!("{path}?fieldManager=lives"), APPLY, &applied).await.is(200, path);
    for key in ["put", "json", "merge", "strategic", "applied"] {
        assert_eq!(applied["metadata"]["annotations"][key], "yes", "{path} {key}");
    }
}

/// A namespace ends once its finalizers are gone, which only `finalize` takes away.
pub async fn namespaces(api: Api) {
    let (all, one) = ("/api/v1/namespaces", "/api/v1/namespaces/lives");
    let made = api.post(all, &json!({"metadata": {"name": "lives", "labels": {"life": "it"}}})).await.is(201, "create");
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!((&made["status"]["phase"], &api.get(one).await.is(200, "get")), (&json!("Active"), &made));
    let list = api.get(&format!("{all}?labelSelector=life")).await.is(200, "list");
    assert_eq!(list["items"][0]["metadata"], made["metadata"]);
    annotate(&api, one, "v1", "Namespace", "lives").await;

    let status = format!("{one}/status");
    let condition = json!({"type": "T", "status": "True", "reason": "R", "message": "m"});
    let told = json!({"status": {"conditions": [condition]}});
    let told = api.merge(&status, &told).await.is(200, "patch of the status");
    assert_eq!(told["status"]["conditions"][0]["type"], "T");
    let mut cleared = api.get(&status).await.is(200, "get of the status");
    cleared["status"]["conditions"] = json!([]);
    let cleared = api.put(&status, &cleared).await.is(200, "update of the status");
    assert_eq!(cleared["status"]["conditions"].as_array().map_or(0, Vec::len), 0);

    let ending = api.delete(one).await.is(200, "delete");
    assert_eq!(ending["status"]["phase"], "Terminating");
    let object = json!({"metadata": {"name": "late"}});
    let refused = api.post(&format!("{one}/configmaps"), &object).await.is(403, "create in what ends");
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut last = api.get(one).await.is(200, "get");
    last["spec"]["finalizers"] = json!([]);
    let kept = api.put(one, &last).await.is(200, "update");
    assert_eq!(kept["spec"]["finalizers"], json!(["kubernetes"]), "an update is no way around");
    last["metadata"]["resourceVersion"] = kept["metadata"]["resourceVersion"].clone();
    api.put(&format!("{one}/finalize"), &last).await.is(200, "finalize");
    api.get(one).await.is(404, "get after finalize");
    let version = made["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{all}?watch=true&labelSelector=life&resourceVersion={version}");
    let events = api.watch_until(&path, "DELETED").await;
    assert_eq!(events.last().unwrap().1["metadata"]["uid"], made["metadata"]["uid"]);
}

/// A definition's status is kept by the server itself, so no version of it lasts.
pub async fn definitions(api: Api) {
    let (version, kind, name) = ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "lives.example.com");
    let all = format!("/apis/{version}/customresourcedefinitions");
    let one = format!("{all}/{name}");
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}});
    let definition = json!({"metadata": {"name": name, "labels": {"life": "it"}}, "spec": {
        "group": "example.com", "scope": "Cluster", "names": {"plural": "lives", "kind": "Life"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    let made = api.post(&all, &definition).await.is(201, "create");
    assert_eq!(made["spec"]["names"]["listKind"], "LifeList");
    let version_made = made["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let selected = format!("{all}?labelSelector=life");
    let watch = format!("{selected}&watch=true&resourceVersion={version_made}");
    assert_eq!(api.get(&selected).await.is(200, "list")["items"][0]["metadata"]["uid"], made["metadata"]["uid"]);
    annotate(&api, &one, version, kind, name).await;

    // It is served once its status says so, or before.
    while api.get("/apis/example.com/v1/lives").await.0 == 404 {
        tokio::task::yield_now().await;
    }
    let status = format!("{one}/status");
    let condition = |message: &str| json!({"type": "T", "status": "True", "reason": "R", "message": message});
    let json_patch = json!([{"op": "add", "path": "/status/conditions/-", "value": condition("patched")}]);
    let patched = loop {
        match api.call("PATCH", &status, "application/json-patch+json", &json_patch).await {
            // The list itself is the server's to begin.
            early if early.0 == 422 => tokio::task::yield_now().await,
            patched => break patched.is(200, "patch of the status"),
        }
    };
    assert!(patched["status"]["conditions"].to_string().contains("patched"), "{patched}");
    loop {
        let mut shown = api.get(&status).await.is(200, "get of the status");
        shown["status"]["conditions"].as_array_mut().unwrap().retain(|condition| condition["type"] != "T");
        match api.put(&status, &shown).await {
            put if put.0 == 409 => {}
            put => {
                let put = put.is(200, "update of the status");
                break assert!(!put["status"]["conditions"].to_string().contains("patched"), "{put}");
            }
        }
    }
    api.delete(&one).await.is(200, "delete");
    let events = api.watch_until(&watch, "DELETED").await;
    assert_eq!(events.last().unwrap().1["metadata"]["uid"], made["metadata"]["uid"]);
    api.post(&all, &definition).await.is(201, "create after delete");
    api.delete(&selected).await.is(200, "deletecollection");
    while api.get(&one).await.0 == 200 {
        tokio::task::yield_now().await;
    }
}

/// Questions are answered and not stored.
pub async fn questions(api: Api) {
    let ask = async |path: &str, body: Value| api.post(path, &body).await.is(201, path);
    let own = ask("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
    assert_eq!(own["status"]["userInfo"]["groups"][0], "system:masters");

    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    let token = ask(&format!("{account}/token"), json!({"spec": {"audiences": [], "expirationSeconds": 600}})).await;
    let review = json!({"spec": {"token": token["status"]["token"]}});
    let review = ask("/apis/authentication.k8s.io/v1/tokenreviews", review).await;
    assert_eq!(review["status"]["user"]["username"], "system:serviceaccount:default:default", "{review}");

    let access = json!({"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}});
    let mut somebody = access.clone();
    somebody["user"] = "somebody".into();
    let root = "/apis/authorization.k8s.io/v1";
    for (path, spec, allowed) in [
        ("selfsubjectaccessreviews", &access, true),
        ("subjectaccessreviews", &somebody, false),
        ("namespaces/default/localsubjectaccessreviews", &somebody, false),
    ] {
        let mut body = json!({"spec": spec});
        if path.starts_with("namespaces") {
            body["metadata"]["namespace"] = "default".into();
        }
        let answer = ask(&format!("{root}/{path}"), body).await;
        assert_eq!(answer["status"]["allowed"], allowed, "{path}: {answer}");
    }
    let rules = ask(&format!("{root}/selfsubjectrulesreviews"), json!({"spec": {"namespace": "default"}})).await;
    assert_eq!(rules["status"]["resourceRules"][0]["verbs"], json!(["*"]), "{rules}");

    // The deprecated ComponentStatus tells of nobody: schedulers and controllers are not asked.
    let list = api.get("/api/v1/componentstatuses").await.is(200, "componentstatuses");
    assert_eq!((&list["kind"], &list["items"]), (&json!("ComponentStatusList"), &json!([])));
    let missing = api.get("/api/v1/componentstatuses/scheduler").await.is(404, "componentstatuses");
    assert_eq!(missing["reason"], "NotFound");
}

/// A pod is bound, gets a container to debug it, is resized and evicted.
pub async fn pods(api: Api) {
    let all = "/api/v1/namespaces/default/pods";
    let binding =
        |name: &str| json!({"metadata": {"name": name}, "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"}});
    for name in ["bound", "bound-by-itself"] {
        let mut pod = template();
        pod["metadata"] = json!({"name": name});
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m", "memory": "1Mi"}});
        api.post(all, &pod).await.is(201, "create");
    }
    let one = format!("{all}/bound");
    let bound = api.post("/api/v1/namespaces/default/bindings", &binding("bound")).await.is(201, "binding");
    assert_eq!(bound["status"], "Success");
    let by_itself = format!("{all}/bound-by-itself");
    api.post(&format!("{by_itself}/binding"), &binding("bound-by-itself")).await.is(201, "binding");
    for one in [&one, &by_itself] {
        assert_eq!(api.get(one).await.is(200, "get")["spec"]["nodeName"], "n1");
    }

    let path = format!("{one}/ephemeralcontainers");
    let mut pod = api.get(&path).await.is(200, "get of ephemeralcontainers");
    pod["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "i"}]);
    pod["spec"]["containers"][0]["image"] = "other".into();
    let pod = api.put(&path, &pod).await.is(200, "update of ephemeralcontainers");
    assert_eq!(pod["spec"]["containers"][0]["image"], "i", "no other container is touched");
    let more = json!({"spec": {"ephemeralContainers": [{"name": "more", "image": "i"}]}});
    let pod = api.call("PATCH", &path, "application/strategic-merge-patch+json", &more).await;
    let pod = pod.is(200, "patch of ephemeralcontainers");
    let names: Vec<_> = pod["spec"]["ephemeralContainers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names.len(), 2, "{names:?}");

    let path = format!("{one}/resize");
    let mut pod = api.get(&path).await.is(200, "get of resize");
    let generation = pod["metadata"]["generation"].as_i64().unwrap();
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "200m".into();
    let pod = api.put(&path, &pod).await.is(200, "update of resize");
    assert_eq!(pod["metadata"]["generation"].as_i64(), Some(generation + 1), "a resize is counted");
    let resources = json!({"requests": {"memory": "2Mi"}});
    let patch = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
    let pod =
        api.call("PATCH", &path, "application/strategic-merge-patch+json", &patch).await.is(200, "patch of resize");
    let requests = &pod["spec"]["containers"][0]["resources"]["requests"];
    assert_eq!(*requests, json!({"cpu": "200m", "memory": "2Mi"}));

    let now = json!({"metadata": {"name": "bound"}, "deleteOptions": {"gracePeriodSeconds": 0}});
    api.post(&format!("{one}/eviction"), &now).await.is(201, "eviction");
    api.get(&one).await.is(404, "get after eviction");
}

/// A request for a certificate is approved through `approval` alone.
pub async fn approval(api: Api) {
    let all = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let spec = json!({"request": REQUEST.trim(), "signerName": "example.com/signer", "usages": ["client auth"]});
    let made = api.post(all, &json!({"metadata": {"name": "approved"}, "spec": spec})).await.is(201, "create");
    let (one, path) = (format!("{all}/approved"), format!("{all}/approved/approval"));
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "R", "message": "m"});
    let mut asked = made.clone();
    asked["status"]["conditions"] = json!([condition("Approved")]);
    assert!(api.put(&one, &asked).await.is(200, "update")["status"]["conditions"].is_null());
    let mut shown = api.get(&path).await.is(200, "get of approval");
    shown["status"]["conditions"] = json!([condition("Approved")]);
    let approved = api.put(&path, &shown).await.is(200, "update of approval");
    assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
    let failed = json!({"status": {"conditions": [approved["status"]["conditions"][0], condition("Other")]}});
    let patched = api.merge(&path, &failed).await.is(200, "patch of approval");
    assert_eq!(patched["status"]["conditions"].as_array().map(Vec::len), Some(2));
    api.call("DELETE", &one, JSON, &Value::Null).await.is(200, "delete");
}
