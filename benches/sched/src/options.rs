//! The command line.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{Parser, ValueEnum};

/// Runs the workloads of scheduler_perf and prints tables: pods per second beside what kube-scheduler is held to, the cost of a
/// pod as nodes grow, memory.
#[derive(Debug, Clone, Parser)]
pub struct Options {
    /// Only these parts; all but the end-to-end one if not given.
    #[arg(long, value_delimiter = ',')]
    pub parts: Vec<Part>,
    /// Only the workloads whose name holds one of these.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// How often each row is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Divides the numbers of nodes and pods, for a quick look.
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    pub shrink: NonZeroUsize,
    /// Where the server's folder is made; the system's temporary folder if not given.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Clients that create pods at once, end to end.
    #[arg(long, default_value_t = 32)]
    pub clients: usize,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// A part of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Memory with 5,000 nodes and 150,000 pods.
    Memory,
    /// The scheduling cycle alone.
    InProcess,
    /// The cost of a pod as nodes grow.
    Growth,
    /// Through an API server with the durable store.
    EndToEnd,
}

impl Options {
    /// Whether a part is wanted.
    pub fn does(&self, part: Part) -> bool {
        if self.parts.is_empty() { part != Part::EndToEnd } else { self.parts.contains(&part) }
    }

    /// Whether a workload is wanted.
    pub fn wants(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| workload.contains(part.as_str()))
    }
}
