//! The flags of TLS that clients and members have each their own of.

use std::path::PathBuf;

use clap::{ArgAction, Args};

/// The TLS of clients.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientTls {
    /// Path to the client server TLS cert file.
    #[arg(long, env = "ETCD_CERT_FILE", requires = "key_file")]
    pub(crate) cert_file: Option<PathBuf>,
    /// Path to the client server TLS key file.
    #[arg(long, env = "ETCD_KEY_FILE", requires = "cert_file")]
    pub(crate) key_file: Option<PathBuf>,
    /// Enable client cert authentication.
    #[arg(long, env = "ETCD_CLIENT_CERT_AUTH", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true")]
    pub(crate) client_cert_auth: bool,
    /// Path to the client server TLS trusted CA cert file; given, clients must have a certificate.
    #[arg(long, env = "ETCD_TRUSTED_CA_FILE")]
    pub(crate) trusted_ca_file: Option<PathBuf>,
    /// List of allowed TLS hostnames for client cert authentication.
    #[arg(long, env = "ETCD_CLIENT_CERT_ALLOWED_HOSTNAME", value_delimiter = ',', requires = "trusted_ca_file")]
    pub(crate) client_cert_allowed_hostname: Vec<String>,
    /// Path to the client certificate revocation list file.
    #[arg(long, env = "ETCD_CLIENT_CRL_FILE", requires = "trusted_ca_file")]
    pub(crate) client_crl_file: Option<PathBuf>,
    /// Client TLS using a generated certificate, if no cert file is given.
    #[arg(long, env = "ETCD_AUTO_TLS", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true")]
    pub(crate) auto_tls: bool,
}

/// The TLS of members.
#[derive(Debug, Clone, Args)]
pub(crate) struct PeerTls {
    /// Path to the peer server TLS cert file.
    #[arg(long, env = "ETCD_PEER_CERT_FILE", requires = "peer_key_file")]
    pub(crate) peer_cert_file: Option<PathBuf>,
    /// Path to the peer server TLS key file.
    #[arg(long, env = "ETCD_PEER_KEY_FILE", requires = "peer_cert_file")]
    pub(crate) peer_key_file: Option<PathBuf>,
    /// Enable peer client cert authentication.
    #[arg(long, env = "ETCD_PEER_CLIENT_CERT_AUTH", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true")]
    pub(crate) peer_client_cert_auth: bool,
    /// Path to the peer server TLS trusted CA file.
    #[arg(long, env = "ETCD_PEER_TRUSTED_CA_FILE")]
    pub(crate) peer_trusted_ca_file: Option<PathBuf>,
    /// Path to the peer certificate revocation list file.
    #[arg(long, env = "ETCD_PEER_CRL_FILE", requires = "peer_trusted_ca_file")]
    pub(crate) peer_crl_file: Option<PathBuf>,
    /// List of allowed CNs for inter peer authentication.
    #[arg(long, env = "ETCD_PEER_CERT_ALLOWED_CN", value_delimiter = ',', requires = "peer_trusted_ca_file")]
    pub(crate) peer_cert_allowed_cn: Vec<String>,
    /// List of allowed TLS hostnames for inter peer authentication.
    #[arg(
        long,
        env = "ETCD_PEER_CERT_ALLOWED_HOSTNAME",
        value_delimiter = ',',
        requires = "peer_trusted_ca_file",
        conflicts_with = "peer_cert_allowed_cn"
    )]
    pub(crate) peer_cert_allowed_hostname: Vec<String>,
    /// Peer TLS using generated certificates, if no peer cert file is given: what members send is encrypted, and they are not asked who
    /// they are.
    #[arg(long, env = "ETCD_PEER_AUTO_TLS", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true")]
    pub(crate) peer_auto_tls: bool,
}
