//! Secrets that hold a token of a ServiceAccount, which lasts as long as they do.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, ServiceAccount},
};
use rk_api::{DeleteOptions, FieldSelector, Informers, Key, LabelSelector, Object, Preconditions, Resource};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{Action, Context, Controller, Error, Reconcile, common::meta};

/// The type of these Secrets.
const TYPE: &str = "kubernetes.io/service-account-token";
/// Annotations that say whose token it is.
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
/// The longest that can be asked for, in seconds: the token ends with its Secret, to which it is bound.
const FOR_EVER: i64 = 1 << 32;

/// Fills Secrets of the type `kubernetes.io/service-account-token` with a token, and deletes those whose ServiceAccount is not there
/// (<https://kubernetes.io/docs/concepts/security/service-accounts/#authenticating-credentials>).
///
/// kube-controller-manager signs tokens without an end by the API server's own key. Here the API server is asked for one (a
/// `TokenRequest`) that is bound to the Secret, so that no key leaves it.
pub struct AccountTokenController {
    /// What pods and others know the API server by, in PEM.
    root_ca: Option<String>,
}

/// Runs the controller until `shutdown`. Of all Secrets it watches those of this type only.
pub async fn run(informers: &Informers, root_ca: Option<String>, shutdown: CancellationToken) {
    let chosen = FieldSelector::field("type", TYPE);
    let secrets = informers.selected(Resource::of::<Secret>(), "", LabelSelector::default(), chosen);
    let all = secrets.clone();
    let controller = AccountTokenController { root_ca };
    Controller::from_informer("serviceaccount-token-controller", controller, secrets, informers)
        .watches_changes::<ServiceAccount>(move |change| {
            let account = change.object().meta();
            let theirs = |secret: &Arc<Object>| -> Option<Key> {
                let meta = secret.meta();
                let named = meta.annotations.get(NAME).is_some_and(|name| *name == account.name);
                named.then(|| (meta.namespace.clone(), meta.name.clone()))
            };
            all.list_namespace(&account.namespace).iter().filter_map(theirs).collect()
        })
        .run(shutdown)
        .await;
}

#[async_trait]
impl Reconcile for AccountTokenController {
    type Object = Secret;

    async fn reconcile(&self, secret: Arc<Secret>, context: &Context) -> Result<Action, Error> {
        let (namespace, name) = meta::key(&secret.metadata);
        let annotation = |key: &str| secret.metadata.annotations.as_ref().and_then(|all| all.get(key));
        let Some(account_name) = annotation(NAME).filter(|_| secret.type_.as_deref() == Some(TYPE)) else {
            return Ok(Action::await_change());
        };
        if meta::is_deleting(&secret.metadata) {
            return Ok(Action::await_change());
        }
        // Asked for, for the copy may be behind: what is deleted does not come back.
        let account = context.api::<ServiceAccount>(&namespace).get_opt(account_name).await?;
        let own = |account: &Arc<ServiceAccount>| {
            annotation(UID).is_none_or(|uid| uid.is_empty() || *uid == meta::uid(&account.metadata))
        };
        let Some(account) = account.filter(own) else {
            let preconditions = Preconditions {
                uid: secret.metadata.uid.clone(),
                resource_version: secret.metadata.resource_version.clone(),
            };
            let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
            return match context.api::<Secret>(&namespace).delete(&name, options).await {
                // What changed meanwhile is looked at again.
                Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
                _ => Ok(Action::await_change()),
            };
        };
        let mut filled = Secret::clone(&secret);
        let data = filled.data.get_or_insert_default();
        if let Some(root_ca) = &self.root_ca {
            data.insert("ca.crt".to_owned(), ByteString(root_ca.clone().into_bytes()));
        }
        data.insert("namespace".to_owned(), ByteString(namespace.clone().into_bytes()));
        let annotations = filled.metadata.annotations.get_or_insert_default();
        annotations.insert(UID.to_owned(), meta::uid(&account.metadata).to_owned());
        let data = filled.data.get_or_insert_default();
        if data.get("token").is_none_or(|token| token.0.is_empty()) {
            let token = self.token(&secret, account_name, context).await?;
            data.insert("token".to_owned(), ByteString(token.into_bytes()));
        }
        if filled == *secret {
            return Ok(Action::await_change());
        }
        context.api::<Secret>(&namespace).update(&filled).await?;
        Ok(Action::await_change())
    }
}

impl AccountTokenController {
    /// A token of a ServiceAccount that is bound to a Secret.
    async fn token(&self, secret: &Secret, account: &str, context: &Context) -> Result<String, Error> {
        let (namespace, name) = meta::key(&secret.metadata);
        let bound = json!({"apiVersion": "v1", "kind": "Secret", "name": name, "uid": meta::uid(&secret.metadata)});
        let question = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [], "expirationSeconds": FOR_EVER, "boundObjectRef": bound}});
        let accounts = context.api::<ServiceAccount>(&namespace);
        let answer = accounts.create_subresource(account, "token", question).await?.value()?;
        Ok(answer["status"]["token"].as_str().unwrap_or_default().to_owned())
    }
}
