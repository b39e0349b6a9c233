//! From a pod's spec to the runtime's configurations.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use k8s_openapi::{
    api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, ResourceRequirements},
    apimachinery::pkg::{api::resource::Quantity as QuantityText, util::intstr::IntOrString},
};
use rk_api::Quantity;
use sha2::{Digest, Sha256};

use super::env::Envs;
use crate::{
    NodeConfig,
    runtime::types::{
        ContainerConfig, ContainerMetadata, DnsConfig, LinuxContainerResources, Map, Mount, PodSandboxConfig,
        PodSandboxMetadata, PortMapping, SecurityContext,
    },
};

/// Labels of sandboxes and containers, as the kubelet writes them.
pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const HASH: &str = "io.kubernetes.container.hash";
const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// The node a sandbox is of: several agents may share one runtime.
pub(crate) const NODE: &str = "rk.dev/node";

/// Which list of the pod's spec a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Runs to its end before the containers start.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside the containers.
    Sidecar,
    /// A container of the pod.
    Main,
    /// Added to a running pod.
    Ephemeral,
}

/// A container of any list.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) role: Role,
    pub(crate) container: Container,
    /// Whose processes an ephemeral container wants to see.
    pub(crate) target: String,
}

pub(crate) fn spec(pod: &Pod) -> &PodSpec {
    static NONE: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&NONE)
}

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Every container of the pod, init containers first.
pub(crate) fn members(pod: &Pod) -> Vec<Member> {
    let spec = spec(pod);
    let member = |role, container: &Container| Member { role, container: container.clone(), target: String::new() };
    let mut all = Vec::new();
    for container in spec.init_containers.iter().flatten() {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        all.push(member(if sidecar { Role::Sidecar } else { Role::Init }, container));
    }
    all.extend(spec.containers.iter().map(|container| member(Role::Main, container)));
    all.extend(spec.ephemeral_containers.iter().flatten().map(ephemeral));
    all
}

fn ephemeral(of: &EphemeralContainer) -> Member {
    let of = of.clone();
    let container = Container {
        name: of.name,
        image: of.image,
        image_pull_policy: of.image_pull_policy,
        command: of.command,
        args: of.args,
        env: of.env,
        env_from: of.env_from,
        working_dir: of.working_dir,
        volume_mounts: of.volume_mounts,
        security_context: of.security_context,
        stdin: of.stdin,
        stdin_once: of.stdin_once,
        tty: of.tty,
        termination_message_path: of.termination_message_path,
        termination_message_policy: of.termination_message_policy,
        ..Container::default()
    };
    Member { role: Role::Ephemeral, container, target: of.target_container_name.unwrap_or_default() }
}

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub(crate) fn of(pod: &Pod, member: &Member) -> Self {
        let pod_policy = spec(pod).restart_policy.as_deref();
        match (member.role, member.container.restart_policy.as_deref().or(pod_policy)) {
            (Role::Ephemeral, _) | (_, Some("Never")) => Self::Never,
            (Role::Sidecar, _) => Self::Always,
            (Role::Init, _) | (_, Some("OnFailure")) => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// Whether an exit with this code is followed by a new start.
    pub(crate) fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// What a change of makes the kubelet replace a container: its name and image.
pub(crate) fn hash(container: &Container) -> String {
    let text = format!("{}\0{}", container.name, container.image.as_deref().unwrap_or_default());
    Sha256::digest(text.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a container of the runtime was made from another image than the spec has now.
pub(crate) fn is_outdated(container: &Container, annotations: &Map) -> bool {
    annotations.get(HASH).is_some_and(|made_from| *made_from != hash(container))
}

/// Where a pod's folder is.
pub(crate) fn pod_folder(config: &NodeConfig, uid: &str) -> PathBuf {
    config.data_dir.join("pods").join(uid)
}

/// Where a pod's logs are.
pub(crate) fn log_folder(config: &NodeConfig, pod: &Pod) -> PathBuf {
    config.data_dir.join("logs").join("pods").join(format!("{}_{}_{}", namespace(pod), name(pod), uid(pod)))
}

fn milli(list: Option<&BTreeMap<String, QuantityText>>, resource: &str) -> Option<i64> {
    Some(list?.get(resource)?.0.parse::<Quantity>().ok()?.milli_value())
}

fn value(list: Option<&BTreeMap<String, QuantityText>>, resource: &str) -> Option<i64> {
    Some(list?.get(resource)?.0.parse::<Quantity>().ok()?.value())
}

/// The pod's quality of service (API reference, "Pod Quality of Service Classes").
pub(crate) fn qos_class(pod: &Pod) -> &'static str {
    let spec = spec(pod);
    let all: Vec<&Container> = spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    let positive = |list: Option<&BTreeMap<String, QuantityText>>, name: &str| milli(list, name).filter(|v| *v > 0);
    let (mut any, mut guaranteed) = (false, true);
    for container in all {
        let none = ResourceRequirements::default();
        let resources = container.resources.as_ref().unwrap_or(&none);
        for resource in ["cpu", "memory"] {
            let limit = positive(resources.limits.as_ref(), resource);
            let request = positive(resources.requests.as_ref(), resource);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.or(limit) == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Limits in the kernel's terms, as the kubelet computes them.
pub(crate) fn resources(pod: &Pod, container: &Container, memory_capacity: i64) -> LinuxContainerResources {
    let none = ResourceRequirements::default();
    let resources = container.resources.as_ref().unwrap_or(&none);
    let (limits, requests) = (resources.limits.as_ref(), resources.requests.as_ref());
    let cpu_limit = milli(limits, "cpu").unwrap_or(0);
    let cpu_request = milli(requests, "cpu").unwrap_or(cpu_limit);
    let memory_request = value(requests, "memory").or(value(limits, "memory")).unwrap_or(0);
    let oom_score_adj = match qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => (1000 - 1000 * memory_request / memory_capacity.max(1)).clamp(3, 999),
    };
    LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: if cpu_limit > 0 { (cpu_limit * 100).max(1000) } else { 0 },
        cpu_shares: (cpu_request * 1024 / 1000).max(2),
        memory_limit_in_bytes: value(limits, "memory").unwrap_or(0),
        oom_score_adj,
    }
}

/// The pod's cgroup, below which its containers' are.
pub(crate) fn cgroup_parent(pod: &Pod) -> String {
    match qos_class(pod) {
        "Guaranteed" => format!("/kubepods/pod{}", uid(pod)),
        class => format!("/kubepods/{}/pod{}", class.to_lowercase(), uid(pod)),
    }
}

/// The pod's host name.
pub(crate) fn hostname(pod: &Pod) -> String {
    let spec = spec(pod);
    let wanted = spec.hostname_override.as_ref().or(spec.hostname.as_ref()).filter(|name| !name.is_empty());
    let mut name = wanted.map_or(name(pod), String::as_str).to_owned();
    // The kernel's limit; names of pods may be longer.
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

fn dns(pod: &Pod, config: &NodeConfig) -> Option<DnsConfig> {
    let spec = spec(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let host_network = spec.host_network == Some(true);
    let in_cluster = policy == "ClusterFirstWithHostNet" || policy == "ClusterFirst" && !host_network;
    let mut dns = DnsConfig::default();
    if in_cluster && !config.cluster_dns.is_empty() {
        let domain = &config.cluster_domain;
        dns.servers = config.cluster_dns.iter().map(ToString::to_string).collect();
        dns.searches = vec![format!("{}.svc.{domain}", namespace(pod)), format!("svc.{domain}"), domain.clone()];
        dns.options = vec!["ndots:5".to_owned()];
    }
    if let Some(extra) = &spec.dns_config {
        dns.servers.extend(extra.nameservers.iter().flatten().cloned());
        dns.searches.extend(extra.searches.iter().flatten().cloned());
        for option in extra.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            let text = option.value.as_ref().map_or(name.to_owned(), |value| format!("{name}:{value}"));
            dns.options.retain(|known| known.split(':').next() != Some(name));
            dns.options.push(text);
        }
    }
    (policy == "None" || dns != DnsConfig::default()).then_some(dns)
}

/// What the pod's sandbox is made from.
pub(crate) fn sandbox_config(pod: &Pod, config: &NodeConfig, attempt: u32) -> PodSandboxConfig {
    let spec = spec(pod);
    let host_network = spec.host_network == Some(true);
    let ports = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = ports.flat_map(|container| container.ports.iter().flatten()).filter_map(|port| {
        let port_number = |port: i32| u16::try_from(port).ok();
        Some(PortMapping {
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            container_port: port_number(port.container_port)?,
            host_port: port_number(port.host_port?)?,
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
    });
    let context = spec.security_context.clone().unwrap_or_default();
    PodSandboxConfig {
        metadata: PodSandboxMetadata {
            name: name(pod).to_owned(),
            uid: uid(pod).to_owned(),
            namespace: namespace(pod).to_owned(),
            attempt,
        },
        hostname: if host_network { String::new() } else { hostname(pod) },
        log_directory: log_folder(config, pod),
        dns_config: dns(pod, config),
        port_mappings: if host_network { Vec::new() } else { ports.collect() },
        labels: labels(pod, config, pod.metadata.labels.clone().unwrap_or_default()),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        cgroup_parent: cgroup_parent(pod),
        host_network,
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        share_process_namespace: spec.share_process_namespace == Some(true),
        sysctls: context.sysctls.into_iter().flatten().map(|sysctl| (sysctl.name, sysctl.value)).collect(),
        supplemental_groups: context.supplemental_groups.into_iter().flatten().chain(context.fs_group).collect(),
        run_as_user: context.run_as_user,
        run_as_group: context.run_as_group,
        privileged: members(pod).iter().any(|member| {
            member.container.security_context.as_ref().and_then(|context| context.privileged) == Some(true)
        }),
        runtime_handler: String::new(),
    }
}

fn labels(pod: &Pod, config: &NodeConfig, mut labels: Map) -> Map {
    labels.insert(POD_NAME.to_owned(), name(pod).to_owned());
    labels.insert(POD_NAMESPACE.to_owned(), namespace(pod).to_owned());
    labels.insert(POD_UID.to_owned(), uid(pod).to_owned());
    labels.insert(NODE.to_owned(), config.name.clone());
    labels
}

/// Where a container's instance leaves its termination message.
pub(crate) fn termination_log(config: &NodeConfig, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
    pod_folder(config, uid(pod)).join("containers").join(container).join(format!("termination-log-{attempt}"))
}

/// The number of a container's port, given by number or name.
pub(crate) fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("invalid port: {port:?}"))
}

/// What a container's instance is made from.
pub(crate) struct Making<'a> {
    pub(crate) config: &'a NodeConfig,
    pub(crate) pod: &'a Pod,
    pub(crate) member: &'a Member,
    pub(crate) attempt: u32,
    pub(crate) image: String,
    pub(crate) envs: Envs,
    pub(crate) volumes: &'a BTreeMap<String, PathBuf>,
    pub(crate) hosts_file: Option<PathBuf>,
    pub(crate) memory_capacity: i64,
    /// Id of the container that an ephemeral container looks at.
    pub(crate) target_id: String,
}

impl Making<'_> {
    /// The configuration.
    ///
    /// # Errors
    /// In the kubelet's words: the reason `CreateContainerConfigError`.
    pub(crate) fn config(self) -> Result<ContainerConfig, String> {
        let Self { config, pod, member, attempt, volumes, .. } = self;
        let container = &member.container;
        let mut mounts = Vec::new();
        for wanted in container.volume_mounts.iter().flatten() {
            let volume = volumes
                .get(&wanted.name)
                .ok_or_else(|| format!("volume mount \"{}\" names no volume of the pod", wanted.name))?;
            mounts.push(Mount {
                container_path: PathBuf::from(&wanted.mount_path),
                host_path: sub_path(volume, wanted.sub_path.as_deref(), wanted.sub_path_expr.as_deref(), &self.envs)?,
                readonly: wanted.read_only == Some(true),
                host_to_container: wanted.mount_propagation.as_deref() == Some("HostToContainer"),
                bidirectional: wanted.mount_propagation.as_deref() == Some("Bidirectional"),
            });
        }
        if let Some(hosts) = self.hosts_file
            && !mounts.iter().any(|mount| mount.container_path == Path::new("/etc/hosts"))
        {
            mounts.push(Mount { container_path: "/etc/hosts".into(), host_path: hosts, ..Mount::default() });
        }
        let message_path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        mounts.push(Mount {
            container_path: PathBuf::from(message_path),
            host_path: termination_log(config, pod, &container.name, attempt),
            ..Mount::default()
        });
        let expanded = |words: Option<&Vec<String>>| -> Vec<String> {
            let expand = |word: &String| super::env::expand(word, |name| self.envs.get(name));
            words.into_iter().flatten().map(expand).collect()
        };
        let (command, args) = (expanded(container.command.as_ref()), expanded(container.args.as_ref()));
        let log_path = PathBuf::from(&container.name).join(format!("{attempt}.log"));
        let mut envs = self.envs.into_inner();
        if !envs.iter().any(|(name, _)| name == "HOSTNAME") && spec(pod).host_network != Some(true) {
            envs.push(("HOSTNAME".to_owned(), hostname(pod)));
        }
        let mut labels = labels(pod, config, Map::new());
        labels.insert(CONTAINER_NAME.to_owned(), container.name.clone());
        let annotations = [(HASH, hash(container)), (RESTART_COUNT, attempt.to_string())];
        Ok(ContainerConfig {
            metadata: ContainerMetadata { name: container.name.clone(), attempt },
            image: self.image,
            command,
            args,
            working_dir: container.working_dir.clone().unwrap_or_default(),
            envs,
            mounts,
            labels,
            annotations: annotations.map(|(key, value)| (key.to_owned(), value)).into(),
            log_path,
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            tty: container.tty == Some(true),
            resources: resources(pod, container, self.memory_capacity),
            security: security(pod, container, self.target_id),
        })
    }
}

fn sub_path(volume: &Path, sub: Option<&str>, expr: Option<&str>, envs: &Envs) -> Result<PathBuf, String> {
    let sub = match expr.filter(|expr| !expr.is_empty()) {
        Some(expr) => super::env::expand(expr, |name| envs.get(name)),
        None => sub.unwrap_or_default().to_owned(),
    };
    if sub.is_empty() {
        return Ok(volume.to_owned());
    }
    if sub.starts_with('/') || sub.split('/').any(|part| part == "..") {
        return Err(format!("subPath {sub:?} must be inside the volume"));
    }
    let path = volume.join(&sub);
    if !path.exists() {
        std::fs::create_dir_all(&path)
            .map_err(|error| format!("failed to create subPath directory {sub:?}: {error}"))?;
    }
    // A symlink in the volume must not lead the mount elsewhere.
    let inside = path.canonicalize().and_then(|path| Ok(path.starts_with(volume.canonicalize()?)));
    match inside {
        Ok(true) => Ok(path),
        Ok(false) => Err(format!("subPath {sub:?} leaves the volume")),
        Err(error) => Err(format!("subPath {sub:?}: {error}")),
    }
}

fn security(pod: &Pod, container: &Container, target_id: String) -> SecurityContext {
    let of_pod = spec(pod).security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let capabilities = own.capabilities.unwrap_or_default();
    SecurityContext {
        privileged: own.privileged == Some(true),
        run_as_user: own.run_as_user.or(of_pod.run_as_user),
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        target_id,
    }
}
