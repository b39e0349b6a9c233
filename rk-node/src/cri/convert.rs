//! Between the contract's types and the wire's messages.

use std::{collections::HashMap, net::IpAddr, path::PathBuf};

use jiff::Timestamp;

use super::wire;
use crate::runtime::types::{
    Container, ContainerConfig, ContainerMetadata, ContainerState, ContainerStats, ContainerStatus, Image,
    LinuxContainerResources, Map, PodSandbox, PodSandboxConfig, PodSandboxMetadata, PodSandboxState,
};

pub(super) fn to_map(map: &Map) -> HashMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn from_map(map: HashMap<String, String>) -> Map {
    map.into_iter().collect()
}

fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or_default()
}

fn some_time(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| time(nanoseconds))
}

fn int(value: Option<i64>) -> Option<wire::Int64Value> {
    value.map(|value| wire::Int64Value { value })
}

fn text(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

pub(super) fn image_spec(image: &str) -> wire::ImageSpec {
    wire::ImageSpec { image: image.to_owned() }
}

/// The namespaces of a sandbox, and of the containers in it.
fn namespaces(config: &PodSandboxConfig, target: &str) -> wire::NamespaceOption {
    let of = |host: bool, own: wire::NamespaceMode| if host { wire::NamespaceMode::Node } else { own };
    let pid = match (config.share_process_namespace, target.is_empty()) {
        (_, false) => wire::NamespaceMode::Target,
        (true, true) => wire::NamespaceMode::Pod,
        (false, true) => wire::NamespaceMode::Container,
    };
    wire::NamespaceOption {
        network: of(config.host_network, wire::NamespaceMode::Pod).into(),
        pid: of(config.host_pid, pid).into(),
        ipc: of(config.host_ipc, wire::NamespaceMode::Pod).into(),
        target_id: target.to_owned(),
    }
}

pub(super) fn sandbox_config(config: &PodSandboxConfig) -> wire::PodSandboxConfig {
    let ports = config.port_mappings.iter().map(|port| wire::PortMapping {
        protocol: match port.protocol.as_str() {
            "UDP" => wire::Protocol::Udp,
            "SCTP" => wire::Protocol::Sctp,
            _ => wire::Protocol::Tcp,
        }
        .into(),
        container_port: port.container_port.into(),
        host_port: port.host_port.into(),
        host_ip: port.host_ip.clone(),
    });
    wire::PodSandboxConfig {
        metadata: Some(wire::PodSandboxMetadata {
            name: config.metadata.name.clone(),
            uid: config.metadata.uid.clone(),
            namespace: config.metadata.namespace.clone(),
            attempt: config.metadata.attempt,
        }),
        hostname: config.hostname.clone(),
        log_directory: text(&config.log_directory),
        dns_config: config.dns_config.as_ref().map(|dns| wire::DnsConfig {
            servers: dns.servers.clone(),
            searches: dns.searches.clone(),
            options: dns.options.clone(),
        }),
        port_mappings: ports.collect(),
        labels: to_map(&config.labels),
        annotations: to_map(&config.annotations),
        linux: Some(wire::LinuxPodSandboxConfig {
            cgroup_parent: config.cgroup_parent.clone(),
            security_context: Some(wire::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(config, "")),
                run_as_user: int(config.run_as_user),
                run_as_group: int(config.run_as_group.filter(|_| config.run_as_user.is_some())),
                supplemental_groups: config.supplemental_groups.clone(),
                privileged: config.privileged,
            }),
            sysctls: to_map(&config.sysctls),
        }),
    }
}

pub(super) fn resources(resources: &LinuxContainerResources) -> wire::LinuxContainerResources {
    wire::LinuxContainerResources {
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpu_shares: resources.cpu_shares,
        memory_limit_in_bytes: resources.memory_limit_in_bytes,
        oom_score_adj: resources.oom_score_adj,
    }
}

/// Paths of `/proc` and `/sys` that containers neither read nor write, as the kubelet's default `procMount` has them.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// Paths that containers only read.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(super) fn container_config(config: &ContainerConfig, sandbox: &PodSandboxConfig) -> wire::ContainerConfig {
    let security = &config.security;
    let paths =
        |list: &[&str]| if security.privileged { Vec::new() } else { list.iter().map(ToString::to_string).collect() };
    let mounts = config.mounts.iter().map(|mount| wire::Mount {
        container_path: text(&mount.container_path),
        host_path: text(&mount.host_path),
        readonly: mount.readonly,
        propagation: match (mount.bidirectional, mount.host_to_container) {
            (true, _) => wire::MountPropagation::PropagationBidirectional,
            (false, true) => wire::MountPropagation::PropagationHostToContainer,
            (false, false) => wire::MountPropagation::PropagationPrivate,
        }
        .into(),
    });
    let envs = config.envs.iter().map(|(key, value)| wire::KeyValue { key: key.clone(), value: value.clone() });
    wire::ContainerConfig {
        metadata: Some(wire::ContainerMetadata {
            name: config.metadata.name.clone(),
            attempt: config.metadata.attempt,
        }),
        image: Some(image_spec(&config.image)),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        envs: envs.collect(),
        mounts: mounts.collect(),
        labels: to_map(&config.labels),
        annotations: to_map(&config.annotations),
        log_path: text(&config.log_path),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(wire::LinuxContainerConfig {
            resources: Some(resources(&config.resources)),
            security_context: Some(wire::LinuxContainerSecurityContext {
                capabilities: Some(wire::Capability {
                    add_capabilities: security.add_capabilities.clone(),
                    drop_capabilities: security.drop_capabilities.clone(),
                }),
                privileged: security.privileged,
                namespace_options: Some(namespaces(sandbox, &security.target_id)),
                run_as_user: int(security.run_as_user),
                run_as_group: int(security.run_as_group.filter(|_| security.run_as_user.is_some())),
                readonly_rootfs: security.readonly_rootfs,
                supplemental_groups: sandbox.supplemental_groups.clone(),
                no_new_privs: security.no_new_privs,
                masked_paths: paths(&MASKED),
                readonly_paths: paths(&READONLY),
            }),
        }),
    }
}

fn sandbox_metadata(metadata: Option<wire::PodSandboxMetadata>) -> PodSandboxMetadata {
    let metadata = metadata.unwrap_or_default();
    PodSandboxMetadata {
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        attempt: metadata.attempt,
    }
}

fn sandbox_state(state: wire::PodSandboxState) -> PodSandboxState {
    match state {
        wire::PodSandboxState::SandboxReady => PodSandboxState::Ready,
        wire::PodSandboxState::SandboxNotready => PodSandboxState::NotReady,
    }
}

pub(super) fn sandbox(sandbox: wire::PodSandbox) -> PodSandbox {
    PodSandbox {
        state: sandbox_state(sandbox.state()),
        id: sandbox.id,
        metadata: sandbox_metadata(sandbox.metadata),
        created_at: time(sandbox.created_at),
        labels: from_map(sandbox.labels),
        annotations: from_map(sandbox.annotations),
        ips: Vec::new(),
    }
}

pub(super) fn sandbox_status(status: wire::PodSandboxStatus) -> PodSandbox {
    let network = status.network.clone().unwrap_or_default();
    let ips = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
    PodSandbox {
        state: sandbox_state(status.state()),
        id: status.id,
        metadata: sandbox_metadata(status.metadata),
        created_at: time(status.created_at),
        labels: from_map(status.labels),
        annotations: from_map(status.annotations),
        ips: ips.filter_map(|ip| ip.parse::<IpAddr>().ok()).collect(),
    }
}

fn metadata(metadata: Option<wire::ContainerMetadata>) -> ContainerMetadata {
    let metadata = metadata.unwrap_or_default();
    ContainerMetadata { name: metadata.name, attempt: metadata.attempt }
}

fn state(state: wire::ContainerState) -> ContainerState {
    match state {
        wire::ContainerState::ContainerCreated => ContainerState::Created,
        wire::ContainerState::ContainerRunning => ContainerState::Running,
        wire::ContainerState::ContainerExited => ContainerState::Exited,
        wire::ContainerState::ContainerUnknown => ContainerState::Unknown,
    }
}

pub(super) fn container(container: wire::Container) -> Container {
    Container {
        state: state(container.state()),
        id: container.id,
        pod_sandbox_id: container.pod_sandbox_id,
        metadata: metadata(container.metadata),
        image: container.image.unwrap_or_default().image,
        created_at: time(container.created_at),
        labels: from_map(container.labels),
        annotations: from_map(container.annotations),
    }
}

pub(super) fn container_status(status: wire::ContainerStatus, pod_sandbox_id: String) -> ContainerStatus {
    let container = Container {
        state: state(status.state()),
        id: status.id,
        pod_sandbox_id,
        metadata: metadata(status.metadata),
        image: status.image.unwrap_or_default().image,
        created_at: time(status.created_at),
        labels: from_map(status.labels),
        annotations: from_map(status.annotations),
    };
    ContainerStatus {
        container,
        started_at: some_time(status.started_at),
        finished_at: some_time(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image_ref: status.image_ref,
        log_path: PathBuf::from(status.log_path),
    }
}

pub(super) fn stats(stats: wire::ContainerStats) -> ContainerStats {
    let attributes = stats.attributes.unwrap_or_default();
    let (cpu, memory) = (stats.cpu.unwrap_or_default(), stats.memory.unwrap_or_default());
    let number = |value: Option<wire::UInt64Value>| value.map_or(0, |value| value.value);
    ContainerStats {
        id: attributes.id,
        metadata: metadata(attributes.metadata),
        labels: from_map(attributes.labels),
        timestamp: time(cpu.timestamp),
        usage_core_nano_seconds: number(cpu.usage_core_nano_seconds),
        working_set_bytes: number(memory.working_set_bytes),
        rss_bytes: number(memory.rss_bytes),
    }
}

pub(super) fn image(image: wire::Image) -> Image {
    Image {
        id: image.id,
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        size: image.size,
        uid: image.uid.map(|uid| uid.value),
        username: image.username,
    }
}
