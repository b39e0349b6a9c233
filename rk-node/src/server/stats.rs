//! `/stats/summary` and `/metrics`: what pods use.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Value, json};

use crate::{
    node::{Index, machine},
    pod::spec,
    runtime::{
        RuntimeError,
        types::{ContainerStats, Filter},
    },
    shared::Shared,
};

async fn all(shared: &Shared) -> Result<Vec<ContainerStats>, RuntimeError> {
    let labels = [(spec::NODE.to_owned(), shared.config.name.clone())].into();
    let all = shared.config.runtime.list_container_stats(&Filter { labels, ..Filter::default() }).await?;
    Ok(all)
}

fn label<'a>(stats: &'a ContainerStats, name: &str) -> &'a str {
    stats.labels.get(name).map_or("", String::as_str)
}

/// The kubelet's summary, as far as the runtime measures.
pub(super) async fn summary(shared: &Shared) -> Result<Value, RuntimeError> {
    let stats = all(shared).await?;
    let now = rk_api::now().to_string();
    let mut pods: BTreeMap<String, Vec<&ContainerStats>> = BTreeMap::new();
    for container in &stats {
        pods.entry(label(container, spec::POD_UID).to_owned()).or_default().push(container);
    }
    let usage = |containers: &[&ContainerStats]| {
        let cpu: u64 = containers.iter().map(|c| c.usage_core_nano_seconds).sum();
        let memory: u64 = containers.iter().map(|c| c.working_set_bytes).sum();
        let rss: u64 = containers.iter().map(|c| c.rss_bytes).sum();
        (
            json!({"time": now, "usageCoreNanoSeconds": cpu}),
            json!({"time": now, "workingSetBytes": memory, "rssBytes": rss}),
        )
    };
    let pods: Vec<Value> = pods
        .values()
        .filter_map(|containers| {
            let first = containers.first()?;
            let (cpu, memory) = usage(containers);
            let list: Vec<Value> = containers
                .iter()
                .map(|container| {
                    let (cpu, memory) = usage(&[container]);
                    json!({"name": container.metadata.name, "cpu": cpu, "memory": memory})
                })
                .collect();
            Some(json!({
                "podRef": {
                    "name": label(first, spec::POD_NAME),
                    "namespace": label(first, spec::POD_NAMESPACE),
                    "uid": label(first, spec::POD_UID),
                },
                "containers": list,
                "cpu": cpu,
                "memory": memory,
            }))
        })
        .collect();
    let available = machine::memory("MemAvailable");
    let used = machine::memory("MemTotal").saturating_sub(available);
    let node = json!({
        "nodeName": shared.config.name,
        "memory": {"time": now, "availableBytes": available, "workingSetBytes": used},
        "fs": machine::disk(&shared.config.data_dir).map(|(size, free)| {
            json!({"time": now, "capacityBytes": size, "availableBytes": free, "usedBytes": size.saturating_sub(free)})
        }),
    });
    Ok(json!({"node": node, "pods": pods}))
}

/// `/metrics/resource`, which the metrics server reads.
pub(super) async fn resource_metrics(shared: &Shared) -> Result<String, RuntimeError> {
    let stats = all(shared).await?;
    let mut out = String::new();
    let mut series = |name: &str, kind: &str, value: &dyn Fn(&ContainerStats) -> String| {
        // Writing to a string can't fail.
        let _ = writeln!(out, "# TYPE {name} {kind}");
        for container in &stats {
            let labels = format!(
                "container=\"{}\",namespace=\"{}\",pod=\"{}\"",
                container.metadata.name,
                label(container, spec::POD_NAMESPACE),
                label(container, spec::POD_NAME)
            );
            let _ = writeln!(out, "{name}{{{labels}}} {}", value(container));
        }
    };
    series("container_cpu_usage_seconds_total", "counter", &|c| {
        format!("{:.3}", std::time::Duration::from_nanos(c.usage_core_nano_seconds).as_secs_f64())
    });
    series("container_memory_working_set_bytes", "gauge", &|c| c.working_set_bytes.to_string());
    Ok(out)
}

/// The agent's own counts, by the kubelet's names.
pub(super) async fn metrics(shared: &Shared, index: &Index) -> String {
    let pods = index.read().len();
    let running = all(shared).await.map_or(0, |stats| stats.len());
    format!(
        "# TYPE kubelet_desired_pods gauge\nkubelet_desired_pods {pods}\n\
         # TYPE kubelet_running_containers gauge\nkubelet_running_containers{{container_state=\"running\"}} {running}\n\
         # TYPE kubelet_node_name gauge\nkubelet_node_name{{node=\"{}\"}} 1\n",
        shared.config.name
    )
}
