//! Scheduling with no cluster.
//!
//! [`Simulator`] places pods one by one in memory, in microseconds: to test a plugin against a handful of nodes.

mod simulator;

pub use self::simulator::{Simulator, Unplaced};
