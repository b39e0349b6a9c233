//! Secrets with tokens of service accounts: filled, believed, and gone with the account.

mod cluster;

use std::sync::Arc;

use cluster::Cluster;
use k8s_openapi::api::{
    authentication::v1::TokenReview,
    core::v1::{Namespace, Secret, ServiceAccount},
};
use rcgen::KeyPair;
use rk_api::{
    Api, Client, DeleteOptions,
    server::{Security, Server, ServiceAccountIssuer, UserInfo},
};
use rk_controller::ManagerConfig;
use rk_store::MemoryStore;
use serde_json::{Value, json};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

async fn guarded() -> Cluster {
    let security = Security {
        service_accounts: Some(ServiceAccountIssuer {
            url: ISSUER.to_owned(),
            jwks_uri: format!("{ISSUER}/openid/v1/jwks"),
            key: KeyPair::generate().unwrap().serialize_pem(),
            ..ServiceAccountIssuer::default()
        }),
        ..Security::default()
    };
    let server = security.build(Server::builder(Arc::new(MemoryStore::new()))).await.unwrap();
    let cluster = Cluster::of(server);
    cluster.create::<Namespace>(json!({"metadata": {"name": "default"}})).await;
    let config = ManagerConfig {
        controllers: vec!["serviceaccount-token-controller".to_owned()],
        root_ca: Some("CERTIFICATE".to_owned()),
        ..ManagerConfig::default()
    };
    cluster.manage_with(config);
    cluster
}

fn secret(name: &str, account: &str) -> Value {
    json!({"metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}},
        "type": "kubernetes.io/service-account-token"})
}

/// Whom the API server takes the holder of a token for.
async fn holder(client: Arc<dyn Client>, token: &str) -> Option<String> {
    let review =
        TokenReview { spec: serde_json::from_value(json!({"token": token})).unwrap(), ..TokenReview::default() };
    let review = Api::<TokenReview>::all(client).create(&review).await.unwrap();
    review.status.as_ref()?.user.as_ref()?.username.clone()
}

#[tokio::test(start_paused = true)]
async fn a_secret_gets_a_token_that_ends_with_it() {
    let cluster = guarded().await;
    cluster.create::<ServiceAccount>(json!({"metadata": {"name": "robot"}})).await;
    cluster.create::<Secret>(secret("lasting", "robot")).await;
    let filled =
        cluster.until::<Secret>("lasting", |secret| secret.data.as_ref().is_some_and(|data| data.len() == 3)).await;
    let data = filled.data.as_ref().unwrap();
    assert_eq!((&*data["ca.crt"].0, &*data["namespace"].0), (&b"CERTIFICATE"[..], &b"default"[..]));
    let account = cluster.api::<ServiceAccount>().get("robot").await.unwrap();
    let annotations = filled.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["kubernetes.io/service-account.uid"], *account.metadata.uid.as_ref().unwrap());

    let token = String::from_utf8(data["token"].0.clone()).unwrap();
    let admin = || cluster.server.client(UserInfo::loopback());
    assert_eq!(holder(admin(), &token).await.as_deref(), Some("system:serviceaccount:default:robot"));
    cluster.delete::<Secret>("lasting").await;
    assert_eq!(holder(admin(), &token).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_secret_goes_with_its_account() {
    let cluster = guarded().await;
    cluster.create::<Secret>(secret("orphan", "nobody")).await;
    cluster.create::<ServiceAccount>(json!({"metadata": {"name": "robot"}})).await;
    cluster.create::<Secret>(secret("robots", "robot")).await;
    cluster.until::<Secret>("robots", |secret| secret.data.is_some()).await;
    let left = cluster.until_list::<Secret>(|list| list.len() == 1).await;
    assert_eq!(left[0].metadata.name.as_deref(), Some("robots"));
    cluster.api::<ServiceAccount>().delete("robot", DeleteOptions::default()).await.unwrap();
    cluster.until_list::<Secret>(|list| list.is_empty()).await;
}
