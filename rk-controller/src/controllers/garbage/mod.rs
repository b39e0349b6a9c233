//! The garbage collector: objects go when their last owner has gone.
//!
//! A task follows every resource and keeps the graph of owners and dependents (`graph`); what a change may have freed
//! is queued, and workers (`collect`) decide on each object by what the API server itself says of it and its
//! owners, so that an old graph never deletes anything. Deletions are in the background (the owner goes first), in the
//! foreground (an owner with the finalizer `foregroundDeletion` goes last) or orphan the dependents (an owner with
//! the finalizer `orphan`).

mod collect;
mod graph;

use std::{collections::HashMap, sync::Arc, time::Duration};

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
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::SYNC_TIMEOUT;
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

/// How long a resource is followed after its definition went: the end of its objects may be told later.
const SETTLE: Duration = Duration::from_secs(30);
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
        custom: HashMap::new(),
    };
    let mut followed = Vec::new();
    for resource in resources.into_iter().filter(|resource| !skipped.contains(resource)) {
        followed.push(watcher.follow(resource, CancellationToken::new()));
    }
    // What the graph does not know is asked.
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
    /// The resources of definitions; each is followed until its guard is dropped.
    custom: HashMap<Resource, DropGuard>,
}

impl Watcher {
    fn follow(&mut self, resource: Resource, until: CancellationToken) -> Informer {
        let informer = self.informers.resource(resource.clone());
        let mut changes = informer.subscribe();
        // The handle goes with the stream: it keeps the informer running.
        let handle = informer.clone();
        self.known.write().push(resource.clone());
        let changes = futures::stream::poll_fn(move |cx| {
            let _running = &handle;
            changes.poll_recv(cx)
        });
        let changes = changes.map(move |change| (resource.clone(), change));
        let until = async move {
            until.cancelled().await;
            sleep(SETTLE).await;
        };
        self.changes.push(changes.take_until(Box::pin(until)).boxed());
        informer
    }

    /// Follows the resources of these definitions, and soon no others.
    fn define(&mut self, defined: &[Resource]) {
        for resource in defined.iter().filter(|resource| !self.known.read().contains(resource)).collect::<Vec<_>>() {
            let until = CancellationToken::new();
            self.follow(resource.clone(), until.clone());
            self.custom.insert(resource.clone(), until.drop_guard());
        }
        for (gone, _) in self.custom.extract_if(|resource, _| !defined.contains(resource)) {
            self.known.write().retain(|resource| *resource != gone);
            self.informers.forget(&gone);
        }
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
                    self.define(&resources::custom(&definitions));
                }
                () = stop.cancelled() => return,
                else => return,
            }
        }
    }
}
