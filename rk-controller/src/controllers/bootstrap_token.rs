//! Bootstrap tokens whose time is over.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use rk_api::{DeleteOptions, FieldSelector, Informers, LabelSelector, Preconditions, Resource};
use tokio_util::sync::CancellationToken;

use crate::{Action, Context, Controller, Error, Reconcile, common::meta};

/// The type of the tokens' Secrets.
const TYPE: &str = "bootstrap.kubernetes.io/token";

/// Deletes Secrets of bootstrap tokens that have expired
/// (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/#bootstrap-token-secret-format>).
pub struct TokenCleaner;

/// Runs the token cleaner until `shutdown`. Of all Secrets it watches the tokens only.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    let tokens = FieldSelector::field("type", TYPE);
    let secrets = informers.selected(Resource::of::<Secret>(), "kube-system", LabelSelector::default(), tokens);
    Controller::from_informer("token-cleaner-controller", TokenCleaner, secrets, informers).run(shutdown).await;
}

#[async_trait]
impl Reconcile for TokenCleaner {
    type Object = Secret;

    async fn reconcile(&self, secret: Arc<Secret>, context: &Context) -> Result<Action, Error> {
        let expiration = secret.data.as_ref().and_then(|data| data.get("expiration"));
        let Some(expiration) = expiration.filter(|_| secret.type_.as_deref() == Some(TYPE)) else {
            return Ok(Action::await_change());
        };
        // A token whose end can't be read is over: nobody can log in with it either.
        let ends = std::str::from_utf8(&expiration.0).ok().and_then(|text| text.parse::<Timestamp>().ok());
        let left = ends.and_then(|ends| Duration::try_from(ends.duration_since(rk_api::now())).ok());
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            return Ok(Action::requeue(left));
        }
        let preconditions = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
        let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
        let api = context.api::<Secret>(meta::namespace(&secret.metadata));
        match api.delete(meta::name(&secret.metadata), options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
            _ => Ok(Action::await_change()),
        }
    }
}
