//! The Kubernetes scheduler as a framework of plugins, and the default profile.
//!
//! - [`framework`]: the extension points and their contracts. A plugin is a struct that implements
//!   [`Plugin`](framework::Plugin) and the traits of its points.
//! - [`plugins`]: the plugins of Kubernetes' default profile.
//! - [`model`]: what plugins see: pods, nodes, and the snapshot of them all.
//! - [`queue`]: the order in which pods are tried.
//! - [`engine`]: queue, snapshot and cycles together, without an API.
//! - [`config`]: Kubernetes' configuration file, and plugins by name.
//! - `extender` (feature): extenders over HTTP.
//! - [`simulate`]: scheduling in memory, with no cluster.
//! - [`Scheduler`]: the component: `Scheduler::new(client, config)?.run(shutdown)`.
//!
//! # A score plugin
//! ```
//! use rk_sched::{Profile, Registration, framework::*, model::*, simulate::Simulator};
//!
//! /// Better a node whose label `power` says `green`.
//! struct GreenPower;
//!
//! impl Plugin for GreenPower {
//!     fn name(&self) -> &'static str {
//!         "GreenPower"
//!     }
//! }
//!
//! impl Score for GreenPower {
//!     fn score(&self, _: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
//!         let green = node.labels().get("power").is_some_and(|power| power == "green");
//!         Ok(if green { MAX_SCORE } else { MIN_SCORE })
//!     }
//! }
//!
//! # fn object<K: serde::de::DeserializeOwned>(json: serde_json::Value) -> K { serde_json::from_value(json).unwrap() }
//! # use serde_json::json;
//! # let node = |name: &str, power: &str| object(json!({
//! #     "metadata": {"name": name, "labels": {"power": power}},
//! #     "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
//! # }));
//! # let pod = || object(json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": []}}));
//! let profile = Profile::kubernetes("default-scheduler").with(Registration::new(GreenPower).score(10));
//! let mut cluster = Simulator::new(profile, 42);
//! cluster.set_node(node("coal", "grey"));
//! cluster.set_node(node("wind", "green"));
//! assert_eq!(&*cluster.schedule(pod())?, "wind");
//! # Ok::<(), rk_sched::simulate::Unplaced>(())
//! ```

pub mod config;
mod cycle;
pub mod engine;
#[cfg(feature = "extender")]
pub mod extender;
pub mod framework;
pub mod model;
pub mod plugins;
pub mod queue;
mod scheduler;
pub mod simulate;
#[cfg(feature = "testing")]
pub mod testing;
mod time;

pub use framework::{Profile, Registration};
pub use scheduler::{ConfigError, Scheduler, SchedulerConfig};
