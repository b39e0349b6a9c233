//! For authors of reconcilers: the conformance suite of [`Reconcile`](crate::Reconcile) (feature `testing`).
//!
//! ```
//! use std::sync::Arc;
//! use async_trait::async_trait;
//! use rk_api::{Informers, Patch, k8s_openapi::api::core::v1::ConfigMap};
//! use rk_controller::{Action, Context, Controller, Error, Reconcile, testing};
//! use serde_json::json;
//!
//! /// Labels each ConfigMap.
//! struct Labels;
//!
//! #[async_trait]
//! impl Reconcile for Labels {
//!     type Object = ConfigMap;
//!
//!     async fn reconcile(&self, map: Arc<ConfigMap>, context: &Context) -> Result<Action, Error> {
//!         let meta = &map.metadata;
//!         if meta.labels.as_ref().is_some_and(|labels| labels.contains_key("seen")) {
//!             return Ok(Action::await_change());
//!         }
//!         let patch = Patch::merge(json!({"metadata": {"labels": {"seen": "yes"}}}));
//!         let maps = context.api::<ConfigMap>(meta.namespace.as_deref().unwrap_or_default());
//!         maps.patch(meta.name.as_deref().unwrap_or_default(), patch).await?;
//!         Ok(Action::await_change())
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?.block_on(async {
//! // In a test: #[tokio::test(start_paused = true)].
//! let world = async |control_plane: &rk_api::testing::TestControlPlane| {
//!     let mut map = ConfigMap::default();
//!     map.metadata.name = Some("settings".to_owned());
//!     control_plane.api("default").create(&map).await.map(drop)
//! };
//! let labels = |client, stop| async move {
//!     Controller::new("labels", Labels, &Informers::new(client)).run(stop).await;
//! };
//! testing::conformance(world, labels).await;
//! # });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod faults;
mod world;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rk_api::{Client, testing::TestControlPlane};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use faults::{Fault, FaultyClient};

/// How long nothing is written in a world that has settled: longer than what controllers wait for, such as a Deployment's
/// `progressDeadlineSeconds`.
const QUIET: Duration = Duration::from_secs(30 * 60);

/// How many such times may pass before a world has settled.
const PATIENCE: usize = 20;

/// At most so many writes have faults.
const MOST_FAULTS: usize = 100;

/// Checks what a reconciler promises, which is to be idempotent:
///
/// 1. It settles: when others change nothing, it changes nothing any more after a while.
/// 2. A new instance in the world that an old one has left changes nothing.
/// 3. A write that fails is made good, and so is one that is done though its answer was lost.
/// 4. What an instance leaves undone that ends at any write, before or after the write is done, a new one completes.
///
/// That is, after each of the faults in 3 and 4 at each of the first 100 writes, the objects of all collections that the
/// reconciler has written are as they are without any fault, but for names that the server makes up, uids, times, and what counts
/// versions. Events are no part of it.
///
/// `world` creates the objects to start from, and `start` runs an instance on a client until the token is cancelled: a
/// [`Controller`](crate::Controller), a [`ControllerManager`](crate::ControllerManager), or several of them. The clock is tokio's and
/// must be paused (`start_paused`), for the suite waits for hours.
///
/// # Panics
/// A promise is broken, or the world can't be created.
pub async fn conformance<W, S, F>(world: W, start: S)
where
    W: AsyncFn(&TestControlPlane) -> Result<(), rk_api::Error>,
    S: Fn(Arc<dyn Client>, CancellationToken) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let trial = Trial::new(&world, None).await;
    let instance = Instance::start(&trial, &start);
    trial.settle("a first instance").await;
    let writes = trial.client.writes();
    let written: BTreeSet<_> = writes.iter().map(|write| write.collection.clone()).collect();
    let wanted = world::state(&trial.control_plane, &written).await;
    instance.end();
    let instance = Instance::start(&trial, &start);
    let before = trial.client.changes();
    trial.settle("a second instance").await;
    assert_eq!(
        trial.client.changes(),
        before,
        "a new instance wrote {:?}",
        trial.client.writes().split_off(writes.len())
    );
    instance.end();
    for (at, write) in writes.iter().enumerate().take(MOST_FAULTS) {
        for fault in Fault::ALL {
            let trial = Trial::new(&world, Some((at, fault))).await;
            let instance = Instance::start(&trial, &start);
            let what = format!("write {at} ({write:?}) {fault}");
            let instance = tokio::select! {
                () = trial.client.ended() => {
                    instance.end();
                    trial.client.revive();
                    Instance::start(&trial, &start)
                }
                () = trial.settle(&what) => instance,
            };
            trial.settle(&what).await;
            let state = world::state(&trial.control_plane, &written).await;
            let (missing, surplus) = (without(&wanted, &state), without(&state, &wanted));
            assert!(
                missing.is_empty() && surplus.is_empty(),
                "after {what} there is {surplus:#?} in place of {missing:#?}"
            );
            instance.end();
        }
    }
}

/// Those of the first that are not among the others.
fn without<'a>(some: &'a [String], others: &[String]) -> Vec<&'a String> {
    let mut left: Vec<_> = others.iter().collect();
    let mut taken = |object: &String| left.iter().position(|other| *other == object).map(|at| left.swap_remove(at));
    some.iter().filter(|object| taken(object).is_none()).collect()
}

/// A world of its own with one fault.
struct Trial {
    control_plane: TestControlPlane,
    client: Arc<FaultyClient>,
}

impl Trial {
    async fn new<W>(world: &W, fault: Option<(usize, Fault)>) -> Self
    where
        W: AsyncFn(&TestControlPlane) -> Result<(), rk_api::Error>,
    {
        let control_plane = TestControlPlane::start().await.unwrap_or_else(|error| panic!("no control plane: {error}"));
        world(&control_plane).await.unwrap_or_else(|error| panic!("the world can't be created: {error}"));
        let client = Arc::new(FaultyClient::new(control_plane.client(), fault));
        Self { control_plane, client }
    }

    /// Waits until nothing changes any more.
    async fn settle(&self, what: &str) {
        let mut before = self.client.changes();
        for _ in 0..PATIENCE {
            tokio::time::sleep(QUIET).await;
            let now = self.client.changes();
            if now == before {
                return;
            }
            before = now;
        }
        let writes = self.client.writes();
        panic!("{what} does not settle; the last writes: {:?}", &writes[writes.len().saturating_sub(5)..]);
    }
}

/// A running instance.
struct Instance(JoinHandle<()>);

impl Instance {
    fn start<F: Future<Output = ()> + Send + 'static>(
        trial: &Trial,
        start: impl Fn(Arc<dyn Client>, CancellationToken) -> F,
    ) -> Self {
        let client: Arc<dyn Client> = Arc::clone(&trial.client) as _;
        Self(tokio::spawn(start(client, CancellationToken::new())))
    }

    /// Ends it as a crash does.
    fn end(self) {
        self.0.abort();
    }
}
