//! What every namespace has from its beginning: the ServiceAccount `default`, and the cluster's root certificate.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use rk_api::{Informer, Informers};
use tokio_util::sync::CancellationToken;

use crate::{Action, Context, Controller, Error, Reconcile, common::meta, error::is_terminating};

/// Gives every namespace its ServiceAccount `default`.
pub struct ServiceAccountController {
    accounts: Informer,
}

/// Runs the ServiceAccount controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    let accounts = informers.of::<ServiceAccount>();
    Controller::new("service-account-controller", ServiceAccountController { accounts }, informers)
        .watches::<ServiceAccount>(|account| vec![namespace_key(&account.metadata)])
        .run(shutdown)
        .await;
}

fn namespace_key(meta: &ObjectMeta) -> rk_api::Key {
    (String::new(), meta::namespace(meta).to_owned())
}

fn is_going(namespace: &Namespace) -> bool {
    meta::is_deleting(&namespace.metadata)
        || namespace.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Terminating")
}

#[async_trait]
impl Reconcile for ServiceAccountController {
    type Object = Namespace;

    async fn reconcile(&self, namespace: Arc<Namespace>, context: &Context) -> Result<Action, Error> {
        let name = meta::name(&namespace.metadata);
        if is_going(&namespace) || self.accounts.get(name, "default").is_some() {
            return Ok(Action::await_change());
        }
        let metadata =
            ObjectMeta { name: Some("default".to_owned()), namespace: Some(name.to_owned()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        match context.api::<ServiceAccount>(name).create(&account).await {
            Err(error) if !error.is_already_exists() && !is_terminating(&error) => Err(error.into()),
            _ => Ok(Action::await_change()),
        }
    }
}

/// The ConfigMap by which pods know the API server's certificate authority.
const ROOT_CA: &str = "kube-root-ca.crt";

/// Gives every namespace the ConfigMap `kube-root-ca.crt`, and keeps it as it should be.
pub struct RootCaPublisher {
    maps: Informer,
    certificate: String,
}

/// Runs the root certificate publisher until `shutdown`. `certificate` is the authority's certificate in PEM.
pub async fn run_root_ca(informers: &Informers, certificate: String, shutdown: CancellationToken) {
    let maps = informers.of::<ConfigMap>();
    Controller::new("root-ca-certificate-publisher", RootCaPublisher { maps, certificate }, informers)
        .watches_changes::<ConfigMap>(|change| {
            let meta = change.object().meta();
            if meta.name == ROOT_CA { vec![(String::new(), meta.namespace.clone())] } else { Vec::new() }
        })
        .run(shutdown)
        .await;
}

#[async_trait]
impl Reconcile for RootCaPublisher {
    type Object = Namespace;

    async fn reconcile(&self, namespace: Arc<Namespace>, context: &Context) -> Result<Action, Error> {
        let name = meta::name(&namespace.metadata);
        if is_going(&namespace) {
            return Ok(Action::await_change());
        }
        let data = BTreeMap::from([("ca.crt".to_owned(), self.certificate.clone())]);
        let api = context.api::<ConfigMap>(name);
        let result = match self.maps.get_as::<ConfigMap>(name, ROOT_CA)? {
            Some(map) if map.data.as_ref() == Some(&data) => return Ok(Action::await_change()),
            Some(map) => api.update(&ConfigMap { data: Some(data), ..ConfigMap::clone(&map) }).await,
            None => {
                let about = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                             endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                             guaranteed across distributions of Kubernetes clusters.";
                let metadata = ObjectMeta {
                    name: Some(ROOT_CA.to_owned()),
                    annotations: Some(BTreeMap::from([("kubernetes.io/description".to_owned(), about.to_owned())])),
                    ..ObjectMeta::default()
                };
                api.create(&ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }).await
            }
        };
        match result {
            Err(error) if !error.is_already_exists() && !is_terminating(&error) => Err(error.into()),
            _ => Ok(Action::await_change()),
        }
    }
}
