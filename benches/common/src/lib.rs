//! What the load generators share.

pub mod build;
pub mod load;
pub mod process;
pub mod progress;
pub mod stats;
