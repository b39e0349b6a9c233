//! The scheduling cycle alone, which is one thread's work: time is that thread's on a processor, so that what else the machine does counts
//! little.

use std::{fs, io, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use rk_api::LabelSelector;
use rk_benches_common::{
    process,
    progress::Progress,
    stats::{median, number},
};
use rk_sched::{Profile, simulate::Simulator};

use crate::{
    options::Options,
    print_head, print_row,
    shapes::{self, NAMESPACES, Shape},
    workloads::{Churn, Workload},
};

/// How long this thread has been on a processor.
fn on_processor() -> io::Result<Duration> {
    let times = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = times.split_whitespace().next().and_then(|first| first.parse().ok());
    nanoseconds.map(Duration::from_nanos).ok_or_else(|| io::Error::other(format!("no time in {times:?}")))
}

/// A cluster of a workload, as it is before the measured pods come.
struct Cluster {
    simulator: Simulator,
    pods: usize,
}

impl Cluster {
    fn new(workload: &Workload) -> io::Result<Self> {
        let mut simulator = Simulator::new(Profile::kubernetes("default-scheduler"), 1);
        for (name, zone) in workload.node_names() {
            simulator.set_node(shapes::node(&name, zone));
            if workload.has_volumes() {
                simulator.snapshot_mut().volumes.set_csi_node(&name, Some(&shapes::csi_node(&name)));
            }
        }
        let mut cluster = Self { simulator, pods: 0 };
        for (shape, count) in &workload.before {
            for pod in cluster.make(*shape, *count, NAMESPACES[0]) {
                cluster.simulator.schedule(pod).map_err(io::Error::other)?;
            }
        }
        Ok(cluster)
    }

    /// Pods, with their volumes in place.
    fn make(&mut self, shape: Shape, count: usize, namespace: &str) -> Vec<Pod> {
        let template = shape.template();
        let mut pods = Vec::with_capacity(count);
        for _ in 0..count {
            self.pods += 1;
            let name = format!("pod-{}", self.pods);
            let mut pod = shapes::pod(&template, namespace, &name);
            // As long as those of an API server are.
            pod.metadata.uid = Some(format!("c6f5be5e-1d0e-4f5b-9d3a-{:012x}", self.pods));
            if shape == Shape::Claim {
                let (volume, claim) = shapes::volume(namespace, &name);
                let volumes = &mut self.simulator.snapshot_mut().volumes;
                volumes.set_volume(&name, Some(Arc::new(volume)));
                volumes.set_claim(namespace, &name, Some(Arc::new(claim)));
            }
            pods.push(pod);
        }
        pods
    }

    /// Schedules the measured pods and what comes between them; the time of it all.
    fn measure(&mut self, workload: &Workload) -> io::Result<Duration> {
        let (shape, count) = workload.measured;
        let pods = self.make(shape, count, NAMESPACES[1]);
        let (mut others, every) = match workload.churn {
            Some(Churn::Create(shape, _, every)) => (self.make(shape, count / every, NAMESPACES[0]), every),
            Some(Churn::Recreate(_, every)) => (self.make(Shape::TooLarge, count / every, NAMESPACES[0]), every),
            None => (Vec::new(), usize::MAX),
        };
        let begun = on_processor()?;
        for (number, pod) in pods.into_iter().enumerate() {
            if number % every == every - 1
                && let Some(other) = others.pop()
            {
                self.churn(workload, other)?;
            }
            self.simulator.schedule(pod).map_err(io::Error::other)?;
        }
        Ok(on_processor()? - begun)
    }

    fn churn(&mut self, workload: &Workload, pod: Pod) -> io::Result<()> {
        let recreate = matches!(workload.churn, Some(Churn::Recreate(..)));
        if recreate {
            self.simulator.set_node(shapes::useless_node("node-churn"));
            let selector = LabelSelector::from_labels([(&"app".to_owned(), &"foo".to_owned())]);
            self.simulator.snapshot_mut().workloads.set_service(NAMESPACES[0], "churn", Some(selector));
        }
        let fits = pod.spec.as_ref().is_some_and(|spec| {
            let requests = spec.containers[0].resources.as_ref().and_then(|resources| resources.requests.as_ref());
            requests.is_some_and(|requests| requests["cpu"].0 != "9")
        });
        match self.simulator.schedule(pod) {
            Err(error) if fits => return Err(io::Error::other(error)),
            Ok(node) if !fits => return Err(io::Error::other(format!("a pod of nine cores is on {node}"))),
            _ => {}
        }
        self.simulator.take_evicted();
        if recreate {
            self.simulator.remove_node("node-churn");
            self.simulator.snapshot_mut().workloads.set_service(NAMESPACES[0], "churn", None);
        }
        Ok(())
    }
}

/// Pods per second of each workload.
pub(crate) fn rates(workloads: &[Workload], options: &Options, progress: &mut Progress) -> io::Result<()> {
    print_head("In-process: the scheduling cycle, per second of its thread", progress);
    for workload in workloads {
        let mut rates = Vec::new();
        for _ in 0..options.rounds {
            progress.begin(workload.name);
            let took = Cluster::new(workload)?.measure(workload)?;
            rates.push(workload.measured.1 as f64 / took.as_secs_f64());
        }
        print_row(workload, &rates, workload.in_process, progress);
    }
    Ok(())
}

const GROWTH: [usize; 4] = [100, 1000, 5000, 15_000];

/// The workloads whose cost is told as nodes grow: few pods to a node at all sizes.
fn growing(nodes: usize) -> [Workload; 3] {
    let all = crate::workloads::all();
    let of = |name: &str| all.iter().find(|workload| workload.name == name).cloned().expect("it is one of them");
    ["SchedulingBasic", "TopologySpreading", "SchedulingPodAffinity"].map(|name| {
        let mut workload = of(name);
        workload.nodes = nodes;
        workload.before = vec![(workload.before[0].0, nodes * 5)];
        workload.measured.1 = nodes.clamp(1000, 5000);
        workload
    })
}

pub(crate) fn growth_steps() -> u64 {
    (GROWTH.len() * growing(100).len()) as u64
}

/// Microseconds per pod by the number of nodes.
pub(crate) fn growth(options: &Options, progress: &mut Progress) -> io::Result<()> {
    progress.print("\n## In-process: µs per pod as nodes grow, five pods on each before\n");
    progress.print("| workload | 100 | 1,000 | 5,000 | 15,000 |\n| --- | ---: | ---: | ---: | ---: |");
    let mut rows = growing(0).map(|workload| format!("| {} |", workload.name));
    for nodes in GROWTH {
        for (row, workload) in rows.iter_mut().zip(growing(nodes)) {
            let mut costs = Vec::new();
            for _ in 0..options.rounds {
                progress.begin(&format!("{} on {nodes} nodes", workload.name));
                let took = Cluster::new(&workload)?.measure(&workload)?;
                costs.push(took.as_secs_f64() * 1e6 / workload.measured.1 as f64);
            }
            row.push_str(&format!(" {} |", number(median(&costs).unwrap_or_default())));
        }
    }
    rows.iter().for_each(|row| progress.print(row));
    Ok(())
}

/// Resident memory with 5,000 nodes and 150,000 pods on them.
pub(crate) fn memory(progress: &mut Progress) -> io::Result<()> {
    const PODS: usize = 150_000;
    progress.begin("memory");
    let resident = || process::usage(std::process::id()).map(|usage| usage.resident as f64 / f64::from(1 << 20));
    let mut basic = crate::workloads::all().remove(0);
    basic.before.clear();
    let mut cluster = Cluster::new(&basic)?;
    let before = resident()?;
    for _ in 0..PODS / 1000 {
        for pod in cluster.make(Shape::Plain, 1000, NAMESPACES[0]) {
            cluster.simulator.schedule(pod).map_err(io::Error::other)?;
        }
    }
    let after = resident()?;
    progress.print(&format!(
        "\n## Memory\n\nWith 5,000 nodes {} MiB are resident, with 150,000 pods on them {} MiB: {} KiB per pod.",
        number(before),
        number(after),
        number((after - before) * 1024.0 / PODS as f64),
    ));
    Ok(())
}
