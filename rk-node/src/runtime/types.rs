//! The messages of the CRI, as plain Rust: the wire's names, only the fields that the agent uses.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Labels or annotations.
pub type Map = BTreeMap<String, String>;

/// Who answers: the runtime's name and version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionResponse {
    /// Such as `containerd`.
    pub runtime_name: String,
    /// Such as `1.6.20`.
    pub runtime_version: String,
    /// Version of the CRI, such as `v1`.
    pub runtime_api_version: String,
}

/// Something that must hold for pods to run: `RuntimeReady`, `NetworkReady`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeCondition {
    /// The condition's type.
    pub r#type: String,
    /// Whether it holds.
    pub status: bool,
    /// One word why it does not.
    pub reason: String,
    /// A sentence why it does not.
    pub message: String,
}

/// Identity of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandboxMetadata {
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Counts the pod's sandboxes, from 0.
    pub attempt: u32,
}

/// Resolver settings of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options of the resolver, such as `ndots:5`.
    pub options: Vec<String>,
}

/// A port of the host that leads to a port of the sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Port in the sandbox.
    pub container_port: u16,
    /// Port of the host.
    pub host_port: u16,
    /// Address of the host; empty for all.
    pub host_ip: String,
}

/// What a sandbox is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandboxConfig {
    /// Identity.
    pub metadata: PodSandboxMetadata,
    /// The pod's host name; empty with the host's network.
    pub hostname: String,
    /// Folder of the containers' logs.
    pub log_directory: PathBuf,
    /// Resolver settings; `None` leaves the host's.
    pub dns_config: Option<DnsConfig>,
    /// Ports of the host.
    pub port_mappings: Vec<PortMapping>,
    /// Labels, kept and returned.
    pub labels: Map,
    /// Annotations, kept and returned.
    pub annotations: Map,
    /// Parent cgroup of the pod, such as `/kubepods/burstable/pod1234`; empty for none.
    pub cgroup_parent: String,
    /// Shares the host's network.
    pub host_network: bool,
    /// Sees the host's processes.
    pub host_pid: bool,
    /// Shares the host's IPC.
    pub host_ipc: bool,
    /// All containers see each other's processes.
    pub share_process_namespace: bool,
    /// Kernel parameters.
    pub sysctls: Map,
    /// Supplemental groups of all containers.
    pub supplemental_groups: Vec<i64>,
    /// User of the containers, unless a container has its own.
    pub run_as_user: Option<i64>,
    /// Group of the containers, unless a container has its own.
    pub run_as_group: Option<i64>,
    /// May hold privileged containers.
    pub privileged: bool,
    /// Name of the `RuntimeClass` handler; empty for the default.
    pub runtime_handler: String,
}

/// Whether a sandbox can run containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodSandboxState {
    /// It can.
    Ready,
    /// It was stopped, or broke.
    #[default]
    NotReady,
}

/// A sandbox as the runtime sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodSandbox {
    /// The runtime's id.
    pub id: String,
    /// Identity.
    pub metadata: PodSandboxMetadata,
    /// Whether it can run containers.
    pub state: PodSandboxState,
    /// When it was made.
    pub created_at: Timestamp,
    /// Labels it was made with.
    pub labels: Map,
    /// Annotations it was made with.
    pub annotations: Map,
    /// The pod's addresses, the main one first; empty with the host's network. Only in `pod_sandbox_status`.
    pub ips: Vec<IpAddr>,
}

/// Which sandboxes, or which containers, a list is of; empty fields match all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this id.
    pub id: String,
    /// Only those in this sandbox (containers only).
    pub pod_sandbox_id: String,
    /// Only those with these labels.
    pub labels: Map,
}

/// Identity of a container in its sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMetadata {
    /// Name in the pod.
    pub name: String,
    /// Counts the container's instances, from 0.
    pub attempt: u32,
}

/// A folder or file of the host that the container sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where the container sees it.
    pub container_path: PathBuf,
    /// Where it is on the host.
    pub host_path: PathBuf,
    /// The container can't write to it.
    pub readonly: bool,
    /// Mounts made inside on the host appear in the container.
    pub host_to_container: bool,
    /// And the other way round.
    pub bidirectional: bool,
}

/// Limits on Linux, in cgroup v1's terms; 0 is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxContainerResources {
    /// Length of a CPU period in microseconds.
    pub cpu_period: i64,
    /// CPU time per period in microseconds.
    pub cpu_quota: i64,
    /// Relative weight of the CPU share, 1024 being one core.
    pub cpu_shares: i64,
    /// Most memory in bytes.
    pub memory_limit_in_bytes: i64,
    /// How likely the kernel kills this container first, -1000 to 1000.
    pub oom_score_adj: i64,
}

/// Security settings of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityContext {
    /// All of the host's rights.
    pub privileged: bool,
    /// User id.
    pub run_as_user: Option<i64>,
    /// Group id.
    pub run_as_group: Option<i64>,
    /// The root file system can't be written.
    pub readonly_rootfs: bool,
    /// Processes may not gain rights.
    pub no_new_privs: bool,
    /// Capabilities to add.
    pub add_capabilities: Vec<String>,
    /// Capabilities to drop.
    pub drop_capabilities: Vec<String>,
    /// Shares the process namespace of this container (ephemeral containers).
    pub target_id: String,
}

/// What a container is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Identity.
    pub metadata: ContainerMetadata,
    /// The image, as the pod names it or as the image service resolved it.
    pub image: String,
    /// Command; empty for the image's.
    pub command: Vec<String>,
    /// Arguments; empty for the image's, if `command` is empty too.
    pub args: Vec<String>,
    /// Working folder; empty for the image's.
    pub working_dir: String,
    /// Environment, in order.
    pub envs: Vec<(String, String)>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Labels, kept and returned.
    pub labels: Map,
    /// Annotations, kept and returned.
    pub annotations: Map,
    /// Log file, relative to the sandbox's log folder.
    pub log_path: PathBuf,
    /// Keeps standard input open.
    pub stdin: bool,
    /// Closes standard input after the first attach ended.
    pub stdin_once: bool,
    /// Has a terminal.
    pub tty: bool,
    /// Limits.
    pub resources: LinuxContainerResources,
    /// Security settings.
    pub security: SecurityContext,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime lost it.
    #[default]
    Unknown,
}

/// A container as lists show it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Container {
    /// The runtime's id.
    pub id: String,
    /// Its sandbox.
    pub pod_sandbox_id: String,
    /// Identity.
    pub metadata: ContainerMetadata,
    /// The image it was made from.
    pub image: String,
    /// Where it is in its life.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Timestamp,
    /// Labels it was made with.
    pub labels: Map,
    /// Annotations it was made with.
    pub annotations: Map,
}

/// A container with all that the runtime knows of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerStatus {
    /// What lists show.
    pub container: Container,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Exit code; 128 + n after signal n.
    pub exit_code: i32,
    /// One word for how it ended, such as `OOMKilled`; empty for the usual (`Completed`, `Error`).
    pub reason: String,
    /// A sentence for how it ended.
    pub message: String,
    /// Identity of the image's content.
    pub image_ref: String,
    /// Its log file.
    pub log_path: PathBuf,
}

/// The outcome of a command run to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecSyncResponse {
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// Its exit code.
    pub exit_code: i32,
}

/// Which streams a client wants of a command or a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamRequest {
    /// The container.
    pub container_id: String,
    /// The command; empty in an attach.
    pub cmd: Vec<String>,
    /// With a terminal.
    pub tty: bool,
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// What a container, or a sandbox, uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerStats {
    /// The container's id.
    pub id: String,
    /// Name in the pod.
    pub metadata: ContainerMetadata,
    /// Labels.
    pub labels: Map,
    /// When this was measured.
    pub timestamp: Timestamp,
    /// CPU time since the start, in nanoseconds.
    pub usage_core_nano_seconds: u64,
    /// Memory that can't be dropped, in bytes.
    pub working_set_bytes: u64,
    /// Memory resident, in bytes.
    pub rss_bytes: u64,
}

/// An image the runtime has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Identity of the content.
    pub id: String,
    /// Names with tags.
    pub repo_tags: Vec<String>,
    /// Names with digests.
    pub repo_digests: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
    /// Numeric user that the image runs as, if it says so.
    pub uid: Option<i64>,
    /// Named user that the image runs as.
    pub username: String,
}

/// Credentials of a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// User.
    pub username: String,
    /// Password.
    pub password: String,
    /// Base64 of `user:password`.
    pub auth: String,
    /// The registry.
    pub server_address: String,
}

/// What happened to a container or sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerEventType {
    /// A container was made.
    Created,
    /// A container started.
    Started,
    /// A container ended.
    Stopped,
    /// A container was removed.
    Deleted,
}

/// One thing that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// The container's id.
    pub container_id: String,
    /// Uid of its pod.
    pub pod_uid: String,
    /// What happened.
    pub r#type: ContainerEventType,
}
