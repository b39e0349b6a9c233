//! Wrong new objects: one edit of a good object each, and exactly what is said of it.

use serde_json::{Value, json};

use super::{Sample, assert_said, create, edit, good};

/// Each case: where the good object is changed, to what, and what is said.
type Case = (&'static str, Value, &'static [&'static str]);

fn check(kind: &str, cases: impl IntoIterator<Item = Case>) {
    for (pointer, value, expected) in cases {
        let Sample { resource, mut object } = good(kind);
        edit(&mut object, pointer, value.clone());
        let errors = create(&resource, &mut object);
        assert!(!expected.is_empty());
        assert_said(&errors, expected, &format!("{kind} {pointer} = {value}"));
    }
}

#[test]
fn metadata() {
    check(
        "ConfigMap",
        [
            (
                "/metadata/name",
                json!("Bad_Name"),
                &[
                    "Invalid metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                ][..],
            ),
            (
                "/metadata/name",
                json!(null),
                &["Required metadata.name: Required value: name or generateName is required"],
            ),
            ("/metadata/namespace", json!(null), &["Required metadata.namespace: Required value"]),
            (
                "/metadata/namespace",
                json!("A"),
                &["Invalid metadata.namespace: Invalid value: \"A\": a lowercase RFC 1123 label…"],
            ),
            (
                "/metadata/generateName",
                json!("-x-"),
                &["Invalid metadata.generateName: Invalid value: \"-x-\": a lowercase RFC 1123 subdomain…"],
            ),
            (
                "/metadata/labels",
                json!({"a b": "c"}),
                &[
                    "Invalid metadata.labels: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                ],
            ),
            (
                "/metadata/labels",
                json!({"a": "b c"}),
                &[
                    "Invalid metadata.labels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
                ],
            ),
            (
                "/metadata/labels",
                json!({"/a": "b"}),
                &["Invalid metadata.labels: Invalid value: \"/a\": prefix part must be non-empty"],
            ),
            (
                "/metadata/annotations",
                json!({"a b": "c"}),
                &["Invalid metadata.annotations: Invalid value: \"a b\": name part…"],
            ),
            (
                "/metadata/annotations",
                json!({"a": "x".repeat(262_144)}),
                &["TooLong metadata.annotations: Too long: may not be more than 262144 bytes"],
            ),
            (
                "/metadata/finalizers",
                json!(["a b"]),
                &["Invalid metadata.finalizers: Invalid value: \"a b\": name part…"],
            ),
            (
                "/metadata/finalizers",
                json!(["orphan", "foregroundDeletion"]),
                &[
                    "Invalid metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set",
                ],
            ),
            (
                "/metadata/ownerReferences",
                json!([{"apiVersion": "v1", "kind": "Pod", "name": "p"}]),
                &["Invalid metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"],
            ),
            (
                "/metadata/ownerReferences",
                json!([{"apiVersion": "apps/", "kind": "", "name": "p", "uid": "u"}]),
                &[
                    "Invalid metadata.ownerReferences.apiVersion: Invalid value: \"apps/\": version must not be empty",
                    "Invalid metadata.ownerReferences.kind: Invalid value: \"\": must not be empty",
                ],
            ),
            (
                "/metadata/ownerReferences",
                json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}, {"apiVersion": "v1", "kind": "Pod", "name": "q", "uid": "v", "controller": true}]),
                &["Invalid metadata.ownerReferences: Invalid value: [{…"],
            ),
            (
                "/metadata/generation",
                json!(-1),
                &["Invalid metadata.generation: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ],
    );
    check(
        "Node",
        [(
            "/metadata/namespace",
            json!("x"),
            &["Forbidden metadata.namespace: Forbidden: not allowed on this type"][..],
        )],
    );
    check(
        "Namespace",
        [(
            "/metadata/name",
            json!("a.b"),
            &["Invalid metadata.name: Invalid value: \"a.b\": must not contain dots"][..],
        )],
    );
    check(
        "Service",
        [(
            "/metadata/name",
            json!("1a"),
            &[
                "Invalid metadata.name: Invalid value: \"1a\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            ][..],
        )],
    );
    check(
        "Role",
        [("/metadata/name", json!("a/b"), &["Invalid metadata.name: Invalid value: \"a/b\": may not contain '/'"][..])],
    );
    check(
        "CronJob",
        [(
            "/metadata/name",
            json!("a".repeat(53)),
            &[
                "Invalid metadata.name: Invalid value: \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\": must be no more than 52 characters",
            ][..],
        )],
    );
}

#[test]
fn containers() {
    check(
        "Pod",
        [
            ("/spec/containers", json!([]), &["Required spec.containers: Required value"][..]),
            ("/spec/containers/0/name", json!(""), &["Required spec.containers[0].name: Required value"]),
            (
                "/spec/containers/0/name",
                json!("Bad"),
                &[
                    "Invalid spec.containers[0].name: Invalid value: \"Bad\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
            ("/spec/containers/0/image", json!(null), &["Required spec.containers[0].image: Required value"]),
            (
                "/spec/containers/0/image",
                json!(" x"),
                &[
                    "Invalid spec.containers[0].image: Invalid value: \" x\": must not have leading or trailing whitespace",
                ],
            ),
            (
                "/spec/containers/-",
                json!({"name": "c", "image": "i"}),
                &["Duplicate spec.containers[1].name: Duplicate value: \"c\""],
            ),
            (
                "/spec/initContainers",
                json!([{"name": "c", "image": "i"}]),
                &["Duplicate spec.initContainers[0].name: Duplicate value: \"c\""],
            ),
            (
                "/spec/initContainers",
                json!([{"name": "i", "image": "i", "livenessProbe": {"exec": {"command": ["x"]}}}]),
                &[
                    "Forbidden spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
                ],
            ),
            (
                "/spec/containers/0/imagePullPolicy",
                json!("Sometimes"),
                &[
                    "NotSupported spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
                ],
            ),
            (
                "/spec/containers/0/terminationMessagePolicy",
                json!("X"),
                &[
                    "NotSupported spec.containers[0].terminationMessagePolicy: Unsupported value: \"X\": supported values: \"FallbackToLogsOnError\", \"File\"",
                ],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 0}]),
                &["Required spec.containers[0].ports[0].containerPort: Required value"],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 70000}]),
                &[
                    "Invalid spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 80, "protocol": "HTTP"}]),
                &[
                    "NotSupported spec.containers[0].ports[0].protocol: Unsupported value: \"HTTP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 80, "name": "toolongportname16"}]),
                &[
                    "Invalid spec.containers[0].ports[0].name: Invalid value: \"toolongportname16\": must be no more than 15 bytes",
                ],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 80, "name": "80"}]),
                &[
                    "Invalid spec.containers[0].ports[0].name: Invalid value: \"80\": must contain at least one letter (a-z)",
                ],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}]),
                &["Duplicate spec.containers[0].ports[1].name: Duplicate value: \"a\""],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81, "hostPort": 8080}]),
                &["Duplicate spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//8080\""],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 80, "hostIP": "x"}]),
                &[
                    "Invalid spec.containers[0].ports[0].hostIP: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                "/spec/containers/0/env",
                json!([{"value": "x"}]),
                &["Required spec.containers[0].env[0].name: Required value"],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "a=b"}]),
                &[
                    "Invalid spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
                ],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
                &[
                    "Invalid spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                ],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A", "valueFrom": {}}]),
                &[
                    "Invalid spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef`, or `fileKeyRef`",
                ],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]),
                &[
                    "NotSupported spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
                ],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]),
                &[
                    "Invalid spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nope\": error converting fieldPath: field label not supported: spec.nope",
                ],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]),
                &["Required spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value"],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}]),
                &[
                    "NotSupported spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: Unsupported value: \"limits.gpu\": supported values: \"limits.cpu\"…",
                ],
            ),
            (
                "/spec/containers/0/envFrom",
                json!([{}]),
                &[
                    "Invalid spec.containers[0].envFrom[0]: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
                ],
            ),
            (
                "/spec/containers/0/volumeMounts",
                json!([{"name": "nope", "mountPath": "/x"}]),
                &["NotFound spec.containers[0].volumeMounts[0].name: Not found: \"nope\""],
            ),
            (
                "/spec/containers/0/securityContext",
                json!({"runAsUser": -1}),
                &[
                    "Invalid spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 4294967295, inclusive",
                ],
            ),
            (
                "/spec/containers/0/securityContext",
                json!({"privileged": true, "allowPrivilegeEscalation": false}),
                &["Invalid spec.containers[0].securityContext: Invalid value: {…"],
            ),
            (
                "/spec/containers/0/lifecycle",
                json!({"preStop": {}}),
                &["Required spec.containers[0].lifecycle.preStop: Required value: must specify a handler type"],
            ),
            (
                "/spec/ephemeralContainers",
                json!([{"name": "e", "image": "i"}]),
                &["Forbidden spec.ephemeralContainers: Forbidden: cannot be set on create"],
            ),
        ],
    );
}

#[test]
fn probes_and_resources() {
    check(
        "Pod",
        [
            (
                "/spec/containers/0/livenessProbe",
                json!({}),
                &["Required spec.containers[0].livenessProbe: Required value: must specify a handler type"][..],
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({"httpGet": {"port": 80}, "exec": {"command": ["x"]}}),
                &[
                    "Forbidden spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type",
                ],
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({"httpGet": {"port": 0}}),
                &[
                    "Invalid spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({"tcpSocket": {"port": "A"}}),
                &[
                    "Invalid spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: \"A\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                    "Invalid spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: \"A\": must contain at least one letter (a-z)",
                ],
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({"httpGet": {"port": 80, "scheme": "FTP"}}),
                &[
                    "NotSupported spec.containers[0].livenessProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
                ],
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({"exec": {"command": ["x"]}, "successThreshold": 2}),
                &["Invalid spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
            ),
            (
                "/spec/containers/0/readinessProbe",
                json!({"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 5}),
                &[
                    "Invalid spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
                ],
            ),
            (
                "/spec/containers/0/readinessProbe",
                json!({"exec": {"command": []}}),
                &["Required spec.containers[0].readinessProbe.exec.command: Required value"],
            ),
            (
                "/spec/containers/0/startupProbe",
                json!({"exec": {"command": ["x"]}, "periodSeconds": -1}),
                &[
                    "Invalid spec.containers[0].startupProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                "/spec/containers/0/resources",
                json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
                &[
                    "Invalid spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                ],
            ),
            (
                "/spec/containers/0/resources",
                json!({"limits": {"cpu": "-1"}, "requests": {"cpu": "-1"}}),
                &[
                    "Invalid spec.containers[0].resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                    "Invalid spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                ],
            ),
            (
                "/spec/containers/0/resources",
                json!({"requests": {"gpu": "1"}}),
                &[
                    "Invalid spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
                    "Required spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
                ],
            ),
            (
                "/spec/containers/0/resources",
                json!({"limits": {"example.com/gpu": "1500m"}}),
                &[
                    "Invalid spec.containers[0].resources.limits[example.com/gpu]: Invalid value: \"1500m\": must be an integer",
                    "Invalid spec.containers[0].resources.requests[example.com/gpu]: Invalid value: \"1500m\": must be an integer",
                ],
            ),
            (
                "/spec/containers/0/resources",
                json!({"limits": {"example.com/gpu": "2"}, "requests": {"example.com/gpu": "1"}}),
                &[
                    "Invalid spec.containers[0].resources.requests: Invalid value: \"1\": must be equal to example.com/gpu limit of 2",
                ],
            ),
            (
                "/spec/resources",
                json!({"requests": {"storage": "1"}}),
                &[
                    "NotSupported spec.resources.requests[storage]: Unsupported value: \"storage\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
                    "Invalid spec.resources.requests[storage]: Invalid value: \"storage\": must be a standard resource for containers",
                ],
            ),
        ],
    );
}

#[test]
fn volumes() {
    let volume = |rest: Value| {
        let mut volume = json!({"name": "v"});
        super::merge(&mut volume, rest);
        json!([volume])
    };
    check(
        "Pod",
        [
            ("/spec/volumes", json!([{"emptyDir": {}}]), &["Required spec.volumes[0].name: Required value"][..]),
            (
                "/spec/volumes",
                json!([{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]),
                &["Duplicate spec.volumes[1].name: Duplicate value: \"v\""],
            ),
            (
                "/spec/volumes",
                volume(json!({"emptyDir": {}, "hostPath": {"path": "/x"}})),
                &["Forbidden spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                "/spec/volumes",
                volume(json!({"hostPath": {"path": ""}})),
                &["Required spec.volumes[0].hostPath.path: Required value"],
            ),
            (
                "/spec/volumes",
                volume(json!({"hostPath": {"path": "/a/../b"}})),
                &["Invalid spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
            ),
            (
                "/spec/volumes",
                volume(json!({"hostPath": {"path": "/a", "type": "X"}})),
                &[
                    "NotSupported spec.volumes[0].hostPath.type: Unsupported value: \"X\": supported values: \"BlockDevice\"…",
                ],
            ),
            (
                "/spec/volumes",
                volume(json!({"configMap": {}})),
                &["Required spec.volumes[0].configMap.name: Required value"],
            ),
            (
                "/spec/volumes",
                volume(json!({"secret": {"secretName": "s", "defaultMode": 1000}})),
                &[
                    "Invalid spec.volumes[0].secret.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both inclusive",
                ],
            ),
            (
                "/spec/volumes",
                volume(json!({"configMap": {"name": "c", "items": [{"key": "k", "path": "/x"}]}})),
                &["Invalid spec.volumes[0].configMap.items[0].path: Invalid value: \"/x\": must be a relative path"],
            ),
            (
                "/spec/volumes",
                volume(json!({"configMap": {"name": "c", "items": [{"path": "x"}]}})),
                &["Required spec.volumes[0].configMap.items[0].key: Required value"],
            ),
            (
                "/spec/volumes",
                volume(json!({"downwardAPI": {"items": [{"path": "x"}]}})),
                &[
                    "Required spec.volumes[0].downwardAPI.items[0]: Required value: one of fieldRef and resourceFieldRef is required",
                ],
            ),
            (
                "/spec/volumes",
                volume(
                    json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}]}}),
                ),
                &[
                    "Invalid spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
                ],
            ),
            (
                "/spec/volumes",
                volume(json!({"persistentVolumeClaim": {}})),
                &["Required spec.volumes[0].persistentVolumeClaim.claimName: Required value"],
            ),
            (
                "/spec/volumes",
                volume(json!({"emptyDir": {"sizeLimit": "-1"}})),
                &[
                    "Invalid spec.volumes[0].emptyDir.sizeLimit: Invalid value: \"-1\": must be greater than or equal to 0",
                ],
            ),
        ],
    );
    let mounted = |mounts: Value| json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "c", "image": "i", "volumeMounts": mounts}]});
    check(
        "Pod",
        [
            (
                "/spec",
                mounted(json!([{"name": "v"}])),
                &["Required spec.containers[0].volumeMounts[0].mountPath: Required value"][..],
            ),
            (
                "/spec",
                mounted(json!([{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}])),
                &["Invalid spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique"],
            ),
            (
                "/spec",
                mounted(json!([{"name": "v", "mountPath": "/a", "subPath": "/x"}])),
                &["Invalid spec.containers[0].volumeMounts[0].subPath: Invalid value: \"/x\": must be a relative path"],
            ),
            (
                "/spec",
                mounted(json!([{"name": "v", "mountPath": "/a", "subPath": "../x"}])),
                &["Invalid spec.containers[0].volumeMounts[0].subPath: Invalid value: \"../x\": must not contain '..'"],
            ),
            (
                "/spec",
                mounted(json!([{"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}])),
                &[
                    "Forbidden spec.containers[0].volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
                ],
            ),
        ],
    );
}

#[test]
fn pod_specs() {
    check(
        "Pod",
        [
            (
                "/spec/restartPolicy",
                json!("Sometimes"),
                &[
                    "NotSupported spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                ][..],
            ),
            (
                "/spec/dnsPolicy",
                json!("X"),
                &[
                    "NotSupported spec.dnsPolicy: Unsupported value: \"X\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
                ],
            ),
            (
                "/spec/dnsPolicy",
                json!("None"),
                &["Required spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
            ),
            (
                "/spec/terminationGracePeriodSeconds",
                json!(-1),
                &["Invalid spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/activeDeadlineSeconds",
                json!(0),
                &["Invalid spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
            ),
            (
                "/spec/nodeSelector",
                json!({"a b": "x"}),
                &["Invalid spec.nodeSelector: Invalid value: \"a b\": name part…"],
            ),
            (
                "/spec/hostname",
                json!("A"),
                &["Invalid spec.hostname: Invalid value: \"A\": a lowercase RFC 1123 label…"],
            ),
            (
                "/spec/serviceAccountName",
                json!("A"),
                &["Invalid spec.serviceAccountName: Invalid value: \"A\": a lowercase RFC 1123 subdomain…"],
            ),
            (
                "/spec/tolerations",
                json!([{"operator": "Equal"}]),
                &[
                    "Invalid spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                ],
            ),
            (
                "/spec/tolerations",
                json!([{"key": "k", "operator": "Exists", "value": "v"}]),
                &[
                    "Invalid spec.tolerations[0].operator: Invalid value: \"v\": value must be empty when `operator` is 'Exists'",
                ],
            ),
            (
                "/spec/tolerations",
                json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 5, "effect": "NoSchedule"}]),
                &[
                    "Invalid spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
                ],
            ),
            (
                "/spec/tolerations",
                json!([{"key": "k", "operator": "Exists", "effect": "X"}]),
                &[
                    "NotSupported spec.tolerations[0].effect: Unsupported value: \"X\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                ],
            ),
            (
                "/spec/tolerations",
                json!([{"key": "k", "operator": "Like"}]),
                &[
                    "NotSupported spec.tolerations[0].operator: Unsupported value: \"Like\": supported values: \"Equal\", \"Exists\"",
                ],
            ),
            (
                "/spec/topologySpreadConstraints",
                json!([{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]),
                &["Invalid spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"],
            ),
            (
                "/spec/topologySpreadConstraints",
                json!([{"maxSkew": 1, "whenUnsatisfiable": "X"}]),
                &[
                    "Required spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
                    "NotSupported spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"X\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
                ],
            ),
            (
                "/spec/affinity",
                json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
                &[
                    "Required spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
                ],
            ),
            (
                "/spec/affinity",
                json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "preference": {}}]}}),
                &[
                    "Invalid spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100",
                ],
            ),
            (
                "/spec/affinity",
                json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {}}]}}),
                &[
                    "Required spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
                ],
            ),
            (
                "/spec/securityContext",
                json!({"sysctls": [{"name": "", "value": "1"}]}),
                &["Required spec.securityContext.sysctls[0].name: Required value"],
            ),
            (
                "/spec/securityContext",
                json!({"seccompProfile": {"type": "X"}}),
                &[
                    "NotSupported spec.securityContext.seccompProfile.type: Unsupported value: \"X\": supported values: \"Localhost\", \"RuntimeDefault\", \"Unconfined\"",
                ],
            ),
            (
                "/spec/imagePullSecrets",
                json!([{"name": ""}]),
                &["Required spec.imagePullSecrets[0].name: Required value"],
            ),
            (
                "/spec/hostAliases",
                json!([{"ip": "x", "hostnames": ["a"]}]),
                &[
                    "Invalid spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                "/spec/schedulingGates",
                json!([{"name": "a"}, {"name": "a"}]),
                &["Duplicate spec.schedulingGates[1]: Duplicate value: \"a\""],
            ),
            (
                "/spec",
                json!({"nodeName": "n", "schedulingGates": [{"name": "a"}], "containers": [{"name": "c", "image": "i"}]}),
                &["Forbidden spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
            ),
            (
                "/spec",
                json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 81}]}]}),
                &[
                    "Invalid spec.containers[0].ports[0].containerPort: Invalid value: 80: must match `hostPort` when `hostNetwork` is true",
                ],
            ),
        ],
    );
}

#[test]
fn workloads() {
    check(
        "Deployment",
        [
            ("/spec/selector", json!(null), &["Required spec.selector: Required value"][..]),
            (
                "/spec/selector",
                json!({}),
                &["Invalid spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
            ),
            (
                "/spec/selector/matchLabels/app",
                json!("b"),
                &[
                    "Invalid spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                "/spec/selector",
                json!({"matchExpressions": [{"key": "app", "operator": "In"}]}),
                &[
                    "Required spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                    "Invalid spec.template.metadata.labels: Invalid value…",
                ],
            ),
            (
                "/spec/selector",
                json!({"matchExpressions": [{"key": "app", "operator": "Like"}]}),
                &[
                    "Invalid spec.selector.matchExpressions[0].operator: Invalid value: \"Like\": not a valid selector operator",
                    "Invalid spec.template.metadata.labels: Invalid value…",
                ],
            ),
            (
                "/spec/replicas",
                json!(-1),
                &["Invalid spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                &[
                    "NotSupported spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                ],
            ),
            ("/spec/template/spec/containers", json!([]), &["Required spec.template.spec.containers: Required value"]),
            (
                "/spec/strategy",
                json!({"type": "X"}),
                &[
                    "NotSupported spec.strategy.type: Unsupported value: \"X\": supported values: \"Recreate\", \"RollingUpdate\"",
                ],
            ),
            (
                "/spec/strategy",
                json!({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
                &[
                    "Forbidden spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
                ],
            ),
            (
                "/spec/strategy",
                json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
                &[
                    "Invalid spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                "/spec/strategy",
                json!({"rollingUpdate": {"maxSurge": "x%"}}),
                &[
                    "Invalid spec.strategy.rollingUpdate.maxSurge: Invalid value: \"x%\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                ],
            ),
            (
                "/spec/strategy",
                json!({"rollingUpdate": {"maxUnavailable": "101%"}}),
                &[
                    "Invalid spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
                ],
            ),
            (
                "/spec/progressDeadlineSeconds",
                json!(0),
                &["Invalid spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds"],
            ),
            (
                "/spec/minReadySeconds",
                json!(-1),
                &["Invalid spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/revisionHistoryLimit",
                json!(-1),
                &["Invalid spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ],
    );
    check(
        "ReplicaSet",
        [(
            "/spec/replicas",
            json!(-1),
            &["Invalid spec.replicas: Invalid value: -1: must be greater than or equal to 0"][..],
        )],
    );
    check(
        "ReplicationController",
        [
            (
                "/spec/template",
                json!(null),
                &["Required spec.selector: Required value", "Required spec.template.spec.containers: Required value"][..],
            ),
            (
                "/spec/selector",
                json!({"app": "b"}),
                &[
                    "Invalid spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
                ],
            ),
        ],
    );
    check(
        "StatefulSet",
        [
            (
                "/spec/podManagementPolicy",
                json!("X"),
                &["Invalid spec.podManagementPolicy: Invalid value: \"X\": must be 'OrderedReady' or 'Parallel'"][..],
            ),
            (
                "/spec/updateStrategy",
                json!({"type": "X"}),
                &["Invalid spec.updateStrategy.type: Invalid value: \"X\": must be 'RollingUpdate' or 'OnDelete'"],
            ),
            (
                "/spec/selector",
                json!({}),
                &["Invalid spec.selector: Invalid value: {}: empty selector is invalid for statefulset"],
            ),
            (
                "/spec/updateStrategy",
                json!({"rollingUpdate": {"partition": -1}}),
                &[
                    "Invalid spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
        ],
    );
    check(
        "DaemonSet",
        [
            (
                "/spec/selector",
                json!({}),
                &["Invalid spec.selector: Invalid value: {}: empty selector is invalid for daemonset"][..],
            ),
            (
                "/spec/updateStrategy",
                json!({"type": "X"}),
                &[
                    "NotSupported spec.updateStrategy.type: Unsupported value: \"X\": supported values: \"RollingUpdate\", \"OnDelete\"",
                ],
            ),
            (
                "/spec/updateStrategy",
                json!({"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}),
                &[
                    "Invalid spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
                ],
            ),
        ],
    );
}

#[test]
fn batch() {
    check(
        "Job",
        [
            (
                "/spec/template/spec/restartPolicy",
                json!(null),
                &["Required spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
                    [..],
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("X"),
                &[
                    "NotSupported spec.template.spec.restartPolicy: Unsupported value: \"X\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                    "NotSupported spec.template.spec.restartPolicy: Unsupported value: \"X\": supported values: \"OnFailure\", \"Never\"",
                ],
            ),
            (
                "/spec/parallelism",
                json!(-1),
                &["Invalid spec.parallelism: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/backoffLimit",
                json!(-1),
                &["Invalid spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/completionMode",
                json!("X"),
                &[
                    "NotSupported spec.completionMode: Unsupported value: \"X\": supported values: \"Indexed\", \"NonIndexed\"",
                ],
            ),
            (
                "/spec",
                json!({"parallelism": 2, "completionMode": "Indexed", "template": good("Job").object["spec"]["template"]}),
                &["Required spec.completions: Required value: when completion mode is Indexed"],
            ),
            (
                "/spec/backoffLimitPerIndex",
                json!(1),
                &["Invalid spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
            ),
            (
                "/spec/template/metadata",
                json!({"labels": {"controller-uid": "x"}}),
                &["Invalid spec.template.metadata.labels: Invalid value: {…"],
            ),
            (
                "/spec/selector",
                json!({"matchLabels": {"a": "b"}}),
                &[
                    "Invalid spec.template.metadata.labels: Invalid value: {…",
                    "Invalid spec.selector: Invalid value: {…",
                ],
            ),
            (
                "/spec/podFailurePolicy",
                json!({"rules": [{"action": "X", "onPodConditions": [{"type": "T"}]}]}),
                &[
                    "NotSupported spec.podFailurePolicy.rules[0].action: Unsupported value: \"X\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
                ],
            ),
            (
                "/spec/podFailurePolicy",
                json!({"rules": [{"action": "Count", "onExitCodes": {"operator": "In", "values": [0]}}]}),
                &[
                    "Invalid spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
                ],
            ),
        ],
    );
    check(
        "CronJob",
        [
            ("/spec/schedule", json!(""), &["Required spec.schedule: Required value"][..]),
            (
                "/spec/schedule",
                json!("x"),
                &["Invalid spec.schedule: Invalid value: \"x\": expected exactly 5 fields, found 1: [x]"],
            ),
            (
                "/spec/schedule",
                json!("TZ=UTC * * * * *"),
                &[
                    "Invalid spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                ],
            ),
            (
                "/spec/timeZone",
                json!("local"),
                &[
                    "Invalid spec.timeZone: Invalid value: \"local\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
                ],
            ),
            (
                "/spec/concurrencyPolicy",
                json!("X"),
                &[
                    "NotSupported spec.concurrencyPolicy: Unsupported value: \"X\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                ],
            ),
            (
                "/spec/successfulJobsHistoryLimit",
                json!(-1),
                &["Invalid spec.successfulJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/jobTemplate/spec/template/spec/restartPolicy",
                json!(null),
                &[
                    "Required spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
                ],
            ),
        ],
    );
}

#[test]
fn services() {
    check(
        "Service",
        [
            ("/spec/ports", json!([]), &["Required spec.ports: Required value"][..]),
            (
                "/spec/ports",
                json!([{"port": 80}, {"port": 81}]),
                &["Required spec.ports[0].name: Required value", "Required spec.ports[1].name: Required value"],
            ),
            (
                "/spec/ports",
                json!([{"name": "a", "port": 80}, {"name": "a", "port": 81}]),
                &["Duplicate spec.ports[1].name: Duplicate value: \"a\""],
            ),
            (
                "/spec/ports",
                json!([{"name": "a", "port": 80}, {"name": "b", "port": 80}]),
                &["Duplicate spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}"],
            ),
            (
                "/spec/ports",
                json!([{"port": 0, "targetPort": 80}]),
                &["Invalid spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            ),
            (
                "/spec/ports",
                json!([{"port": 80, "targetPort": 70000}]),
                &["Invalid spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
            ),
            (
                "/spec/ports",
                json!([{"port": 80, "protocol": "X"}]),
                &[
                    "NotSupported spec.ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
            (
                "/spec/ports",
                json!([{"port": 80, "nodePort": 30000}]),
                &["Forbidden spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                "/spec/ports",
                json!([{"port": 80, "name": "A"}]),
                &["Invalid spec.ports[0].name: Invalid value: \"A\": a lowercase RFC 1123 label…"],
            ),
            (
                "/spec/type",
                json!("X"),
                &[
                    "NotSupported spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                ],
            ),
            (
                "/spec/sessionAffinity",
                json!("X"),
                &[
                    "NotSupported spec.sessionAffinity: Unsupported value: \"X\": supported values: \"ClientIP\", \"None\"",
                ],
            ),
            (
                "/spec/clusterIP",
                json!("x"),
                &[
                    "Invalid spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                "/spec/clusterIPs",
                json!(["10.0.0.1"]),
                &["Required spec.clusterIP: Required value: must be set when clusterIPs are set"],
            ),
            (
                "/spec",
                json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]}),
                &[
                    "Invalid spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
                ],
            ),
            ("/spec", json!({"type": "ExternalName"}), &["Required spec.externalName: Required value"]),
            (
                "/spec",
                json!({"type": "ExternalName", "externalName": "A_"}),
                &["Invalid spec.externalName: Invalid value: \"A_\": a lowercase RFC 1123 subdomain…"],
            ),
            (
                "/spec",
                json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.0.0.1"}),
                &["Forbidden spec.clusterIPs: Forbidden: may not be set for ExternalName services"],
            ),
            ("/spec/selector", json!({"a b": "x"}), &["Invalid spec.selector: Invalid value: \"a b\": name part…"]),
            (
                "/spec/internalTrafficPolicy",
                json!("X"),
                &[
                    "NotSupported spec.internalTrafficPolicy: Unsupported value: \"X\": supported values: \"Cluster\", \"Local\"",
                ],
            ),
            (
                "/spec/externalTrafficPolicy",
                json!("Local"),
                &[
                    "Invalid spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                ],
            ),
            (
                "/spec/externalIPs",
                json!(["x"]),
                &[
                    "Invalid spec.externalIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                "/spec/loadBalancerSourceRanges",
                json!(["10.0.0.0/8"]),
                &["Forbidden spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"],
            ),
            (
                "/spec/ipFamilies",
                json!(["IPv5"]),
                &["NotSupported spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\""],
            ),
            (
                "/spec",
                json!({"ports": [{"port": 80}], "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
                &[
                    "Invalid spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400",
                ],
            ),
        ],
    );
    check(
        "Endpoints",
        [
            (
                "/subsets",
                json!([{"ports": [{"port": 80}]}]),
                &["Required subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"][..],
            ),
            (
                "/subsets/0/addresses/0/ip",
                json!("x"),
                &[
                    "Invalid subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                "/subsets/0/ports/0/port",
                json!(0),
                &["Invalid subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            ),
        ],
    );
    check(
        "EndpointSlice",
        [
            (
                "/addressType",
                json!("X"),
                &["NotSupported addressType: Unsupported value: \"X\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""]
                    [..],
            ),
            (
                "/endpoints/0/addresses",
                json!([]),
                &["Required endpoints[0].addresses: Required value: must contain at least 1 address"],
            ),
            (
                "/endpoints/0/addresses",
                json!(["::1"]),
                &["Invalid endpoints[0].addresses[0]: Invalid value: \"::1\": must be an IPv4 address"],
            ),
            ("/ports/-", json!({"port": 81}), &["Duplicate ports[1].name: Duplicate value: \"\""]),
        ],
    );
}

#[test]
fn configuration_and_cluster() {
    check(
        "ConfigMap",
        [
            (
                "/data",
                json!({"a/b": "c"}),
                &[
                    "Invalid data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                ][..],
            ),
            (
                "/binaryData",
                json!({"k": "dg=="}),
                &["Invalid data[k]: Invalid value: \"k\": duplicate of key present in binaryData"],
            ),
            (
                "/data",
                json!({"k": "x".repeat(1 << 20 | 1)}),
                &["TooLong : Too long: may not be more than 1048576 bytes"],
            ),
        ],
    );
    check(
        "Secret",
        [
            ("/data", json!({"a/b": "dg=="}), &["Invalid data[a/b]: Invalid value: \"a/b\": a valid config key…"][..]),
            (
                "/type",
                json!("kubernetes.io/tls"),
                &["Required data[tls.crt]: Required value", "Required data[tls.key]: Required value"],
            ),
            (
                "/type",
                json!("kubernetes.io/basic-auth"),
                &["Required data[username]: Required value", "Required data[password]: Required value"],
            ),
            ("/type", json!("kubernetes.io/ssh-auth"), &["Required data[ssh-privatekey]: Required value"]),
            ("/type", json!("kubernetes.io/dockerconfigjson"), &["Required data[.dockerconfigjson]: Required value"]),
            (
                "/type",
                json!("kubernetes.io/service-account-token"),
                &["Required metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
        ],
    );
    check(
        "Node",
        [
            (
                "/spec/taints",
                json!([{"key": "k", "effect": "X"}]),
                &[
                    "NotSupported spec.taints[0].effect: Unsupported value: \"X\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                ][..],
            ),
            (
                "/spec/taints",
                json!([{"key": "k", "effect": "NoSchedule"}, {"key": "k", "effect": "NoSchedule"}]),
                &["Duplicate spec.taints[1]: Duplicate value: {…"],
            ),
        ],
    );
    check(
        "PersistentVolumeClaim",
        [
            (
                "/spec/accessModes",
                json!([]),
                &["Required spec.accessModes: Required value: at least 1 access mode is required"][..],
            ),
            (
                "/spec/accessModes",
                json!(["X"]),
                &[
                    "NotSupported spec.accessModes: Unsupported value: \"X\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                ],
            ),
            ("/spec/resources", json!({}), &["Required spec.resources[storage]: Required value"]),
            (
                "/spec/resources/requests/storage",
                json!("0"),
                &["Invalid spec.resources[storage]: Invalid value: \"0\": must be greater than zero"],
            ),
        ],
    );
    check(
        "PersistentVolume",
        [
            ("/spec/hostPath", json!(null), &["Required spec: Required value: must specify a volume type"][..]),
            ("/spec/capacity", json!({}), &["Required spec.capacity: Required value"]),
            (
                "/spec/persistentVolumeReclaimPolicy",
                json!("X"),
                &[
                    "NotSupported spec.persistentVolumeReclaimPolicy: Unsupported value: \"X\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
                ],
            ),
        ],
    );
    check(
        "StorageClass",
        [
            ("/provisioner", json!(""), &["Required provisioner: Required value"][..]),
            (
                "/volumeBindingMode",
                json!("X"),
                &[
                    "NotSupported volumeBindingMode: Unsupported value: \"X\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
                ],
            ),
        ],
    );
    check(
        "LimitRange",
        [
            (
                "/spec/limits/0/min",
                json!({"cpu": "2"}),
                &[
                    "Invalid spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                    "Invalid spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1",
                    "Invalid spec.limits[0].default[cpu]: Invalid value: \"1\": min value 2 is greater than default value 1",
                ][..],
            ),
            (
                "/spec/limits/-",
                json!({"type": "Container"}),
                &["Duplicate spec.limits[1].type: Duplicate value: \"Container\""],
            ),
        ],
    );
    check(
        "ResourceQuota",
        [
            (
                "/spec/hard/pods",
                json!("1500m"),
                &["Invalid spec.hard[pods]: Invalid value: \"1500m\": must be an integer"][..],
            ),
            (
                "/spec/hard/nope",
                json!("1"),
                &["Invalid spec.hard[nope]: Invalid value: \"nope\": must be a standard resource for quota"],
            ),
            ("/spec/scopes", json!(["X"]), &["Invalid spec.scopes: Invalid value: [\"X\"]: unsupported scope"]),
        ],
    );
    check(
        "PriorityClass",
        [
            (
                "/value",
                json!(1_000_000_001),
                &["Forbidden value: Forbidden: maximum allowed value of a user defined priority is 1000000000"][..],
            ),
            (
                "/metadata/name",
                json!("system-x"),
                &[
                    "Forbidden metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-x is not a known system priority class",
                ],
            ),
            (
                "/preemptionPolicy",
                json!("X"),
                &[
                    "NotSupported preemptionPolicy: Unsupported value: \"X\": supported values: \"Never\", \"PreemptLowerPriority\"",
                ],
            ),
        ],
    );
    check(
        "RuntimeClass",
        [("/handler", json!("A"), &["Invalid handler: Invalid value: \"A\": a lowercase RFC 1123 label…"][..])],
    );
    check(
        "Lease",
        [(
            "/spec/leaseDurationSeconds",
            json!(0),
            &["Invalid spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"][..],
        )],
    );
    check(
        "Event",
        [(
            "/involvedObject/namespace",
            json!("other"),
            &["Invalid involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"][..],
        )],
    );
}

#[test]
fn networking_and_scaling() {
    check(
        "Ingress",
        [
            (
                "/spec",
                json!({}),
                &["Invalid spec: Invalid value: \"null\": either `defaultBackend` or `rules` must be specified"][..],
            ),
            (
                "/spec/rules/0/http/paths/0/pathType",
                json!(null),
                &["Required spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"],
            ),
            (
                "/spec/rules/0/http/paths/0/pathType",
                json!("X"),
                &[
                    "NotSupported spec.rules[0].http.paths[0].pathType: Unsupported value: \"X\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
                ],
            ),
            (
                "/spec/rules/0/http/paths/0/path",
                json!("x"),
                &["Invalid spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path"],
            ),
            (
                "/spec/rules/0/http/paths/0/path",
                json!("/a//b"),
                &["Invalid spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'"],
            ),
            (
                "/spec/rules/0/host",
                json!("10.0.0.1"),
                &["Invalid spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"],
            ),
            (
                "/spec/rules/0/host",
                json!("*.*.a"),
                &[
                    "Invalid spec.rules[0].host: Invalid value: \"*.*.a\": a wildcard DNS-1123 subdomain must start with '*.'…",
                ],
            ),
            ("/spec/rules/0/http/paths", json!([]), &["Required spec.rules[0].http.paths: Required value"]),
            (
                "/spec/rules/0/http/paths/0/backend",
                json!({}),
                &[
                    "Required spec.rules[0].http.paths[0].backend.name: Required value: service name or resource must be specified",
                ],
            ),
            (
                "/spec/rules/0/http/paths/0/backend/service/port",
                json!({}),
                &[
                    "Required spec.rules[0].http.paths[0].backend.service: Required value: port name or number is required",
                ],
            ),
            (
                "/spec/rules/0/http/paths/0/backend/service/port/name",
                json!("a"),
                &[
                    "Invalid spec.rules[0].http.paths[0].backend.service: Invalid value: \"\": cannot set both port name & port number",
                ],
            ),
        ],
    );
    check(
        "IngressClass",
        [(
            "/spec/controller",
            json!("x"),
            &[
                "Invalid spec.controller: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            ][..],
        )],
    );
    check(
        "NetworkPolicy",
        [
            (
                "/spec/ingress/0/from/0",
                json!({}),
                &["Required spec.ingress[0].from[0]: Required value: must specify a peer"][..],
            ),
            (
                "/spec/ingress/0/from/0",
                json!({"ipBlock": {"cidr": "x"}}),
                &[
                    "Invalid spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                ],
            ),
            (
                "/spec/ingress/0/from/0",
                json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}),
                &[
                    "Invalid spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                ],
            ),
            (
                "/spec/policyTypes",
                json!(["X"]),
                &[
                    "NotSupported spec.policyTypes[0]: Unsupported value: \"X\": supported values: \"Egress\", \"Ingress\"",
                ],
            ),
        ],
    );
    check(
        "HorizontalPodAutoscaler",
        [
            (
                "/spec/maxReplicas",
                json!(0),
                &[
                    "Invalid spec.maxReplicas: Invalid value: 0: must be greater than 0",
                    "Invalid spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
                ][..],
            ),
            (
                "/spec/minReplicas",
                json!(6),
                &["Invalid spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`"],
            ),
            ("/spec/scaleTargetRef/name", json!(""), &["Required spec.scaleTargetRef.name: Required value"]),
            (
                "/spec/metrics",
                json!([{"type": "X"}]),
                &[
                    "NotSupported spec.metrics[0].type: Unsupported value: \"X\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
                ],
            ),
            (
                "/spec/metrics",
                json!([{"type": "Resource"}]),
                &[
                    "Required spec.metrics[0].resource: Required value: must populate information for the given metric source when type is Resource",
                ],
            ),
        ],
    );
    check(
        "PodDisruptionBudget",
        [
            ("/spec/maxUnavailable", json!(1), &["Invalid spec: Invalid value: {…"][..]),
            (
                "/spec/minAvailable",
                json!(-1),
                &["Invalid spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/minAvailable",
                json!("110%"),
                &["Invalid spec.minAvailable: Invalid value: \"110%\": must not be greater than 100%"],
            ),
        ],
    );
}

#[test]
fn access_and_extension() {
    check(
        "Role",
        [
            (
                "/rules/0/verbs",
                json!([]),
                &["Required rules[0].verbs: Required value: verbs must contain at least one value"][..],
            ),
            (
                "/rules/0/apiGroups",
                json!([]),
                &["Required rules[0].apiGroups: Required value: resource rules must supply at least one api group"],
            ),
            (
                "/rules/0/resources",
                json!([]),
                &["Required rules[0].resources: Required value: resource rules must supply at least one resource"],
            ),
            (
                "/rules/0",
                json!({"nonResourceURLs": ["/x"], "verbs": ["get"]}),
                &[
                    "Invalid rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
                ],
            ),
        ],
    );
    check(
        "ClusterRole",
        [(
            "/rules/0/nonResourceURLs",
            json!(["/x"]),
            &[
                "Invalid rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources and non-resource URLs",
            ][..],
        )],
    );
    check(
        "RoleBinding",
        [
            (
                "/roleRef/kind",
                json!("X"),
                &["NotSupported roleRef.kind: Unsupported value: \"X\": supported values: \"ClusterRole\", \"Role\""][..],
            ),
            ("/roleRef/name", json!(""), &["Required roleRef.name: Required value"]),
            (
                "/roleRef/apiGroup",
                json!("x"),
                &[
                    "NotSupported roleRef.apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
                ],
            ),
            (
                "/subjects/0/kind",
                json!("X"),
                &[
                    "NotSupported subjects[0].kind: Unsupported value: \"X\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
                ],
            ),
            ("/subjects/0/name", json!(""), &["Required subjects[0].name: Required value"]),
        ],
    );
    check(
        "ClusterRoleBinding",
        [
            (
                "/roleRef/kind",
                json!("Role"),
                &["NotSupported roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\""][..],
            ),
            ("/subjects/1/namespace", json!(null), &["Required subjects[1].namespace: Required value"]),
        ],
    );
    check(
        "CertificateSigningRequest",
        [
            ("/spec/usages", json!([]), &["Required spec.usages: Required value"][..]),
            (
                "/spec/usages",
                json!(["x"]),
                &["NotSupported spec.usages[0]: Unsupported value: \"x\": supported values: \"any\"…"],
            ),
            ("/spec/signerName", json!(""), &["Required spec.signerName: Required value"]),
            (
                "/spec/request",
                json!("eA=="),
                &["Invalid spec.request: Invalid value: \"eA==\": PEM block type must be CERTIFICATE REQUEST"],
            ),
        ],
    );
    check(
        "CustomResourceDefinition",
        [
            (
                "/metadata/name",
                json!("x.example.com"),
                &[
                    "Invalid metadata.name: Invalid value: \"x.example.com\": must be spec.names.plural+\".\"+spec.group",
                ][..],
            ),
            (
                "/spec/scope",
                json!("X"),
                &["NotSupported spec.scope: Unsupported value: \"X\": supported values: \"Cluster\", \"Namespaced\""],
            ),
            ("/spec/versions/0/storage", json!(false), &["Invalid spec.versions: Invalid value: [{…"]),
            (
                "/spec/versions/0/schema",
                json!(null),
                &["Required spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"],
            ),
            (
                "/spec/versions/0/schema/openAPIV3Schema/type",
                json!("string"),
                &[
                    "Invalid spec.versions[0].schema.openAPIV3Schema.type: Invalid value: \"string\": must be object at the root",
                ],
            ),
            (
                "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
                json!({}),
                &[
                    "Required spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
                ],
            ),
            (
                "/spec/names/listKind",
                json!("Widget"),
                &["Invalid spec.names.listKind: Invalid value: \"Widget\": kind and listKind may not be the same"],
            ),
            (
                "/spec/versions/0/additionalPrinterColumns",
                json!([{"name": "A", "type": "x", "jsonPath": ".a"}]),
                &[
                    "Invalid spec.versions[0].additionalPrinterColumns[0].type: Invalid value: \"x\": must be one of boolean,date,integer,number,string",
                ],
            ),
        ],
    );
    check(
        "ValidatingWebhookConfiguration",
        [
            ("/webhooks/0/sideEffects", json!(null), &["Required webhooks[0].sideEffects: Required value"][..]),
            (
                "/webhooks/0/name",
                json!("a.b"),
                &[
                    "Invalid webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
                ],
            ),
            (
                "/webhooks/0/clientConfig",
                json!({}),
                &["Required webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
            ),
            (
                "/webhooks/0/timeoutSeconds",
                json!(31),
                &[
                    "Invalid webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
                ],
            ),
            (
                "/webhooks/0/failurePolicy",
                json!("X"),
                &[
                    "NotSupported webhooks[0].failurePolicy: Unsupported value: \"X\": supported values: \"Fail\", \"Ignore\"",
                ],
            ),
        ],
    );
    check(
        "ValidatingAdmissionPolicy",
        [
            (
                "/spec/validations",
                json!([]),
                &["Required spec.validations: Required value: validations or auditAnnotations must be non-empty"][..],
            ),
            ("/spec/matchConstraints", json!(null), &["Required spec.matchConstraints: Required value"]),
        ],
    );
    check(
        "ValidatingAdmissionPolicyBinding",
        [(
            "/spec/validationActions",
            json!(["X"]),
            &[
                "NotSupported spec.validationActions[0]: Unsupported value: \"X\": supported values: \"Audit\", \"Deny\", \"Warn\"",
            ][..],
        )],
    );
}
