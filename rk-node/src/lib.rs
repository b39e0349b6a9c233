//! The node agent: pods into containers, through the CRI, CNI and CSI contracts.
pub mod spdy;
