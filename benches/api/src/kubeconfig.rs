//! Where an API is, and how it wants to be asked, from a kubeconfig.

use std::{
    fs, io,
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    current_context: String,
    contexts: Vec<NamedContext>,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
}

/// An API to connect to.
#[derive(Clone)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Host and port as the URL has them.
    pub authority: String,
    /// How to do TLS; `None` for plain HTTP.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The bearer token.
    pub token: Option<String>,
}

fn wrong(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("kubeconfig: {what}"))
}

/// The PEM that is embedded, or else in the file, which is relative to the kubeconfig.
fn pem(dir: &Path, data: &Option<String>, file: &Option<String>) -> io::Result<Option<Vec<u8>>> {
    match (data, file) {
        (Some(data), _) => Ok(Some(STANDARD.decode(data).map_err(wrong)?)),
        (None, Some(file)) => fs::read(dir.join(file)).map(Some),
        (None, None) => Ok(None),
    }
}

impl Endpoint {
    /// Reads the current context of a kubeconfig.
    ///
    /// # Errors
    /// It can't be read, or asks for what is not supported: a program that gives credentials, say.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        let file: File = serde_saphyr::from_str(&text).map_err(wrong)?;
        let dir = path.parent().unwrap_or(Path::new("."));
        let missing = |what: &str| wrong(format!("{what} is missing"));
        let context =
            file.contexts.iter().find(|c| c.name == file.current_context).ok_or_else(|| missing("context"))?;
        let cluster = file.clusters.iter().find(|c| c.name == context.context.cluster);
        let cluster = &cluster.ok_or_else(|| missing("cluster"))?.cluster;
        let user = &file.users.iter().find(|u| u.name == context.context.user).ok_or_else(|| missing("user"))?.user;
        let (scheme, rest) = cluster.server.split_once("://").ok_or_else(|| missing("server"))?;
        let host = rest.split('/').next().unwrap_or_default();
        let port = if scheme == "https" { 443 } else { 80 };
        let with_port = if host.rsplit(']').next().is_some_and(|end| end.contains(':')) {
            host.to_owned()
        } else {
            format!("{host}:{port}")
        };
        let address = with_port.to_socket_addrs()?.next().ok_or_else(|| wrong(format!("{host} has no address")))?;
        let tls = match scheme {
            "http" => None,
            _ => {
                let mut roots = RootCertStore::empty();
                let authority = pem(dir, &cluster.certificate_authority_data, &cluster.certificate_authority)?;
                for certificate in CertificateDer::pem_slice_iter(&authority.ok_or_else(|| missing("authority"))?) {
                    roots.add(certificate.map_err(wrong)?).map_err(wrong)?;
                }
                let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                    .with_safe_default_protocol_versions()
                    .map_err(wrong)?
                    .with_root_certificates(roots);
                let certificate = pem(dir, &user.client_certificate_data, &user.client_certificate)?;
                let key = pem(dir, &user.client_key_data, &user.client_key)?;
                let mut config = match (certificate, key) {
                    (Some(certificate), Some(key)) => {
                        let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
                        let key = PrivateKeyDer::from_pem_slice(&key).map_err(wrong)?;
                        config.with_client_auth_cert(chain.map_err(wrong)?, key).map_err(wrong)?
                    }
                    _ => config.with_no_client_auth(),
                };
                config.alpn_protocols = vec![b"h2".to_vec()];
                let name = cluster.tls_server_name.clone().unwrap_or_else(|| {
                    let name = with_port.rsplit_once(':').map_or(host, |(name, _)| name);
                    name.trim_matches(['[', ']']).to_owned()
                });
                Some((Arc::new(config), ServerName::try_from(name).map_err(wrong)?))
            }
        };
        Ok(Self { address, authority: with_port, tls, token: user.token.clone() })
    }
}
