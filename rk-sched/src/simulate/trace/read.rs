//! From rows to nodes and pods.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use csv::StringRecord;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Map, Value, json};

use super::{
    super::{
        objects,
        workload::{Action, Job, Step, Workload},
    },
    GPU, TraceError, Units,
};

/// Where a trace is, and how it is to be read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Source {
    /// The file of nodes.
    pub nodes: PathBuf,
    /// The file of pods.
    pub pods: PathBuf,
    /// The units of its numbers.
    pub units: Units,
}

/// Names of a column, each with what its numbers are multiplied by.
type Names = &'static [(&'static str, f64)];

const NODE_NAME: Names = &[("name", 1.0), ("sn", 1.0), ("machine", 1.0), ("machine_id", 1.0)];
const NODE_CPU: Names =
    &[("cpu_milli", 1.0), ("cpu", 1000.0), ("cpus", 1000.0), ("cap_cpu", 1000.0), ("capacity_cpus", 1000.0)];
const NODE_MEMORY: Names =
    &[("memory_mib", 1.0), ("memory_gib", GIB), ("memory", GIB), ("cap_mem", GIB), ("capacity_memory", GIB)];
const NODE_GPU: Names = &[("gpu", 1000.0), ("cap_gpu", 1000.0)];
const NODE_MODEL: Names = &[("gpu_model", 1.0), ("model", 1.0), ("gpu_type", 1.0)];
const NODE_PODS: Names = &[("pods", 1.0)];
const NODE_ZONE: Names = &[("zone", 1.0)];

const POD_NAME: Names = &[("name", 1.0), ("job_name", 1.0), ("inst_id", 1.0), ("collection_id", 1.0)];
const POD_CPU: Names = &[
    ("cpu_milli", 1.0),
    ("cpu", 1000.0),
    ("cpus", 1000.0),
    ("cpu_request", 1000.0),
    ("resource_request_cpus", 1000.0),
    ("plan_cpu", 10.0),
];
const POD_MEMORY: Names = &[
    ("memory_mib", 1.0),
    ("memory_gib", GIB),
    ("memory", GIB),
    ("memory_request", GIB),
    ("plan_mem", GIB),
    ("resource_request_memory", GIB),
];
const POD_GPUS: Names = &[("num_gpu", 1000.0), ("plan_gpu", 10.0)];
const POD_GPU_SHARE: Names = &[("gpu_milli", 0.001)];
const POD_MODELS: Names = &[("gpu_spec", 1.0), ("gpu_type", 1.0)];
const POD_CREATED: Names = &[("creation_time", 1.0), ("submit_time", 1.0), ("start_time", 1.0), ("time", 1.0)];
const POD_DURATION: Names = &[("duration", 1.0)];
const POD_ENDED: Names = &[("deletion_time", 1.0), ("end_time", 1.0)];
const POD_SCHEDULED: Names = &[("scheduled_time", 1.0)];
const POD_PRIORITY: Names = &[("priority", 1.0)];
const POD_INSTANCES: Names = &[("instances", 1.0), ("inst_num", 1.0)];

/// GiB in MiB.
const GIB: f64 = 1024.0;
/// More instances of a row than this are a mistake.
const MOST_INSTANCES: f64 = 1_000_000.0;
/// Seconds beyond which a time is none (317 years): its unit is another one, or it stands for "never".
const MOST_SECONDS: f64 = 1e10;

/// A CSV file by the names of its columns.
struct Table {
    path: PathBuf,
    columns: HashMap<String, usize>,
    rows: Vec<StringRecord>,
}

impl Table {
    fn read(path: &Path) -> Result<Self, TraceError> {
        let file = std::fs::File::open(path);
        let file = file.map_err(|error| TraceError::Csv { path: path.to_owned(), error: error.into() })?;
        Self::parse(path, file)
    }

    fn parse(path: &Path, from: impl std::io::Read) -> Result<Self, TraceError> {
        let failed = |error| TraceError::Csv { path: path.to_owned(), error };
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(from);
        let headers = reader.headers().map_err(failed)?;
        // `resource_request.cpus` and `resource_request_cpus` are one.
        let columns =
            headers.iter().enumerate().map(|(at, name)| (name.to_lowercase().replace('.', "_"), at)).collect();
        let rows = reader.records().collect::<Result<Vec<_>, _>>().map_err(failed)?;
        if rows.is_empty() {
            return Err(TraceError::Empty(path.to_owned()));
        }
        Ok(Self { path: path.to_owned(), columns, rows })
    }

    /// The first of the columns that is there.
    fn column(&self, names: Names) -> Option<Column<'_>> {
        names.iter().find_map(|(name, factor)| {
            Some(Column { table: self, name, at: *self.columns.get(*name)?, factor: *factor })
        })
    }

    fn required(&self, names: Names) -> Result<Column<'_>, TraceError> {
        self.column(names).ok_or_else(|| TraceError::NoColumn {
            path: self.path.clone(),
            names: names.iter().map(|(name, _)| *name).collect(),
        })
    }
}

#[derive(Clone, Copy)]
struct Column<'a> {
    table: &'a Table,
    name: &'static str,
    at: usize,
    factor: f64,
}

impl Column<'_> {
    fn text<'r>(&self, row: &'r StringRecord) -> Option<&'r str> {
        row.get(self.at).filter(|text| !text.is_empty())
    }

    fn wrong(&self, row: &StringRecord, expected: &'static str) -> TraceError {
        TraceError::Field {
            path: self.table.path.clone(),
            line: row.position().map_or(0, csv::Position::line),
            column: self.name.to_owned(),
            found: self.text(row).unwrap_or_default().to_owned(),
            expected,
        }
    }

    /// A number that is not negative.
    fn number(&self, row: &StringRecord) -> Result<Option<f64>, TraceError> {
        let Some(text) = self.text(row) else { return Ok(None) };
        let number: f64 = text.parse().map_err(|_| self.wrong(row, "no number"))?;
        // What is beyond this is no amount of anything, and would not fit an i64.
        if !(0.0..1e15).contains(&number) {
            return Err(self.wrong(row, "out of range"));
        }
        Ok(Some(number * self.factor))
    }

    /// A whole number of 32 bits.
    fn integer(&self, row: &StringRecord) -> Result<Option<i32>, TraceError> {
        let Some(text) = self.text(row) else { return Ok(None) };
        let number: f64 = text.parse().map_err(|_| self.wrong(row, "no number"))?;
        let fits = (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number);
        if fits { Ok(Some(number as i32)) } else { Err(self.wrong(row, "out of range")) }
    }
}

fn number(column: Option<Column<'_>>, row: &StringRecord) -> Result<Option<f64>, TraceError> {
    column.map_or(Ok(None), |column| column.number(row))
}

fn text<'r>(column: Option<Column<'_>>, row: &'r StringRecord) -> Option<&'r str> {
    column.and_then(|column| column.text(row))
}

/// The name of a row as Kubernetes would take it.
fn name_in(column: Column<'_>, row: &StringRecord) -> Result<String, TraceError> {
    let lower = column.text(row).unwrap_or_default().to_lowercase();
    let cleaned: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let cleaned = cleaned.trim_matches('-');
    if cleaned.is_empty() { Err(column.wrong(row, "no name")) } else { Ok(cleaned.to_owned()) }
}

/// A time in seconds.
fn seconds(column: Option<Column<'_>>, row: &StringRecord, units: Units) -> Result<Option<f64>, TraceError> {
    let Some(column) = column else { return Ok(None) };
    let time = column.number(row)?.map(|time| time * units.seconds);
    if time.is_some_and(|time| time > MOST_SECONDS) {
        return Err(column.wrong(row, "out of range as a time"));
    }
    Ok(time)
}

/// Reads a trace.
///
/// # Errors
/// A file can't be read, or a field is not what its column says.
pub fn workload(name: &str, source: &Source) -> Result<Workload, TraceError> {
    build(name, &Table::read(&source.nodes)?, &Table::read(&source.pods)?, source.units)
}

/// Reads a trace from the text of its two files, which errors call `nodes.csv` and `pods.csv`.
///
/// # Errors
/// As [`workload`].
pub fn parse(name: &str, nodes: &[u8], pods: &[u8], units: Units) -> Result<Workload, TraceError> {
    let table = |path: &str, text| Table::parse(Path::new(path), text);
    build(name, &table("nodes.csv", nodes)?, &table("pods.csv", pods)?, units)
}

fn build(name: &str, nodes: &Table, pods: &Table, units: Units) -> Result<Workload, TraceError> {
    let factors = [units.cores, units.memory, units.seconds];
    if let Some(wrong) = factors.into_iter().find(|factor| !(factor.is_finite() && *factor > 0.0)) {
        return Err(TraceError::Unit(wrong));
    }
    let mut actions: Vec<_> =
        nodes_of(nodes, units)?.into_iter().map(|node| (Duration::ZERO, Action::SetNode(Arc::new(node)))).collect();
    actions.extend(pods_of(pods, units)?.into_iter().map(|(at, job)| (at, Action::CreatePod(Arc::new(job)))));
    Ok(Workload { name: name.to_owned(), steps: vec![Step::Play { actions, background: false }] })
}

fn nodes_of(table: &Table, units: Units) -> Result<Vec<Node>, TraceError> {
    let (name, cpu, memory) = (table.required(NODE_NAME)?, table.required(NODE_CPU)?, table.required(NODE_MEMORY)?);
    let (gpu, model) = (table.column(NODE_GPU), table.column(NODE_MODEL));
    let (most_pods, zone) = (table.column(NODE_PODS), table.column(NODE_ZONE));
    let mut nodes = Vec::new();
    for row in &table.rows {
        let name = name_in(name, row)?;
        let milli = (cpu.number(row)?.unwrap_or(0.0) * units.cores) as i64;
        let mebibytes = (memory.number(row)?.unwrap_or(0.0) * units.memory) as i64;
        let pods = number(most_pods, row)?.unwrap_or(110.0) as i64;
        let mut amounts = Map::new();
        amounts.insert("cpu".to_owned(), format!("{milli}m").into());
        amounts.insert("memory".to_owned(), format!("{mebibytes}Mi").into());
        amounts.insert("pods".to_owned(), pods.to_string().into());
        if let Some(gpus) = number(gpu, row)?.filter(|gpus| *gpus > 0.0) {
            amounts.insert(GPU.to_owned(), (gpus as i64).to_string().into());
        }
        let mut labels = Map::new();
        if let Some(model) = text(model, row) {
            labels.insert("gpu-model".to_owned(), model.into());
        }
        if let Some(zone) = text(zone, row) {
            labels.insert("topology.kubernetes.io/zone".to_owned(), zone.into());
        }
        let node = json!({"metadata": {"labels": labels}, "status": {"capacity": amounts}});
        nodes.push(objects::node(node, &name).map_err(|error| bad(&table.path, row, error))?);
    }
    Ok(nodes)
}

fn bad(path: &Path, row: &StringRecord, error: objects::BadObject) -> TraceError {
    TraceError::Field {
        path: path.to_owned(),
        line: row.position().map_or(0, csv::Position::line),
        column: error.kind,
        found: error.reason,
        expected: "not usable",
    }
}

fn pods_of(table: &Table, units: Units) -> Result<Vec<(Duration, Job)>, TraceError> {
    let (name, cpu, memory) = (table.required(POD_NAME)?, table.required(POD_CPU)?, table.column(POD_MEMORY));
    let (gpus, share, models) = (table.column(POD_GPUS), table.column(POD_GPU_SHARE), table.column(POD_MODELS));
    let (created, duration) = (table.column(POD_CREATED), table.column(POD_DURATION));
    let (ended, scheduled) = (table.column(POD_ENDED), table.column(POD_SCHEDULED));
    let (priority, instances) = (table.column(POD_PRIORITY), table.column(POD_INSTANCES));
    let mut names: HashMap<String, u64> = HashMap::new();
    let mut pods = Vec::new();
    let mut earliest = f64::INFINITY;
    for row in &table.rows {
        let name = name_in(name, row)?;
        let gpu_milli = number(gpus, row)?.unwrap_or(0.0) * number(share, row)?.unwrap_or(1.0);
        let at = if created.is_some() { seconds(created, row, units)? } else { Some(0.0) };
        earliest = earliest.min(at.unwrap_or(f64::INFINITY));
        let began = seconds(scheduled, row, units)?.or(at);
        let runs = match (seconds(duration, row, units)?, seconds(ended, row, units)?.zip(began)) {
            (Some(duration), _) => Some(duration),
            (None, Some((end, began))) => Some((end - began).max(0.0)),
            (None, None) => None,
        };
        let mut requests = Map::new();
        let milli = (cpu.number(row)?.unwrap_or(0.0) * units.cores) as i64;
        requests.insert("cpu".to_owned(), format!("{milli}m").into());
        let mebibytes = (number(memory, row)?.unwrap_or(0.0) * units.memory) as i64;
        requests.insert("memory".to_owned(), format!("{mebibytes}Mi").into());
        if gpu_milli >= 1.0 {
            requests.insert(GPU.to_owned(), (gpu_milli as i64).to_string().into());
        }
        let mut spec = json!({"containers": [{"name": "main", "resources": {"requests": requests}}]});
        if let Some(priority) = priority.map_or(Ok(None), |column| column.integer(row))? {
            spec["priority"] = priority.into();
        }
        let wanted: Vec<Value> =
            text(models, row).into_iter().flat_map(|list| list.split('|')).map(Value::from).collect();
        if !wanted.is_empty() && gpu_milli >= 1.0 {
            let expression = json!({"key": "gpu-model", "operator": "In", "values": wanted});
            spec["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [expression]}],
            }}});
        }
        let pod = objects::pod(json!({"spec": spec}), &name, "default");
        let pod = pod.map_err(|error| bad(&table.path, row, error))?;
        let count = number(instances, row)?.unwrap_or(1.0);
        if let Some(column) = instances.filter(|_| count > MOST_INSTANCES) {
            return Err(column.wrong(row, "more than a million"));
        }
        let duration = runs.map(|runs| Duration::try_from_secs_f64(runs).unwrap_or(Duration::ZERO));
        for _ in 0..count as u64 {
            pods.push((at, Job { pod: Arc::new(named(&pod, &name, &mut names)), duration, restarts: true }));
        }
    }
    let since = |at: Option<f64>| at.map_or(0.0, |at| at - earliest);
    // No time is negative, nor beyond what is checked above.
    let since = |at| Duration::try_from_secs_f64(since(at)).unwrap_or(Duration::ZERO);
    Ok(pods.into_iter().map(|(at, job)| (since(at), job)).collect())
}

/// The pod under its name, with a number where the name comes again.
fn named(pod: &Pod, name: &str, names: &mut HashMap<String, u64>) -> Pod {
    let mut pod = pod.clone();
    let Some(times) = names.get(name).copied() else {
        names.insert(name.to_owned(), 1);
        return pod;
    };
    let numbered = |number: u64| format!("{name}-{number}");
    let number = (times + 1..).find(|number| !names.contains_key(&numbered(*number))).unwrap_or(u64::MAX);
    names.insert(name.to_owned(), number);
    names.insert(numbered(number), 1);
    pod.metadata.uid = Some(super::super::pods::full_name("default", &numbered(number)));
    pod.metadata.name = Some(numbered(number));
    pod
}
