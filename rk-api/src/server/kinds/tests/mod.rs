//! Objects of every kind as a client writes them, through schema, defaults and rules; what is said of wrong ones.

mod change;
mod columns;
mod create;
mod defaults;
mod warnings;

use std::sync::Arc;

use serde_json::{Value, json};

use super::{strategy, validate_meta};
use crate::{
    Resource,
    server::{FieldErrors, Strategy, UserInfo, WriteContext, fixture::Objects, schema::Schema},
};

/// A kind, and a good object of it as a client writes it.
struct Sample {
    resource: Resource,
    object: Value,
}

fn sample(group: &str, version: &str, kind: &str, namespaced: bool, rest: Value) -> Sample {
    let plural = format!("{}s", kind.to_lowercase());
    let resource = Resource::new(group, version, kind, &plural, namespaced);
    let mut object = json!({"apiVersion": resource.api_version(), "kind": kind, "metadata": {"name": "a"}});
    if namespaced {
        object["metadata"]["namespace"] = "default".into();
    }
    merge(&mut object, rest);
    Sample { resource, object }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A good object of the kind of this name.
fn good(kind: &str) -> Sample {
    let labels = json!({"app": "a"});
    let pod = json!({"containers": [{"name": "c", "image": "nginx:1"}]});
    let template = json!({"metadata": {"labels": labels}, "spec": pod});
    let selector = json!({"matchLabels": labels});
    let job =
        json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}}});
    let workload = json!({"spec": {"selector": selector, "template": template}});
    let rbac = "rbac.authorization.k8s.io";
    let net = "networking.k8s.io";
    match kind {
        "Pod" => sample("", "v1", kind, true, json!({"spec": pod})),
        "Deployment" | "ReplicaSet" | "DaemonSet" => sample("apps", "v1", kind, true, workload),
        "StatefulSet" => {
            let mut workload = workload;
            workload["spec"]["serviceName"] = "a".into();
            sample("apps", "v1", kind, true, workload)
        }
        "ReplicationController" => sample("", "v1", kind, true, json!({"spec": {"template": template}})),
        "Job" => sample("batch", "v1", kind, true, json!({"metadata": {"uid": "u-1"}, "spec": job})),
        "CronJob" => sample(
            "batch",
            "v1",
            kind,
            true,
            json!({"spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": job}}}),
        ),
        "Service" => sample("", "v1", kind, true, json!({"spec": {"selector": labels, "ports": [{"port": 80}]}})),
        "Namespace" | "Node" => sample("", "v1", kind, false, json!({})),
        "ConfigMap" => sample("", "v1", kind, true, json!({"data": {"k": "v"}})),
        "Secret" => sample("", "v1", kind, true, json!({"data": {"k": "dg=="}})),
        "PersistentVolumeClaim" => sample(
            "",
            "v1",
            kind,
            true,
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        "PersistentVolume" => sample(
            "",
            "v1",
            kind,
            false,
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}}),
        ),
        "LimitRange" => {
            sample("", "v1", kind, true, json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}))
        }
        "ResourceQuota" => sample("", "v1", kind, true, json!({"spec": {"hard": {"pods": "10"}}})),
        "Endpoints" => sample(
            "",
            "v1",
            kind,
            true,
            json!({"subsets": [{"addresses": [{"ip": "127.1.0.2"}], "ports": [{"port": 80}]}]}),
        ),
        "EndpointSlice" => sample(
            "discovery.k8s.io",
            "v1",
            kind,
            true,
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["127.1.0.2"]}], "ports": [{"port": 80}]}),
        ),
        "Ingress" => sample(
            net,
            "v1",
            kind,
            true,
            json!({"spec": {"rules": [{"host": "a.example", "http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}}),
        ),
        "IngressClass" => sample(net, "v1", kind, false, json!({"spec": {"controller": "example.com/c"}})),
        "NetworkPolicy" => sample(
            net,
            "v1",
            kind,
            true,
            json!({"spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": selector}], "ports": [{"port": 80}]}]}}),
        ),
        "HorizontalPodAutoscaler" => sample(
            "autoscaling",
            "v2",
            kind,
            true,
            json!({"spec": {"maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"}}}),
        ),
        "PodDisruptionBudget" => {
            sample("policy", "v1", kind, true, json!({"spec": {"minAvailable": 1, "selector": selector}}))
        }
        "PriorityClass" => sample("scheduling.k8s.io", "v1", kind, false, json!({"value": 1000})),
        "RuntimeClass" => sample("node.k8s.io", "v1", kind, false, json!({"handler": "runc"})),
        "Lease" => sample("coordination.k8s.io", "v1", kind, true, json!({"spec": {"leaseDurationSeconds": 15}})),
        "Event" => sample(
            "",
            "v1",
            kind,
            true,
            json!({"involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "type": "Normal", "reason": "R"}),
        ),
        "Role" | "ClusterRole" => sample(
            rbac,
            "v1",
            kind,
            kind == "Role",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        ),
        "RoleBinding" | "ClusterRoleBinding" => sample(
            rbac,
            "v1",
            kind,
            kind == "RoleBinding",
            json!({"roleRef": {"kind": "ClusterRole", "name": "view"},
                "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "default"}]}),
        ),
        "StorageClass" => sample("storage.k8s.io", "v1", kind, false, json!({"provisioner": "example.com/p"})),
        "ServiceAccount" => sample("", "v1", kind, true, json!({"secrets": [{"name": "s", "namespace": "other"}]})),
        "IPAddress" => sample(
            net,
            "v1",
            kind,
            false,
            json!({"metadata": {"name": "10.0.0.9"},
                "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "a"}}}),
        ),
        "ServiceCIDR" => sample(net, "v1", kind, false, json!({"spec": {"cidrs": ["10.0.0.0/24"]}})),
        "CSIDriver" => sample("storage.k8s.io", "v1", kind, false, json!({"spec": {}})),
        "CSINode" => sample(
            "storage.k8s.io",
            "v1",
            kind,
            false,
            json!({"spec": {"drivers": [{"name": "d.example.com", "nodeID": "n", "topologyKeys": ["example.com/zone"],
                "allocatable": {"count": 8}}]}}),
        ),
        "CSIStorageCapacity" => sample(
            "storage.k8s.io",
            "v1",
            kind,
            true,
            json!({"storageClassName": "fast", "capacity": "1Gi", "nodeTopology": {"matchLabels": {"zone": "a"}}}),
        ),
        "VolumeAttachment" => sample(
            "storage.k8s.io",
            "v1",
            kind,
            false,
            json!({"spec": {"attacher": "d.example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
        ),
        "VolumeAttributesClass" => sample(
            "storage.k8s.io",
            "v1",
            kind,
            false,
            json!({"driverName": "d.example.com", "parameters": {"iops": "1"}}),
        ),
        "CertificateSigningRequest" => sample(
            "certificates.k8s.io",
            "v1",
            kind,
            false,
            json!({"spec": {"request": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K", "signerName": "kubernetes.io/kube-apiserver-client",
                "usages": ["client auth"]}}),
        ),
        "CustomResourceDefinition" => sample(
            "apiextensions.k8s.io",
            "v1",
            kind,
            false,
            json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}}]}}),
        ),
        "ValidatingWebhookConfiguration" => sample(
            "admissionregistration.k8s.io",
            "v1",
            kind,
            false,
            json!({"webhooks": [{"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://h/x"},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]}]}),
        ),
        "ValidatingAdmissionPolicy" => sample(
            "admissionregistration.k8s.io",
            "v1",
            kind,
            false,
            json!({"spec": {"validations": [{"expression": "true"}], "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]}}}),
        ),
        "ValidatingAdmissionPolicyBinding" => sample(
            "admissionregistration.k8s.io",
            "v1",
            kind,
            false,
            json!({"spec": {"policyName": "a", "validationActions": ["Deny"]}}),
        ),
        "DeviceClass" => sample(
            "resource.k8s.io",
            "v1",
            kind,
            false,
            json!({"spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]}}),
        ),
        "ResourceClaim" => sample(
            "resource.k8s.io",
            "v1",
            kind,
            true,
            json!({"spec": {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com",
                "selectors": [{"cel": {"expression": "device.attributes['gpu.example.com'].large"}}]}}]}}}),
        ),
        other => panic!("no sample of {other}"),
    }
}

const KINDS: [&str; 51] = [
    "ServiceAccount",
    "IPAddress",
    "ServiceCIDR",
    "CSIDriver",
    "CSINode",
    "CSIStorageCapacity",
    "VolumeAttachment",
    "VolumeAttributesClass",
    "DeviceClass",
    "ResourceClaim",
    "Pod",
    "Deployment",
    "ReplicaSet",
    "DaemonSet",
    "StatefulSet",
    "ReplicationController",
    "Job",
    "CronJob",
    "Service",
    "Namespace",
    "Node",
    "ConfigMap",
    "Secret",
    "PersistentVolumeClaim",
    "PersistentVolume",
    "LimitRange",
    "ResourceQuota",
    "Endpoints",
    "EndpointSlice",
    "Ingress",
    "IngressClass",
    "NetworkPolicy",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "PriorityClass",
    "RuntimeClass",
    "Lease",
    "Event",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "StorageClass",
    "CertificateSigningRequest",
    "CustomResourceDefinition",
    "ValidatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    // Again, as their metadata has other rules.
    "Namespace",
    "Service",
    "Pod",
];

fn rules_of(resource: &Resource) -> Arc<dyn Strategy> {
    strategy(&resource.group, &resource.kind)
}

fn default(resource: &Resource, object: &mut Value) {
    if let Some(schema) = Schema::builtin(&resource.group, &resource.version, &resource.kind) {
        schema.apply_defaults(object);
    }
    rules_of(resource).default(object);
}

/// Defaults and readies an object as a create does, and returns what is wrong with it.
fn create(resource: &Resource, object: &mut Value) -> FieldErrors {
    default(resource, object);
    let reader = Objects::new([]);
    let user = UserInfo::new("alice", ["devs"]);
    let context = WriteContext { user: &user, subresource: "", dry_run: false, reader: &*reader };
    let rules = rules_of(resource);
    rules.prepare_create(object, &context);
    let mut errors = validate_meta(object, resource);
    errors.extend(rules.validate_create(object));
    errors
}

/// Defaults and readies a change, and returns what is wrong with it.
fn update(resource: &Resource, new: &mut Value, old: &Value, subresource: &str) -> FieldErrors {
    default(resource, new);
    let reader = Objects::new([]);
    let user = UserInfo::new("alice", ["devs"]);
    let context = WriteContext { user: &user, subresource, dry_run: false, reader: &*reader };
    let rules = rules_of(resource);
    rules.prepare_update(new, old, &context);
    let mut errors = validate_meta(new, resource);
    errors.extend(rules.validate_update(new, old, subresource));
    errors
}

/// Sets the value at a JSON pointer, making the objects on the way; `null` removes it. `-` appends to a list.
fn edit(object: &mut Value, pointer: &str, value: Value) {
    let mut parts: Vec<String> =
        pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    let Some(last) = parts.pop() else {
        *object = value;
        return;
    };
    let mut at = object;
    for part in parts {
        at = match at {
            Value::Array(items) => &mut items[part.parse::<usize>().unwrap()],
            other => &mut other[part.as_str()],
        };
    }
    match at {
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => items[last.parse::<usize>().unwrap()] = value,
        other if value.is_null() => {
            other.as_object_mut().unwrap().remove(&last);
        }
        other => other[last.as_str()] = value,
    }
}

/// `reason field: message`, with the reasons' common head cut off.
fn shown(errors: &FieldErrors) -> Vec<String> {
    errors
        .iter()
        .map(|error| {
            let reason = error.reason.strip_prefix("FieldValue").unwrap_or(error.reason);
            format!("{reason} {}: {}", error.field, error.message)
        })
        .collect()
}

/// Whether exactly these are said, in this order; an expectation that ends in `…` is the head of what is said.
fn assert_said(errors: &FieldErrors, expected: &[&str], what: &str) {
    let said = shown(errors);
    let same = said.len() == expected.len()
        && said.iter().zip(expected).all(|(said, expected)| match expected.strip_suffix('…') {
            Some(head) => said.starts_with(head),
            None => said == expected,
        });
    assert!(same, "{what}\n said:     {said:#?}\n expected: {expected:#?}");
}

#[test]
fn good_objects_of_every_kind_pass_and_stay_good() {
    for kind in KINDS {
        let Sample { resource, mut object } = good(kind);
        assert_said(&create(&resource, &mut object), &[], kind);
        let mut again = object.clone();
        assert_said(&update(&resource, &mut again, &object, ""), &[], kind);
        assert_eq!(again, object, "{kind}: defaults are a fixed point");
    }
}

/// What the wire brings may be of any type where a schema was not asked; no rule may panic on it.
#[test]
fn no_rule_panics_on_wrong_types() {
    let wrong = [json!(null), json!(1), json!("x"), json!([1]), json!({"x": 1}), json!([{"x": []}]), json!(true)];
    for kind in KINDS {
        let Sample { resource, object } = good(kind);
        let mut pointers = Vec::new();
        collect_pointers(&object, String::new(), &mut pointers);
        for pointer in &pointers {
            for value in &wrong {
                let mut broken = object.clone();
                if let Some(target) = broken.pointer_mut(pointer) {
                    *target = value.clone();
                }
                let rules = rules_of(&resource);
                rules.default(&mut broken);
                let _ = (validate_meta(&broken, &resource), rules.validate_create(&broken));
                let _ = (rules.validate_update(&broken, &object, ""), rules.validate_update(&object, &broken, ""));
                let _ = rules.grace_period(&broken, None);
                for column in super::columns(&resource.group, &resource.kind).iter() {
                    (column.cell)(&broken);
                }
            }
        }
    }
}

fn collect_pointers(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            collect_pointers(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), all);
        }),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, value)| collect_pointers(value, format!("{at}/{i}"), all));
        }
        _ => {}
    }
    all.push(at);
}
