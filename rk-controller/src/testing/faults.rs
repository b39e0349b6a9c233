//! A client of which one write goes wrong.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use parking_lot::Mutex;
use rk_api::{
    Client, DeleteOptions, Error, EventStream, List, ListOptions, Object, Request, Resource, Verb, WatchOptions,
};
use tokio::sync::watch;

use super::world::Collection;

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails.
    Fails,
    /// It is done, and the answer is an error.
    AnswerLost,
    /// Its writer ends before it is done.
    EndsBefore,
    /// Its writer ends when it is done.
    EndsAfter,
}

impl Fault {
    pub const ALL: [Self; 4] = [Self::Fails, Self::AnswerLost, Self::EndsBefore, Self::EndsAfter];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fails => "failed",
            Self::AnswerLost => "was done and its answer lost",
            Self::EndsBefore => "was not done, for its writer ended",
            Self::EndsAfter => "was the last of its writer",
        })
    }
}

/// A write that was asked for.
#[derive(Clone)]
pub(super) struct Write {
    pub collection: Collection,
    verb: &'static str,
    object: String,
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.verb, self.collection.kind, self.object)
    }
}

/// Counts writes, and lets one go wrong.
pub(super) struct FaultyClient {
    inner: Arc<dyn Client>,
    fault: Option<(usize, Fault)>,
    writes: Mutex<Vec<Write>>,
    /// Writes that changed something.
    changes: AtomicUsize,
    newest: AtomicU64,
    /// Whether the writer has ended; what it asks then is never answered.
    ended: watch::Sender<bool>,
}

impl FaultyClient {
    /// A client of which the write with this number (from 0) has a fault.
    pub fn new(inner: Arc<dyn Client>, fault: Option<(usize, Fault)>) -> Self {
        let (ended, _) = watch::channel(false);
        Self { inner, fault, writes: Mutex::default(), changes: AtomicUsize::new(0), newest: AtomicU64::new(0), ended }
    }

    pub fn writes(&self) -> Vec<Write> {
        self.writes.lock().clone()
    }

    pub fn changes(&self) -> usize {
        self.changes.load(Ordering::Relaxed)
    }

    /// Waits until the fault ends the writer.
    pub async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender is this client's own.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Serves a new writer.
    pub fn revive(&self) {
        self.ended.send_replace(false);
    }

    async fn write<T>(
        &self,
        write: Write,
        done: impl Future<Output = Result<T, Error>>,
        revision: impl Fn(&T) -> Option<u64>,
    ) -> Result<T, Error> {
        if *self.ended.borrow() {
            return std::future::pending().await;
        }
        let at = {
            let mut writes = self.writes.lock();
            writes.push(write);
            writes.len() - 1
        };
        let fault = self.fault.filter(|(number, _)| *number == at).map(|(_, fault)| fault);
        if fault == Some(Fault::EndsBefore) {
            self.ended.send_replace(true);
            return std::future::pending().await;
        }
        if fault == Some(Fault::Fails) {
            return Err(Error::Transport("this write fails".to_owned()));
        }
        let answer = done.await;
        if let Ok(answer) = &answer {
            // The version of an object that was not changed is an old one.
            let changed = match revision(answer) {
                Some(revision) => self.newest.fetch_max(revision, Ordering::Relaxed) < revision,
                None => true,
            };
            self.changes.fetch_add(usize::from(changed), Ordering::Relaxed);
        }
        match fault {
            Some(Fault::EndsAfter) => {
                self.ended.send_replace(true);
                std::future::pending().await
            }
            Some(Fault::AnswerLost) => Err(Error::Transport("the answer of this write is lost".to_owned())),
            _ => answer,
        }
    }
}

fn write_of(resource: &Resource, verb: &'static str, namespace: &str, name: &str) -> Write {
    let collection = Collection { api_version: resource.api_version(), kind: resource.kind.to_string() };
    Write { collection, verb, object: format!("{namespace}/{name}") }
}

#[async_trait]
impl Client for FaultyClient {
    async fn request(&self, request: Request) -> Result<Arc<Object>, Error> {
        let verb = match &request.verb {
            Verb::Get => return self.inner.request(request).await,
            // What people are told is no part of the world.
            _ if request.resource.plural == "events" => return self.inner.request(request).await,
            Verb::Create(..) => "create",
            Verb::Update(..) => "update",
            Verb::Patch(..) => "patch",
            Verb::Delete(_) => "delete",
        };
        let write = write_of(&request.resource, verb, &request.namespace, &request.name);
        let revision = |object: &Arc<Object>| (verb != "delete").then(|| object.revision());
        self.write(write, self.inner.request(request), revision).await
    }

    async fn list(&self, resource: &Resource, namespace: &str, options: ListOptions) -> Result<List, Error> {
        self.inner.list(resource, namespace, options).await
    }

    async fn watch(&self, resource: &Resource, namespace: &str, options: WatchOptions) -> Result<EventStream, Error> {
        self.inner.watch(resource, namespace, options).await
    }

    async fn delete_collection(
        &self,
        resource: &Resource,
        namespace: &str,
        delete: DeleteOptions,
        list: ListOptions,
    ) -> Result<(), Error> {
        let write = write_of(resource, "delete all", namespace, "");
        self.write(write, self.inner.delete_collection(resource, namespace, delete, list), |()| None).await
    }
}
