//! Reconcile loops: workqueue, controller runtime, and the Kubernetes controllers built on them.

mod common;
pub mod controllers;
mod error;
pub mod leader;
mod manager;
pub mod resources;
mod runtime;
pub mod workqueue;

pub use error::Error;
pub use manager::{ControllerManager, ManagerConfig, controllers as controller_names};
pub use runtime::{Action, Context, Controller, Expectations, Reconcile};
pub use workqueue::WorkQueue;
