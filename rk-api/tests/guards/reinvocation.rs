//! The second pass of a write through the mutating plugins, once a webhook or a policy has changed its object.

use base64::{Engine, engine::general_purpose::STANDARD};
use rk_api::server::pki::Pki;
use serde_json::{Value, json};

use super::common::{Api, https};

const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

/// Serves webhooks that patch the objects of these resources, each at the path of its name.
async fn webhooks(
    api: &Api,
    resource: &str,
    webhooks: &[(&str, Value)],
    patch: impl Fn(&str, &Value) -> Value + Send + Sync + 'static,
) {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(folder.path()).unwrap();
    let url = https(&pki, move |path, review| {
        let request = &review["request"];
        let patch = STANDARD.encode(patch(path.trim_start_matches('/'), &request["object"]).to_string());
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
            "uid": request["uid"], "allowed": true, "patchType": "JSONPatch", "patch": patch}})
    })
    .await;
    let rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": [resource]});
    let webhook = |(name, more): &(&str, Value)| {
        let client = json!({"url": format!("{url}/{name}"), "caBundle": STANDARD.encode(pki.ca())});
        let mut webhook = json!({"name": format!("{name}.example.com"), "sideEffects": "None", "rules": [rule],
            "admissionReviewVersions": ["v1"], "clientConfig": client});
        webhook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        webhook
    };
    let all: Vec<Value> = webhooks.iter().map(webhook).collect();
    let configuration = json!({"metadata": {"name": "hooks"}, "webhooks": all});
    api.create(&format!("{ADMISSION}/mutatingwebhookconfigurations"), configuration).await;
}

/// A policy that labels pods with the number of their containers.
async fn policy(api: &Api, name: &str, reinvocation: &str) {
    let rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
    let expression =
        format!("Object{{metadata: Object.metadata{{labels: {{'{name}': string(object.spec.containers.size())}}}}}}");
    let spec = json!({"matchConstraints": {"resourceRules": [rule]}, "reinvocationPolicy": reinvocation,
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]});
    let object = json!({"metadata": {"name": name}, "spec": spec});
    api.create(&format!("{ADMISSION}/mutatingadmissionpolicies"), object).await;
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    api.create(&format!("{ADMISSION}/mutatingadmissionpolicybindings"), binding).await;
}

#[tokio::test]
async fn all_plugins_see_what_a_webhook_adds() {
    let api = Api::start(|_, security| security).await;
    let namespace = "/api/v1/namespaces/default";
    api.create(&format!("{namespace}/serviceaccounts"), json!({"metadata": {"name": "default"}})).await;
    let limits = json!([{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1"}}]);
    api.create(&format!("{namespace}/limitranges"), json!({"metadata": {"name": "l"}, "spec": {"limits": limits}}))
        .await;
    policy(&api, "once", "Never").await;
    policy(&api, "again", "IfNeeded").await;
    webhooks(&api, "pods", &[("sidecar", json!({}))], |_, pod| {
        assert_eq!(pod["spec"]["containers"].as_array().unwrap().len(), 1, "called once");
        json!([{"op": "add", "path": "/spec/containers/-", "value": {"name": "sidecar", "image": "s"}}])
    })
    .await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pod = api.create(&format!("{namespace}/pods"), pod).await;
    let sidecar = &pod["spec"]["containers"][1];
    assert_eq!(sidecar["resources"]["limits"]["cpu"], "1", "{sidecar}");
    assert_eq!(sidecar["volumeMounts"].as_array().unwrap().len(), 1);
    assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 1);
    assert_eq!(pod["metadata"]["labels"], json!({"once": "1", "again": "2"}));
}

#[tokio::test]
async fn webhooks_are_asked_again_if_they_want_it_and_the_object() {
    let api = Api::start(|_, security| security).await;
    let again = |conditions: Value| json!({"reinvocationPolicy": "IfNeeded", "matchConditions": conditions});
    let unlabelled = json!([{"name": "unlabelled", "expression": "!has(object.metadata.labels)"}]);
    let all = [
        ("picky", again(unlabelled)),
        ("again", again(json!([]))),
        ("once", json!({})),
        ("labels", json!({})),
        ("last", again(json!([]))),
    ];
    webhooks(&api, "configmaps", &all, |name, map| match name {
        "labels" => json!([{"op": "add", "path": "/metadata/labels", "value": {"done": "yes"}}]),
        // The last one that changes nothing has nothing to look at again but what the others made of it since.
        "last" => json!([]),
        name => {
            let calls = map["data"][name].as_str().unwrap_or_default();
            json!([{"op": "add", "path": format!("/data/{name}"), "value": format!("{calls}x")}])
        }
    })
    .await;
    let map = json!({"metadata": {"name": "m"}, "data": {"k": "v"}});
    let made = api.create("/api/v1/namespaces/default/configmaps", map).await;
    assert_eq!(made["data"], json!({"k": "v", "picky": "x", "again": "xx", "once": "x"}));
    assert_eq!(made["metadata"]["labels"]["done"], "yes");
}
