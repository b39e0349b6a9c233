//! A whole control plane by one builder: what [`Server`] is, with its guards and first objects, over any store.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use rk_store::MemoryStore;

use super::{LateReader, RuntimeConfig, Security, Server, ServerBuilder, UserInfo, bootstrap, storage::key};
use crate::{Clock, Error};

/// Where a control plane of one's own begins. Everything is pluggable, and nothing is needed: the store is in memory if none is
/// named, everybody may do everything if nobody authorizes, no write is shown to anybody if no plugin is there, and of the built-in
/// groups all are served if none are chosen.
///
/// ```
/// use std::sync::Arc;
/// use rk_api::{
///     Api, k8s_openapi::api::core::v1::{ConfigMap, Namespace},
///     server::{ControlPlane, Operation, Security, UserInfo, bootstrap, plugins},
/// };
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let owned = plugins::from_fn(
///     "NeedsOwner",
///     |operation, resource, _| operation == Operation::Create && resource.plural == "configmaps",
///     |request| match request.object.as_ref().and_then(|object| object["metadata"]["labels"]["owner"].as_str()) {
///         Some(_) => Ok(()),
///         None => Err(plugins::forbid(request, "every ConfigMap has an owner here")),
///     },
/// );
/// let server = ControlPlane::builder()
///     .store(Arc::new(rk_store::MemoryStore::new()))
///     .groups(["", "apps", "rbac.authorization.k8s.io"])
///     .security(Security::default())
///     .admission(owned)
///     .clock(|| "2030-01-01T00:00:00Z".parse().unwrap())
///     .bootstrap(bootstrap::Config::default())
///     .build()
///     .await?;
///
/// let admin = server.client(UserInfo::loopback());
/// let default = Api::<Namespace>::all(admin.clone()).get("default").await?;
/// assert_eq!(default.metadata.creation_timestamp.as_ref().unwrap().0.to_string(), "2030-01-01T00:00:00Z");
/// let mut map = ConfigMap::default();
/// map.metadata.name = Some("nobodys".to_owned());
/// assert!(Api::namespaced(admin, "default").create(&map).await.unwrap_err().is_forbidden());
/// assert!(server.resource_of("batch/v1", "Job").is_none());
/// # Ok::<(), rk_api::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub enum ControlPlane {}

impl ControlPlane {
    /// Starts to put one together; see [`ServerBuilder`] for its parts.
    pub fn builder() -> ServerBuilder {
        Server::builder(Arc::new(MemoryStore::new()))
    }
}

/// What a builder was told that is no part of the server itself.
#[derive(Default)]
pub(super) struct Options {
    groups: Option<BTreeSet<String>>,
    versions: RuntimeConfig,
    security: Option<Security>,
    first: First,
    /// Bytes by collection.
    pub(super) budgets: HashMap<String, usize>,
    pub(super) clock: Option<Clock>,
}

/// The objects that are there before the first request.
#[derive(Default)]
enum First {
    #[default]
    None,
    Namespaces,
    All(bootstrap::Config),
}

impl Options {
    /// Whether a version of a built-in group is served.
    pub(super) fn serves(&self, group: &str, version: &str) -> bool {
        self.groups.as_ref().is_none_or(|groups| groups.contains(group)) && self.versions.serves(group, version)
    }
}

impl ServerBuilder {
    /// Serves of the built-in groups only these; the core group is `""`. With none at all there is what rows and
    /// [`Server::define`] bring. Custom resources need `apiextensions.k8s.io`.
    pub fn groups<'a>(mut self, groups: impl IntoIterator<Item = &'a str>) -> Self {
        self.options.groups = Some(groups.into_iter().map(str::to_owned).collect());
        self
    }

    /// Serves these versions of the built-in groups, kube-apiserver's `--runtime-config`. `scheduling.k8s.io/v1alpha2` turns on what
    /// belongs to it too, as the feature gate GenericWorkload does in Kubernetes: pods keep `spec.schedulingGroup`, which is dropped otherwise.
    pub fn runtime_config(mut self, versions: RuntimeConfig) -> Self {
        self.options.versions = versions;
        self
    }

    /// Guards the server as kube-apiserver is guarded by default: RBAC, the default admission plugins behind those named before,
    /// authenticators.
    pub fn security(mut self, security: Security) -> Self {
        self.options.security = Some(security);
        self
    }

    /// Sees at the start that the objects are there that every cluster has; of groups that are not served there are none. The ServiceCIDR
    /// `kubernetes` is kept from then on.
    pub fn bootstrap(mut self, config: bootstrap::Config) -> Self {
        self.options.first = First::All(config);
        self
    }

    /// Of those objects only the namespaces.
    pub fn bootstrap_namespaces(mut self) -> Self {
        self.options.first = First::Namespaces;
        self
    }

    /// Lets the recent changes of a resource hold so many bytes of JSON besides the current objects, together with the protobuf forms
    /// that are kept of both; 64 MiB if nothing is said. With less, a watch that starts far back reads more from the store, a slow watcher is
    /// cut off sooner, and more of a list in protobuf is encoded anew. The metric `apiserver_watch_cache_bytes` tells what is held.
    pub fn cache_budget(mut self, group: &str, plural: &str, bytes: usize) -> Self {
        self.options.budgets.insert(key::collection(group, plural), bytes);
        self
    }

    /// Takes the time of day from here, for what is written into objects and for credentials that end. Waiting is on tokio's clock
    /// in any case.
    pub fn clock(mut self, now: impl Fn() -> jiff::Timestamp + Send + Sync + 'static) -> Self {
        self.options.clock = Some(Arc::new(now));
        self
    }

    /// Reads the store and serves.
    ///
    /// # Errors
    /// The store fails, or holds something that is no object; the key of service accounts is none; the first objects can't be
    /// written.
    pub async fn build(mut self) -> Result<Server, Error> {
        let first = std::mem::take(&mut self.options.first);
        let reader = LateReader::new();
        let builder = match self.options.security.take() {
            Some(security) => security.guard(self, &reader).map_err(|e| Error::decode("service-account key", &e))?,
            None => self,
        };
        let server = builder.start().await?;
        reader.bind(&server.reader());
        let client = server.client(UserInfo::loopback());
        match first {
            First::None => Ok(()),
            First::Namespaces => bootstrap::ensure_namespaces(&*client).await,
            First::All(config) => {
                let ensured = bootstrap::ensure(&*client, &config).await;
                config.service_cidr.into_iter().for_each(|range| bootstrap::keep_service_cidr(&server, range));
                ensured
            }
        }
        .map_err(|error| {
            tracing::error!(%error, "the control plane lacks its first objects");
            error.source
        })?;
        Ok(server)
    }
}
