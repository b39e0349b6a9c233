//! Scheduling with no cluster.
//!
//! [`Simulator`] places pods one by one in memory, in microseconds: to test a plugin against a handful of nodes.
//!
//! The rest, with the feature `simulate`, is a laboratory: [`simulate`] runs a [`Workload`] on virtual nodes in virtual time, around the same
//! [`Engine`](crate::engine::Engine) that schedules in a cluster. Pods arrive, run, fail and are replaced; nodes leave and come
//! back; plugins bind pods through an API whose answers take their time and may be a no. The same seed gives the same run.

#[cfg(feature = "simulate")]
mod allocate;
#[cfg(feature = "simulate")]
mod api;
#[cfg(feature = "simulate")]
mod clock;
#[cfg(feature = "simulate")]
mod controllers;
#[cfg(feature = "simulate")]
mod experiment;
#[cfg(feature = "simulate")]
mod explain;
#[cfg(feature = "simulate")]
mod happenings;
#[cfg(feature = "simulate")]
pub mod manifests;
#[cfg(feature = "simulate")]
pub mod objects;
#[cfg(feature = "simulate")]
mod options;
#[cfg(feature = "simulate")]
mod outside;
#[cfg(feature = "simulate")]
pub mod perf;
#[cfg(feature = "simulate")]
mod pods;
#[cfg(feature = "simulate")]
mod record;
#[cfg(feature = "simulate")]
pub mod report;
#[cfg(feature = "simulate")]
mod simulation;
mod simulator;
#[cfg(feature = "simulate")]
pub mod statistics;
#[cfg(feature = "simulate")]
mod store;
#[cfg(feature = "simulate")]
mod template;
#[cfg(feature = "simulate")]
pub mod trace;
#[cfg(feature = "simulate")]
mod virtual_time;
#[cfg(feature = "simulate")]
mod volumes;
#[cfg(feature = "simulate")]
pub mod workload;

pub use self::simulator::{Simulator, Unplaced};
#[cfg(feature = "simulate")]
pub use self::{
    experiment::{Comparison, Experiment, Outcome, Variant},
    explain::Explained,
    options::{NodeChurn, Options, OptionsError},
    record::{Sample, Summary},
    simulation::{Progress, Run, SimulationError, simulate},
    workload::Workload,
};
