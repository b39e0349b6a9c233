//! Evictions, resizes, and names that are generated.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use rk_api::{
    Status,
    server::{AdmissionRequest, Admit, Operation, Reader, plugins::mutating_fn},
};
use serde_json::{Value, json};

use crate::api::{Api, CONFIG_MAPS};

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// A running pod on a node.
async fn pod(api: &Api, name: &str, ready: bool) -> String {
    let spec = json!({"nodeName": "n", "containers": [{"name": "c", "image": "i"}]});
    let body = json!({"metadata": {"name": name, "labels": {"app": "a"}}, "spec": spec});
    api.post(PODS, &body).await.is(201);
    let conditions = json!([{"type": "Ready", "status": if ready { "True" } else { "False" }}]);
    let status = json!({"status": {"phase": "Running", "conditions": conditions}});
    api.merge(&format!("{PODS}/{name}/status"), &status).await.is(200);
    format!("{PODS}/{name}")
}

/// A budget of the pods, as its controller left it.
async fn budget(api: &Api, name: &str, spec: &Value, status: &Value) -> String {
    let mut spec = spec.clone();
    spec["selector"] = json!({"matchLabels": {"app": "a"}});
    api.post(BUDGETS, &json!({"metadata": {"name": name}, "spec": spec})).await.is(201);
    let path = format!("{BUDGETS}/{name}");
    api.merge(&format!("{path}/status"), &json!({"status": status})).await.is(200);
    path
}

async fn evict(api: &Api, pod: &str, options: Value) -> (u16, Value, String) {
    let name = pod.rsplit_once('/').unwrap().1;
    let body =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, "deleteOptions": options});
    let answer = api.post(&format!("{pod}/eviction"), &body).await;
    (answer.code, answer.json(), answer.header("retry-after").to_owned())
}

fn counted(allowed: i64, observed: i64) -> Value {
    json!({"disruptionsAllowed": allowed, "currentHealthy": 2, "desiredHealthy": 2, "expectedPods": 2, "observedGeneration": observed})
}

#[tokio::test]
async fn an_eviction_is_refused_with_its_cause() {
    let api = Api::start().await;
    let pod = pod(&api, "p", true).await;
    let path = budget(&api, "b", &json!({"minAvailable": 2}), &counted(0, 1)).await;
    let (code, refused, retry) = evict(&api, &pod, json!({})).await;
    assert_eq!((code, &refused["reason"], retry.as_str()), (429, &json!("TooManyRequests"), ""));
    assert_eq!(refused["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    let message = "The disruption budget b needs 2 healthy pods and has 2 currently";
    assert_eq!(refused["details"]["causes"], json!([{"reason": "DisruptionBudget", "message": message}]));

    // The controller has not seen the budget as it is.
    api.merge(&path, &json!({"spec": {"minAvailable": 1}})).await.is(200);
    let (code, refused, retry) = evict(&api, &pod, json!({})).await;
    assert_eq!((code, &refused["details"]["retryAfterSeconds"], retry.as_str()), (429, &json!(10), "10"));
    let message = "The disruption budget b is still being processed by the server.";
    assert_eq!(refused["details"]["causes"][0]["message"], message);
    assert!(api.get(&pod, &[]).await.is(200)["metadata"]["deletionTimestamp"].is_null());

    let (code, refused, _) = evict(&api, &pod, json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")));
    let body = json!({"metadata": {"name": "q"}});
    let refused = api.post(&format!("{pod}/eviction"), &body).await.is(400);
    assert_eq!(refused["message"], "name in URL does not match name in Eviction object");

    api.post(BUDGETS, &json!({"metadata": {"name": "c"}, "spec": {"selector": {}}})).await.is(201);
    let (code, refused, _) = evict(&api, &pod, json!({})).await;
    let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    assert_eq!((code, &refused["message"]), (500, &json!(message)));
}

#[tokio::test]
async fn an_eviction_takes_a_disruption() {
    let api = Api::start().await;
    let pod = pod(&api, "p", true).await;
    let path = budget(&api, "b", &json!({"minAvailable": 1}), &counted(1, 1)).await;
    let before = (api.get(&pod, &[]).await.is(200), api.get(&path, &[]).await.is(200));
    let (code, answer, _) = evict(&api, &pod, json!({"dryRun": ["All"]})).await;
    assert_eq!((code, &answer["status"]), (201, &json!("Success")));
    assert_eq!((api.get(&pod, &[]).await.is(200), api.get(&path, &[]).await.is(200)), before, "a dry run leaves all");
    let version = &before.0["metadata"]["resourceVersion"];
    let (code, ..) =
        evict(&api, &pod, json!({"gracePeriodSeconds": 7, "preconditions": {"resourceVersion": version}})).await;
    assert_eq!(code, 201);
    let ending = api.get(&pod, &[]).await.is(200);
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 7);
    let condition = &ending["status"]["conditions"][1];
    assert_eq!(
        (&condition["type"], &condition["reason"]),
        (&json!("DisruptionTarget"), &json!("EvictionByEvictionAPI"))
    );
    let status = api.get(&path, &[]).await.is(200)["status"].take();
    assert_eq!(status["disruptionsAllowed"], 0);
    assert!(status["disruptedPods"]["p"].is_string(), "{status}");
    // One that ends already takes nothing.
    assert_eq!(evict(&api, &pod, json!({"gracePeriodSeconds": 0})).await.0, 201);
    api.get(&pod, &[]).await.is(404);
    assert_eq!(api.get(&path, &[]).await.is(200)["status"], status);
}

#[tokio::test]
async fn pods_that_are_not_healthy_go_as_their_budget_says() {
    for (policy, healthy, evicted) in [
        (json!(null), 2, true),
        (json!(null), 1, false),
        (json!("IfHealthyBudget"), 1, false),
        (json!("AlwaysAllow"), 1, true),
    ] {
        let api = Api::start().await;
        let pod = pod(&api, "p", false).await;
        let mut status = counted(0, 1);
        status["currentHealthy"] = healthy.into();
        let spec = json!({"minAvailable": 2, "unhealthyPodEvictionPolicy": policy});
        let path = budget(&api, "b", &spec, &status).await;
        let (code, ..) = evict(&api, &pod, json!({"gracePeriodSeconds": 0})).await;
        assert_eq!(code, if evicted { 201 } else { 429 }, "{policy} {healthy}");
        assert_eq!(api.get(&pod, &[]).await.code, if evicted { 404 } else { 200 }, "{policy} {healthy}");
        assert_eq!(api.get(&path, &[]).await.is(200)["status"]["disruptionsAllowed"], 0);
    }
}

/// Patches a pod's status while its eviction is being admitted.
struct Between(OnceLock<Api>, Value);

#[async_trait]
impl Admit for Between {
    fn name(&self) -> &str {
        "Between"
    }

    fn handles(&self, _: Operation, resource: &rk_api::Resource, subresource: &str) -> bool {
        (&*resource.plural, subresource) == ("pods", "eviction")
    }

    async fn validate(&self, request: &AdmissionRequest, _: &dyn Reader) -> Result<(), Status> {
        let path = format!("{PODS}/{}/status", request.attributes.name);
        self.0.get().unwrap().merge(&path, &self.1).await.is(200);
        Ok(())
    }
}

#[tokio::test]
async fn what_happens_to_a_pod_while_it_is_evicted_counts() {
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let told = json!({"status": {"message": "as nodes tell something all the time"}});
    for (is_ready, between, evicted) in [(false, ready, false), (true, told, true)] {
        let plugin = Arc::new(Between(OnceLock::new(), between));
        let api = Api::with(|builder| builder.admission(plugin.clone())).await;
        assert!(plugin.0.set(Api(api.0.clone())).is_ok());
        let pod = pod(&api, "p", is_ready).await;
        budget(&api, "b", &json!({"minAvailable": 2}), &counted(1, 1)).await;
        let (code, answer, retry) = evict(&api, &pod, json!({"gracePeriodSeconds": 0})).await;
        assert_eq!(code, if evicted { 201 } else { 429 }, "{answer}");
        assert_eq!(api.get(&pod, &[]).await.code, if evicted { 404 } else { 200 });
        assert_eq!(retry, if evicted { "" } else { "10" });
    }
}

#[tokio::test]
async fn a_resize_changes_resources_and_nothing_else() {
    let api = Api::start().await;
    let resources = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}});
    let spec =
        json!({"containers": [{"name": "c", "image": "i", "resources": resources}, {"name": "d", "image": "i"}]});
    let made = api.post(PODS, &json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": spec})).await.is(201);
    let path = format!("{PODS}/p/resize");
    let mut wanted = made.clone();
    wanted["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "1500m".into();
    wanted["spec"]["containers"][0]["image"] = "other".into();
    wanted["metadata"]["labels"]["a"] = "c".into();
    wanted["status"] = json!({"phase": "Running"});
    let resized = api.send("PUT", &path, &[], &wanted.to_string()).await.is(200);
    let mut spec = made["spec"].clone();
    spec["containers"][0]["resources"]["requests"]["cpu"] = "1500m".into();
    assert_eq!((&resized["spec"], &resized["status"]), (&spec, &made["status"]));
    assert_eq!(resized["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(resized["metadata"]["generation"], 2);
    let tried = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]}});
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let refused = api.send("PATCH", &path, &strategic, &tried.to_string()).await.is(422);
    assert!(refused["message"].as_str().unwrap().contains("must be less than or equal to cpu limit"), "{refused}");
    let gone = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": null, "limits": null}}]}});
    let refused = api.send("PATCH", &path, &strategic, &gone.to_string()).await.is(422);
    assert!(
        refused["message"].as_str().unwrap().contains("Pod QOS Class may not change as a result of resizing"),
        "{refused}"
    );
    let mut other = resized.clone();
    other["spec"]["containers"].as_array_mut().unwrap().swap(0, 1);
    let refused = api.send("PUT", &path, &[], &other.to_string()).await.is(422);
    assert_eq!(refused["details"]["causes"][0]["field"], "spec.containers[0].name");
    other["spec"]["containers"].as_array_mut().unwrap().truncate(1);
    api.send("PUT", &path, &[], &other.to_string()).await.is(422);
    let whole = json!({"spec": {"resources": {"requests": {"cpu": "2", "memory": "2Gi"}}}});
    api.send("PATCH", &path, &strategic, &whole.to_string()).await.is(422);
    let spec =
        json!({"resources": {"requests": {"cpu": "1", "memory": "2Gi"}}, "containers": [{"name": "c", "image": "i"}]});
    api.post(PODS, &json!({"metadata": {"name": "q"}, "spec": spec})).await.is(201);
    let resized_whole = api.send("PATCH", &format!("{PODS}/q/resize"), &strategic, &whole.to_string()).await.is(200);
    assert_eq!(resized_whole["spec"]["resources"], whole["spec"]["resources"]);
    // Only there: an update of the pod itself may not.
    let mut direct = resized.clone();
    direct["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "1".into();
    let refused = api.send("PUT", &format!("{PODS}/p"), &[], &direct.to_string()).await.is(422);
    assert_eq!(refused["details"]["causes"][0]["field"], "spec");
}

/// A server where the first names of new objects are taken.
async fn unlucky(times: usize) -> (Api, Arc<AtomicUsize>) {
    let tries = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&tries);
    let handles = |operation: Operation, resource: &rk_api::Resource, _: &str| {
        operation == Operation::Create && resource.plural == "configmaps"
    };
    let plugin = mutating_fn("Unlucky", handles, move |request| {
        let object = request.object.as_mut().unwrap();
        if object["metadata"]["generateName"].is_string() && seen.fetch_add(1, Ordering::Relaxed) < times {
            object["metadata"]["name"] = "taken".into();
        }
        Ok(())
    });
    let api = Api::with(|builder| builder.admission(plugin)).await;
    api.post(CONFIG_MAPS, &json!({"metadata": {"name": "taken"}})).await.is(201);
    (api, tries)
}

#[tokio::test]
async fn a_generated_name_that_is_taken_is_made_again() {
    let body = json!({"metadata": {"generateName": "g-"}});
    let (api, tries) = unlucky(3).await;
    let made = api.post(CONFIG_MAPS, &body).await.is(201);
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("g-") && tries.load(Ordering::Relaxed) == 4, "{name} {tries:?}");
    // There is an end to it: kube-apiserver tries eight names.
    let (api, tries) = unlucky(usize::MAX).await;
    let refused = api.post(CONFIG_MAPS, &body).await.is(409);
    assert_eq!((&refused["reason"], tries.load(Ordering::Relaxed)), (&json!("AlreadyExists"), 8));
    let why = "the server was not able to generate a unique name for the object";
    assert!(refused["message"].as_str().unwrap().ends_with(why), "{refused}");
}
