//! What the load generators share.

pub mod load;
pub mod process;
pub mod progress;
pub mod stats;
