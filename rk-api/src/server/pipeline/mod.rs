//! The one way of every request, in Kubernetes' order: authorize, mutate, default, validate, validating admission,
//! store. Authentication and decoding come before (a client in this process brings an identity and a tree instead),
//! encoding after.
//!
//! [`Core::request`] takes requests about one object apart by verb and subresource; `create`, `update` and `delete` are
//! the three kinds of writes that all of them end in.

mod admit;
mod authorize;
mod bind;
mod collection;
mod companions;
mod create;
mod delete;
mod keep;
mod meta;
mod rules;
mod scale;
mod subresource;
mod update;

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use authorize::within_itself;
pub(crate) use meta::{generate_name, now};
pub(crate) use update::Change;

use super::{
    Admit, Attributes, Authorizer, Changes, Decision, FieldErrors, Limits, Reader, UserInfo, Version,
    audit::Audit,
    authn,
    authz::decide,
    catalog::{Catalog, Served},
    flow::Gate,
    http::{Metrics, body_of},
    kinds::field,
    patch,
    schema::{self, Schema},
    storage::{Cache, key},
};
use crate::{Error, FieldSelector, LabelSelector, Object, Request, Resource, Verb, WriteOptions, clock, status};

/// The server's parts, shared by every way into it.
pub(crate) struct Core {
    pub(crate) cache: Arc<Cache>,
    pub(crate) catalog: ArcSwap<Catalog>,
    pub(crate) authenticator: authn::Union,
    pub(crate) anonymous_paths: authn::Anonymous,
    pub(crate) authorizers: Vec<Arc<dyn Authorizer>>,
    pub(crate) admission: Vec<Arc<dyn Admit>>,
    /// Documents at paths that are no resources.
    pub(crate) documents: std::collections::BTreeMap<String, serde_json::Value>,
    pub(crate) metrics: Metrics,
    /// What is audited; `None` for nothing.
    pub(crate) audit: Option<Audit>,
    /// What lets requests in.
    pub(crate) gate: Gate,
    pub(crate) limits: Limits,
    /// Cancelled when the server is about to end.
    pub(crate) stopping: CancellationToken,
    /// Counts changes of the catalog.
    pub(crate) catalog_changed: watch::Sender<u64>,
    /// Ends the server's own tasks.
    pub(crate) tasks: CancellationToken,
    /// Does it with the server.
    pub(crate) _end: DropGuard,
    /// The servers behind this one; `None` if there can be none.
    #[cfg(feature = "serve")]
    pub(crate) aggregator: Option<Arc<super::aggregation::Aggregator>>,
    /// The front proxy whose word is taken; `None` for none.
    #[cfg(feature = "serve")]
    pub(crate) front_proxy: Option<Arc<authn::RequestHeader>>,
    /// How kubelets are called; `None` if they are not.
    #[cfg(feature = "serve")]
    pub(crate) kubelets: Option<super::KubeletClient>,
    /// Where `proxy` may lead.
    #[cfg(feature = "serve")]
    pub(crate) reach: super::http::Reach,
    /// The time of day where it is not the system's.
    pub(crate) clock: Option<crate::Clock>,
    /// The lease that new Events share, and when it was granted.
    pub(crate) event_lease: Mutex<Option<(tokio::time::Instant, rk_store::LeaseId)>>,
}

/// Who asks what of which resource.
pub(crate) struct Call {
    pub(crate) user: Arc<UserInfo>,
    pub(crate) served: Arc<Served>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// For the client, in `Warning` headers.
    pub(crate) warnings: Mutex<Vec<String>>,
}

impl Call {
    pub(crate) fn resource(&self) -> &Resource {
        self.served.resource()
    }

    /// A call by the same user about an object of the same resource: a subresource of it, or the object itself (`""`).
    fn about(&self, namespace: &str, name: &str, subresource: &str) -> Self {
        Self {
            user: Arc::clone(&self.user),
            served: Arc::clone(&self.served),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
            warnings: Mutex::default(),
        }
    }

    /// The object's name in its collection.
    pub(crate) fn item(&self) -> String {
        key::item(&self.namespace, &self.name)
    }

    /// The kind of the bodies that this call sends.
    fn body(&self) -> Resource {
        let row = &self.served.row;
        match row.subresources.iter().find(|sub| sub.name == self.subresource) {
            Some(sub) => body_of(&row.resource, sub),
            None => row.resource.clone(),
        }
    }

    fn body_schema(&self, body: &Resource) -> Option<Arc<Schema>> {
        if body.kind == self.resource().kind {
            return self.served.schema.clone();
        }
        Schema::builtin(&body.group, &body.version, &body.kind)
    }

    /// Reads a request's body.
    ///
    /// # Errors
    /// 400, 415: it is no such object.
    pub(crate) fn decode(&self, bytes: &[u8], content_type: &str, field_validation: &str) -> Result<Value, Error> {
        let body = self.body();
        let schema = self.body_schema(&body);
        let (value, warnings) = schema::decode(bytes, content_type, &body, schema.as_deref(), field_validation)?;
        self.warn(warnings);
        Ok(value)
    }

    /// The same for a body that is a tree already.
    ///
    /// # Errors
    /// 400: it is no such object.
    pub(crate) fn decode_value(&self, value: Value, field_validation: &str) -> Result<Value, Error> {
        let body = self.body();
        let schema = self.body_schema(&body);
        let (value, warnings) = schema::decode_value(value, &body, schema.as_deref(), field_validation)?;
        self.warn(warnings);
        Ok(value)
    }

    /// Brings an object that `patch` made into shape.
    ///
    /// # Errors
    /// 400, 422: the patch made something that is no such object.
    fn decode_patched(&self, value: Value, patch: &crate::Patch, field_validation: &str) -> Result<Value, Error> {
        let schema = self.served.schema.as_deref();
        let (value, warnings) = patch::check(patch.kind, &patch.body, value, schema, field_validation)?;
        self.warn(warnings);
        Ok(value)
    }

    pub(crate) fn not_found(&self) -> Error {
        status::not_found(self.resource(), &self.name).into()
    }

    /// Notes warnings for the client, each once.
    pub(crate) fn warn(&self, warnings: impl IntoIterator<Item = String>) {
        let mut known = self.warnings.lock();
        for warning in warnings {
            if !known.contains(&warning) {
                known.push(warning);
            }
        }
    }
}

/// What a request about one object came to.
pub(crate) struct Outcome {
    pub(crate) object: Arc<Object>,
    /// The HTTP code: 200, or 201 for what is new.
    pub(crate) code: u16,
}

impl Outcome {
    pub(crate) fn ok(object: Arc<Object>) -> Self {
        Self { object, code: 200 }
    }

    pub(crate) fn created(object: Arc<Object>) -> Self {
        Self { object, code: 201 }
    }
}

impl Core {
    /// Opens a call: the resource must be served and the caller be allowed to.
    ///
    /// # Errors
    /// 404 for a resource that is not served, 403.
    pub(crate) async fn call(
        &self,
        user: &Arc<UserInfo>,
        resource: &Resource,
        (namespace, name): (String, String),
        subresource: String,
        verb: &'static str,
    ) -> Result<Call, Error> {
        let call = self.open(user, resource, (namespace, name), subresource)?;
        self.authorize(&call, verb).await?;
        check(&call, verb)?;
        Ok(call)
    }

    /// The same for a collection (or, with a name, a watch of one object), of which selectors choose some objects.
    ///
    /// # Errors
    /// 404 for a resource that is not served, 403.
    pub(crate) async fn call_selected(
        &self,
        user: &Arc<UserInfo>,
        resource: &Resource,
        (namespace, name): (&str, &str),
        verb: &'static str,
        (labels, fields): (&LabelSelector, &FieldSelector),
    ) -> Result<Call, Error> {
        let call = self.open(user, resource, (namespace.to_owned(), name.to_owned()), String::new())?;
        self.authorize_selected(&call, verb, labels, fields).await?;
        check(&call, verb)?;
        Ok(call)
    }

    fn open(
        &self,
        user: &Arc<UserInfo>,
        resource: &Resource,
        (namespace, name): (String, String),
        subresource: String,
    ) -> Result<Call, Error> {
        let catalog = self.catalog.load();
        let served = catalog
            .get(&resource.group, &resource.version, &resource.plural)
            .filter(|served| served.has(&subresource))
            .ok_or_else(status::no_such_path)?;
        Ok(Call {
            user: Arc::clone(user),
            served: Arc::clone(served),
            namespace: if resource.namespaced { namespace } else { String::new() },
            name,
            subresource,
            warnings: Mutex::default(),
        })
    }

    /// Answers a request about one object from a client in this process.
    pub(crate) fn request(&self, user: &Arc<UserInfo>, request: Request) -> BoxFuture<'_, Result<Arc<Object>, Error>> {
        let Request { resource, namespace, name, subresource, verb: asked } = request;
        let verb = match &asked {
            Verb::Get => "get",
            Verb::Create(..) => "create",
            Verb::Update(..) => "update",
            Verb::Patch(..) => "patch",
            Verb::Delete(_) => "delete",
        };
        let opened = match name.is_empty() && !(verb == "create" && subresource.is_empty()) {
            true => Err(status::bad_request("the name of the object is required").into()),
            false => self.open(user, &resource, (namespace, name), subresource),
        };
        let call = match opened {
            Ok(call) => call,
            Err(error) => return Box::pin(ready(Err(error))),
        };
        // A get by itself, so that it stays small.
        if matches!(asked, Verb::Get) {
            let got = async move {
                self.authorize(&call, verb).await?;
                check(&call, verb)?;
                self.get(&call, "").await
            };
            return clock::boxed_within(&self.clock, got);
        }
        let answered = async move {
            self.authorize(&call, verb).await?;
            check(&call, verb)?;
            let decoded = |body, options: &WriteOptions| call.decode_value(body, &options.field_validation);
            let asked = match asked {
                Verb::Create(body, options) => Verb::Create(decoded(body, &options)?, options),
                Verb::Update(body, options) => Verb::Update(decoded(body, &options)?, options),
                other => other,
            };
            Ok(self.answer(&call, asked).await?.object)
        };
        clock::boxed_within(&self.clock, answered)
    }

    /// Does what an authorized call asks: on the heap, where each verb takes what it needs.
    pub(crate) fn answer<'a>(&'a self, call: &'a Call, verb: Verb) -> BoxFuture<'a, Result<Outcome, Error>> {
        match verb {
            Verb::Get => Box::pin(async { self.get(call, "").await.map(Outcome::ok) }),
            Verb::Create(body, options) if call.subresource.is_empty() => {
                Box::pin(async move { self.create(call, body, &options).await })
            }
            Verb::Create(body, options) => Box::pin(async move { self.create_subresource(call, body, &options).await }),
            Verb::Update(body, options) => {
                Box::pin(async move { self.update(call, Change::Replace(body), &options).await })
            }
            Verb::Patch(patch, options) => {
                Box::pin(async move { self.update(call, Change::Patch(patch), &options).await })
            }
            Verb::Delete(options) => Box::pin(async move { self.delete(call, &options).await }),
        }
    }

    /// Reads an object or the subresource that shows it.
    pub(crate) async fn get(&self, call: &Call, resource_version: &str) -> Result<Arc<Object>, Error> {
        match resource_version {
            "" => {
                self.cache.sync().await?;
            }
            "0" => {}
            text => {
                let revision =
                    text.parse().map_err(|_| status::bad_request(format!("invalid resource version {text:?}")))?;
                self.cache.wait_for(revision).await?;
            }
        }
        let found = call.served.collection.get(&call.item()).ok_or_else(|| call.not_found())?;
        let object = call.served.read(&found.object).await?;
        match (call.subresource.as_str(), &call.served.scale) {
            ("scale", Some(paths)) => Ok(Arc::new(Object::from_value(&scale::scale_of(&object.value()?, paths))?)),
            _ => Ok(object),
        }
    }
}

/// What is wrong with an authorized call, if anything is.
fn check(call: &Call, verb: &str) -> Result<(), Error> {
    if !call.served.allows(&call.subresource, verb) {
        return Err(status::method_not_allowed().into());
    }
    if call.resource().namespaced && call.namespace.is_empty() && (!call.name.is_empty() || verb == "create") {
        let why = "an empty namespace may not be set during creation or when naming an object";
        return Err(status::bad_request(why).into());
    }
    if !call.resource().namespaced && !call.namespace.is_empty() {
        // There is no such path, and what rights in a namespace allow must not reach an object of the cluster.
        return Err(status::no_such_path().into());
    }
    Ok(())
}

/// 422 with every broken rule.
pub(crate) fn invalid(resource: &Resource, name: &str, errors: FieldErrors) -> Error {
    field::invalid(&resource.group, &resource.kind, name, &errors).into()
}

#[async_trait]
impl Reader for Core {
    async fn reach(&self, revision: u64) -> Result<(), Error> {
        self.cache.wait_for(revision).await
    }

    async fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Error> {
        let collection = self.cache.collection_of(group, plural);
        let item = key::item(namespace, name);
        let found = match collection.get(&item) {
            Some(found) => Some(found),
            // Another server on the same store may have made it just now.
            None => {
                self.cache.sync().await?;
                collection.get(&item)
            }
        };
        Ok(found.map(|item| Arc::clone(&item.object)))
    }

    async fn list(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        labels: &LabelSelector,
    ) -> Result<Vec<Arc<Object>>, Error> {
        let collection = self.cache.collection_of(group, plural);
        Ok(collection.select(namespace, labels))
    }

    fn version(&self, group: &str, plural: &str) -> Result<Version, Error> {
        Ok(self.cache.collection_of(group, plural).version.clone())
    }

    fn resource_of(&self, api_version: &str, kind: &str) -> Option<Resource> {
        let catalog = self.catalog.load();
        let found = catalog.rows().map(|served| served.resource());
        found.into_iter().find(|resource| resource.kind == kind && resource.api_version() == api_version).cloned()
    }

    fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Resource> {
        self.catalog.load().get(group, version, plural).map(|served| served.resource().clone())
    }

    fn other_versions(&self, resource: &Resource) -> Vec<Resource> {
        let same = |other: &&Resource| other.group == resource.group && other.plural == resource.plural;
        let catalog = self.catalog.load();
        let found = catalog.rows().map(|served| served.resource()).filter(same);
        found.filter(|other| other.version != resource.version).cloned().collect()
    }

    async fn convert(&self, object: Value, from: &Resource, to: &Resource) -> Result<Value, Error> {
        let catalog = self.catalog.load_full();
        let served = |resource: &Resource| catalog.get(&resource.group, &resource.version, &resource.plural).cloned();
        let (Some(from), Some(to)) = (served(from), served(to)) else { return Ok(object) };
        let stored = from.stored(&object).await?.into_owned();
        to.read_value(stored).await
    }

    fn schema(&self, resource: &Resource) -> Option<Arc<Schema>> {
        self.catalog.load().get(&resource.group, &resource.version, &resource.plural)?.schema.clone()
    }

    async fn authorize(&self, attributes: &Attributes) -> Decision {
        if self.authorizers.is_empty() {
            return Decision::Allow(String::new());
        }
        decide(&self.authorizers, attributes).await
    }

    fn changes(&self, group: &str, plural: &str, after: u64) -> Result<Changes, Error> {
        Ok(self.cache.collection_of(group, plural).changes_after(after))
    }
}
