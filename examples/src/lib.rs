//! The crates assembled: a miniature cluster, as a library for its binary and its tests.
//!
//! [`cluster::Cluster`] starts everything in one process: the durable store, the API server over
//! HTTPS, the controllers, the scheduler, the service proxy with its ingress, and the nodes. The
//! smaller programs to start from are this package's `examples/`.

pub mod cluster;
pub mod demo;
pub mod display;
pub mod options;
