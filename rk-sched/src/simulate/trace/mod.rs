//! Traces of clusters in CSV: a file of nodes and a file of pods, with a header each.
//!
//! Columns may come in any order, others are passed over, and an empty field is as if it were not there. The first name is the one that [`write()`] uses;
//! the others are those of public traces, whose units are taken into account.
//!
//! | nodes | meaning |
//! | --- | --- |
//! | `name`, `sn`, `machine`, `machine_id` | the node's name |
//! | `cpu_milli`, or in cores `cpu`, `cpus`, `cap_cpu`, `capacity_cpus` | what pods can have of it |
//! | `memory_mib`, or in GiB `memory_gib`, `memory`, `cap_mem`, `capacity_memory` | the same |
//! | `gpu`, `cap_gpu` | GPUs |
//! | `gpu_model`, `model`, `gpu_type` | their model, also the label `gpu-model` |
//! | `pods` | how many pods it takes; 110 by default |
//! | `zone` | the label `topology.kubernetes.io/zone` |
//!
//! | pods | meaning |
//! | --- | --- |
//! | `name`, `job_name`, `inst_id`, `collection_id` | the pod's name; a number is added where it comes again |
//! | `cpu_milli`, or in cores `cpu`, `cpus`, `cpu_request`, `resource_request_cpus`, or in percent of a core `plan_cpu` | what it asks for |
//! | `memory_mib`, or in GiB `memory_gib`, `memory`, `memory_request`, `plan_mem`, `resource_request_memory` | the same |
//! | `num_gpu`, or in percent of one `plan_gpu` | GPUs |
//! | `gpu_milli` | thousandths of each GPU that it asks for; 1000 by default |
//! | `gpu_spec`, `gpu_type` | models of GPU that will do, between bars |
//! | `creation_time`, `submit_time`, `start_time`, `time` | seconds (or what [`Units::seconds`] says) at which it comes; one without comes first and runs on |
//! | `duration`, or until `deletion_time`, `end_time` | how long it runs; without one it runs on |
//! | `scheduled_time` | where there is a `deletion_time`: from when on it ran |
//! | `priority` | its priority |
//! | `instances`, `inst_num` | how many such pods |
//!
//! GPUs are the extended resource [`GPU`], in thousandths of one: a node with two has 2000. That a share of a GPU must be on
//! one device is not told apart.
//!
//! So Alibaba's lists of 2023 (`openb_node_list_all_node.csv`, `openb_pod_list_default.csv`) are read as they are, and its trace of 2020
//! (`pai_machine_spec.csv`, `pai_task_table.csv`) once it has its published header. Google's traces normalise amounts to the largest machine and tell microseconds:
//! join the events SUBMIT and FINISH of a task to a row (`time`, `end_time`), and say the units by [`Units`].

mod read;
mod write;

use std::path::PathBuf;

pub use self::{
    read::{Source, parse, workload},
    write::{Generated, generate, write},
};

/// The extended resource that GPUs are, in thousandths of a GPU.
pub const GPU: &str = "example.com/gpu-milli";

/// What a trace's numbers are multiplied by, to be those of the columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Units {
    /// For cores.
    pub cores: f64,
    /// For memory.
    pub memory: f64,
    /// For times, to be seconds.
    pub seconds: f64,
}

impl Default for Units {
    fn default() -> Self {
        Self { cores: 1.0, memory: 1.0, seconds: 1.0 }
    }
}

/// A trace that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The file can't be read or is no CSV.
    #[error("{}: {error}", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// Why.
        error: csv::Error,
    },
    /// A column is missing.
    #[error("{}: there is no column {}", path.display(), names.join(" or "))]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// Its possible names.
        names: Vec<&'static str>,
    },
    /// A field is not what it should be.
    #[error("{}: line {line}: column {column}: {found:?} is {expected}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The column's name.
        column: String,
        /// What is there.
        found: String,
        /// What is wrong with it.
        expected: &'static str,
    },
    /// A unit that is no factor.
    #[error("a unit is {0}: must be a number above 0")]
    Unit(f64),
    /// There is nothing in the file.
    #[error("{}: there are no rows", .0.display())]
    Empty(PathBuf),
}
