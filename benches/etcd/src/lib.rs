//! rk-etcd beside etcd.
//!
//! ```text
//! options ─► plan: rows × rounds ─► cluster: fresh members of one peer ─► rows: load, figures ─► table
//!                                                                            │
//!                                                     load ─► http2: a connection's requests
//! ```
//! Each row is measured in rounds, and in each round on etcd, then on rk-etcd, so that what else the machine does
//! meets both. A ratio is the median of the rounds' own ratios.

pub mod cluster;
pub mod http2;
pub mod load;
pub mod messages;
pub mod options;
pub mod plan;
pub mod rows;
pub mod table;

pub use rk_benches_common::{build, process, progress, stats};
