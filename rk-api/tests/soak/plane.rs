//! The control plane over its folder, started and stopped again and again, and the clients that it has meanwhile.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Request, header};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use rk_api::{
    Api, Client, Error, RemoteClient,
    k8s_openapi::api::core::v1::Namespace,
    server::{ControlPlane, Security, Server, UserInfo, authn::StaticTokens, bootstrap, serve},
};
use rk_store::{DurableOptions, DurableStore, Revision, Store};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::log::{Log, NAMESPACES, PATIENCE};

/// What the recent changes of the custom resource may hold: so little that watches have to read the store's history.
const BUDGET: usize = 256 << 10;

/// The clients of one life of the control plane.
pub struct Plane {
    /// Which life.
    pub life: u64,
    local: Arc<dyn Client>,
    http1: Arc<dyn Client>,
    http2: Arc<dyn Client>,
}

impl Plane {
    /// A client by number: half of them are in the server's process, the others over a socket, with HTTP/1.1 or HTTP/2.
    pub fn client(&self, number: usize) -> &dyn Client {
        match number % 4 {
            1 => &*self.http1,
            3 => &*self.http2,
            _ => &*self.local,
        }
    }
}

/// Whether the client of this number is in the server's process, where nobody ends its watches but itself.
pub fn is_local(number: usize) -> bool {
    number.is_multiple_of(2)
}

/// How the control plane ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The server says goodbye, then the store is closed.
    Orderly,
    /// The store goes under the running server, which goes so much later.
    StoreFirst(Duration),
}

/// What the actors of the soak share.
pub struct World {
    /// The control plane; `None` between two lives.
    plane: watch::Sender<Option<Arc<Plane>>>,
    /// Counts lives; the next one begins with the end of the one before.
    life: watch::Sender<u64>,
    pub log: Log,
    /// What is compacted, at most.
    pub compacted: AtomicU64,
    /// The last revision that a client was told of.
    pub acknowledged: AtomicU64,
    /// Numbers of writes.
    pub serials: AtomicU64,
    /// When it is over.
    pub over: CancellationToken,
}

impl World {
    pub fn new(log: Log) -> Self {
        Self {
            plane: watch::channel(None).0,
            life: watch::channel(0).0,
            log,
            compacted: AtomicU64::default(),
            acknowledged: AtomicU64::default(),
            serials: AtomicU64::new(1),
            over: CancellationToken::new(),
        }
    }

    /// The control plane as soon as it is there.
    pub async fn plane(&self) -> Arc<Plane> {
        let mut plane = self.plane.subscribe();
        let up = timeout(PATIENCE, plane.wait_for(Option::is_some)).await.expect("the control plane comes back");
        up.expect("the world outlives its actors").clone().expect("it is there")
    }

    /// Until this life is over.
    pub async fn end_of(&self, life: u64) {
        let mut lives = self.life.subscribe();
        lives.wait_for(|now| *now != life).await.expect("the world outlives its actors");
    }

    /// Takes an error that comes of a life's end; no other one may come.
    pub fn excuse(&self, life: u64, what: &str, error: &Error) {
        assert!(*self.life.borrow() != life, "{what}: {} {error}", error.code());
    }

    pub fn acknowledge(&self, revision: Revision) {
        self.acknowledged.fetch_max(revision, Ordering::SeqCst);
    }
}

/// A running control plane.
pub struct Running {
    pub store: Arc<DurableStore>,
    server: Server,
    stop: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
    following: JoinHandle<()>,
}

/// Makes, over a socket, the requests that a client of the API makes.
fn http(address: SocketAddr, http2: bool) -> Arc<dyn Client> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = HttpClient::builder(TokioExecutor::new()).http2_only(http2).build(connector);
    let service = client.map_request(move |mut request: Request<kube::client::Body>| {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = format!("http://{address}{path}").parse().expect("a URL");
        request.headers_mut().insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer admin"));
        request
    });
    Arc::new(RemoteClient::new(kube::Client::new(service, "default")))
}

impl Running {
    /// Opens the folder, and shows the actors what is there.
    pub async fn start(folder: &Path, world: &Arc<World>) -> Self {
        let store = Arc::new(DurableStore::open(folder, DurableOptions::default()).await.expect("the store opens"));
        let following = tokio::spawn({
            let (store, world) = (store.clone(), world.clone());
            async move { world.log.follow(&*store).await }
        });
        let admin = UserInfo::new("admin", ["system:masters"]);
        let tokens = StaticTokens::new([("admin".to_owned(), admin)]);
        let server = ControlPlane::builder()
            .store(store.clone())
            .security(Security { tokens, ..Security::default() })
            .bootstrap(bootstrap::Config::default())
            .cache_budget("soak.example.com", "samples", BUDGET)
            .build()
            .await
            .expect("the server starts");
        let schema = json!({"type": "object", "properties": {
            "data": {"type": "object", "additionalProperties": {"type": "string"}}}});
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "samples.soak.example.com"}, "spec": {"group": "soak.example.com",
                "scope": "Namespaced", "names": {"plural": "samples", "singular": "sample", "kind": "Sample"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
        server.define(definition).await.expect("the definition is served");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, server.service(), None, stop.clone()));
        let local = server.client(UserInfo::new("admin", ["system:masters"]));
        let life = *world.life.borrow();
        let plane = Plane { life, local, http1: http(address, false), http2: http(address, true) };
        world.plane.send_replace(Some(Arc::new(plane)));
        Self { store, server, stop, serving, following }
    }

    /// Makes what the soak needs once: namespaces, and the webhooks' configurations.
    pub async fn prepare(&self, webhooks: [(&str, Value); 2]) {
        let client = self.server.client(UserInfo::loopback());
        for name in NAMESPACES {
            let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
            Api::<Namespace>::all(client.clone()).create(&namespace).await.unwrap();
        }
        for (kind, body) in webhooks {
            let resource = self.server.resource_of("admissionregistration.k8s.io/v1", kind).unwrap();
            let request = rk_api::Request {
                resource,
                namespace: String::new(),
                name: String::new(),
                subresource: String::new(),
                verb: rk_api::Verb::Create(body, rk_api::WriteOptions::default()),
            };
            client.request(request).await.unwrap();
        }
    }

    /// Ends it; a handle that shows whether everything of it is gone.
    pub async fn end(self, world: &World, ending: Ending) -> Weak<DurableStore> {
        world.life.send_modify(|life| *life += 1);
        world.plane.send_replace(None);
        let Self { store, server, stop, serving, following } = self;
        if let Ending::StoreFirst(before) = ending {
            store.close().await;
            tokio::time::sleep(before).await;
        }
        stop.cancel();
        let served = timeout(PATIENCE, serving).await.expect("the server ends");
        served.expect("the server does not panic").expect("the server serves");
        drop(server);
        store.close().await;
        timeout(PATIENCE, following).await.expect("the log ends with the store").expect("the log is in order");
        Arc::downgrade(&store)
    }
}

/// Compacts what the log has, which is compared with the store's history before.
pub async fn compact(store: &dyn Store, world: &World, to: Revision) {
    let before = world.compacted.fetch_max(to, Ordering::SeqCst);
    world.log.verify(store, before.max(world.log.began), to).await;
    store.compact(to).await.expect("the store compacts");
}
