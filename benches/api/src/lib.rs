//! What a Kubernetes API does per second, and what that costs its server.
//!
//! ```text
//! options ─► target: a kubeconfig, or a server started here ─► rows: load, figures ─► table
//!                                                               │
//!                       load ─► http2: a connection's requests ─► wire: TCP, TLS
//! ```
//! The load comes from one thread that looks at no header and parses no JSON, so that a server on the same cores has most of
//! them. Servers are told apart by nothing: whatever a kubeconfig leads to can be measured.

pub mod http2;
pub mod kubeconfig;
pub mod load;
pub mod options;
pub mod plan;
pub mod rows;
pub mod table;
pub mod target;
pub mod wire;

pub use rk_benches_common::{build, process, progress, stats};
