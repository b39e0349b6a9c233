//! Generated traces, and writing them.

use std::{f64::consts::TAU, path::Path};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;

use super::{super::workload::Workload, TraceError, Units};

/// A node of a trace; the columns are those of [the module](super).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeRow {
    name: String,
    cpu_milli: i64,
    memory_mib: i64,
    gpu: i64,
    gpu_model: &'static str,
    pods: i64,
    zone: String,
}

/// A pod of a trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PodRow {
    name: String,
    cpu_milli: i64,
    memory_mib: i64,
    num_gpu: i64,
    gpu_milli: i64,
    creation_time: f64,
    duration: f64,
    priority: i32,
}

/// A generated trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// The nodes.
    pub nodes: Vec<NodeRow>,
    /// The pods.
    pub pods: Vec<PodRow>,
}

/// One of these, the weight of each beside it.
fn one<T: Copy>(random: &mut StdRng, of: &[(T, f64)]) -> T {
    let total: f64 = of.iter().map(|(_, weight)| weight).sum();
    let mut left = random.random_range(0.0..total);
    for (value, weight) in of {
        left -= weight;
        if left < 0.0 {
            return *value;
        }
    }
    of[of.len() - 1].0
}

/// A logarithmically normal number of this median (Box and Muller's transform).
fn log_normal(random: &mut StdRng, median: f64, sigma: f64) -> f64 {
    let (u, v): (f64, f64) = (random.random_range(f64::EPSILON..1.0), random.random_range(0.0..1.0));
    median * (sigma * (-2.0 * u.ln()).sqrt() * (TAU * v).cos()).exp()
}

/// Makes a trace of machines of three sizes, some with GPUs, in three zones, and of pods that are mostly small and short and seldom large and
/// long. They arrive at random (a Poisson process) at such a rate that they would use `load` of the cores on average.
pub fn generate(nodes: usize, pods: usize, load: f64, seed: u64) -> Generated {
    let mut random = StdRng::seed_from_u64(seed);
    let machine = |number: usize| {
        let (cores, gibibytes, gpu) =
            one(&mut random, &[((32, 128, 0), 0.6), ((64, 256, 0), 0.3), ((96, 512, 8), 0.1)]);
        NodeRow {
            name: format!("node-{number}"),
            cpu_milli: cores * 1000,
            memory_mib: gibibytes * 1024,
            gpu,
            gpu_model: if gpu > 0 { "V100" } else { "" },
            pods: 110,
            zone: format!("zone-{}", number % 3),
        }
    };
    let nodes: Vec<NodeRow> = (0..nodes).map(machine).collect();
    let gpus = nodes.iter().any(|node| node.gpu > 0);
    let mut drawn: Vec<PodRow> = (0..pods).map(|number| draw(&mut random, number, gpus)).collect();
    let work: f64 = drawn.iter().map(|pod| pod.cpu_milli as f64 * pod.duration).sum();
    let there = nodes.iter().map(|node| node.cpu_milli as f64).sum::<f64>().max(1.0);
    let time = work / (there * load.max(0.01));
    let mut arrivals: Vec<f64> = drawn.iter().map(|_| random.random_range(0.0..1.0) * time).collect();
    arrivals.sort_by(f64::total_cmp);
    for (pod, arrival) in drawn.iter_mut().zip(arrivals) {
        pod.creation_time = (arrival * 1000.0).round() / 1000.0;
    }
    Generated { nodes, pods: drawn }
}

fn draw(random: &mut StdRng, number: usize, gpus: bool) -> PodRow {
    let gpu = gpus && random.random_bool(0.05);
    let sizes = [(500, 0.3), (1000, 0.3), (2000, 0.2), (4000, 0.12), (8000, 0.06), (16_000, 0.02)];
    let cpu_milli: i64 = if gpu { 6000 } else { one(random, &sizes) };
    let mebibytes_per_core = one(random, &[(1024, 0.3), (2048, 0.3), (4096, 0.3), (8192, 0.1)]);
    PodRow {
        name: format!("pod-{number}"),
        cpu_milli,
        memory_mib: cpu_milli * mebibytes_per_core / 1000,
        num_gpu: i64::from(gpu),
        gpu_milli: if gpu { one(random, &[(250, 0.2), (500, 0.3), (1000, 0.5)]) } else { 0 },
        creation_time: 0.0,
        duration: log_normal(random, 120.0, 0.9).clamp(5.0, 3600.0).round(),
        priority: if random.random_bool(0.1) { 100 } else { 0 },
    }
}

impl Generated {
    /// The trace as a workload.
    ///
    /// # Errors
    /// None for what [`generate`] has made.
    pub fn workload(&self, name: &str) -> Result<Workload, TraceError> {
        let text = |path: &str, text: Result<Vec<u8>, csv::Error>| {
            text.map_err(|error| TraceError::Csv { path: path.into(), error })
        };
        let (nodes, pods) = (text("nodes.csv", rows(&self.nodes))?, text("pods.csv", rows(&self.pods))?);
        super::parse(name, &nodes, &pods, Units::default())
    }
}

/// Writes a trace to two files.
///
/// # Errors
/// A file can't be written.
pub fn write(trace: &Generated, nodes: &Path, pods: &Path) -> Result<(), TraceError> {
    for (path, text) in [(nodes, rows(&trace.nodes)), (pods, rows(&trace.pods))] {
        let written = text.and_then(|text| Ok(std::fs::write(path, text)?));
        written.map_err(|error| TraceError::Csv { path: path.to_owned(), error })?;
    }
    Ok(())
}

/// Rows with their header.
fn rows<T: Serialize>(rows: &[T]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|row| writer.serialize(row))?;
    writer.into_inner().map_err(|error| error.into_error().into())
}
