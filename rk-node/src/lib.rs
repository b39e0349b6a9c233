//! The node agent: pods into containers, through the CRI, CNI and CSI contracts.

mod config;
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
mod volume;

pub use config::{Identity, NodeConfig};
pub use network::{Loopback, NetworkError, NetworkPlugin, NetworkRequest};
pub use node::{Node, NodeError};
pub use server::ServerError;
