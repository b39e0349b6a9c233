//! The cells of objects as kubectl shows them.

use serde_json::{Value, json};

use crate::server::kinds;

/// The headings and cells of an object, `-o wide`'s included, without its age.
fn cells(group: &str, kind: &str, object: &Value) -> Vec<(&'static str, String)> {
    let columns = kinds::columns(group, kind);
    let text = |value: Value| value.as_str().map_or(value.to_string(), str::to_owned);
    columns
        .iter()
        .filter(|column| column.name != "Age")
        .map(|column| (column.name, text((column.cell)(object))))
        .collect()
}

fn check(group: &str, kind: &str, object: Value, expected: &[(&str, &str)]) {
    let cells = cells(group, kind, &object);
    let cells: Vec<_> = cells.iter().map(|(name, text)| (*name, text.as_str())).collect();
    assert_eq!(cells, expected, "{kind}");
}

#[test]
fn workloads() {
    let template = json!({"spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j"}]}});
    let selector = json!({"matchLabels": {"app": "a"}});
    check(
        "apps",
        "Deployment",
        json!({"metadata": {"name": "web"}, "spec": {"replicas": 3, "template": template, "selector": selector},
            "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}}),
        &[
            ("Name", "web"),
            ("Ready", "2/3"),
            ("Up-to-date", "3"),
            ("Available", "1"),
            ("Containers", "c,d"),
            ("Images", "i:1,j"),
            ("Selector", "app=a"),
        ],
    );
    check(
        "apps",
        "DaemonSet",
        json!({"metadata": {"name": "d"}, "spec": {"template": template, "selector": selector},
            "status": {"desiredNumberScheduled": 2, "currentNumberScheduled": 2, "numberReady": 1}}),
        &[
            ("Name", "d"),
            ("Desired", "2"),
            ("Current", "2"),
            ("Ready", "1"),
            ("Up-to-date", "0"),
            ("Available", "0"),
            ("Node Selector", "<none>"),
            ("Containers", "c,d"),
            ("Images", "i:1,j"),
            ("Selector", "app=a"),
        ],
    );
    check(
        "batch",
        "Job",
        json!({"metadata": {"name": "j"}, "spec": {"completions": 2, "template": template, "selector": selector},
            "status": {"succeeded": 2, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:02:05Z",
                "conditions": [{"type": "Complete", "status": "True"}]}}),
        &[
            ("Name", "j"),
            ("Status", "Complete"),
            ("Completions", "2/2"),
            ("Duration", "2m5s"),
            ("Containers", "c,d"),
            ("Images", "i:1,j"),
            ("Selector", "app=a"),
        ],
    );
    check(
        "batch",
        "CronJob",
        json!({"metadata": {"name": "c"}, "spec": {"schedule": "* * * * *", "suspend": false, "jobTemplate": {"spec": {"template": template}}}}),
        &[
            ("Name", "c"),
            ("Schedule", "* * * * *"),
            ("Timezone", "<none>"),
            ("Suspend", "False"),
            ("Active", "0"),
            ("Last Schedule", "<none>"),
            ("Containers", "c,d"),
            ("Images", "i:1,j"),
            ("Selector", "<none>"),
        ],
    );
}

#[test]
fn the_network() {
    check(
        "",
        "Service",
        json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "selector": {"a": "b"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
        &[
            ("Name", "s"),
            ("Type", "NodePort"),
            ("Cluster-IP", "10.0.0.1"),
            ("External-IP", "<none>"),
            ("Port(s)", "80:30080/TCP,53/UDP"),
            ("Selector", "a=b"),
        ],
    );
    check(
        "",
        "Service",
        json!({"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1"}}),
        &[
            ("Name", "s"),
            ("Type", "LoadBalancer"),
            ("Cluster-IP", "10.0.0.1"),
            ("External-IP", "<pending>"),
            ("Port(s)", "<none>"),
            ("Selector", "<none>"),
        ],
    );
    let addresses = json!([{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}, {"ip": "1.1.1.3"}, {"ip": "1.1.1.4"}]);
    check(
        "",
        "Endpoints",
        json!({"metadata": {"name": "e"}, "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]}),
        &[("Name", "e"), ("Endpoints", "1.1.1.1:80,1.1.1.2:80,1.1.1.3:80 + 1 more...")],
    );
    check(
        "discovery.k8s.io",
        "EndpointSlice",
        json!({"metadata": {"name": "e"}, "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": []}),
        &[("Name", "e"), ("AddressType", "IPv4"), ("Ports", "80"), ("Endpoints", "<unset>")],
    );
    check(
        "networking.k8s.io",
        "Ingress",
        json!({"metadata": {"name": "i"}, "spec": {"rules": [{"host": "a"}, {"host": "b"}], "tls": [{}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}),
        &[("Name", "i"), ("Class", "<none>"), ("Hosts", "a,b"), ("Address", "1.2.3.4"), ("Ports", "80, 443")],
    );
}

#[test]
fn the_cluster() {
    check(
        "",
        "Node",
        json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/a": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6.1"}}}),
        &[
            ("Name", "n"),
            ("Status", "Ready,SchedulingDisabled"),
            ("Roles", "a,control-plane"),
            ("Version", "v1.36.0"),
            ("Internal-IP", "10.0.0.2"),
            ("External-IP", "<none>"),
            ("OS-Image", "Debian"),
            ("Kernel-Version", "6.1"),
            ("Container-Runtime", "<unknown>"),
        ],
    );
    check(
        "",
        "PersistentVolumeClaim",
        json!({"metadata": {"name": "c"}, "spec": {"volumeName": "v", "storageClassName": "s", "volumeMode": "Filesystem"},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]}}),
        &[
            ("Name", "c"),
            ("Status", "Bound"),
            ("Volume", "v"),
            ("Capacity", "1Gi"),
            ("Access Modes", "RWO,RWX"),
            ("StorageClass", "s"),
            ("VolumeAttributesClass", "<unset>"),
            ("VolumeMode", "Filesystem"),
        ],
    );
    let last = (crate::now() - jiff::SignedDuration::from_secs(200)).to_string();
    check(
        "",
        "Event",
        json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.x"}, "type": "Normal",
            "reason": "Started", "message": "hello\n", "source": {"component": "kubelet", "host": "n"}, "count": 2,
            "firstTimestamp": last, "lastTimestamp": last}),
        &[
            ("Last Seen", "3m20s"),
            ("Type", "Normal"),
            ("Reason", "Started"),
            ("Object", "pod/p"),
            ("Subobject", "spec.x"),
            ("Source", "kubelet, n"),
            ("Message", "hello"),
            ("First Seen", "3m20s"),
            ("Count", "2"),
            ("Name", "e"),
        ],
    );
    check(
        "rbac.authorization.k8s.io",
        "RoleBinding",
        json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}),
        &[("Name", "b"), ("Role", "Role/r"), ("Users", "u"), ("Groups", ""), ("ServiceAccounts", "n/s")],
    );
    check(
        "autoscaling",
        "HorizontalPodAutoscaler",
        json!({"metadata": {"name": "h"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 4,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]}}),
        &[
            ("Name", "h"),
            ("Reference", "Deployment/d"),
            ("Targets", "cpu: <unknown>/80%"),
            ("MinPods", "1"),
            ("MaxPods", "4"),
            ("Replicas", "0"),
        ],
    );
    check(
        "",
        "ConfigMap",
        json!({"metadata": {"name": "c"}, "data": {"a": ""}, "binaryData": {"b": ""}}),
        &[("Name", "c"), ("Data", "2")],
    );
    check(
        "",
        "Secret",
        json!({"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": ""}}),
        &[("Name", "s"), ("Type", "Opaque"), ("Data", "1")],
    );
}
