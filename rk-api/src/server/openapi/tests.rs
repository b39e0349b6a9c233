use super::*;
use crate::server::builtin;

fn crontab() -> (Resource, Value) {
    let resource = Resource::new("stable.example.com", "v1", "CronTab", "crontabs", true);
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "description": "What is wanted.", "properties": {
        "cronSpec": {"type": "string"}, "replicas": {"type": "integer", "nullable": true},
    }}}});
    (resource, schema)
}

fn documents() -> Documents {
    let mut rows = builtin::rows();
    let (resource, schema) = crontab();
    let like = rows.iter().find(|row| row.resource.plural == "deployments").unwrap();
    rows.push(Row { resource: resource.clone(), ..like.clone() });
    Documents::new(&rows, &[(resource, schema)])
}

fn parsed(documents: &Documents, path: &str) -> Value {
    serde_json::from_slice(&documents.document(path).unwrap().content()).unwrap()
}

/// Every reference leads to a definition.
fn check_references(value: &Value, document: &Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner.as_str() {
                    Some(reference) if key == "$ref" => {
                        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
                    }
                    _ => check_references(inner, document),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| check_references(inner, document)),
        _ => {}
    }
}

#[test]
fn every_document_is_whole() {
    let documents = documents();
    let index: Value = serde_json::from_slice(&documents.index()).unwrap();
    let paths = index["paths"].as_object().unwrap();
    assert!(paths.len() > 15);
    for (path, entry) in paths {
        let url = entry["serverRelativeURL"].as_str().unwrap();
        let first = documents.document(path).unwrap();
        assert_eq!(url, format!("/openapi/v3/{path}?hash={}", first.hash));
        let document: Value = serde_json::from_slice(&first.content()).unwrap();
        check_references(&document, &document);
        assert_eq!(documents.document(path).unwrap().gzipped, first.gzipped);
    }
    assert!(documents.document("apis/none/v1").is_none());
}

#[test]
fn kubectl_finds_kinds_fields_and_parameters() {
    let document = parsed(&documents(), "apis/apps/v1");
    let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let kind = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(item["get"]["x-kubernetes-group-version-kind"], kind);
    assert_eq!(item["patch"]["operationId"], "patchAppsV1NamespacedDeployment");
    let parameters = item["patch"]["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"));
    let list = &document["paths"]["/apis/apps/v1/deployments"]["get"];
    assert_eq!(list["operationId"], "listAppsV1DeploymentForAllNamespaces");
    let spec = &document["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert!(spec["description"].as_str().unwrap().starts_with("The deployment strategy"));
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(
        scale["x-kubernetes-group-version-kind"],
        json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})
    );
}

#[test]
fn custom_resources_are_published() {
    let document = parsed(&documents(), "apis/stable.example.com/v1");
    let schema = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(schema["properties"]["spec"]["description"], "What is wanted.");
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "CronTab");
    let patch = &document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"]["patch"];
    assert!(patch["requestBody"]["content"].get("application/merge-patch+json").is_some());
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_none());
    assert!(document["components"]["schemas"].get("com.example.stable.v1.CronTabList").is_some());
    assert!(document["components"]["schemas"].get("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").is_some());
}

#[test]
fn a_changed_schema_changes_the_hash() {
    let (resource, schema) = crontab();
    let rows = [Row { resource: resource.clone(), ..builtin::rows()[0].clone() }];
    let tag = |schema: Value| {
        Documents::new(&rows, &[(resource.clone(), schema)]).document("apis/stable.example.com/v1").unwrap().hash
    };
    assert_ne!(tag(schema.clone()), tag(json!({"type": "object"})));
    assert_eq!(tag(schema.clone()), tag(schema));
}

#[test]
fn the_older_form_is_whole() {
    let document: Value = serde_json::from_slice(&documents().v2(false).content()).unwrap();
    assert_eq!(document["swagger"], "2.0");
    check_references(&document, &document);
    let template = &document["definitions"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["template"];
    assert_eq!(template["$ref"], "#/definitions/io.k8s.api.core.v1.PodTemplateSpec");
    assert_eq!(document["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"], "string");
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert!(patch["consumes"].as_array().unwrap().contains(&json!("application/apply-patch+yaml")));
}
