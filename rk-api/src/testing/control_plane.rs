//! An API server for tests that is a real one.

use std::sync::Arc;

use crate::{
    Api, Client, Error, Informers, ResourceType,
    server::{ControlPlane, HttpService, Security, Server, ServerBuilder, UserInfo, bootstrap, plugins},
};

/// A control plane for one test: the whole API server in the test's own process, with no files, ports or other processes. It is there
/// within milliseconds and gone when it is dropped, so each test has its own, and hundreds run side by side.
///
/// It has the pipeline, the built-in kinds and custom resources, watches, server-side apply, the namespaces of every cluster, and
/// the default admission plugins but `ServiceAccount`: nothing here makes the accounts of namespaces, as no controllers and no
/// nodes run. Those are a `client` away: see rk-controller.
///
/// ```
/// use rk_api::{k8s_openapi::api::core::v1::ConfigMap, testing::TestControlPlane};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let control_plane = TestControlPlane::start().await?;
/// let maps = control_plane.api::<ConfigMap>("default");
/// let mut map = ConfigMap::default();
/// map.metadata.name = Some("settings".to_owned());
/// maps.create(&map).await?;
/// assert!(maps.create(&map).await.unwrap_err().is_already_exists());
/// assert!(control_plane.api::<ConfigMap>("nowhere").create(&map).await.unwrap_err().is_not_found());
/// # Ok::<(), rk_api::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TestControlPlane {
    server: Server,
    client: Arc<dyn Client>,
}

impl TestControlPlane {
    /// Starts one in which everybody may do everything.
    ///
    /// # Errors
    /// It can't be built, which would be a fault of this crate.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(|builder| builder).await
    }

    /// Starts one in which RBAC decides, with the roles that every cluster has. [`TestControlPlane::client`] is an administrator's.
    ///
    /// # Errors
    /// As [`TestControlPlane::start`].
    pub async fn start_with_rbac() -> Result<Self, Error> {
        let server = ControlPlane::builder().security(Security::default()).bootstrap(bootstrap::Config::default());
        Ok(Self::of(server.build().await?))
    }

    /// Starts one that differs in what `change` does to its builder.
    ///
    /// # Errors
    /// The builder's own.
    pub async fn start_with(change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Result<Self, Error> {
        let mut builder = ControlPlane::builder().bootstrap_namespaces();
        for plugin in plugins::default_chain().into_iter().filter(|plugin| plugin.name() != "ServiceAccount") {
            builder = builder.admission(plugin);
        }
        Ok(Self::of(change(builder).build().await?))
    }

    fn of(server: Server) -> Self {
        let client = server.client(UserInfo::loopback());
        Self { server, client }
    }

    /// An administrator's client.
    pub fn client(&self) -> Arc<dyn Client> {
        Arc::clone(&self.client)
    }

    /// The client of somebody else.
    pub fn client_as(&self, user: UserInfo) -> Arc<dyn Client> {
        self.server.client(user)
    }

    /// A type's objects in a namespace; empty for all, or for kinds that have none.
    pub fn api<K: ResourceType>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client(), namespace)
    }

    /// Informers of an administrator's client.
    pub fn informers(&self) -> Informers {
        Informers::new(self.client())
    }

    /// What `kube::Client::new` takes in place of a connection, as an administrator.
    pub fn service(&self) -> HttpService {
        self.server.service_as(UserInfo::loopback())
    }

    /// The server, for all that it can do besides.
    pub fn server(&self) -> &Server {
        &self.server
    }
}
