//! The audit log: who asked for what, and what came of it
//! (<https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/>). Requests over HTTP are audited; clients in this process are
//! the server's own parts.
//!
//! [`AuditPolicy`] says how much of which request is noted; a [`Trail`] follows one request; an [`AuditSink`] takes the events,
//! as lines of JSON, without making the request wait. [`AuditLog`] is the sink that writes a file.

mod log;
mod policy;
mod trail;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;

pub use log::{AuditLog, AuditLogOptions};
pub use policy::{AuditPolicy, AuditPolicyError};
pub(crate) use trail::{Asked, Trail};

use super::UserInfo;

/// Takes audit events.
pub trait AuditSink: Send + Sync + 'static {
    /// Takes an event, a line of JSON without its end. It must not wait for a disk or a network.
    fn take(&self, event: Bytes);
}

/// What is audited, and where to.
#[derive(Clone)]
pub(crate) struct Audit {
    pub(crate) policy: Arc<AuditPolicy>,
    pub(crate) sink: Arc<dyn AuditSink>,
}

/// What those who work on a request note for its event.
#[derive(Default)]
pub(crate) struct Notes {
    annotations: Mutex<BTreeMap<String, String>>,
    /// As whom the request is made, and by which verb if that is one of constrained impersonation.
    impersonated: Mutex<Option<(Arc<UserInfo>, Option<String>)>>,
}

tokio::task_local! {
    /// The notes of the request that this task works on.
    static NOTES: Arc<Notes>;
}

/// Notes something for the event of the request that is worked on, if it is audited. The first value of a key stays.
pub(crate) fn annotate(key: &str, value: impl FnOnce() -> String) {
    // Outside of an audited request there is nobody to note it for.
    let _ = NOTES.try_with(|notes| {
        notes.annotations.lock().entry(key.to_owned()).or_insert_with(value);
    });
}

/// The same for what is decided on the way more than once: the last word counts. Who may act as somebody else, say, may not
/// do everything as them.
pub(crate) fn decide(key: &str, value: impl FnOnce() -> String) {
    let _ = NOTES.try_with(|notes| notes.annotations.lock().insert(key.to_owned(), value()));
}

/// Takes back what was decided on the way.
pub(crate) fn undecide(key: &str) {
    let _ = NOTES.try_with(|notes| notes.annotations.lock().remove(key));
}

/// Notes as whom the request is made, and by which verb of constrained impersonation, if by one.
pub(crate) fn impersonated(user: &Arc<UserInfo>, constraint: Option<String>) {
    let _ = NOTES.try_with(|notes| *notes.impersonated.lock() = Some((Arc::clone(user), constraint)));
}
