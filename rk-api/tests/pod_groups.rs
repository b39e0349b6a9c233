//! Workloads, PodGroups and the pods of them: an API that is served where it is asked for.
#![cfg(feature = "server")]
#![allow(missing_docs)]

use std::sync::Arc;

use rk_api::{
    Api, Client, DeleteOptions, Error, ListOptions, Patch,
    k8s_openapi::api::{
        apps::v1::Deployment,
        core::v1::Pod,
        scheduling::v1alpha2::{PodGroup, Workload},
    },
    server::{Server, UserInfo},
};
use rk_store::MemoryStore;
use serde_json::{Value, json};

async fn client(runtime_config: &str) -> Arc<dyn Client> {
    let builder = Server::builder(Arc::new(MemoryStore::new())).bootstrap_namespaces();
    let server = builder.runtime_config(runtime_config.parse().unwrap()).build().await.unwrap();
    server.client(UserInfo::loopback())
}

const ON: &str = "scheduling.k8s.io/v1alpha2=true";

fn pod(name: &str) -> Value {
    let spec = json!({"containers": [{"name": "c", "image": "i"}], "schedulingGroup": {"podGroupName": "training"}});
    json!({"metadata": {"name": name}, "spec": spec})
}

fn deployment() -> Value {
    json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("")["spec"]}}})
}

async fn create<K: rk_api::ResourceType>(client: &Arc<dyn Client>, object: Value) -> Result<Arc<K>, Error> {
    Api::<K>::all(client.clone()).in_namespace("default").create(&serde_json::from_value(object).unwrap()).await
}

fn group(spec: Value) -> Value {
    json!({"metadata": {"name": "training"}, "spec": spec})
}

fn gang(count: i64) -> Value {
    json!({"gang": {"minCount": count}})
}

/// The causes of a refusal, field and reason.
fn causes(error: &Error) -> Vec<String> {
    let Error::Api(status) = error else { panic!("{error} is none of the API") };
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref()).into_iter().flatten();
    causes
        .map(|cause| {
            format!("{} {}", cause.field.as_deref().unwrap_or_default(), cause.reason.as_deref().unwrap_or_default())
        })
        .collect()
}

#[tokio::test]
async fn nothing_of_it_is_there_by_default() {
    let client = client("").await;
    let missing = create::<PodGroup>(&client, group(json!({"schedulingPolicy": gang(3)}))).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
    let made = create::<Pod>(&client, pod("a")).await.unwrap();
    assert!(made.spec.as_ref().unwrap().scheduling_group.is_none());
    let made = create::<Deployment>(&client, deployment()).await.unwrap();
    assert!(made.spec.as_ref().unwrap().template.spec.as_ref().unwrap().scheduling_group.is_none());
}

#[tokio::test]
async fn groups_and_their_pods_are_kept_where_they_are_asked_for() {
    let client = client(ON).await;
    let made = create::<PodGroup>(&client, group(json!({"schedulingPolicy": gang(3)}))).await.unwrap();
    assert_eq!(made.spec.disruption_mode.as_deref(), Some("Pod"));
    for made in [
        create::<Pod>(&client, pod("a")).await.unwrap().spec.clone().unwrap(),
        create::<Deployment>(&client, deployment())
            .await
            .unwrap()
            .spec
            .as_ref()
            .unwrap()
            .template
            .spec
            .clone()
            .unwrap(),
    ] {
        assert_eq!(made.scheduling_group.unwrap().pod_group_name.as_deref(), Some("training"));
    }
    let groups = Api::<PodGroup>::namespaced(client.clone(), "default");
    let condition = json!({"type": "PodGroupScheduled", "status": "True", "reason": "Scheduled", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"status": {"conditions": [condition]}});
    // Only through the status.
    let same = groups.patch("training", Patch::merge(status.clone())).await.unwrap();
    assert!(same.status.as_ref().is_none_or(|status| status.conditions.is_none()));
    let told = groups.patch_status("training", Patch::merge(status)).await.unwrap();
    assert_eq!(told.status.as_ref().unwrap().conditions.as_ref().unwrap()[0].type_, "PodGroupScheduled");
    let fixed =
        groups.patch("training", Patch::merge(json!({"spec": {"schedulingPolicy": gang(4)}}))).await.unwrap_err();
    assert_eq!(causes(&fixed), ["spec.schedulingPolicy FieldValueInvalid"]);
    groups.delete("training", DeleteOptions::default()).await.unwrap();
    assert!(groups.list(ListOptions::default()).await.unwrap().items.is_empty());

    let workload = json!({"metadata": {"name": "w"}, "spec": {
        "controllerRef": {"apiGroup": "batch", "kind": "Job", "name": "j"},
        "podGroupTemplates": [{"name": "workers", "schedulingPolicy": gang(2)}, {"name": "one", "schedulingPolicy": {"basic": {}}}]}});
    create::<Workload>(&client, workload).await.unwrap();
    let workloads = Api::<Workload>::namespaced(client.clone(), "default");
    let other = json!({"spec": {"controllerRef": {"name": "k"}}});
    let fixed = workloads.patch("w", Patch::merge(other)).await.unwrap_err();
    assert_eq!(causes(&fixed), ["spec.controllerRef FieldValueInvalid"]);
}

#[tokio::test]
async fn what_is_wrong_with_them_is_told() {
    let client = client(ON).await;
    let topology = json!([{"key": "rack"}, {"key": "zone"}]);
    let both = json!({"basic": {}, "gang": {"minCount": 1}});
    let reference = json!({"workload": {"workloadName": "w", "podGroupTemplateName": "A"}});
    for (spec, wanted) in [
        (json!({"schedulingPolicy": {}}), &["spec.schedulingPolicy FieldValueRequired"][..]),
        (json!({"schedulingPolicy": both}), &["spec.schedulingPolicy FieldValueInvalid"]),
        (json!({"schedulingPolicy": gang(0)}), &["spec.schedulingPolicy.gang.minCount FieldValueInvalid"]),
        (
            json!({"schedulingPolicy": gang(1), "disruptionMode": "All", "schedulingConstraints": {"topology": topology}}),
            &["spec.schedulingConstraints.topology FieldValueTooMany", "spec.disruptionMode FieldValueNotSupported"],
        ),
        (
            json!({"schedulingPolicy": gang(1), "podGroupTemplateRef": reference}),
            &["spec.podGroupTemplateRef.workload.podGroupTemplateName FieldValueInvalid"],
        ),
        (
            json!({"schedulingPolicy": gang(1), "resourceClaims": [{"name": "a"}, {"name": "a", "resourceClaimName": "c"}]}),
            &["spec.resourceClaims[0] FieldValueRequired", "spec.resourceClaims[1] FieldValueDuplicate"],
        ),
    ] {
        let refused = create::<PodGroup>(&client, group(spec.clone())).await.unwrap_err();
        assert_eq!(causes(&refused), wanted, "{spec}");
    }
    let template = |name: &str| json!({"name": name, "schedulingPolicy": {"basic": {}}});
    let nine: Vec<_> = (0..9).map(|i| template(&format!("t{i}"))).collect();
    for (templates, wanted) in [
        (json!([]), &["spec.podGroupTemplates FieldValueRequired"][..]),
        (nine.into(), &["spec.podGroupTemplates FieldValueTooMany"]),
        (json!([template("a"), template("a")]), &["spec.podGroupTemplates[1].name FieldValueDuplicate"]),
        (json!([template("A")]), &["spec.podGroupTemplates[0].name FieldValueInvalid"]),
    ] {
        let workload = json!({"metadata": {"name": "w"}, "spec": {"podGroupTemplates": templates}});
        let refused = create::<Workload>(&client, workload.clone()).await.unwrap_err();
        assert_eq!(causes(&refused), wanted, "{workload}");
    }
    let mut nameless = pod("a");
    nameless["spec"]["schedulingGroup"] = json!({});
    let refused = create::<Pod>(&client, nameless).await.unwrap_err();
    assert_eq!(causes(&refused), ["spec.schedulingGroup.podGroupName FieldValueRequired"]);
}
