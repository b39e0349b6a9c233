//! The conformance suites of `Authenticator`, `Authorizer` and `Admit`, of those that this crate brings.
#![cfg(all(feature = "serve", feature = "testing"))]

use std::{path::Path, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use rk_api::{
    Object, Request, Resource, Verb, WriteOptions,
    server::{
        AdmissionRequest, Admit, Attributes, AuthenticationError, Authenticator, Credentials, Notes, Operation,
        Reinvocation, UserInfo,
        authn::{
            self, BootstrapTokens, ClientCertificates, ServiceAccountTokens, StaticTokens, TokenSigner,
            service_account_user,
        },
        authz::{self, Abac, AlwaysAllow, NodeAuthorizer, Rbac, SuperUsers},
        pki::{Pki, Wanted},
        plugins,
    },
    testing::{TestControlPlane, admit_conformance, authenticator_conformance, authorizer_conformance},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};

const KEY: &str = include_str!("../src/server/authn/service_account/keys/p256.pem");
const OTHER_KEY: &str = include_str!("../src/server/authn/service_account/keys/other.pem");
const ISSUER: &str = "https://kubernetes.default.svc";

/// Creates an object; the answer is as stored.
async fn create(control_plane: &TestControlPlane, namespace: &str, object: Value) -> Arc<Object> {
    let (api_version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let resource = control_plane.server().resource_of(api_version, kind).unwrap();
    let verb = Verb::Create(object, WriteOptions::default());
    let (name, subresource) = (String::new(), String::new());
    let request = Request { resource, namespace: namespace.to_owned(), name, subresource, verb };
    control_plane.client().request(request).await.unwrap()
}

fn token(token: &str) -> Credentials {
    Credentials { token: Some(token.to_owned()), ..Credentials::default() }
}

fn jane() -> UserInfo {
    UserInfo::new("jane", ["dev"])
}

fn static_tokens() -> StaticTokens {
    StaticTokens::new([("0123456789abcdef0123".to_owned(), jane())])
}

#[tokio::test]
async fn static_tokens_conform() {
    let known = [(token("0123456789abcdef0123"), jane())];
    authenticator_conformance(&static_tokens(), &known, &[token("0123456789ABCDEF0123")]).await;
}

#[tokio::test]
async fn bootstrap_tokens_conform() {
    let control_plane = TestControlPlane::start().await.unwrap();
    for (id, expiration) in [("abcdef", "2999-01-01T00:00:00Z"), ("uvwxyz", "2020-01-01T00:00:00Z")] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("bootstrap-token-{id}")},
            "type": "bootstrap.kubernetes.io/token",
            "stringData": {"token-id": id, "token-secret": "0123456789abcdee", "usage-bootstrap-authentication": "true",
                "expiration": expiration}});
        create(&control_plane, "kube-system", secret).await;
    }
    let user = UserInfo::new("system:bootstrap:abcdef", ["system:bootstrappers"]);
    let wrong = ["uvwxyz.0123456789abcdee", "abcdef.0123456789abcded", "unknow.0123456789abcdee"].map(token);
    let tokens = BootstrapTokens::new(control_plane.server().reader());
    authenticator_conformance(&tokens, &[(token("abcdef.0123456789abcdee"), user)], &wrong).await;
}

/// A service account's token, signed by a key, for an audience, good for so many seconds.
fn sign(key: &str, audience: &str, uid: &str, seconds: i64) -> Credentials {
    let now = i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let claims = json!({"iss": ISSUER, "sub": "system:serviceaccount:default:bot", "aud": [audience], "exp": now + seconds,
        "iat": now - 10, "nbf": now - 10,
        "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "bot", "uid": uid}}});
    let signer = TokenSigner::from_pem(ISSUER, key).unwrap();
    token(&signer.sign(&serde_json::from_value(claims).unwrap()).unwrap())
}

#[tokio::test]
async fn service_account_tokens_conform() {
    let control_plane = TestControlPlane::start().await.unwrap();
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot"}});
    let uid = create(&control_plane, "default", account).await.meta().uid.to_string();
    let keys = vec![TokenSigner::from_pem(ISSUER, KEY).unwrap().public_key().clone()];
    let reader = control_plane.server().reader();
    let tokens = ServiceAccountTokens::new(vec![ISSUER.to_owned()], vec![ISSUER.to_owned()], keys, reader);
    let known = sign(KEY, ISSUER, &uid, 600);
    let user = tokens.authenticate(&known).await.unwrap().unwrap();
    assert_eq!(
        (&*user.name, &user.groups),
        ("system:serviceaccount:default:bot", &service_account_user("default", "bot", &uid).groups)
    );
    let wrong = [
        sign(OTHER_KEY, ISSUER, &uid, 600),
        sign(KEY, "https://elsewhere", &uid, 600),
        sign(KEY, ISSUER, "another-uid", 600),
        sign(KEY, ISSUER, &uid, -100),
    ];
    authenticator_conformance(&tokens, &[(known, user)], &wrong).await;
}

#[tokio::test]
async fn client_certificates_and_several_together_conform() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(folder.path()).unwrap();
    let shown = |wanted: Wanted| {
        let identity = pki.identity(&wanted.common_name, &wanted).unwrap();
        let der = Bytes::copy_from_slice(&CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap());
        Credentials { certificate: Some(Ok(der.clone())), chain: [der].into(), ..Credentials::default() }
    };
    let known = shown(Wanted::client("jane", "dev"));
    let user = ClientCertificates::default().authenticate(&known).await.unwrap().unwrap();
    assert_eq!((&*user.name, &*user.groups), ("jane", &["dev".to_owned()][..]));
    let wrong = [shown(Wanted::server("api", ["localhost".to_owned()]))];
    let known = [(known, user)];
    authenticator_conformance(&ClientCertificates::default(), &known, &wrong).await;
    let authenticated = |mut user: UserInfo| {
        user.groups.push("system:authenticated".to_owned());
        user
    };
    let [(certificate, user)] = known;
    let known = [(certificate, authenticated(user)), (token("0123456789abcdef0123"), authenticated(jane()))];
    let all: Vec<Arc<dyn Authenticator>> = vec![Arc::new(ClientCertificates::default()), Arc::new(static_tokens())];
    authenticator_conformance(&authn::Union::new(all, false), &known, &wrong).await;
}

fn asks(user: UserInfo, verb: &'static str, resource: &'static str, namespace: &str, name: &str) -> Attributes {
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    let user = Arc::new(user);
    Attributes {
        user,
        verb: verb.into(),
        version: "v1".into(),
        resource: resource.into(),
        namespace,
        name,
        ..Attributes::default()
    }
}

/// A control plane with roles and what nodes need to know.
async fn roles() -> TestControlPlane {
    let control_plane = TestControlPlane::start().await.unwrap();
    let group = "rbac.authorization.k8s.io";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "dev"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": group, "kind": "Group", "name": "dev"}]});
    create(&control_plane, "default", role).await;
    create(&control_plane, "default", binding).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"nodeName": "n1",
        "containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "s", "secret": {"secretName": "mine"}}]}});
    create(&control_plane, "default", pod).await;
    control_plane
}

#[tokio::test]
async fn rbac_and_several_together_conform() {
    let control_plane = roles().await;
    let rbac = Arc::new(Rbac::new(control_plane.server().reader()));
    let allowed = [asks(jane(), "get", "pods", "default", "web"), asks(jane(), "list", "pods", "default", "")];
    let refused = [
        asks(jane(), "get", "pods", "kube-system", "web"),
        asks(jane(), "list", "pods", "", ""),
        asks(jane(), "delete", "pods", "default", "web"),
        asks(jane(), "get", "secrets", "default", "mine"),
        Attributes { subresource: "exec".to_owned(), ..asks(jane(), "get", "pods", "default", "web") },
        Attributes { group: "metrics.k8s.io".into(), ..asks(jane(), "get", "pods", "default", "web") },
    ];
    authorizer_conformance(&*rbac, &allowed, &refused).await;
    let admin = UserInfo::new("admin", ["system:masters"]);
    let allowed = [&allowed[..], &[asks(admin, "delete", "nodes", "", "n1")]].concat();
    authorizer_conformance(&authz::Union::new(vec![Arc::new(SuperUsers), rbac]), &allowed, &refused).await;
}

#[tokio::test]
async fn the_node_authorizer_conforms() {
    let control_plane = roles().await;
    let node = |name: &str| UserInfo::new(&format!("system:node:{name}"), ["system:nodes"]);
    let authorizer = NodeAuthorizer::new(control_plane.server().reader());
    let allowed = [asks(node("n1"), "get", "secrets", "default", "mine")];
    let refused = [
        asks(node("n2"), "get", "secrets", "default", "mine"),
        asks(node("n1"), "get", "secrets", "default", "others"),
        asks(node("n1"), "list", "secrets", "default", ""),
        asks(jane(), "get", "secrets", "default", "mine"),
    ];
    authorizer_conformance(&authorizer, &allowed, &refused).await;
}

#[tokio::test]
async fn a_policy_file_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.jsonl");
    let line = json!({"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy",
        "spec": {"user": "jane", "namespace": "default", "resource": "pods", "apiGroup": "", "readonly": true}});
    std::fs::write(&path, line.to_string()).unwrap();
    let allowed = [asks(jane(), "get", "pods", "default", "web")];
    let refused = [asks(jane(), "delete", "pods", "default", "web"), asks(jane(), "get", "pods", "kube-system", "web")];
    authorizer_conformance(&Abac::from_file(Path::new(&path)).unwrap(), &allowed, &refused).await;
}

/// A write by jane in `default`.
fn write(operation: Operation, resource: Resource, old: Option<Value>, object: Option<Value>) -> AdmissionRequest {
    let named = object.as_ref().or(old.as_ref()).unwrap();
    let attributes = Attributes {
        user: Arc::new(jane()),
        group: resource.group.clone(),
        version: resource.version.clone(),
        resource: resource.plural.clone(),
        namespace: if resource.namespaced { "default".to_owned() } else { String::new() },
        name: named["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        ..Attributes::default()
    };
    AdmissionRequest {
        attributes,
        resource,
        operation,
        object,
        old_object: old.map(|old| Arc::new(Object::from_value(&old).unwrap()).into()),
        options: Value::Null,
        dry_run: false,
        warnings: Vec::new(),
        notes: Notes::default(),
        reinvocation: Reinvocation::default(),
    }
}

fn pod(spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

#[tokio::test]
async fn admission_plugins_conform() {
    let control_plane = TestControlPlane::start().await.unwrap();
    let of = |api_version: &str, kind: &str| control_plane.server().resource_of(api_version, kind).unwrap();
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline"});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": labels}});
    create(&control_plane, "", namespace).await;
    let limits = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}}]}});
    create(&control_plane, "default", limits).await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    create(&control_plane, "default", account).await;
    let class = |name: &str, value: i64| json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value});
    create(&control_plane, "", class("high", 1000)).await;
    let storage = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "x",
        "metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    create(&control_plane, "", storage).await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"}, "spec": {"hard": {"pods": "10"}}});
    create(&control_plane, "default", quota).await;

    let pods = of("v1", "Pod");
    let make = |spec: Value| {
        let pods = pods.clone();
        move || write(Operation::Create, pods.clone(), None, Some(pod(spec.clone())))
    };
    let plain = make(json!({}));
    let greedy = make(json!({"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}}]}));
    let unknown_class = make(json!({"priorityClassName": "unknown"}));
    let high = make(json!({"priorityClassName": "high"}));
    let unknown_account = make(json!({"serviceAccountName": "unknown"}));
    let nowhere = || {
        let mut request = plain();
        request.attributes.namespace = "nowhere".to_owned();
        request
    };
    let privileged = || {
        let spec = json!({"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": true}}]});
        let mut request = write(Operation::Create, pods.clone(), None, Some(pod(spec)));
        request.attributes.namespace = "strict".to_owned();
        request.object.as_mut().unwrap()["metadata"]["namespace"] = "strict".into();
        request
    };
    let claim = || {
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "default"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        write(Operation::Create, of("v1", "PersistentVolumeClaim"), None, Some(claim))
    };
    let claims = of("v1", "PersistentVolumeClaim");
    let resized = |size: &'static str| {
        let claims = claims.clone();
        let of_size = |size: &str| {
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "default"},
                "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": {"requests": {"storage": size}}},
                "status": {"phase": "Bound"}})
        };
        move || write(Operation::Update, claims.clone(), Some(of_size("1Gi")), Some(of_size(size)))
    };
    let (as_it_was, grown) = (resized("1Gi"), resized("2Gi"));
    let node = || {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {}});
        write(Operation::Create, of("v1", "Node"), None, Some(node))
    };
    let kubelet = |name: &'static str| {
        move || {
            let mut request = node();
            request.attributes.user = Arc::new(UserInfo::new(name, ["system:nodes"]));
            request
        }
    };
    let (own, another) = (kubelet("system:node:n1"), kubelet("system:node:n2"));
    let namespace_goes = |name: &'static str| {
        move || {
            let old = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            write(Operation::Delete, Resource::new("", "v1", "Namespace", "namespaces", false), Some(old), None)
        }
    };
    let (goes, stays) = (namespace_goes("strict"), namespace_goes("default"));

    type Writes<'a> = &'a [&'a (dyn Fn() -> AdmissionRequest + Sync)];
    let cases: &[(&str, Writes<'_>, Writes<'_>)] = &[
        ("NamespaceLifecycle", &[&plain, &goes], &[&nowhere, &stays]),
        ("LimitRanger", &[&plain], &[&greedy]),
        ("ServiceAccount", &[&plain], &[&unknown_account]),
        ("NodeRestriction", &[&own], &[&another]),
        ("TaintNodesByCondition", &[&node], &[]),
        ("PodSecurity", &[&plain], &[&privileged]),
        ("Priority", &[&plain, &high], &[&unknown_class]),
        ("DefaultTolerationSeconds", &[&plain], &[]),
        ("DefaultStorageClass", &[&claim], &[]),
        ("StorageObjectInUseProtection", &[&claim], &[]),
        ("PersistentVolumeClaimResize", &[&as_it_was], &[&grown]),
        ("PodTopologyLabels", &[&plain], &[]),
        ("ResourceQuota", &[&plain], &[]),
    ];
    let chain = plugins::default_chain();
    let named = |name: &str| -> &dyn Admit { &**chain.iter().find(|plugin| plugin.name() == name).unwrap() };
    let reader = control_plane.server().reader();
    for (name, passes, refused) in cases {
        admit_conformance(named(name), &*reader, passes, refused).await;
    }
}

#[tokio::test]
#[should_panic(expected = "foreign credentials are taken for jane's")]
async fn an_authenticator_that_knows_everybody_does_not_conform() {
    struct Anybody;
    #[async_trait]
    impl Authenticator for Anybody {
        async fn authenticate(&self, credentials: &Credentials) -> Result<Option<UserInfo>, AuthenticationError> {
            Ok(credentials.token.as_ref().map(|_| jane()))
        }
    }
    authenticator_conformance(&Anybody, &[], &[]).await;
}

#[tokio::test]
#[should_panic(expected = "allowed because")]
async fn an_authorizer_that_allows_strangers_all_does_not_conform() {
    authorizer_conformance(&AlwaysAllow, &[asks(jane(), "get", "pods", "default", "web")], &[]).await;
}

#[tokio::test]
#[should_panic(expected = "Counts: changed again")]
async fn a_plugin_that_adds_each_time_does_not_conform() {
    let control_plane = TestControlPlane::start().await.unwrap();
    let adds = |request: &mut AdmissionRequest| {
        let labels = &mut request.object.as_mut().unwrap()["metadata"]["labels"];
        let count = labels["count"].as_str().map_or(0, |count| count.parse().unwrap_or(0));
        *labels = json!({"count": (count + 1).to_string()});
        Ok(())
    };
    let plugin = plugins::mutating_fn("Counts", |_, _, _| true, adds);
    let pods = Resource::new("", "v1", "Pod", "pods", true);
    let passes = || write(Operation::Create, pods.clone(), None, Some(pod(json!({}))));
    admit_conformance(&*plugin, &*control_plane.server().reader(), &[&passes], &[]).await;
}
