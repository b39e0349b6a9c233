//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

/// rk-etcd beside etcd: the same load, the same disk, one table.
#[derive(Debug, Clone, Parser)]
pub struct Options {
    /// Only the rows whose name holds one of these.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// List the names of the rows and end.
    #[arg(long)]
    pub list: bool,
    /// How often each row is measured on each peer; the median counts.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds that each measurement of a rate lasts, after a quarter of that which does not count.
    #[arg(long, default_value_t = 4.0)]
    pub seconds: f64,
    /// Divides the numbers of keys of the rows that are about many keys, for a quick look.
    #[arg(long, default_value_t = 1)]
    pub shrink: u64,
    /// Clients that share one HTTP/2 connection.
    #[arg(long, default_value_t = 16)]
    pub clients_per_connection: usize,
    /// Connect to all members, not only to the one that leads.
    #[arg(long)]
    pub spread: bool,
    /// Measure only this peer: `etcd` or `rk-etcd`.
    #[arg(long)]
    pub peer: Option<String>,
    /// etcd's program.
    #[arg(long, default_value = "etcd")]
    pub etcd: PathBuf,
    /// rk-etcd's program; built if not given.
    #[arg(long)]
    pub rk_etcd: Option<PathBuf>,
    /// Where the members' directories are made.
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
}
