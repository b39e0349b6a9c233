//! The command line of `mini-cluster`; the names are those that users of k3d know.

use std::{net::Ipv4Addr, path::PathBuf, str::FromStr};

use clap::Parser;
use rk_api::server::RuntimeConfig;

/// A miniature Kubernetes-compatible cluster, in one process or in several on one machine.
#[derive(Debug, Clone, Parser)]
#[command(name = "mini-cluster", version, max_term_width = 100)]
pub struct Options {
    /// Worker nodes beside the server.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=125))]
    pub agents: u16,

    /// Control-plane replicas in this process: API servers on a raft group of as many members. Part of what a data folder is: it
    /// starts again with the same number.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=7))]
    pub servers: u16,

    /// Starts a cluster that servers in other processes of this machine can join: a raft group of one member at first.
    #[arg(long, conflicts_with_all = ["servers", "join", "pod_cidr", "service_cidr", "demo"])]
    pub cluster_init: bool,

    /// Joins the cluster of this server (its join address, https://IP:9345, which every server of a cluster started with
    /// --cluster-init prints) as one more server with agents of its own. Of no effect on a data folder that has joined.
    #[arg(long, value_name = "URL", conflicts_with_all = ["servers", "pod_cidr", "service_cidr", "demo"])]
    pub join: Option<String>,

    /// What --join shows the cluster: the content of DIR/token of one of its servers.
    #[arg(long, requires = "join")]
    pub token: Option<String>,

    /// A file with the token, which other users of this machine can't read, unlike a command line.
    #[arg(long, value_name = "FILE", requires = "join", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,

    /// Port of the HTTPS API on 127.0.0.1; 0 picks a free one. With several servers a load balancer in front of all of them,
    /// in each process.
    #[arg(long, default_value_t = 6443)]
    pub api_port: u16,

    /// Address that the API listens on.
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST)]
    pub api_address: Ipv4Addr,

    /// Publishes port PORT (80 or 443) of the cluster's load balancer, the ingress, on 127.0.0.1:HOST.
    #[arg(short = 'p', long = "port", value_name = "HOST:PORT@loadbalancer")]
    pub ports: Vec<PublishedPort>,

    /// All state lives here; a second start on the same folder continues it.
    /// [default: rk/mini-cluster under the user's data folder; a temporary folder for --demo]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// How containers run: `process` (host processes) or `cri:unix://SOCKET` (containerd).
    #[arg(long, default_value = "process")]
    pub runtime: Runtime,

    /// Configures the scheduler with this KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1), which kube-scheduler's --config takes.
    /// Its leaderElection and clientConnection are the cluster's own business.
    #[arg(long, value_name = "FILE")]
    pub scheduler_config: Option<PathBuf>,

    /// Serves these versions of the API too, as kube-apiserver's --runtime-config. scheduling.k8s.io/v1alpha2 brings PodGroups, whose pods
    /// the scheduler places all or none, if no --scheduler-config says otherwise.
    #[arg(long, value_name = "GROUP/VERSION=true,...", default_value = "")]
    pub runtime_config: RuntimeConfig,

    /// Writes the admin's kubeconfig here, besides DIR/kubeconfig.
    #[arg(long, value_name = "FILE")]
    pub write_kubeconfig: Option<PathBuf>,

    /// Pods get addresses of this range, on the loopback device (needs root). [default: a part of 127/8]
    #[arg(long, value_name = "CIDR")]
    pub pod_cidr: Option<Cidr>,

    /// Services get addresses of this range, on the loopback device (needs root). [default: a part of 127/8]
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<Cidr>,

    /// Applies the manifests of this file (`-` for standard input) once the API answers.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Shows what the cluster does on a sample application, then ends.
    #[arg(long)]
    pub demo: bool,

    /// Serves `hello from POD_NAME` over HTTP on this port of POD_IP: the sample application itself.
    #[arg(long, value_name = "PORT", hide = true)]
    pub hello: Option<u16>,
}

/// `HOST:PORT@loadbalancer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedPort {
    /// Port on 127.0.0.1.
    pub host: u16,
    /// Whether it is the load balancer's HTTPS port (443) instead of the HTTP one (80).
    pub tls: bool,
}

impl Options {
    /// Whether PodGroups are served.
    pub fn has_pod_groups(&self) -> bool {
        self.runtime_config.serves("scheduling.k8s.io", "v1alpha2")
    }
}

impl FromStr for PublishedPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ports, filter) = text.split_once('@').unwrap_or((text, "loadbalancer"));
        if filter != "loadbalancer" {
            return Err(format!("{filter:?}: ports can be published of the loadbalancer only"));
        }
        let (host, port) = ports.split_once(':').ok_or("expected HOST:PORT@loadbalancer")?;
        let host = host.parse().map_err(|_| format!("{host:?} is not a port"))?;
        match port {
            "80" => Ok(Self { host, tls: false }),
            "443" => Ok(Self { host, tls: true }),
            other => Err(format!("the load balancer serves ports 80 and 443, not {other:?}")),
        }
    }
}

/// How containers run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runtime {
    /// As process groups of the host.
    Process,
    /// In a container runtime behind this unix socket.
    Cri(PathBuf),
}

impl FromStr for Runtime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "process" => Ok(Self::Process),
            "oci" => Err("the oci runtime is not there yet: use process, or cri:unix://SOCKET".to_owned()),
            _ => match text.strip_prefix("cri:unix://") {
                Some(socket) if socket.starts_with('/') => Ok(Self::Cri(socket.into())),
                _ => Err(format!("{text:?}: expected process or cri:unix:///PATH/TO/SOCKET")),
            },
        }
    }
}

/// A range of IPv4 addresses, such as `10.42.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The first address.
    pub base: Ipv4Addr,
    /// How many leading bits are fixed.
    pub prefix: u8,
}

impl Cidr {
    /// The `n`th sub-range of 256 addresses.
    pub fn slash24(&self, n: u16) -> Self {
        Self { base: Ipv4Addr::from(u32::from(self.base) + (u32::from(n) << 8)), prefix: 24 }
    }

    /// The `n`th address.
    pub fn address(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + n)
    }

    /// How many addresses there are.
    pub fn size(&self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }

    /// Whether the ranges share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        let start = |cidr: &Self| u64::from(u32::from(cidr.base));
        start(self) < start(other) + other.size() && start(other) < start(self) + self.size()
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (base, prefix) = text.split_once('/').ok_or("expected ADDRESS/PREFIX")?;
        let base: Ipv4Addr = base.parse().map_err(|_| format!("{base:?} is not an IPv4 address"))?;
        let prefix: u8 = prefix.parse().ok().filter(|p| (8..=24).contains(p)).ok_or("the prefix must be 8 to 24")?;
        let cidr = Self { base, prefix };
        if u64::from(u32::from(base)) % cidr.size() != 0 {
            return Err(format!("{base} has bits set behind the prefix /{prefix}"));
        }
        Ok(cidr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_name_the_load_balancer() {
        assert_eq!("8080:80@loadbalancer".parse(), Ok(PublishedPort { host: 8080, tls: false }));
        assert_eq!("8443:443".parse(), Ok(PublishedPort { host: 8443, tls: true }));
        for bad in ["8080", "x:80", "8080:81@loadbalancer", "8080:80@server:0"] {
            assert!(bad.parse::<PublishedPort>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_are_whole() {
        let pods: Cidr = "10.42.0.0/16".parse().unwrap();
        assert_eq!(pods.slash24(3).to_string(), "10.42.3.0/24");
        assert_eq!(pods.address(257), Ipv4Addr::new(10, 42, 1, 1));
        assert!(pods.overlaps(&"10.42.9.0/24".parse().unwrap()) && !pods.overlaps(&"10.43.0.0/16".parse().unwrap()));
        for bad in ["10.42.0.1/16", "10.42.0.0", "10.42.0.0/33", "a/8", "10.42.0.0/25"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Options::command().debug_assert();
        let options = Options::parse_from(["mini-cluster", "--agents", "3", "-p", "8080:80@loadbalancer"]);
        assert_eq!((options.agents, options.ports.len(), options.runtime), (3, 1, Runtime::Process));
        for bad in [&["--join", "https://a:1", "--servers", "3"][..], &["--token", "x"], &["--servers", "8"]] {
            assert!(
                Options::try_parse_from(std::iter::once("mini-cluster").chain(bad.iter().copied())).is_err(),
                "{bad:?}"
            );
        }
    }
}
