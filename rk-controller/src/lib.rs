//! Reconcile loops: workqueue, controller runtime, and the Kubernetes controllers built on them.

mod error;
mod runtime;
pub mod workqueue;

pub use error::Error;
pub use runtime::{Action, Context, Controller, Expectations, Reconcile};
pub use workqueue::WorkQueue;
