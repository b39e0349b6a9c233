//! The node agent: pods into containers, through the CRI, CNI and CSI contracts.
//!
//! - [`Node`]: the agent, a kubelet in small: it registers a Node, keeps its lease and status, runs the pods that are
//!   bound to it (and static pods from a folder), and serves the kubelet API (logs, exec, attach, port-forward).
//!   Many agents run in one process, each with its own [`NodeConfig`].
//! - [`runtime`]: the contract with what runs containers, with the CRI's names and messages.
//! - [`process`] (feature): a runtime whose containers are processes of the host: no images, no privileges.
//! - `cri` (feature): a runtime that is containerd, or another, behind its CRI socket.
//! - [`NetworkPlugin`]: the contract of pod networks; [`Loopback`] gives each pod an address of a part of 127/8.
//! - `testing` (feature): the contracts' conformance suites.
//!
//! A pod from the API to its end:
//!
#![cfg_attr(feature = "process", doc = "```")]
#![cfg_attr(not(feature = "process"), doc = "```ignore")]
//! use std::sync::Arc;
//! use rk_api::{Api, k8s_openapi::api::core::v1::Pod, server::{Server, UserInfo}};
//! use rk_node::{Loopback, Node, NodeConfig, process::{ProcessConfig, ProcessRuntime}};
//! use rk_store::MemoryStore;
//! use tokio_util::sync::CancellationToken;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let data = folder.path();
//! let server = Server::builder(Arc::new(MemoryStore::new())).build().await?;
//! let client = server.client(UserInfo::loopback());
//! let network = Arc::new(Loopback::new("127.98.1.0/24", &data.join("network"))?);
//! let runtime = ProcessRuntime::open(ProcessConfig::new(data.join("runtime")), network).await?;
//! let mut config = NodeConfig::new("node-1", data.join("node"), runtime);
//! config.port = 0;
//! let shutdown = CancellationToken::new();
//! let node = tokio::spawn(Node::new(client.clone(), config).run(shutdown.clone()));
//!
//! # Api::all(client.clone()).create(&serde_json::from_str::<rk_api::k8s_openapi::api::core::v1::Namespace>(
//! #     r#"{"metadata": {"name": "default"}}"#)?).await?;
//! let pods = Api::<Pod>::namespaced(client, "default");
//! let hello = r#"{"metadata": {"name": "hello"}, "spec": {"nodeName": "node-1", "restartPolicy": "Never",
//!     "containers": [{"name": "main", "image": "host", "command": ["echo", "hello"]}]}}"#;
//! pods.create(&serde_json::from_str(hello)?).await?;
//! while pods.get("hello").await?.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Succeeded") {
//!     tokio::time::sleep(std::time::Duration::from_millis(10)).await;
//! }
//! shutdown.cancel();
//! node.await??;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cgroups;
mod config;
#[cfg(feature = "cri")]
pub mod cri;
mod fsutil;
mod network;
mod node;
mod objects;
mod pod;
mod probe;
#[cfg(feature = "process")]
pub mod process;
pub mod runtime;
mod server;
mod shared;
pub mod spdy;
#[cfg(feature = "testing")]
pub mod testing;
mod volume;

pub use config::{Identity, NodeConfig};
pub use network::{Loopback, NetworkError, NetworkPlugin, NetworkRequest};
pub use node::{Node, NodeError};
pub use server::ServerError;
