//! What the machine is and has.

use std::{collections::BTreeMap, fs, path::Path};

use k8s_openapi::{api::core::v1::NodeSystemInfo, apimachinery::pkg::api::resource::Quantity as QuantityText};
use sha2::{Digest, Sha256};

/// The version of Kubernetes that the agent behaves as.
const KUBELET_VERSION: &str = concat!("v1.36.0+rk", env!("CARGO_PKG_VERSION"));

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// A field of `/proc/meminfo` in bytes.
pub(crate) fn memory(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let found = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    found.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Size and free bytes of the file system of a folder.
#[cfg(feature = "process")]
pub(crate) fn disk(folder: &Path) -> Option<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(folder).ok()?;
    let unit = stat.fragment_size();
    Some((stat.blocks() * unit, stat.blocks_available() * unit))
}

/// Size and free bytes of the file system of a folder: not known without the `process` feature's system calls.
#[cfg(not(feature = "process"))]
pub(crate) fn disk(_folder: &Path) -> Option<(u64, u64)> {
    None
}

/// What the node can give, measured where `wanted` does not say.
pub(crate) fn capacity(
    wanted: &BTreeMap<String, String>,
    max_pods: u32,
    folder: &Path,
) -> BTreeMap<String, QuantityText> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut capacity: BTreeMap<String, String> = [
        ("cpu".to_owned(), cpus.to_string()),
        ("memory".to_owned(), format!("{}Ki", memory("MemTotal") / 1024)),
        ("pods".to_owned(), max_pods.to_string()),
        ("hugepages-1Gi".to_owned(), "0".to_owned()),
        ("hugepages-2Mi".to_owned(), "0".to_owned()),
    ]
    .into();
    if let Some((size, _)) = disk(folder) {
        capacity.insert("ephemeral-storage".to_owned(), format!("{}Ki", size / 1024));
    }
    capacity.extend(wanted.clone());
    capacity.into_iter().map(|(name, value)| (name, QuantityText(value))).collect()
}

/// Kubernetes' word for the machine's architecture.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What the machine is. Several nodes of one machine differ in their ids by the node's name.
pub(crate) fn info(node: &str, runtime: &str) -> NodeSystemInfo {
    let machine = line("/etc/machine-id");
    let id: String =
        Sha256::digest(format!("{machine}/{node}")).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: runtime.to_owned(),
        kernel_version: line("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.to_owned(),
        machine_id: id.clone(),
        operating_system: "linux".to_owned(),
        os_image: pretty.unwrap_or("Linux").trim_matches('"').to_owned(),
        swap: None,
        system_uuid: format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]),
    }
}
