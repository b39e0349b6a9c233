//! Definitions as large operators bring them, applied with the real kubectl: deep schemas, rules in CEL, several versions.
#![cfg(feature = "serve")]

mod kubectl_cluster;

use kubectl_cluster::Cluster;

/// In the manner of an operator of certificates: nested choices, durations, references with defaults.
const CERTIFICATES: &str = include_str!("operators/certificates.yaml");
/// In the manner of an API of gateways: lists as maps, many rules, unions.
const GATEWAYS: &str = include_str!("operators/gateways.yaml");
/// In the manner of an operator of databases: pod templates, quantities, scale, two versions.
const DATABASES: &str = include_str!("operators/databases.yaml");

async fn cluster_with(definitions: &str) -> Option<Cluster> {
    let cluster = Cluster::start().await?;
    let applied = cluster.ok("apply --server-side -f -", definitions).await;
    assert!(applied.contains("serverside-applied"), "{applied}");
    let again = cluster.ok("apply --server-side -f -", definitions).await;
    assert!(again.contains("serverside-applied"), "{again}");
    cluster.ok("wait --for=condition=Established crd --all --timeout=30s", "").await;
    Some(cluster)
}

async fn refused(cluster: &Cluster, object: &str, reasons: &[&str]) {
    let (done, text) = cluster.run("apply --server-side --force-conflicts -f -", object).await;
    assert!(!done, "{text}");
    for reason in reasons {
        assert!(text.contains(reason), "{reason}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates() {
    let Some(cluster) = cluster_with(CERTIFICATES).await else { return };
    let certificate = "
apiVersion: certs.example.com/v1
kind: Certificate
metadata: {name: web, namespace: default}
spec:
  secretName: web-tls
  dnsNames: [web.example.com, '*.web.example.com']
  duration: 2160h
  renewBefore: 360h
  issuerRef: {name: ca}
  privateKey: {algorithm: ECDSA, size: 256}
";
    cluster.ok("apply --server-side -f -", certificate).await;
    let path =
        "get certificates.certs.example.com web -o jsonpath={.spec.issuerRef.kind}/{.spec.privateKey.rotationPolicy}";
    assert_eq!(cluster.ok(path, "").await, "Issuer/Never");
    assert_eq!(cluster.ok("get certs -o name", "").await.trim(), "certificate.certs.example.com/web", "by category");
    cluster.ok("create deployment web --image=i --replicas=0", "").await;
    cluster.ok("create service clusterip web --tcp=80:8080", "").await;
    let all = cluster.ok("get all -o name", "").await;
    assert_eq!(all.lines().collect::<Vec<_>>(), ["service/web", "deployment.apps/web"]);
    let table = cluster.ok("get cert web", "").await;
    assert!(table.starts_with("NAME") && table.contains("SECRET") && table.contains("web-tls"), "{table}");
    refused(
        &cluster,
        &certificate.replace("renewBefore: 360h", "renewBefore: 3000h").replace("size: 256", "size: 2048"),
        &[
            "renewBefore must be shorter than duration",
            "spec.privateKey.size: Invalid value",
            "ECDSA keys have 256, 384 or 521 bits",
        ],
    )
    .await;
    refused(
        &cluster,
        &certificate.replace("secretName: web-tls", "secretName: other"),
        &["spec.secretName: Invalid value: \"string\": secretName is immutable"],
    )
    .await;
    let issuer = "
apiVersion: certs.example.com/v1
kind: Issuer
metadata: {name: ca, namespace: default}
spec:
  acme: {server: 'https://acme.example.com/directory', solvers: [{http01: {ingress: {class: nginx}}}, {dns01: {webhook: {solverName: x, config: {any: [1, {b: c}]}}}}]}
";
    cluster.ok("apply --server-side -f -", issuer).await;
    let config = cluster
        .ok("get issuers.certs.example.com ca -o jsonpath={.spec.acme.solvers[1].dns01.webhook.config.any[1].b}", "")
        .await;
    assert_eq!(config, "c", "what is not specified is kept where the schema says so");
    let both = issuer.replace("spec:\n", "spec:\n  selfSigned: {}\n");
    refused(&cluster, &both, &["exactly one of acme, ca, selfSigned must be set"]).await;
    refused(&cluster, &issuer.replace("https://acme", "gopher://acme"), &["server must be an https URL"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways() {
    let Some(cluster) = cluster_with(GATEWAYS).await else { return };
    let gateway = "
apiVersion: gateways.example.com/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec:
  className: fast
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: https, port: 443, protocol: HTTPS, hostname: a.example.com, tls: {certificateRefs: [{name: cert}]}}
  addresses:
  - {type: IPAddress, value: 10.0.0.1}
  - {type: Hostname, value: edge.example.com}
";
    cluster.ok("apply --server-side -f -", gateway).await;
    // Another manager adds a listener of its own: the list is a map.
    let more = "
apiVersion: gateways.example.com/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec: {listeners: [{name: tcp, port: 9000, protocol: TCP}]}
";
    cluster.ok("apply --server-side --field-manager=other -f -", more).await;
    let names = cluster.ok("get gateways.gateways.example.com edge -o jsonpath={.spec.listeners[*].name}", "").await;
    assert_eq!(names.split_whitespace().count(), 3, "{names}");
    refused(
        &cluster,
        &gateway
            .replace("10.0.0.1", "10.0.0.500")
            .replace("port: 443", "port: 80")
            .replace(", tls: {certificateRefs: [{name: cert}]}", ""),
        &["tls must be set for protocols HTTPS and TLS", "IPAddress values must be valid IP addresses"],
    )
    .await;
    refused(
        &cluster,
        &gateway.replace("protocol: HTTP}", "protocol: HTTP, tls: {certificateRefs: []}}"),
        &["tls may only be set for protocols HTTPS and TLS"],
    )
    .await;
    let route = "
apiVersion: gateways.example.com/v1
kind: Route
metadata: {name: r, namespace: default}
spec:
  parentRefs: [{name: edge}]
  rules:
  - name: api
    matches: [{path: {type: PathPrefix, value: /api}, headers: [{name: x-env, value: test}]}]
    filters: [{type: Rewrite, rewrite: {path: /v2}}]
    backendRefs: [{name: api, port: 8080, weight: 9}, {name: canary, port: 8080}]
";
    cluster.ok("apply --server-side -f -", route).await;
    assert_eq!(
        cluster.ok("get routes.gateways.example.com r -o jsonpath={.spec.rules[0].backendRefs[1].weight}", "").await,
        "1"
    );
    refused(
        &cluster,
        &route
            .replace("value: /api}", "value: api//x}")
            .replace("rewrite: {path: /v2}", "redirect: {code: 301}")
            .replace("type: Rewrite", "type: Redirect")
            .replace(", weight: 9}, {name: canary, port: 8080", "}, {name: api, port: 8080"),
        &[
            "path values start with / and have no //",
            "backends of a rule differ",
            "a rule with a redirect has no backends",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn databases() {
    let Some(cluster) = cluster_with(DATABASES).await else { return };
    let database = "
apiVersion: db.example.com/v1
kind: Database
metadata: {name: main, namespace: default}
spec:
  instances: 3
  image: db:16
  storage: {size: 10Gi, className: ssd}
  resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {memory: 2Gi}}
  parameters: {max_connections: '200'}
  maxUnavailable: 50%
  podTemplate: {apiVersion: v1, kind: Pod, metadata: {labels: {a: b}}, spec: {nodeSelector: {disk: ssd}}}
  backup: {schedule: '0 3 * * *', retention: 30d}
";
    cluster.ok("apply --server-side -f -", database).await;
    cluster.ok("scale databases.db.example.com main --replicas=5", "").await;
    let get = "get databases.v1beta1.db.example.com main -o jsonpath={.apiVersion}/{.spec.instances}";
    let old = cluster.ok(get, "").await;
    let warning = "db.example.com/v1beta1 Database is deprecated; use db.example.com/v1 Database";
    assert!(old.starts_with("db.example.com/v1beta1/5") && old.contains(warning), "{old}");
    assert!(cluster.ok("get databases --field-selector spec.image=db:16 -o name", "").await.contains("main"));
    assert!(cluster.ok("get databases --field-selector spec.image=db:15 -o name", "").await.trim().is_empty());
    let explained = cluster.ok("explain databases.spec.storage", "").await;
    assert!(explained.contains("Storage of one instance") && explained.contains("className"), "{explained}");
    refused(
        &cluster,
        &database.replace("size: 10Gi", "size: 5Gi").replace("memory: 2Gi", "memory: 512Mi").replace("50%", "150%"),
        &[
            "storage may not shrink",
            "limits.memory must not be below requests.memory",
            "maxUnavailable is a number or a percentage up to 100%",
        ],
    )
    .await;
    refused(&cluster, &database.replace("instances: 3", "instances: 4"), &["instances must be odd"]).await;
    refused(&cluster, &database.replace("image: db:16", "imageName: db:16"), &["imageName"]).await;
    let policy = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: small}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [db.example.com], apiVersions: ['*'], resources: [databases], operations: [CREATE, UPDATE]}]}
  validations: [{expression: object.spec.instances <= 3, messageExpression: \"'not ' + string(object.spec.instances)\"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: small}
spec: {policyName: small, validationActions: [Deny]}
";
    cluster.ok("apply --server-side -f -", policy).await;
    let denied = "ValidatingAdmissionPolicy 'small' with binding 'small' denied request: not 7";
    refused(
        &cluster,
        &database.replace("name: main", "name: other").replace("instances: 3", "instances: 7"),
        &[denied],
    )
    .await;
    cluster.ok("delete crd databases.db.example.com --timeout=30s", "").await;
}
