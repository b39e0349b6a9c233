//! A whole group in a deterministic simulation, and the checkers of what its clients saw.

pub mod kv;
pub mod linear;
