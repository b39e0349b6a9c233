//! Certificates by host name.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use parking_lot::RwLock;
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// The certificates of all hosts. They may be replaced while connections are made.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    table: RwLock<Arc<Table>>,
}

/// Certificates by host.
#[derive(Debug, Default)]
pub(super) struct Table {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// Hosts `*.suffix`, by suffix.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    /// For all other hosts, and for clients that name none.
    default: Option<Arc<CertifiedKey>>,
}

impl Table {
    /// Sets the certificate of hosts, of all others where none are named. The first that asks for a host has it.
    pub(super) fn add(&mut self, hosts: &[String], certificate: &Arc<CertifiedKey>) {
        if hosts.is_empty() && self.default.is_none() {
            self.default = Some(Arc::clone(certificate));
        }
        for host in hosts {
            let host = host.to_ascii_lowercase();
            let (map, key) = match host.strip_prefix("*.") {
                Some(suffix) => (&mut self.wildcard, suffix.to_owned()),
                None => (&mut self.exact, host),
            };
            map.entry(key).or_insert_with(|| Arc::clone(certificate));
        }
    }

    fn find(&self, host: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let host = host.map(str::to_ascii_lowercase);
        let named = host.as_ref().and_then(|host| {
            let wildcard = || host.split_once('.').and_then(|(_, suffix)| self.wildcard.get(suffix));
            self.exact.get(host).or_else(wildcard)
        });
        named.or(self.default.as_ref()).cloned()
    }
}

impl Certificates {
    /// Uses these certificates for the connections from now on.
    pub(super) fn set(&self, table: Table) {
        *self.table.write() = Arc::new(table);
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.table.read().find(hello.server_name())
    }
}

/// The certificate and key in a Secret of type `kubernetes.io/tls`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn certificate(secret: &Secret) -> Result<CertifiedKey, String> {
    let field = |name: &str| {
        let data = secret.data.as_ref().and_then(|data| data.get(name));
        data.map(|bytes| bytes.0.as_slice()).ok_or_else(|| format!("it has no {name}"))
    };
    let chain = CertificateDer::pem_slice_iter(field("tls.crt")?).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("tls.crt: {error}"))?;
    if chain.is_empty() {
        return Err("tls.crt holds no certificate".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(field("tls.key")?).map_err(|error| format!("tls.key: {error}"))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| error.to_string())
}

/// The settings of the HTTPS listener.
///
/// # Errors
/// The TLS library lacks what it needs.
pub(super) fn settings(certificates: Arc<Certificates>) -> Result<rustls::ServerConfig, rustls::Error> {
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config =
        builder.with_safe_default_protocol_versions()?.with_no_client_auth().with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
