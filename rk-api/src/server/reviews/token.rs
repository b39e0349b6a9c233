//! Tokens for service accounts (KEP-1205).

use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequestSpec};
use serde_json::{Value, json};

use super::{ReviewDeps, answered, invalid, read};
use crate::{
    Object, Resource, Status,
    server::{
        FieldErrors, Reader, Strategy, WriteContext,
        authn::{Claims, KubernetesClaims, ObjectRef},
    },
    status,
};

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
/// Seconds that a token counts if the request does not say.
const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;

/// The strategy of ServiceAccounts, which answers requests for their tokens too.
pub(super) struct WithTokens {
    pub inner: Arc<dyn Strategy>,
    pub deps: ReviewDeps,
}

async fn find(reader: &dyn Reader, plural: &str, kind: &str, ns: &str, name: &str) -> Result<Arc<Object>, Status> {
    let found = reader.get("", plural, ns, name).await.map_err(status::internal)?;
    found.ok_or_else(|| status::not_found(&Resource::new("", "v1", kind, plural, !ns.is_empty()), name))
}

fn reference(object: &Object) -> ObjectRef {
    ObjectRef { name: object.meta().name.clone(), uid: object.meta().uid.clone() }
}

/// Binds the claims to the object that the request names: the token ends with it.
async fn bind(claims: &mut KubernetesClaims, bound: &BoundObjectReference, reader: &dyn Reader) -> Result<(), Status> {
    let name = bound.name.as_deref().unwrap_or_default();
    let kind = bound.kind.as_deref().unwrap_or_default();
    let api_version = bound.api_version.as_deref().unwrap_or_default();
    let namespace = claims.namespace.clone();
    let object = match (api_version, kind) {
        ("v1" | "", "Pod") => {
            let pod = find(reader, "pods", kind, &namespace, name).await?;
            let spec = pod.value().map_err(status::internal)?["spec"].take();
            let account = &claims.serviceaccount.name;
            let runs_as = spec["serviceAccountName"].as_str().unwrap_or_default();
            if runs_as != account {
                return Err(status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            if let Some(node) = spec["nodeName"].as_str().filter(|node| !node.is_empty()) {
                let found = reader.get("", "nodes", "", node).await.map_err(status::internal)?;
                let uid = found.map(|node| node.meta().uid.clone()).unwrap_or_default();
                claims.node = Some(ObjectRef { name: node.to_owned(), uid });
            }
            claims.pod = Some(reference(&pod));
            pod
        }
        ("v1" | "", "Secret") => {
            let secret = find(reader, "secrets", kind, &namespace, name).await?;
            claims.secret = Some(reference(&secret));
            secret
        }
        ("v1" | "", "Node") => {
            let node = find(reader, "nodes", kind, "", name).await?;
            claims.node = Some(reference(&node));
            node
        }
        _ => {
            let why = format!("cannot bind token to object of type {api_version}, Kind={kind}");
            return Err(status::bad_request(why));
        }
    };
    let wanted = bound.uid.as_deref().unwrap_or_default();
    if !wanted.is_empty() && wanted != object.meta().uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        );
        return Err(status::conflict(&Resource::new("", "v1", kind, kind, true), name, &why));
    }
    Ok(())
}

impl WithTokens {
    async fn issue(&self, question: Value, context: &WriteContext<'_>) -> Result<Value, Status> {
        let Some(signer) = &self.deps.signer else {
            return Err(status::failure(404, "NotFound", "this server issues no service-account tokens"));
        };
        let kind = question["kind"].as_str().unwrap_or(KIND);
        let api_version = question["apiVersion"].as_str().unwrap_or("authentication.k8s.io/v1");
        if (api_version, kind) != ("authentication.k8s.io/v1", KIND) {
            let why = format!("the object provided is unrecognized: {api_version}, Kind={kind} is no TokenRequest");
            return Err(status::bad_request(why));
        }
        let spec = if question["spec"].is_null() { json!({"audiences": []}) } else { question["spec"].clone() };
        let mut spec: TokenRequestSpec = read(&spec).map_err(|status| *status)?;
        let seconds = spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let refuse =
            |why: &str| invalid(GROUP, KIND, "spec.expirationSeconds", &format!("Invalid value: {seconds}: {why}"));
        if seconds < MIN_SECONDS {
            return Err(refuse("may not specify a duration less than 10 minutes"));
        }
        if seconds > MAX_SECONDS {
            return Err(refuse("may not specify a duration larger than 2^32 seconds"));
        }
        let text = |field: &str| question["metadata"][field].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let account = find(context.reader, "serviceaccounts", "ServiceAccount", namespace, name).await?;
        let mut kubernetes = KubernetesClaims {
            namespace: namespace.to_owned(),
            serviceaccount: reference(&account),
            ..KubernetesClaims::default()
        };
        if let Some(bound) = &spec.bound_object_ref {
            bind(&mut kubernetes, bound, context.reader).await?;
        }
        let audiences = spec.audiences.get_or_insert_default();
        if audiences.is_empty() {
            audiences.clone_from(&self.deps.audiences);
        }
        let now = Timestamp::from_second(crate::now().as_second()).map_err(status::internal)?;
        let ends = now.saturating_add(SignedDuration::from_secs(seconds)).map_err(status::internal)?;
        let token = signer.sign(&Claims {
            iss: signer.issuer().to_owned(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
            aud: audiences.clone(),
            exp: ends.as_second(),
            iat: now.as_second(),
            nbf: now.as_second(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes,
        });
        let token = token.map_err(status::internal)?;
        spec.expiration_seconds = Some(seconds);
        let mut answer = question;
        answer["apiVersion"] = "authentication.k8s.io/v1".into();
        answer["kind"] = KIND.into();
        answer["spec"] = json!(spec);
        answer["metadata"]["creationTimestamp"] = now.to_string().into();
        Ok(answered(answer, json!({"token": token, "expirationTimestamp": ends.to_string()})))
    }
}

#[async_trait]
impl Strategy for WithTokens {
    fn default(&self, object: &mut Value) {
        self.inner.default(object);
    }

    fn prepare_create(&self, object: &mut Value, context: &WriteContext<'_>) {
        self.inner.prepare_create(object, context);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, context: &WriteContext<'_>) {
        self.inner.prepare_update(new, old, context);
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        self.inner.validate_create(object)
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> FieldErrors {
        self.inner.validate_update(new, old, subresource)
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        self.inner.warnings(object, old)
    }

    fn allocates(&self) -> bool {
        self.inner.allocates()
    }

    async fn allocate(&self, new: &mut Value, old: Option<&Value>, context: &WriteContext<'_>) -> Result<(), Status> {
        self.inner.allocate(new, old, context).await
    }

    fn release(&self, object: &Value) {
        self.inner.release(object);
    }

    fn grace_period(&self, object: &Value, asked: Option<i64>) -> i64 {
        self.inner.grace_period(object, asked)
    }

    async fn answer(&self, question: Value, context: &WriteContext<'_>) -> Result<Value, Status> {
        if context.subresource == "token" {
            self.issue(question, context).await
        } else {
            self.inner.answer(question, context).await
        }
    }
}
