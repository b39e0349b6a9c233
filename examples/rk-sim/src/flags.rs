//! The command line.

use std::{
    num::NonZero,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use rk_sched::simulate::{NodeChurn, Options, manifests::Replay, trace::Units};

/// A laboratory for schedulers: workloads on virtual nodes in virtual time.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
pub struct Flags {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run workloads of Kubernetes' scheduler_perf, as they are.
    Perf {
        /// Files named performance-config.yaml.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Only workloads of this name (`SchedulingBasic/5Nodes`), this test case (`SchedulingBasic`) or this label (`short`); may be repeated.
        #[arg(short, long, value_name = "NAME")]
        workload: Vec<String>,
        /// Tell which workloads there are, and run none.
        #[arg(long)]
        list: bool,
        #[command(flatten)]
        lab: Lab,
    },
    /// Run the pods of a cluster that kubectl dumped: `kubectl get nodes,pods -A -o yaml > dump.yaml`.
    Manifests {
        /// YAML or JSON files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// What is done with the pods.
        #[arg(long, value_enum, default_value_t)]
        replay: Replaying,
        #[command(flatten)]
        lab: Lab,
    },
    /// Replay a trace in CSV: its own columns, or those of Alibaba's and Google's traces (see docs/scheduler-lab.md).
    Trace {
        /// The file of nodes.
        nodes: PathBuf,
        /// The file of pods.
        pods: PathBuf,
        #[command(flatten)]
        units: UnitFlags,
        #[command(flatten)]
        lab: Lab,
    },
    /// Make a trace: nodes.csv and pods.csv.
    Generate {
        /// How many nodes.
        #[arg(long, default_value_t = 20)]
        nodes: usize,
        /// How many pods.
        #[arg(long, default_value_t = 4000)]
        pods: usize,
        /// Which part of the cores the pods would use on average.
        #[arg(long, default_value_t = 0.8)]
        load: f64,
        /// What makes it another trace.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The folder that the files are written to.
        #[arg(long, default_value = ".")]
        to: PathBuf,
    },
}

/// What is done with the pods of a dump.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum Replaying {
    /// All are scheduled anew, in the order in which they were created.
    #[default]
    Anew,
    /// All are scheduled anew, and come as long after one another as they were created.
    Timed,
    /// Those on nodes stay there; the others are scheduled.
    Keep,
}

impl From<Replaying> for Replay {
    fn from(replaying: Replaying) -> Self {
        match replaying {
            Replaying::Anew => Self::Anew,
            Replaying::Timed => Self::Timed,
            Replaying::Keep => Self::Keep,
        }
    }
}

/// What a trace's numbers are multiplied by.
#[derive(Debug, Args)]
pub struct UnitFlags {
    /// For cores: how many the largest machine has, if they are normalised.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    cores_unit: f64,
    /// For memory.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    memory_unit: f64,
    /// For times, to be seconds: 0.000001 if they are microseconds.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    time_unit: f64,
}

impl UnitFlags {
    pub fn units(&self) -> Units {
        Units { cores: self.cores_unit, memory: self.memory_unit, seconds: self.time_unit }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().map_err(|error| error.to_string())?;
    Duration::try_from(parsed).map_err(|_| "it is negative".to_owned())
}

/// The experiment.
#[derive(Debug, Args)]
pub struct Lab {
    /// A scheduler; repeated, they are compared with the first. Without any, `default`, or what a workload of scheduler_perf is meant
    /// for. `default` is Kubernetes' default profile, `packing` fills nodes up (MostAllocated). Plugins are left out or get another weight behind commas: `default,-ImageLocality,NodeAffinity=5`. A name for
    /// the report may stand before a colon: `mine:packing,-PodTopologySpread`.
    #[arg(short, long, value_name = "SCHEDULER", help_heading = "Experiment")]
    pub scheduler: Vec<String>,
    /// A scheduler with the profiles of a KubeSchedulerConfiguration file (YAML or JSON), behind those of --scheduler; may be repeated.
    #[arg(short, long, value_name = "FILE", help_heading = "Experiment")]
    pub config: Vec<PathBuf>,
    /// How many runs each scheduler gets, each of a seed of its own.
    #[arg(long, default_value = "3", value_name = "COUNT", help_heading = "Experiment")]
    pub seeds: NonZero<u64>,
    /// The first seed; the same seeds give the same results, to the byte.
    #[arg(long, default_value_t = 1, value_name = "NUMBER", help_heading = "Experiment")]
    pub seed: u64,
    /// On how many nodes a pod has to fit before no more are tried, in percent; 0 chooses by their number. A file of --config says it itself.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100), help_heading = "Experiment")]
    pub percentage_of_nodes_to_score: u8,
    /// How many runs go on at a time; as many as there are cores by default.
    #[arg(long, help_heading = "Experiment")]
    threads: Option<NonZero<usize>>,

    /// How long the scheduler is busy with one pod.
    #[arg(long, default_value = "1ms", value_parser = duration, value_name = "TIME", help_heading = "Cluster")]
    cycle: Duration,
    /// How long a binding, or another write of a plugin, takes on average.
    #[arg(long, default_value = "5ms", value_parser = duration, value_name = "TIME", help_heading = "Cluster")]
    binding: Duration,
    /// How long a volume takes to be provided on average.
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "TIME", help_heading = "Cluster")]
    provisioning: Duration,
    /// The part of the bindings that fail.
    #[arg(long, default_value_t = 0.0, value_name = "PART", help_heading = "Cluster")]
    binding_failures: f64,
    /// The part of the runs of pods that fail before their time; the pods are replaced.
    #[arg(long, default_value_t = 0.0, value_name = "PART", help_heading = "Cluster")]
    pod_failures: f64,
    /// How often a pod that fails is replaced.
    #[arg(long, default_value_t = 6, value_name = "COUNT", help_heading = "Cluster")]
    retries: u32,
    /// How long a pod takes to stop when it has to go.
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "TIME", help_heading = "Cluster")]
    termination: Duration,
    /// The mean time that a node is there before it leaves with its pods; without this none does.
    #[arg(long, value_parser = duration, value_name = "TIME", help_heading = "Cluster")]
    node_failures_every: Option<Duration>,
    /// The mean time that a node is away then.
    #[arg(long, default_value = "10m", value_parser = duration, value_name = "TIME", help_heading = "Cluster")]
    node_outage: Duration,
    /// How long a workload waits for its pods before it gives up.
    #[arg(long, default_value = "10m", value_parser = duration, value_name = "TIME", help_heading = "Cluster")]
    patience: Duration,
    /// When the simulation ends, whatever is left to do.
    #[arg(long, value_parser = duration, value_name = "TIME", help_heading = "Cluster")]
    horizon: Option<Duration>,

    /// Write a page with plots, which needs nothing else.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,
    /// Write a line for each figure of each run.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    csv: Option<PathBuf>,
    /// Write everything, the course of each run included.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Tell, by the values of this label of nodes, which part of the work lies on nodes that have them.
    #[arg(long, value_name = "LABEL", help_heading = "Output")]
    share_by: Option<String>,
    /// Tell the history of a pod (`namespace/name`): each attempt with what every plugin says of the nodes, and its way through the queue; may be
    /// repeated.
    #[arg(long, value_name = "POD", help_heading = "Output")]
    explain: Vec<String>,
    /// No progress.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
}

impl Lab {
    pub fn options(&self) -> Options {
        Options {
            cycle: self.cycle,
            binding: self.binding,
            provisioning: self.provisioning,
            binding_failures: self.binding_failures,
            pod_failures: self.pod_failures,
            retries: self.retries,
            termination: self.termination,
            node_churn: self
                .node_failures_every
                .map(|between_failures| NodeChurn { between_failures, outage: self.node_outage }),
            patience: self.patience,
            horizon: self.horizon,
            share_by: self.share_by.clone(),
            explain: self.explain.clone(),
        }
    }

    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        self.threads.map_or_else(cores, NonZero::get)
    }

    pub fn explain(&self) -> &[String] {
        &self.explain
    }

    pub fn html(&self) -> Option<&Path> {
        self.html.as_deref()
    }

    pub fn csv(&self) -> Option<&Path> {
        self.csv.as_deref()
    }

    pub fn json(&self) -> Option<&Path> {
        self.json.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5ms"), Ok(Duration::from_millis(5)));
        assert!(duration("5").is_err() && duration("-1s").is_err());
    }
}
