//! The rules in CEL of custom resources, through the server.
#![cfg(feature = "server")]

use std::sync::Arc;

use rk_api::{
    Client, Patch, Request, Resource, Verb, WriteOptions,
    server::{Server, UserInfo},
};
use rk_store::MemoryStore;
use serde_json::{Value, json};

fn definition(schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": schema, "status": {"type": "object", "properties": {"seen": {"type": "integer"}}}}}}}],
        },
    })
}

async fn serve(schema: Value) -> (Server, Arc<dyn Client>) {
    let server = Server::builder(Arc::new(MemoryStore::new())).build().await.unwrap();
    server.define(definition(schema)).await.unwrap();
    let client = server.client(UserInfo::loopback());
    (server, client)
}

async fn send(client: &Arc<dyn Client>, name: &str, subresource: &str, verb: Verb) -> Result<Value, String> {
    let request = Request {
        resource: Resource::new("example.com", "v1", "Thing", "things", false),
        namespace: String::new(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
        verb,
    };
    match client.request(request).await {
        Ok(object) => Ok(object.value().unwrap()),
        Err(error) => Err(error.to_string()),
    }
}

async fn create(client: &Arc<dyn Client>, name: &str, spec: Value) -> Result<Value, String> {
    let body = json!({"metadata": {"name": name}, "spec": spec});
    send(client, "", "", Verb::Create(body, WriteOptions::default())).await
}

async fn patch(client: &Arc<dyn Client>, name: &str, spec: Value) -> Result<Value, String> {
    send(client, name, "", Verb::Patch(Patch::merge(json!({"spec": spec})), WriteOptions::default())).await
}

/// What the server says of a definition with such a schema.
async fn refused(schema: Value) -> String {
    let server = Server::builder(Arc::new(MemoryStore::new())).build().await.unwrap();
    server.define(definition(schema)).await.unwrap_err().to_string()
}

#[tokio::test]
async fn rules_refuse_objects_in_the_words_of_kubernetes() {
    let (_server, client) = serve(json!({
        "type": "object",
        "x-kubernetes-validations": [
            {"rule": "self.minReplicas <= self.replicas"},
            {"rule": "self.replicas <= self.maxReplicas", "message": "replicas should be smaller than or equal to maxReplicas",
             "fieldPath": ".replicas", "reason": "FieldValueForbidden"},
            {"rule": "!has(self.hosts) || self.hosts.all(h, h.size() > 1)",
             "messageExpression": "'short hosts: ' + self.hosts.filter(h, h.size() < 2).join(', ')"},
        ],
        "properties": {
            "minReplicas": {"type": "integer"}, "replicas": {"type": "integer"}, "maxReplicas": {"type": "integer"},
            "hosts": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 50}},
            "size": {"type": "string", "maxLength": 20, "x-kubernetes-validations": [
                {"rule": "isQuantity(self) && quantity(self).isGreaterThan(quantity('1Gi'))", "reason": "FieldValueRequired",
                 "message": "must be above 1Gi"}]},
            "by": {"type": "object", "maxProperties": 5, "additionalProperties": {"type": "integer", "x-kubernetes-validations": [
                {"rule": "self % 2 == 0"}]}},
        },
    }))
    .await;
    let good =
        json!({"minReplicas": 1, "replicas": 2, "maxReplicas": 3, "hosts": ["ab"], "size": "2Gi", "by": {"a": 2}});
    create(&client, "good", good).await.unwrap();
    let bad = json!({"minReplicas": 3, "replicas": 2, "maxReplicas": 1, "hosts": ["a", "bc", "d"], "size": "1Mi", "by": {"a": 3}});
    let error = create(&client, "bad", bad).await.unwrap_err();
    for part in [
        r#"Thing.example.com "bad" is invalid: ["#,
        r#"spec: Invalid value: "object": failed rule: self.minReplicas <= self.replicas"#,
        "spec.replicas: Forbidden: replicas should be smaller than or equal to maxReplicas",
        r#"spec: Invalid value: "object": short hosts: a, d"#,
        "spec.size: Required value: must be above 1Gi",
        r#"spec.by[a]: Invalid value: "integer": failed rule: self % 2 == 0"#,
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let error = create(&client, "bad", json!({"minReplicas": 1})).await.unwrap_err();
    let why =
        r#"spec: Invalid value: "object": no such key: replicas evaluating rule: self.minReplicas <= self.replicas"#;
    assert!(error.contains(why), "{error}");
    let error = create(&client, "bad", json!({"minReplicas": "x", "replicas": 1, "maxReplicas": 1})).await.unwrap_err();
    assert!(error.contains("some validation rules were not checked because the object was invalid"), "{error}");
}

#[tokio::test]
async fn transition_rules_compare_with_what_was() {
    let (_server, client) = serve(json!({
        "type": "object",
        "x-kubernetes-validations": [
            {"rule": "!has(oldSelf.class) || has(self.class)", "message": "class may not be removed"},
            {"rule": "oldSelf.hasValue() || self.count == 0", "optionalOldSelf": true, "message": "starts at 0"},
        ],
        "properties": {
            "class": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "class is immutable"}]},
            "count": {"type": "integer", "default": 0, "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
                "type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"},
                    "port": {"type": "integer", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "port is immutable"}]}}}},
        },
    }))
    .await;
    assert!(create(&client, "a", json!({"count": 1})).await.unwrap_err().contains("starts at 0"));
    let ports = json!([{"name": "x", "port": 1}, {"name": "y", "port": 2}]);
    create(&client, "a", json!({"class": "gold", "ports": ports})).await.unwrap();
    patch(&client, "a", json!({"count": 2})).await.unwrap();
    assert!(patch(&client, "a", json!({"count": 1})).await.unwrap_err().contains("failed rule: self >= oldSelf"));
    assert!(
        patch(&client, "a", json!({"class": "tin"}))
            .await
            .unwrap_err()
            .contains("spec.class: Invalid value: \"string\": class is immutable")
    );
    assert!(patch(&client, "a", json!({"class": null})).await.unwrap_err().contains("class may not be removed"));
    // Items are told apart by their keys, whatever their order; new ones have no past.
    let moved = json!([{"name": "y", "port": 2}, {"name": "z", "port": 9}, {"name": "x", "port": 1}]);
    patch(&client, "a", json!({"ports": moved})).await.unwrap();
    let changed = json!([{"name": "y", "port": 3}]);
    assert!(patch(&client, "a", json!({"ports": changed})).await.unwrap_err().contains("spec.ports[0].port"));
}

#[tokio::test]
async fn what_was_wrong_before_may_stay() {
    let loose = json!({"type": "object", "properties": {
        "size": {"type": "integer"}, "name": {"type": "string"}, "other": {"type": "integer"}}});
    let (server, client) = serve(loose).await;
    create(&client, "a", json!({"size": 1, "name": "UPPER", "other": 1})).await.unwrap();
    let tight = json!({"type": "object", "properties": {
        "size": {"type": "integer", "minimum": 5},
        "name": {"type": "string", "x-kubernetes-validations": [{"rule": "self == self.lowerAscii()"}]},
        "other": {"type": "integer"}}});
    server.define(definition(tight)).await.unwrap();
    // Until the new schema is served, old objects are judged by the old one.
    while create(&client, "b", json!({"size": 1})).await.is_ok() {
        let gone = Verb::Delete(rk_api::DeleteOptions::default());
        let _ = send(&client, "b", "", gone).await;
        tokio::task::yield_now().await;
    }
    patch(&client, "a", json!({"other": 2})).await.unwrap();
    let seen = Patch::merge(json!({"status": {"seen": 1}}));
    send(&client, "a", "status", Verb::Patch(seen, WriteOptions::default())).await.unwrap();
    assert!(
        patch(&client, "a", json!({"size": 2})).await.unwrap_err().contains("should be greater than or equal to 5")
    );
    assert!(patch(&client, "a", json!({"name": "Other"})).await.unwrap_err().contains("failed rule"));
    patch(&client, "a", json!({"size": 6, "name": "other"})).await.unwrap();
}

#[tokio::test]
async fn types_follow_the_schema() {
    let (_server, client) = serve(json!({
        "type": "object",
        "x-kubernetes-validations": [
            {"rule": "self.created + self.ttl < self.expired"},
            {"rule": "self.ratio > 0.5 && self.ratio < 1"},
            {"rule": "self.port == 80 || self.port == '50%'"},
            {"rule": "self.set == ['b', 'a'] && self.set + ['c', 'a'] == ['a', 'b', 'c']"},
            {"rule": "self.data == b'hi' && self.day.getFullYear() == 2024"},
            {"rule": "self.embedded.kind == 'Pod' && self.embedded.metadata.name == 'p'"},
            {"rule": "self.?missing.orValue('none') == 'none' && self.__namespace__ == 'n' && self.maybe == null"},
        ],
        "properties": {
            "created": {"type": "string", "format": "date-time"}, "expired": {"type": "string", "format": "date-time"},
            "ttl": {"type": "string", "format": "duration"}, "ratio": {"type": "number"},
            "port": {"x-kubernetes-int-or-string": true},
            "set": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "set", "items": {"type": "string", "maxLength": 5}},
            "data": {"type": "string", "format": "byte"}, "day": {"type": "string", "format": "date"},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
            "missing": {"type": "string"}, "namespace": {"type": "string"},
            "maybe": {"type": "object", "nullable": true},
        },
    }))
    .await;
    let mut spec = json!({
        "created": "2024-01-01T00:00:00Z", "ttl": "1h", "expired": "2024-01-01T02:00:00Z", "ratio": 0.75, "port": "50%",
        "set": ["a", "b"], "data": "aGk=", "day": "2024-05-06", "namespace": "n", "maybe": null,
        "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}},
    });
    create(&client, "a", spec.clone()).await.unwrap();
    spec["port"] = 80.into();
    create(&client, "b", spec.clone()).await.unwrap();
    spec["port"] = 81.into();
    spec["ttl"] = "3h".into();
    let error = create(&client, "c", spec).await.unwrap_err();
    assert!(error.contains("self.created + self.ttl") && error.contains("self.port == 80"), "{error}");
}

#[tokio::test]
async fn a_rule_that_costs_too_much_ends() {
    let (_server, client) = serve(json!({"type": "object", "properties": {
        "list": {"type": "array", "maxItems": 80, "items": {"type": "integer"}, "x-kubernetes-validations": [
            {"rule": "self.all(a, self.all(b, self.all(c, a + b + c >= 0)))"}]}}}))
    .await;
    create(&client, "a", json!({"list": [1, 2, 3]})).await.unwrap();
    let deep = format!("self{} > 0 && {}true{}", " + 1".repeat(200), "[1].all(x, ".repeat(100), ")".repeat(100));
    let (_server, other) = serve(json!({"type": "object", "properties": {
        "n": {"type": "integer", "x-kubernetes-validations": [{"rule": deep}]}}}))
    .await;
    create(&other, "a", json!({"n": 1})).await.unwrap();
    let error = create(&client, "b", json!({"list": (0..80).collect::<Vec<_>>()})).await.unwrap_err();
    assert!(error.contains("operation cancelled: actual cost limit exceeded"), "{error}");
}

#[tokio::test]
async fn rules_that_can_not_be_right_are_refused_with_the_definition() {
    let with = |rule: Value| {
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "list": {"type": "array", "items": {"type": "string"}}},
            "x-kubernetes-validations": [rule]})
    };
    let path = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]";
    for (rule, why) in [
        (json!({"rule": "self.b > 1"}), ".rule: Invalid value: apiextensions.ValidationRule{Rule:\"self.b > 1\", "),
        (
            json!({"rule": "self.b > 1"}),
            "compilation failed: ERROR: <input>:1:5: undefined field 'b'\n | self.b > 1\n | ....^",
        ),
        (json!({"rule": "self.a + 1"}), "cel expression must evaluate to a bool"),
        (json!({"rule": "self.a == 'x'"}), "found no matching overload for '_==_' applied to '(int, string)'"),
        (json!({"rule": ""}), ".rule: Required value: rule is not specified"),
        (
            json!({"rule": "true", "message": "a\nb"}),
            ".message: Invalid value: \"a\\nb\": message must not contain line breaks",
        ),
        (json!({"rule": "true", "messageExpression": "1"}), "messageExpression must evaluate to a string"),
        (json!({"rule": "true", "reason": "Nonsense"}), ".reason: Unsupported value: \"Nonsense\""),
        (json!({"rule": "true", "fieldPath": ".zzz"}), ".fieldPath: Invalid value: \".zzz\""),
        (json!({"rule": "true", "optionalOldSelf": true}), ".optionalOldSelf: Invalid value: true"),
        (json!({"rule": "object.a > 1"}), "undeclared reference to 'object'"),
        (
            json!({"rule": "self.list.all(x, self.list.all(y, x == y))"}),
            ".rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x",
        ),
    ] {
        let error = refused(with(rule.clone())).await;
        assert!(error.contains(path) && error.contains(why), "{rule}: {error}");
    }
    // Kubernetes comes to this very factor: https://github.com/grafana/grafana-operator/pull/1729.
    let choice = json!([{"rule": "(has(self.a) && !has(self.b)) || (!has(self.a) && has(self.b))"}]);
    let item = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "x-kubernetes-validations": choice});
    let error = refused(json!({"type": "object", "properties": {"list": {"type": "array", "items": item}}})).await;
    assert!(
        error
            .contains("Forbidden: estimated rule cost exceeds budget by factor of 1.048576x (try simplifying the rule"),
        "{error}"
    );
    let error = refused(json!({"type": "object", "properties": {"list": {"type": "array", "items": {"type": "integer",
        "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}}))
    .await;
    assert!(error.contains("oldSelf cannot be used on the uncorrelatable portion of the schema within"), "{error}");
    let error = refused(json!({"type": "object", "properties": {"a": {"type": "integer", "default": 1,
        "x-kubernetes-validations": [{"rule": "self > 5"}]}}}))
    .await;
    assert!(error.contains(".properties[a].default: Invalid value: \"integer\": failed rule: self > 5"), "{error}");
}

#[tokio::test]
async fn schemas_that_are_not_structural_are_refused() {
    for (schema, why) in [
        (
            json!({"type": "object", "properties": {"a": {}}}),
            "properties[a].type: Required value: must not be empty for specified object fields",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "x-kubernetes-int-or-string": true}}}),
            "must be empty if x-kubernetes-int-or-string is true",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "x-kubernetes-embedded-resource": true}}}),
            "must not be empty if x-kubernetes-embedded-resource is true without",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object", "properties": {"n": {"type": "string"}}}}}}),
            "x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"], "items": {"type": "object", "properties": {"n": {"type": "string"}}}}}}),
            "properties[n].default: Required value: this property is in x-kubernetes-list-map-keys",
        ),
        (
            json!({"type": "object", "anyOf": [{"properties": {"b": {"minimum": 1}}}]}),
            "properties[b]: Required value: because it is defined in",
        ),
        (
            json!({"type": "object", "oneOf": [{"type": "object"}]}),
            "oneOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}),
            "must be a valid regular expression, but isn't",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}),
            "properties[a].default: Invalid value",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "default": {"z": 1}}}}),
            "must not have unknown fields",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "uniqueItems": true}}}),
            "uniqueItems cannot be set to true",
        ),
    ] {
        let error = refused(schema.clone()).await;
        assert!(error.contains(why), "{schema}: {error}");
    }
}
