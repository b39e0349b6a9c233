//! For authors of plugins: a conformance suite, decisions asked one by one, and random clusters to try plugins on (feature
//! `testing`).
//!
//! ```
//! use rk_sched::{Profile, testing};
//!
//! testing::conformance(&Profile::kubernetes("default-scheduler"), 0..5)?;
//! # Ok::<(), testing::Violation>(())
//! ```

mod conformance;
mod decisions;
mod objects;
mod random;

pub use conformance::{Violation, conformance};
pub use decisions::{Decision, Decisions, only, queued};
pub use random::{random_node, random_pod};
