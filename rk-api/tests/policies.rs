//! Admission policies through the server: made, bound, obeyed, changed and removed.
#![cfg(feature = "server")]

use std::sync::Arc;

use async_trait::async_trait;
use rk_api::{
    Client, DeleteOptions, Patch, Request, Resource, Verb, WriteOptions,
    server::{Attributes, Authorizer, Decision, Server, UserInfo, plugins},
};
use rk_store::MemoryStore;
use serde_json::{Value, json};

/// Allows everything but the verb `bless`, which only the user `pope` may.
struct Blessing;

#[async_trait]
impl Authorizer for Blessing {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.verb == "bless" && attributes.user.name != "pope" {
            return Decision::NoOpinion("only the pope blesses".to_owned());
        }
        Decision::Allow(String::new())
    }
}

async fn server() -> Server {
    let builder = Server::builder(Arc::new(MemoryStore::new())).authorizer(Arc::new(Blessing));
    let builder = plugins::default_chain().into_iter().fold(builder, |builder, plugin| builder.admission(plugin));
    let server = builder.build().await.unwrap();
    for name in ["default", "prod"] {
        let body = json!({"metadata": {"name": name, "labels": {"env": name}}});
        send(&server, "admin", core("Namespace", "namespaces", false), "", "", create(body)).await.unwrap();
    }
    server
}

fn core(kind: &str, plural: &str, namespaced: bool) -> Resource {
    Resource::new("", "v1", kind, plural, namespaced)
}

fn admission(kind: &str) -> Resource {
    let plural = kind.to_lowercase() + "s";
    Resource::new("admissionregistration.k8s.io", "v1", kind, &plural.replace("policys", "policies"), false)
}

fn create(body: Value) -> Verb {
    Verb::Create(body, WriteOptions::default())
}

async fn send(
    server: &Server,
    user: &str,
    resource: Resource,
    namespace: &str,
    name: &str,
    verb: Verb,
) -> Result<Value, String> {
    let client: Arc<dyn Client> = server.client(UserInfo::new(user, ["system:authenticated"]));
    let request =
        Request { resource, namespace: namespace.to_owned(), name: name.to_owned(), subresource: String::new(), verb };
    match client.request(request).await {
        Ok(object) => Ok(object.value().unwrap()),
        Err(error) => Err(error.to_string()),
    }
}

async fn config_map(server: &Server, user: &str, namespace: &str, name: &str, data: Value) -> Result<Value, String> {
    let body = json!({"metadata": {"name": name}, "data": data});
    send(server, user, core("ConfigMap", "configmaps", true), namespace, "", create(body)).await
}

fn rules() -> Value {
    json!({"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]})
}

async fn put(server: &Server, kind: &str, name: &str, spec: Value) -> Result<Value, String> {
    send(server, "admin", admission(kind), "", "", create(json!({"metadata": {"name": name}, "spec": spec}))).await
}

#[tokio::test]
async fn a_validating_policy_is_obeyed_from_its_binding_on() {
    let server = server().await;
    let spec = json!({"matchConstraints": rules(), "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [{"name": "size", "expression": "has(object.data) ? object.data.size() : 0"}],
        "matchConditions": [{"name": "not-the-limits", "expression": "object.metadata.name != 'limits'"}],
        "validations": [
            {"expression": "variables.size <= int(params.data.most)",
             "messageExpression": "string(variables.size) + ' entries, at most ' + params.data.most"},
            {"expression": "!has(object.metadata.labels) || !('holy' in object.metadata.labels) || \
             authorizer.group('').resource('configmaps').namespace(request.namespace).check('bless').allowed()",
             "message": "not blessed", "reason": "Forbidden"}]});
    put(&server, "ValidatingAdmissionPolicy", "small", spec).await.unwrap();
    let data = json!({"a": "1", "b": "2"});
    config_map(&server, "jane", "prod", "free", data.clone()).await.unwrap();
    config_map(&server, "jane", "default", "limits", json!({"most": "1"})).await.unwrap();
    let binding = json!({"policyName": "small", "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"env": "prod"}}},
        "paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}});
    put(&server, "ValidatingAdmissionPolicyBinding", "small", binding).await.unwrap();

    let refused = config_map(&server, "jane", "prod", "large", data.clone()).await.unwrap_err();
    let why = "ValidatingAdmissionPolicy 'small' with binding 'small' denied request: 2 entries, at most 1";
    assert!(refused.contains("configmaps \"large\" is forbidden: ") && refused.contains(why), "{refused}");
    config_map(&server, "jane", "default", "large", data.clone()).await.unwrap();
    let grown = Verb::Patch(Patch::merge(json!({"data": {"c": "3"}})), WriteOptions::default());
    let refused =
        send(&server, "jane", core("ConfigMap", "configmaps", true), "prod", "free", grown).await.unwrap_err();
    assert!(refused.contains("3 entries, at most 1"), "{refused}");

    let holy = |name: &str| create(json!({"metadata": {"name": name, "labels": {"holy": "yes"}}}));
    let maps = || core("ConfigMap", "configmaps", true);
    assert!(send(&server, "jane", maps(), "prod", "", holy("x")).await.unwrap_err().contains("not blessed"));
    send(&server, "pope", maps(), "prod", "", holy("x")).await.unwrap();

    // What parametrizes it changes, then it goes.
    let more = Verb::Patch(Patch::merge(json!({"data": {"most": "5"}})), WriteOptions::default());
    send(&server, "jane", maps(), "default", "limits", more).await.unwrap();
    config_map(&server, "jane", "prod", "large", data).await.unwrap();
    let gone = Verb::Delete(DeleteOptions::default());
    send(&server, "admin", admission("ValidatingAdmissionPolicy"), "", "small", gone).await.unwrap();
    send(&server, "jane", maps(), "prod", "", holy("y")).await.unwrap();
}

#[tokio::test]
async fn a_mutating_policy_changes_what_is_stored() {
    let server = server().await;
    let spec = json!({"matchConstraints": rules(), "reinvocationPolicy": "Never", "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{labels: {'env': namespaceObject.metadata.labels['env']}}}"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "has(object.data) ? [JSONPatch{op: 'add', path: '/data/by', value: request.userInfo.username}] : []"}}]});
    put(&server, "MutatingAdmissionPolicy", "label", spec).await.unwrap();
    put(&server, "MutatingAdmissionPolicyBinding", "label", json!({"policyName": "label"})).await.unwrap();
    let made = config_map(&server, "jane", "prod", "a", json!({"k": "v"})).await.unwrap();
    assert_eq!((&made["metadata"]["labels"]["env"], &made["data"]["by"]), (&json!("prod"), &json!("jane")));
}

#[tokio::test]
async fn a_policy_sees_all_versions_as_the_one_that_it_names() {
    let server = server().await;
    let rules = |policy: &str| {
        json!({"matchPolicy": policy, "resourceRules": [{"operations": ["*"], "apiGroups": ["autoscaling"],
            "apiVersions": ["v2"], "resources": ["horizontalpodautoscalers"]}]})
    };
    let validations = json!([{"expression": "object.spec.metrics.all(m, m.resource.target.averageUtilization <= 80)"}]);
    let mutations = json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
        "Object{spec: Object.spec{maxReplicas: request.requestKind.version == 'v1' ? 7 : 8}}"}}]);
    let scaler = |percent: i64, dry_run: bool| {
        let body = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": percent,
            "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
        Verb::Create(body, WriteOptions { dry_run, ..WriteOptions::default() })
    };
    let old = || Resource::new("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true);
    for (policy, name) in [("Exact", "exact"), ("Equivalent", "equivalent")] {
        let spec = json!({"matchConstraints": rules(policy), "validations": validations});
        put(&server, "ValidatingAdmissionPolicy", name, spec).await.unwrap();
        let binding = json!({"policyName": name, "validationActions": ["Deny"]});
        put(&server, "ValidatingAdmissionPolicyBinding", name, binding).await.unwrap();
        let refused = send(&server, "jane", old(), "prod", "", scaler(95, true)).await.err();
        assert_eq!(refused.is_some_and(|why| why.contains("averageUtilization")), policy == "Equivalent");
    }
    let spec = json!({"matchConstraints": rules("Equivalent"), "reinvocationPolicy": "Never", "mutations": mutations});
    put(&server, "MutatingAdmissionPolicy", "most", spec).await.unwrap();
    put(&server, "MutatingAdmissionPolicyBinding", "most", json!({"policyName": "most"})).await.unwrap();
    let made = send(&server, "jane", old(), "prod", "", scaler(50, false)).await.unwrap();
    assert_eq!(
        (&made["spec"]["maxReplicas"], &made["spec"]["targetCPUUtilizationPercentage"]),
        (&json!(7), &json!(50))
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_policy_is_told_when_it_is_made() {
    let server = server().await;
    let spec = json!({"matchConstraints": rules(), "validations": [{"expression": "object.data.size( > 1"}]});
    let refused = put(&server, "ValidatingAdmissionPolicy", "bad", spec).await.unwrap_err();
    let why = "spec.validations[0].expression: Invalid value: \"object.data.size( > 1\": compilation failed: ERROR: <input>:1:";
    assert!(refused.contains(why), "{refused}");
    let hooks = json!({"metadata": {"name": "h"}, "webhooks": [{"name": "a.example.com", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://127.0.0.1:1/"}, "rules": rules()["resourceRules"],
        "matchConditions": [{"name": "c", "expression": "request.nothing == ''"}]}]});
    let resource = Resource::new(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        false,
    );
    let refused = send(&server, "admin", resource, "", "", create(hooks)).await.unwrap_err();
    assert!(
        refused.contains("webhooks[0].matchConditions[0].expression") && refused.contains("undefined field 'nothing'"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_a_policy_gets_wrong_about_its_objects_is_told_in_its_status() {
    let server = server().await;
    let kind = "ValidatingAdmissionPolicy";
    let rule = |groups: Value, resources: Value| json!({"operations": ["CREATE"], "apiGroups": groups, "apiVersions": ["v1"], "resources": resources});
    let spec = |rules: Value, expressions: &[&str]| {
        let validations: Vec<_> = expressions.iter().map(|expression| json!({"expression": expression})).collect();
        json!({"matchConstraints": {"resourceRules": rules}, "validations": validations,
            "variables": [{"name": "labels", "expression": "object.metadata.labels"}]})
    };
    let workloads = json!([rule(json!(["apps"]), json!(["statefulsets", "deployments"]))]);
    let right = "variables.labels['a'] == 'b' && object.spec.replicas > 1 && oldObject == object";
    let made = put(&server, kind, "p", spec(workloads.clone(), &[right])).await.unwrap();
    assert_eq!(made["status"], json!({"observedGeneration": 1, "typeChecking": {}}));

    // A Deployment has no field of this name, a StatefulSet has.
    let wrong = "object.spec.serviceName == ''";
    let mut changed = made;
    changed["spec"] = spec(workloads, &[right, wrong]);
    let update = Verb::Update(changed, WriteOptions::default());
    let changed = send(&server, "admin", admission(kind), "", "p", update).await.unwrap();
    assert_eq!(changed["status"]["observedGeneration"], 2);
    let warnings = &changed["status"]["typeChecking"]["expressionWarnings"];
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[1].expression");
    let told = "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'serviceName'\n | object.spec.serviceName == \
                ''\n | ...........^\n";
    assert_eq!((warnings.as_array().unwrap().len(), &warnings[0]["warning"]), (1, &json!(told)));

    // What can't be known is not judged: any group, any subresource, a kind that nobody serves.
    for (name, rules) in [
        ("any", json!([rule(json!(["*"]), json!(["deployments"]))])),
        ("sub", json!([rule(json!(["apps"]), json!(["deployments/scale"]))])),
        ("lost", json!([rule(json!(["example.com"]), json!(["things"]))])),
    ] {
        let made = put(&server, kind, name, spec(rules, &["object.nothing == 1"])).await.unwrap();
        assert_eq!(made["status"]["typeChecking"], json!({}), "{name}");
    }
    let params = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "matchConstraints": rules(),
        "validations": [{"expression": "params.data['a'] == object.data['a']", "messageExpression": "params.spec"}]});
    let made = put(&server, kind, "params", params).await.unwrap();
    let warnings = made["status"]["typeChecking"]["expressionWarnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[0].messageExpression");
    assert!(warnings[0]["warning"].as_str().unwrap().starts_with("/v1, Kind=ConfigMap: ERROR"), "{warnings:?}");
}

#[cfg(feature = "serve")]
#[tokio::test]
async fn match_conditions_choose_what_a_webhook_sees() {
    let server = server().await;
    // Nobody listens there: whatever the webhook is to see fails.
    let hooks = json!({"metadata": {"name": "h"}, "webhooks": [{"name": "a.example.com", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://127.0.0.1:1/", "caBundle": "eA=="}, "rules": rules()["resourceRules"],
        "matchConditions": [{"name": "not-system", "expression": "!request.userInfo.username.startsWith('system:')"}]}]});
    let resource = Resource::new(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        false,
    );
    send(&server, "admin", resource, "", "", create(hooks)).await.unwrap();
    assert!(config_map(&server, "jane", "prod", "a", json!({})).await.unwrap_err().contains("failed calling webhook"));
    config_map(&server, "system:node:a", "prod", "a", json!({})).await.unwrap();
}
