//! Reconcile loops: workqueue, controller runtime, and the Kubernetes controllers built on them.
//!
//! - [`Reconcile`] and [`Controller`]: write what one kind of object means; run it on any [`rk_api::Client`].
//! - [`workqueue`]: keys to work on, each once, failed ones later each time.
//! - [`leader`]: of several copies of a program one works.
//! - `testing` (feature): the conformance suite of [`Reconcile`]: each write fails once, and each is the last of its writer.
//! - [`controllers`]: Kubernetes' own, one module each; [`ControllerManager`] runs them all on shared informers.
//!
//! ```no_run
//! use std::sync::Arc;
//! use rk_controller::{ControllerManager, ManagerConfig};
//! use tokio_util::sync::CancellationToken;
//!
//! /// What kube-controller-manager does, without one of its controllers.
//! async fn run(client: Arc<dyn rk_api::Client>, shutdown: CancellationToken) {
//!     let controllers = vec!["*".to_owned(), "-cronjob-controller".to_owned()];
//!     let config = ManagerConfig { controllers, ..ManagerConfig::default() };
//!     ControllerManager::new(client, config).run(shutdown).await;
//! }
//! ```

mod common;
pub mod controllers;
mod error;
pub mod leader;
mod manager;
pub mod resources;
mod runtime;
#[cfg(feature = "testing")]
pub mod testing;
pub mod workqueue;

pub use error::Error;
pub use manager::{ControllerManager, ManagerConfig, controllers as controller_names};
pub use runtime::{Action, Context, Controller, Expectations, Reconcile};
pub use workqueue::WorkQueue;
