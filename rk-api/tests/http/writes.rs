//! What admission sees of bindings and scales, what clients are warned of, and the time that a request has.

use std::sync::Arc;

use parking_lot::Mutex;
use rk_api::server::{
    Admit, Operation,
    plugins::{self, mutating_fn},
};
use serde_json::{Value, json};

use crate::api::Api;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Operation, kind and replicas or node of what a plugin saw of a subresource.
type Seen = Arc<Mutex<Vec<(Operation, String, Value)>>>;

fn sees(seen: &Seen) -> Arc<dyn Admit> {
    let seen = Arc::clone(seen);
    plugins::from_fn(
        "Sees",
        |_, _, subresource| matches!(subresource, "binding" | "scale"),
        move |request| {
            let object = request.object.clone().unwrap_or_default();
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            let what = [&object["target"]["name"], &object["spec"]["replicas"]];
            let what = what.into_iter().find(|value| !value.is_null()).cloned().unwrap_or_default();
            seen.lock().push((request.operation, kind, what));
            Ok(())
        },
    )
}

#[tokio::test]
async fn a_binding_is_admitted_and_carries_the_labels_of_its_node() {
    let seen = Seen::default();
    let plugin = sees(&seen);
    let api = Api::with(|builder| builder.admission(Arc::new(plugins::PodTopologyLabels)).admission(plugin)).await;
    let labels = json!({"topology.kubernetes.io/zone": "z"});
    api.post("/api/v1/nodes", &json!({"metadata": {"name": "n", "labels": labels}})).await.is(201);
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    api.post(PODS, &json!({"metadata": {"name": "p"}, "spec": spec})).await.is(201);
    let binding =
        json!({"metadata": {"name": "p", "annotations": {"by": "me"}}, "target": {"kind": "Node", "name": "n"}});
    api.post(&format!("{PODS}/p/binding"), &binding).await.is(201);
    let pod = api.get(&format!("{PODS}/p"), &[]).await.is(200);
    assert_eq!((&pod["spec"]["nodeName"], &pod["metadata"]["labels"]), (&json!("n"), &labels));
    assert_eq!(pod["metadata"]["annotations"], json!({"by": "me"}));
    assert_eq!(*seen.lock(), [(Operation::Create, "Binding".to_owned(), json!("n"))]);
}

#[tokio::test]
async fn a_scale_is_admitted_and_shown_as_one() {
    const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
    let seen = Seen::default();
    let plugin = sees(&seen);
    let cap = mutating_fn(
        "Cap",
        |_, _, subresource| subresource == "scale",
        |request| {
            if let Some(scale) = &mut request.object
                && scale["spec"]["replicas"].as_i64() > Some(3)
            {
                scale["spec"]["replicas"] = 3.into();
            }
            Ok(())
        },
    );
    let api = Api::with(|builder| builder.admission(cap).admission(plugin)).await;
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}});
    api.post(DEPLOYMENTS, &json!({"metadata": {"name": "d"}, "spec": spec})).await.is(201);
    let scale = format!("{DEPLOYMENTS}/d/scale");
    let scaled = api.merge(&scale, &json!({"spec": {"replicas": 9}})).await.is(200);
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    assert_eq!(api.get(&format!("{DEPLOYMENTS}/d"), &[]).await.is(200)["spec"]["replicas"], 3);
    assert_eq!(*seen.lock(), [(Operation::Update, "Scale".to_owned(), json!(3))]);
    let table = api.get(&scale, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")]).await.is(200);
    let names: Vec<_> = table["columnDefinitions"].as_array().unwrap().iter().map(|column| &column["name"]).collect();
    assert_eq!(names, ["Name", "Desired", "Available", "Age"]);
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], [json!("d"), json!(3), json!(0)]);
}

#[tokio::test]
async fn clients_are_warned_of_what_is_valid_and_odd() {
    let api = Api::start().await;
    let spec = json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "containers": [{"name": "c", "image": "i"}]});
    let answer = api.post(&format!("{PODS}?dryRun=All"), &json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let warning =
        r#"299 - "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead""#;
    assert_eq!((answer.code, answer.header("warning")), (201, warning));
}

#[tokio::test]
async fn a_put_makes_a_service() {
    let api = Api::start().await;
    let body =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let made = api.send("PUT", "/api/v1/namespaces/default/services/s", &[], &body.to_string()).await.is(201);
    assert!(made["spec"]["clusterIP"].is_string());
}

#[tokio::test(start_paused = true)]
async fn a_request_has_the_time_that_it_asks_for() {
    let api = Api::start().await;
    api.get(&format!("{PODS}?timeout=5s"), &[]).await.is(200);
    let wrong = api.get(&format!("{PODS}?timeout=soon"), &[]).await.is(400);
    let why = "invalid timeout specified in the request URL - time: invalid duration \"soon\"";
    assert_eq!(wrong["message"], why);
    // A version that does not come.
    let started = tokio::time::Instant::now();
    let late = api.get(&format!("{PODS}?timeout=1s&resourceVersion=1000000"), &[]).await.is(504);
    assert_eq!((&late["reason"], started.elapsed().as_secs()), (&json!("Timeout"), 1));
}

#[tokio::test]
async fn an_eviction_is_admitted_as_one() {
    let keeps = plugins::from_fn(
        "Keeps",
        |operation, resource, subresource| {
            resource.plural == "pods" && (operation == Operation::Delete || subresource == "status")
        },
        |request| Err(plugins::forbid(request, "pods stay")),
    );
    let api = Api::with(|builder| builder.admission(keeps)).await;
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    api.post(PODS, &json!({"metadata": {"name": "p"}, "spec": spec})).await.is(201);
    let one = format!("{PODS}/p");
    api.send("DELETE", &one, &[], "").await.is(403);
    api.post(&format!("{one}/eviction"), &json!({"metadata": {"name": "p"}})).await.is(201);
    api.get(&one, &[]).await.is(404);
}
