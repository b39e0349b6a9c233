//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

/// Loads a Kubernetes API and prints a table: requests per second, the server's CPU for each, memory.
#[derive(Debug, Clone, Parser)]
pub struct Options {
    /// The API to load, by its kubeconfig; else a server of rk's is started for each row.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The process that serves it, on this machine, whose CPU time and memory count; may be given again (etcd beside
    /// kube-apiserver).
    #[arg(long)]
    pub pid: Vec<u32>,
    /// The program that serves, if no kubeconfig is given; built if not given.
    #[arg(long)]
    pub apiserver: Option<PathBuf>,
    /// Only the rows whose name holds one of these.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// List the names of the rows and end.
    #[arg(long)]
    pub list: bool,
    /// How often each row is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds that each measurement of a rate lasts, after a quarter of that which does not count.
    #[arg(long, default_value_t = 4.0)]
    pub seconds: f64,
    /// Divides the numbers of objects of the rows that are about many, for a quick look.
    #[arg(long, default_value_t = 1)]
    pub shrink: u64,
    /// Watchers of the rows that watch.
    #[arg(long, default_value_t = 1000)]
    pub watchers: usize,
    /// Where the server's folders are made.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    pub bench: bool,
}

impl Options {
    /// How long a rate is measured.
    pub fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// How long the load runs before that.
    pub fn warm_up(&self) -> Duration {
        self.time() / 4
    }

    /// Whether a row is wanted.
    pub fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| row.contains(part.as_str()))
    }

    /// A number of objects, made less if that is asked.
    pub fn objects(&self, count: u64) -> u64 {
        (count / self.shrink).max(1)
    }
}
