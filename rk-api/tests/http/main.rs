//! What clients see over HTTP: forms of answers, documents that are known already, subresources of pods, metrics.
#![cfg(feature = "server")]
#![allow(missing_docs)]

mod api;
mod documents;
mod forms;
mod lists;
mod metrics;
mod pods;
mod writes;
