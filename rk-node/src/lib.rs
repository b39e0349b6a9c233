//! The node agent: pods into containers, through the CRI, CNI and CSI contracts.

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
