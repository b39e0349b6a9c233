//! Certificate signing requests: approved, signed and cleaned up by the controllers, on a guarded API server.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::{certificates::v1::CertificateSigningRequest, core::v1::Secret, rbac::v1::ClusterRoleBinding};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};
use rk_api::{
    Api, Client, ResourceType,
    server::{
        Security, Server, UserInfo,
        bootstrap::{Config, ensure},
    },
};
use rk_controller::{ControllerManager, ManagerConfig, controllers::certificates::Authority};
use rk_store::{MemoryStore, Store};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use x509_parser::pem::parse_x509_pem;

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const LEGACY: &str = "kubernetes.io/legacy-unknown";

struct Cluster {
    store: Arc<MemoryStore>,
    server: Server,
    root: String,
    _stop: DropGuard,
}

impl Cluster {
    async fn start() -> Self {
        let store = Arc::new(MemoryStore::new());
        let server = Security::default().build(Server::builder(Arc::clone(&store) as _)).await.unwrap();
        let client = server.client(UserInfo::loopback());
        ensure(&*client, &Config::default()).await.unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().pem();
        let names = ["approving", "cleaner", "signing"];
        let mut controllers = names.map(|name| format!("certificatesigningrequest-{name}-controller")).to_vec();
        controllers.push("token-cleaner-controller".to_owned());
        let authority = Some(Authority::new(&root, &key.serialize_pem()).unwrap());
        let config = ManagerConfig { controllers, authority, ..ManagerConfig::default() };
        let stop = CancellationToken::new();
        tokio::spawn(ControllerManager::new(client, config).run(stop.clone()));
        Self { store, server, root, _stop: stop.drop_guard() }
    }

    fn admin(&self) -> Arc<dyn Client> {
        self.server.client(UserInfo::loopback())
    }

    fn requests(&self, client: Arc<dyn Client>) -> Api<CertificateSigningRequest> {
        Api::all(client)
    }

    async fn create<K: ResourceType>(&self, namespace: &str, object: Value) {
        let api = Api::<K>::all(self.admin()).in_namespace(namespace);
        api.create(&serde_json::from_value(object).unwrap()).await.unwrap();
    }

    /// Asks for a certificate as somebody.
    async fn ask(&self, user: UserInfo, name: &str, signer: &str, subject: (&str, &str), more: Value) {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject.0);
        params.distinguished_name.push(DnType::OrganizationName, subject.1);
        if signer == SERVING {
            params.subject_alt_names = vec![SanType::IpAddress("10.0.0.1".parse().unwrap())];
        }
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let usage = if signer == SERVING { "server auth" } else { "client auth" };
        let mut request = json!({"metadata": {"name": name}, "spec": {"signerName": signer,
            "request": STANDARD.encode(pem), "usages": ["digital signature", usage]}});
        request["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let api = self.requests(self.server.client(user));
        api.create(&serde_json::from_value(request).unwrap()).await.unwrap();
    }

    /// Waits for what must come of a request.
    async fn until(
        &self,
        name: &str,
        holds: impl Fn(&CertificateSigningRequest) -> bool,
    ) -> Arc<CertificateSigningRequest> {
        let api = self.requests(self.admin());
        for _ in 0..1000 {
            let csr = api.get(name).await.unwrap();
            if holds(&csr) {
                return csr;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{name}: {:?}", api.get(name).await.unwrap().status);
    }

    async fn approve(&self, name: &str) {
        let api = self.requests(self.admin());
        let mut csr = CertificateSigningRequest::clone(&*api.get(name).await.unwrap());
        let condition = json!({"type": "Approved", "status": "True", "reason": "Test"});
        let conditions = &mut csr.status.get_or_insert_default().conditions;
        conditions.get_or_insert_default().push(serde_json::from_value(condition).unwrap());
        api.update_subresource(&csr, "approval").await.unwrap();
    }
}

fn certificate(csr: &CertificateSigningRequest) -> Option<&[u8]> {
    csr.status.as_ref()?.certificate.as_ref().map(|certificate| certificate.0.as_slice())
}

fn has(csr: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = csr.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions.into_iter().any(|condition| condition.type_ == kind)
}

#[tokio::test]
async fn a_new_node_gets_its_certificate_and_renews_it() {
    let cluster = Cluster::start().await;
    // What kubeadm gives to bootstrap tokens and to nodes.
    let bind = |name: &str, role: &str, group: &str| {
        json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}]})
    };
    let role = "system:certificates.k8s.io:certificatesigningrequests:nodeclient";
    cluster.create::<ClusterRoleBinding>("", bind("ask", "system:node-bootstrapper", "system:bootstrappers")).await;
    cluster.create::<ClusterRoleBinding>("", bind("new", role, "system:bootstrappers")).await;
    let role = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient";
    cluster.create::<ClusterRoleBinding>("", bind("renew", role, "system:nodes")).await;

    let groups = ["system:bootstrappers", "system:authenticated"];
    let new = || UserInfo::new("system:bootstrap:abcdef", groups);
    let subject = ("system:node:n1", "system:nodes");
    cluster.ask(new(), "first", KUBELET, subject, json!({"expirationSeconds": 3600})).await;
    let signed = cluster.until("first", |csr| certificate(csr).is_some()).await;
    let conditions = signed.status.as_ref().unwrap().conditions.as_ref().unwrap();
    assert_eq!(conditions[0].reason.as_deref(), Some("AutoApproved"));
    let (_, pem) = parse_x509_pem(certificate(&signed).unwrap()).unwrap();
    let issued = pem.parse_x509().unwrap();
    assert_eq!(issued.subject().to_string(), "CN=system:node:n1, O=system:nodes");
    let (_, root) = parse_x509_pem(cluster.root.as_bytes()).unwrap();
    issued.verify_signature(Some(root.parse_x509().unwrap().public_key())).unwrap();
    let validity = issued.validity();
    assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 3600 + 300);

    // A node renews its own, and nobody else's.
    let node = |name: &str| UserInfo::new(&format!("system:node:{name}"), ["system:nodes", "system:authenticated"]);
    cluster.ask(node("n1"), "again", KUBELET, subject, json!({})).await;
    cluster.until("again", |csr| certificate(csr).is_some()).await;
    cluster.ask(node("n2"), "foreign", KUBELET, subject, json!({})).await;
    cluster.ask(node("n1"), "last", KUBELET, subject, json!({})).await;
    cluster.until("last", |csr| certificate(csr).is_some()).await;
    let foreign = cluster.requests(cluster.admin()).get("foreign").await.unwrap();
    assert!(!has(&foreign, "Approved") && certificate(&foreign).is_none());
}

#[tokio::test]
async fn what_was_approved_is_signed_by_the_rules_of_its_signer() {
    let cluster = Cluster::start().await;
    let admin = || UserInfo::loopback();
    let none = || json!({});
    cluster.ask(admin(), "client", CLIENT, ("jane", "dev"), none()).await;
    cluster.ask(admin(), "serving", SERVING, ("system:node:n1", "system:nodes"), none()).await;
    cluster.ask(admin(), "wrong", SERVING, ("jane", "dev"), none()).await;
    cluster.ask(admin(), "other", "example.com/mine", ("jane", "dev"), none()).await;
    for name in ["client", "serving", "wrong", "other"] {
        cluster.approve(name).await;
    }
    cluster.until("client", |csr| certificate(csr).is_some()).await;
    cluster.until("serving", |csr| certificate(csr).is_some()).await;
    let wrong = cluster.until("wrong", |csr| has(csr, "Failed")).await;
    assert!(certificate(&wrong).is_none());
    let other = cluster.requests(cluster.admin()).get("other").await.unwrap();
    assert!(certificate(&other).is_none() && !has(&other, "Failed"), "somebody else's to sign");
}

#[tokio::test]
async fn what_is_left_of_the_old_signer_is_signed_once_it_is_approved() {
    let cluster = Cluster::start().await;
    // No version that is served takes requests for it any more: this one is from an older server.
    let groups = ["system:nodes", "system:authenticated"];
    let node = || UserInfo::new("system:node:n1", groups);
    let more = json!({"expirationSeconds": 7200, "usages": ["any", "server auth", "content commitment"]});
    cluster.ask(node(), "old", "example.com/mine", ("system:node:n1", "system:nodes"), more).await;
    let key = "/registry/certificates.k8s.io/certificatesigningrequests/old";
    let stored = cluster.store.get(key.into()).await.unwrap().unwrap();
    let text = String::from_utf8(stored.value.to_vec()).unwrap();
    assert!(text.contains("example.com/mine"));
    cluster.store.put(key.into(), text.replace("example.com/mine", LEGACY).into()).await.unwrap();
    // What comes later is signed, so this one was looked at too.
    cluster.until("old", |csr| csr.spec.signer_name == LEGACY).await;
    cluster.ask(UserInfo::loopback(), "new", CLIENT, ("jane", "dev"), json!({})).await;
    cluster.approve("new").await;
    cluster.until("new", |csr| certificate(csr).is_some()).await;
    let waiting = cluster.requests(cluster.admin()).get("old").await.unwrap();
    assert!(!has(&waiting, "Approved") && certificate(&waiting).is_none());

    cluster.approve("old").await;
    let signed = cluster.until("old", |csr| certificate(csr).is_some()).await;
    let (_, pem) = parse_x509_pem(certificate(&signed).unwrap()).unwrap();
    let issued = pem.parse_x509().unwrap();
    let purposes = issued.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.any && purposes.server_auth && issued.key_usage().unwrap().unwrap().value.non_repudiation());
    let validity = issued.validity();
    assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 7200 + 300);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_deleted_when_they_have_expired() {
    let cluster = Cluster::start().await;
    let secret = |name: &str, expiration: &str| {
        json!({"metadata": {"name": name}, "type": "bootstrap.kubernetes.io/token", "stringData": {
            "token-id": "abcdef", "expiration": expiration}})
    };
    cluster.create::<Secret>("kube-system", secret("past", "2020-01-01T00:00:00Z")).await;
    cluster.create::<Secret>("kube-system", secret("future", "2999-01-01T00:00:00Z")).await;
    let api = Api::<Secret>::all(cluster.admin()).in_namespace("kube-system");
    for _ in 0..1000 {
        if api.get_opt("past").await.unwrap().is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(api.get_opt("past").await.unwrap().is_none() && api.get_opt("future").await.unwrap().is_some());
}
