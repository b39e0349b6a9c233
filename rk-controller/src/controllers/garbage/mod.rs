//! The garbage collector: objects go when their last owner has gone.
//!
//! A task follows every resource and keeps the graph of owners and dependents (`graph`); what a change may have freed
//! is queued, and workers (`collect`) decide on each object by what the API server itself says of it and its
//! owners, so that an old graph never deletes anything. Deletions are in the background (the owner goes first), in the
//! foreground (an owner with the finalizer `foregroundDeletion` goes last) or orphan the dependents (an owner with
//! the finalizer `orphan`).

mod collect;
mod graph;

use std::{sync::Arc, time::Duration};

use futures::{
    StreamExt,
    stream::{BoxStream, SelectAll},
};
use k8s_openapi::{
    api::{core::v1 as core, events::v1 as events},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use parking_lot::RwLock;
use rk_api::{Change, EventRecorder, Informer, Informers, Resource};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{resources, workqueue::WorkQueue};
use collect::Collector;
use graph::Graph;

/// The finalizer of an object that waits for its dependents to go.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents are to stay.
pub(crate) const ORPHAN: &str = "orphan";

/// What a worker is to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Work {
    /// The object of this uid may have lost its owners, or may be waiting for dependents that have gone.
    Collect(String),
    /// The dependents of the object of this uid are to be freed.
    Orphan(String),
}

/// How long a resource may take to be listed before the others start without it: what the graph does not know is asked.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);
const WORKERS: usize = 20;

/// Runs the garbage collector until `shutdown`, over `resources` and all custom ones. Events are left alone.
pub async fn run(informers: &Informers, resources: Vec<Resource>, shutdown: CancellationToken) {
    let definitions = informers.of::<CustomResourceDefinition>();
    let skipped = [Resource::of::<core::Event>(), Resource::of::<events::Event>()];
    let known = Arc::new(RwLock::new(Vec::new()));
    let mut watcher = Watcher {
        informers: informers.clone(),
        known: Arc::clone(&known),
        graph: Arc::default(),
        queue: WorkQueue::default(),
        changes: SelectAll::new(),
    };
    let mut followed = Vec::new();
    for resource in resources.into_iter().filter(|resource| !skipped.contains(resource)) {
        followed.push(watcher.follow(resource));
    }
    let sync = async {
        let deadline = Instant::now() + SYNC_TIMEOUT;
        for informer in followed.iter().chain([&definitions]) {
            if timeout_at(deadline, informer.synced()).await.is_err() {
                tracing::warn!("the garbage collector starts before every resource is listed");
                return;
            }
        }
    };
    tokio::select! {
        () = sync => {}
        () = shutdown.cancelled() => return,
    }

    let collector = Arc::new(Collector {
        client: Arc::clone(informers.client()),
        events: EventRecorder::new(Arc::clone(informers.client()), "garbage-collector-controller", ""),
        graph: Arc::clone(&watcher.graph),
        known,
        queue: watcher.queue.clone(),
    });
    let queue = watcher.queue.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(watcher.run(definitions, shutdown.clone()));
    for _ in 0..WORKERS {
        let collector = Arc::clone(&collector);
        tasks.spawn(async move { collector.run().await });
    }
    shutdown.cancelled().await;
    queue.shut_down();
    while tasks.join_next().await.is_some() {}
}

/// Feeds the graph.
struct Watcher {
    informers: Informers,
    known: Arc<RwLock<Vec<Resource>>>,
    graph: Arc<parking_lot::Mutex<Graph>>,
    queue: WorkQueue<Work>,
    changes: SelectAll<BoxStream<'static, (Resource, Change)>>,
}

impl Watcher {
    fn follow(&mut self, resource: Resource) -> Informer {
        let informer = self.informers.resource(resource.clone());
        let mut changes = informer.subscribe();
        // The handle goes with the stream: it keeps the informer running.
        let handle = informer.clone();
        self.known.write().push(resource.clone());
        let changes = futures::stream::poll_fn(move |cx| {
            let _running = &handle;
            changes.poll_recv(cx)
        });
        self.changes.push(changes.map(move |change| (resource.clone(), change)).boxed());
        informer
    }

    async fn run(mut self, definitions: Informer, stop: CancellationToken) {
        let mut defined = definitions.subscribe();
        loop {
            tokio::select! {
                Some((resource, change)) = self.changes.next() => {
                    let work = self.graph.lock().observe(&resource, &change);
                    for work in work {
                        self.queue.add(work);
                    }
                }
                Some(_) = defined.recv() => {
                    let new = resources::custom(&definitions);
                    let known = self.known.read().clone();
                    for resource in new.into_iter().filter(|resource| !known.contains(resource)) {
                        self.follow(resource);
                    }
                }
                () = stop.cancelled() => return,
                else => return,
            }
        }
    }
}
