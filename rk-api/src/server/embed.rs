//! The server as a value: built over a store, called through clients in the same process.

#[cfg(feature = "serve")]
use std::net::IpAddr;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rk_store::Store;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Admit, AuditPolicy, AuditSink, Authenticator, Authorizer, Encryption, FlowControl, Limits, Reader, Row, Strategy,
    UserInfo,
    audit::Audit,
    authn, builtin,
    catalog::{Catalog, ScalePaths, Served},
    chain::Chain,
    custom,
    flow::Gate,
    http::{HttpService, Metrics},
    pipeline::Core,
    schema::Schema,
    storage::Cache,
};
use crate::{
    Client, DeleteOptions, Error, EventStream, List, ListOptions, Object, Patch, Request, Resource, Verb, WatchOptions,
    WriteOptions, clock, status,
};

/// How long a definition may take to be served.
const DEFINE: Duration = Duration::from_secs(10);

/// An API server over a store. Clones are the same server; it runs until the last one and the last client are dropped.
#[derive(Clone)]
pub struct Server {
    pub(crate) core: Arc<Core>,
}

/// The parts of a [`Server`] before it starts.
#[must_use]
pub struct ServerBuilder {
    store: Arc<dyn Store>,
    authenticators: Vec<Arc<dyn Authenticator>>,
    authorizers: Vec<Arc<dyn Authorizer>>,
    admission: Chain,
    rows: Vec<Row>,
    strategies: Vec<(String, String, Arc<dyn Strategy>)>,
    documents: BTreeMap<String, Value>,
    anonymous: authn::Anonymous,
    encryption: Encryption,
    audit: Option<Audit>,
    flow: FlowControl,
    limits: Limits,
    pub(super) options: super::control_plane::Options,
    /// Whose headers are nobody else's business.
    #[cfg(feature = "serve")]
    pub(super) front_proxy: Option<Arc<authn::RequestHeader>>,
    #[cfg(feature = "serve")]
    kubelets: Option<super::KubeletClient>,
    #[cfg(feature = "serve")]
    reach: super::http::Reach,
    #[cfg(feature = "serve")]
    aggregation: Option<super::Aggregation>,
}

impl ServerBuilder {
    /// Keeps objects in this store.
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = store;
        self
    }

    /// Asks this authenticator too, after those before it.
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.authenticators.push(authenticator);
        self
    }

    /// Lets requests over HTTP without credentials pass as `system:anonymous`, for the authorizers to judge.
    pub fn anonymous(mut self, allowed: impl Into<authn::Anonymous>) -> Self {
        self.anonymous = allowed.into();
        self
    }

    /// Asks this authorizer too, after those before it. With none at all everybody may do everything.
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizers.push(authorizer);
        self
    }

    /// Shows writes to this plugin too, after those before it.
    pub fn admission(mut self, plugin: Arc<dyn Admit>) -> Self {
        self.admission.push(plugin);
        self
    }

    /// Shows writes to this plugin right before the one of this name, such as `ResourceQuota`: one that was named with
    /// [`admission`](Self::admission) before or later, or is among the default ones of [`security`](Self::security). If there is none
    /// the server is not built.
    pub fn admission_before(mut self, name: &str, plugin: Arc<dyn Admit>) -> Self {
        self.admission.push_before(name, plugin);
        self
    }

    /// As [`admission_before`](Self::admission_before), right after it; of several each after those put there before.
    pub fn admission_after(mut self, name: &str, plugin: Arc<dyn Admit>) -> Self {
        self.admission.push_after(name, plugin);
        self
    }

    /// Calls nodes this way, for logs, `exec`, `attach`, `portforward` and `proxy`.
    #[cfg(feature = "serve")]
    pub fn kubelets(mut self, client: super::KubeletClient) -> Self {
        self.kubelets = Some(client);
        self
    }

    /// Lets `proxy` lead to pods and nodes of these networks (address and bits of the prefix), though they are of this machine or its
    /// link. As with kube-apiserver such addresses are refused otherwise, for whoever reaches this server's own machine is often
    /// believed there.
    #[cfg(feature = "serve")]
    pub fn proxy_to(mut self, networks: impl IntoIterator<Item = (IpAddr, u8)>) -> Self {
        self.reach = super::http::Reach::new(networks);
        self
    }

    /// Passes requests for groups and versions on to the servers that APIServices name.
    #[cfg(feature = "serve")]
    pub fn aggregation(mut self, aggregation: super::Aggregation) -> Self {
        self.aggregation = Some(aggregation);
        self
    }

    /// Tells a sink of the requests over HTTP that a policy is about.
    pub fn audit(mut self, policy: AuditPolicy, sink: Arc<dyn AuditSink>) -> Self {
        self.audit = Some(Audit { policy: Arc::new(policy), sink });
        self
    }

    /// Lets so many requests over HTTP in at once; any number if this is not called.
    pub fn flow_control(mut self, control: FlowControl) -> Self {
        self.flow = control;
        self
    }

    /// Bounds what one request may take.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Encrypts chosen resources in the store.
    pub fn encryption(mut self, encryption: Encryption) -> Self {
        self.encryption = encryption;
        self
    }

    /// Serves this resource too, or in place of the built-in one of the same name.
    pub fn row(mut self, row: Row) -> Self {
        self.rows.push(row);
        self
    }

    /// Keeps a built-in kind by these rules, such as Services with other address ranges
    /// ([`kinds::service::strategy`](super::kinds::service::strategy)).
    pub fn strategy(mut self, group: &str, kind: &str, strategy: Arc<dyn Strategy>) -> Self {
        self.strategies.push((group.to_owned(), kind.to_owned(), strategy));
        self
    }

    /// Answers a GET of this path, which is no resource, with this document.
    pub fn document(mut self, path: &str, document: Value) -> Self {
        self.documents.insert(path.to_owned(), document);
        self
    }

    /// Serves, without what [`ServerBuilder::build`] does around it.
    pub(super) async fn start(self) -> Result<Server, Error> {
        let admission = self.admission.ordered()?;
        let cache = Cache::start(self.store, self.encryption, self.options.budgets.clone()).await?;
        let mut catalog = Catalog::default();
        let builtin = builtin::rows().into_iter().chain(builtin::optional_rows());
        let builtin = builtin.filter(|row| self.options.serves(&row.resource.group, &row.resource.version));
        for mut row in builtin.chain(self.rows) {
            let own =
                |(group, kind, _): &&(String, String, _)| *group == row.resource.group && *kind == row.resource.kind;
            if let Some((_, _, strategy)) = self.strategies.iter().find(own) {
                row.strategy = Arc::clone(strategy);
            }
            catalog.insert(Arc::new(serve(row, &cache)));
        }
        #[cfg(feature = "serve")]
        let aggregator = self.aggregation.map(super::aggregation::Aggregator::new).transpose();
        #[cfg(feature = "serve")]
        let aggregator = aggregator.map_err(|error| Error::decode("the front proxy's certificate", &error))?;
        let tasks = CancellationToken::new();
        let gate = Gate::new(self.flow);
        gate.lend(tasks.clone());
        let core = Arc::new(Core {
            cache,
            catalog: ArcSwap::from_pointee(catalog),
            authenticator: authn::Union::new(self.authenticators, self.anonymous.is_possible()),
            anonymous_paths: self.anonymous,
            authorizers: self.authorizers,
            admission,
            documents: self.documents,
            #[cfg(feature = "serve")]
            aggregator: aggregator.clone(),
            #[cfg(feature = "serve")]
            front_proxy: self.front_proxy,
            #[cfg(feature = "serve")]
            kubelets: self.kubelets,
            #[cfg(feature = "serve")]
            reach: self.reach,
            event_lease: Mutex::default(),
            clock: self.options.clock,
            metrics: Metrics::new(&gate),
            audit: self.audit,
            gate,
            limits: self.limits,
            stopping: CancellationToken::new(),
            catalog_changed: watch::channel(0).0,
            tasks: tasks.clone(),
            _end: tasks.clone().drop_guard(),
        });
        #[cfg(feature = "serve")]
        if let Some(aggregator) = aggregator {
            core.serve_aggregated(&aggregator, tasks.clone());
        }
        core.keep_addresses(tasks.clone());
        core.serve_definitions(tasks);
        Ok(Server { core })
    }
}

/// Puts a row in service. Two resources that show the same objects share a collection.
fn serve(row: Row, cache: &Cache) -> Served {
    let resource = &row.resource;
    let (group, stored_as) = match (resource.group.as_ref(), resource.plural.as_ref()) {
        ("events.k8s.io", "events") => ("", "v1".to_owned()),
        ("autoscaling", _) => ("autoscaling", "autoscaling/v2".to_owned()),
        (group, _) => (group, resource.api_version()),
    };
    let scale = row.subresources.iter().any(|sub| sub.name == "scale").then(|| ScalePaths {
        spec_replicas: "spec.replicas".to_owned(),
        status_replicas: "status.replicas".to_owned(),
        selector: "spec.selector".to_owned(),
    });
    let collection = cache.collection_of(group, &resource.plural);
    let schema = Schema::builtin(&resource.group, &resource.version, &resource.kind);
    let api_version = resource.api_version();
    Served {
        collection,
        stored_as,
        api_version,
        schema,
        scale,
        custom: false,
        printer: Vec::new(),
        deprecation: None,
        converter: None,
        shape: None,
        definition: None,
        row,
    }
}

impl Server {
    /// Starts to put a server together; all built-in resources are served. See [`ControlPlane`](super::ControlPlane) for one in
    /// memory.
    pub fn builder(store: Arc<dyn Store>) -> ServerBuilder {
        ServerBuilder {
            store,
            authenticators: Vec::new(),
            authorizers: Vec::new(),
            admission: Chain::default(),
            rows: Vec::new(),
            strategies: Vec::new(),
            documents: BTreeMap::new(),
            anonymous: authn::Anonymous::Refused,
            encryption: Encryption::default(),
            audit: None,
            flow: FlowControl::Unlimited,
            limits: Limits::default(),
            options: Default::default(),
            #[cfg(feature = "serve")]
            front_proxy: None,
            #[cfg(feature = "serve")]
            kubelets: None,
            #[cfg(feature = "serve")]
            reach: Default::default(),
            #[cfg(feature = "serve")]
            aggregation: None,
        }
    }

    /// A client in this process that acts as `user`: every request passes authorization and admission, and answers
    /// are the very objects of the server's cache.
    pub fn client(&self, user: UserInfo) -> Arc<dyn Client> {
        Arc::new(LocalClient { core: Arc::clone(&self.core), user: Arc::new(user) })
    }

    /// Serves the resources of a CustomResourceDefinition from now on: makes the definition, or brings the stored one to
    /// this state. When this returns its resources are served.
    ///
    /// # Errors
    /// The definition is invalid, or its names are taken.
    pub async fn define(&self, definition: Value) -> Result<(), Error> {
        let client = self.client(UserInfo::loopback());
        let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let request = |name: &str, verb| Request {
            resource: custom::definitions(),
            namespace: String::new(),
            name: name.to_owned(),
            subresource: String::new(),
            verb,
        };
        let options = WriteOptions::manager("rk");
        let created = client.request(request("", Verb::Create(definition.clone(), options.clone()))).await;
        match created {
            Err(error) if error.is_already_exists() => {
                let mut body = definition;
                if let Some(fields) = body.as_object_mut() {
                    fields.remove("status");
                }
                client.request(request(&name, Verb::Patch(Patch::merge(body), options))).await?;
            }
            other => {
                other?;
            }
        }
        let mut changes = self.core.catalog_changed.subscribe();
        let established = async {
            loop {
                changes.borrow_and_update();
                let object = client.request(request(&name, Verb::Get)).await?;
                let value = object.value()?;
                let conditions = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
                let condition = |kind: &str| conditions.iter().find(|c| c["type"] == kind);
                if condition("Established").is_some_and(|c| c["status"] == "True") {
                    return Ok(());
                }
                if let Some(refused) = condition("NamesAccepted").filter(|c| c["status"] == "False") {
                    let why = refused["message"].as_str().unwrap_or_default();
                    return Err(status::conflict(&custom::definitions(), &name, why).into());
                }
                // The status follows the catalog, in its own time.
                let _ = tokio::time::timeout(Duration::from_millis(20), changes.changed()).await;
            }
        };
        match tokio::time::timeout(DEFINE, established).await {
            Ok(done) => done,
            Err(_) => Err(status::unavailable(format!("the definition {name:?} was not established in time")).into()),
        }
    }

    /// The names of the admission plugins, in the order in which they see a write.
    pub fn admission_plugins(&self) -> impl Iterator<Item = &str> {
        self.core.admission.iter().map(|plugin| plugin.name())
    }

    /// The server as an HTTP service that asks the authenticators who calls.
    pub fn service(&self) -> HttpService {
        HttpService::new(Arc::clone(&self.core), None)
    }

    /// The server as an HTTP service whose requests all come from `user`: for `kube::Client::new(service, "default")` in
    /// the same process.
    pub fn service_as(&self, user: UserInfo) -> HttpService {
        HttpService::new(Arc::clone(&self.core), Some(user))
    }

    /// The resource that serves a kind, such as `apps/v1` and `Deployment`; `None` if none does.
    pub fn resource_of(&self, api_version: &str, kind: &str) -> Option<Resource> {
        Reader::resource_of(&*self.core, api_version, kind)
    }

    /// The server's current objects, with nobody's permissions asked.
    pub fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.core) as Arc<dyn Reader>
    }
}

/// A [`Client`] that calls the server in its own process.
struct LocalClient {
    core: Arc<Core>,
    user: Arc<UserInfo>,
}

#[async_trait]
impl Client for LocalClient {
    // What the macro makes of an `async fn`, without a future around the one that there is.
    fn request<'a, 'async_trait>(&'a self, request: Request) -> BoxFuture<'async_trait, Result<Arc<Object>, Error>>
    where
        'a: 'async_trait,
        Self: 'async_trait,
    {
        self.core.request(&self.user, request)
    }

    async fn list(&self, resource: &Resource, namespace: &str, options: ListOptions) -> Result<List, Error> {
        let selectors = (&options.labels, &options.fields);
        let call = self.core.call_selected(&self.user, resource, (namespace, ""), "list", selectors).await?;
        self.core.list(&call, &options).await
    }

    async fn watch(&self, resource: &Resource, namespace: &str, options: WatchOptions) -> Result<EventStream, Error> {
        let selectors = (&options.labels, &options.fields);
        let call = self.core.call_selected(&self.user, resource, (namespace, ""), "watch", selectors).await?;
        self.core.watch(&call, options).await
    }

    async fn delete_collection(
        &self,
        resource: &Resource,
        namespace: &str,
        delete: DeleteOptions,
        list: ListOptions,
    ) -> Result<(), Error> {
        let selectors = (&list.labels, &list.fields);
        let deleted = async {
            let call =
                self.core.call_selected(&self.user, resource, (namespace, ""), "deletecollection", selectors).await?;
            self.core.delete_collection(&call, &delete, &list).await.map(|_| ())
        };
        clock::within(&self.core.clock, deleted).await
    }
}
