//! Kubernetes' controllers, one module each.

pub mod deployment;
pub mod endpoints;
pub mod garbage;
pub mod job;
pub mod namespace;
pub mod node;
pub mod replicaset;
pub mod service_account;
