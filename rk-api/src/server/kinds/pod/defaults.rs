//! The defaults of pods and of their templates (core/v1's `defaults.go`).

use serde_json::{Value, json};

use crate::server::kinds::value::{Peek, at_mut, each_mut, fill, fill_zero, object_mut, remove, set};

/// Defaults of a Pod: those of its spec, and what only a pod gets, not a template.
pub fn pod(pod: &mut Value) {
    let Some(spec) = object_mut(pod, "spec") else { return };
    pod_spec(spec);
    fill(spec, "enableServiceLinks", true);
    let host_network = spec.flag("hostNetwork");
    for list in ["containers", "initContainers"] {
        each_mut(spec, list, |container| {
            requests_from_limits(container);
            if host_network {
                each_mut(container, "ports", |port| {
                    let number = port.int("containerPort").unwrap_or(0);
                    fill_zero(port, "hostPort", number);
                });
            }
        });
    }
    pod_requests(spec);
}

/// Defaults of a pod's spec, wherever it occurs.
pub fn pod_spec(spec: &mut Value) {
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "restartPolicy", "Always");
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "schedulerName", "default-scheduler");
    fill(spec, "securityContext", json!({}));
    // Two names of one field; the older is kept for old clients.
    let account =
        [spec.text("serviceAccountName"), spec.text("serviceAccount")].into_iter().find(|name| !name.is_empty());
    if let Some(account) = account.map(str::to_owned) {
        set(spec, "serviceAccount", account.clone());
        set(spec, "serviceAccountName", account);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        each_mut(spec, list, container);
    }
    each_mut(spec, "volumes", volume);
}

fn container(container: &mut Value) {
    let pull = if tag_is_latest(container.text("image")) { "Always" } else { "IfNotPresent" };
    fill(container, "imagePullPolicy", pull);
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    fill(container, "resources", json!({}));
    each_mut(container, "ports", |port| fill(port, "protocol", "TCP"));
    each_mut(container, "env", |env| {
        if let Some(from) = at_mut(env, "valueFrom") {
            field_refs(from);
        }
    });
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = at_mut(container, name) {
            fill_zero(probe, "timeoutSeconds", 1);
            fill_zero(probe, "periodSeconds", 10);
            fill_zero(probe, "successThreshold", 1);
            fill_zero(probe, "failureThreshold", 3);
            if let Some(grpc) = at_mut(probe, "grpc") {
                fill(grpc, "service", "");
            }
            http_get(probe);
        }
    }
    for name in ["lifecycle.postStart", "lifecycle.preStop"] {
        if let Some(handler) = at_mut(container, name) {
            http_get(handler);
        }
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = at_mut(handler, "httpGet") {
        fill(get, "path", "/");
        fill(get, "scheme", "HTTP");
    }
}

/// An image without tag and digest, or with the tag `latest`, may change any time.
fn tag_is_latest(image: &str) -> bool {
    if image.contains('@') {
        return image.split('@').next().is_some_and(|head| head.ends_with(":latest"));
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn field_refs(source: &mut Value) {
    if let Some(field) = at_mut(source, "fieldRef") {
        fill(field, "apiVersion", "v1");
    }
    if let Some(resource) = at_mut(source, "resourceFieldRef") {
        fill(resource, "divisor", "0");
    }
}

const MODE: i64 = 0o644;

fn volume(volume: &mut Value) {
    if volume.as_object().is_some_and(|map| map.iter().all(|(key, value)| key == "name" || value.is_null())) {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = at_mut(volume, source) {
            fill(source, "defaultMode", MODE);
            each_mut(source, "items", field_refs);
            each_mut(source, "sources", |part| {
                if let Some(token) = at_mut(part, "serviceAccountToken") {
                    fill(token, "expirationSeconds", 3600);
                }
                if let Some(downward) = at_mut(part, "downwardAPI") {
                    each_mut(downward, "items", field_refs);
                }
            });
        }
    }
    if let Some(host) = at_mut(volume, "hostPath") {
        fill(host, "type", "");
    }
    if let Some(image) = at_mut(volume, "image") {
        let pull = if tag_is_latest(image.text("reference")) { "Always" } else { "IfNotPresent" };
        fill(image, "pullPolicy", pull);
    }
    if let Some(claim) = at_mut(volume, "ephemeral.volumeClaimTemplate.spec") {
        fill(claim, "volumeMode", "Filesystem");
    }
}

/// A limit without a request is also the request.
fn requests_from_limits(container: &mut Value) {
    let Some(limits) = at_mut(container, "resources.limits").and_then(|limits| limits.as_object().cloned()) else {
        return;
    };
    if let Some(requests) = object_mut(container, "resources.requests") {
        for (name, limit) in limits {
            fill(requests, &name, limit);
        }
    }
    if container.at("resources.requests").as_object().is_some_and(serde_json::Map::is_empty)
        && let Some(resources) = at_mut(container, "resources")
    {
        remove(resources, "requests");
    }
}

/// A pod-level limit without a request is also the request, unless the containers request some of it.
fn pod_requests(spec: &mut Value) {
    let Some(limits) = at_mut(spec, "resources.limits").and_then(|limits| limits.as_object().cloned()) else { return };
    let containers = ["containers", "initContainers"];
    let requested = |spec: &Value, name: &str| {
        let mut all = containers.iter().flat_map(|list| spec.list(list));
        all.any(|container| container.at("resources.requests").get(name).is_some())
    };
    let missing: Vec<_> = limits.into_iter().filter(|(name, _)| !requested(spec, name)).collect();
    if missing.is_empty() {
        return;
    }
    if let Some(requests) = object_mut(spec, "resources.requests") {
        for (name, limit) in missing {
            fill(requests, &name, limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_pod_gets_its_defaults() {
        let mut value = json!({"spec": {
            "serviceAccountName": "sa",
            "containers": [{
                "name": "c", "image": "nginx",
                "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1"}},
                "readinessProbe": {"httpGet": {"port": 80}},
                "env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            }],
            "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "x"}},
                {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
        }});
        pod(&mut value);
        assert_eq!(
            value,
            json!({"spec": {
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
                "schedulerName": "default-scheduler", "securityContext": {}, "enableServiceLinks": true,
                "serviceAccount": "sa", "serviceAccountName": "sa",
                "containers": [{
                    "name": "c", "image": "nginx", "imagePullPolicy": "Always",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
                    "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                    "env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP", "apiVersion": "v1"}}}],
                }],
                "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "x", "defaultMode": 420}},
                    {"name": "t", "projected": {"defaultMode": 420,
                        "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]}}],
            }})
        );
        let before = value.clone();
        pod(&mut value);
        assert_eq!(value, before, "defaults are a fixed point");
    }

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.27", false),
            ("host:5000/nginx", true),
            ("host:5000/nginx:1", false),
            ("nginx@sha256:abc", false),
        ] {
            assert_eq!(tag_is_latest(image), latest, "{image}");
        }
    }
}
