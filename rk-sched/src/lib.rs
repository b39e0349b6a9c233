//! The Kubernetes scheduler as a framework of plugins, and the default profile.
//!
//! - [`framework`]: the extension points and their contracts. A plugin is a struct that implements
//!   [`Plugin`](framework::Plugin) and the traits of its points.
//! - [`plugins`]: the plugins of Kubernetes' default profile.
//! - [`model`]: what plugins see: pods, nodes, and the snapshot of them all.
//! - [`queue`]: the order in which pods are tried.
//! - [`Scheduler`]: the component: `Scheduler::new(client, config)?.run(shutdown)`.

mod cycle;
pub mod framework;
pub mod model;
pub mod plugins;
pub mod queue;
mod scheduler;

pub use framework::{Profile, Registration};
pub use scheduler::{ConfigError, Scheduler, SchedulerConfig};
