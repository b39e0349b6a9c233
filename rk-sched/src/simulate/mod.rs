//! Scheduling with no cluster.
//!
//! [`Simulator`] places pods one by one in memory, in microseconds: to test a plugin against a handful of nodes.
//!
//! The rest, with the feature `simulate`, is a laboratory: [`simulate`] runs a [`Workload`] on virtual nodes in virtual time, around the same
//! [`Engine`](crate::engine::Engine) that schedules in a cluster. Pods arrive, run, fail and are replaced; nodes leave and come
//! back; bindings take their time and may fail. The same seed gives the same run.

#[cfg(feature = "simulate")]
mod clock;
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
mod template;
#[cfg(feature = "simulate")]
pub mod trace;
#[cfg(feature = "simulate")]
pub mod workload;

pub use self::simulator::{Simulator, Unplaced};
#[cfg(feature = "simulate")]
pub use self::{
    experiment::{Comparison, Experiment, Outcome, Variant},
    options::{NodeChurn, Options, OptionsError},
    record::{Sample, Summary},
    simulation::{Progress, Run, SimulationError, simulate},
    workload::Workload,
};
