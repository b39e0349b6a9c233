//! The TLS of members.

use std::{io, path::PathBuf, sync::Arc};

use rk_store::{Error, Reloaded};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::HANDSHAKE;

/// What members show each other. All three are of one authority, that of the group's members.
#[derive(Debug, Clone)]
pub struct PeerTls {
    loaded: Arc<Reloaded<Loaded>>,
}

struct Loaded {
    client: ClientTlsConfig,
    server: Arc<ServerConfig>,
}

fn wrong(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A member's certificate, its key, and the authority's certificate, in PEM.
fn load(certificate: &[u8], key: &[u8], authority: &[u8]) -> Result<Loaded, String> {
    let all = |pem| CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(wrong);
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for root in all(authority)? {
        roots.add(root).map_err(wrong)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_client_cert_verifier(verifier.map_err(wrong)?)
        .with_single_cert(all(certificate)?, PrivateKeyDer::from_pem_slice(key).map_err(wrong)?)
        .map_err(wrong)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    let client = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority))
        .identity(Identity::from_pem(certificate, key));
    Ok(Loaded { client, server: Arc::new(server) })
}

impl PeerTls {
    /// A member's certificate, for its host names and for both ends of a connection, the certificate's key, and the
    /// authority's certificate, in PEM.
    ///
    /// # Errors
    /// [`Error::Invalid`] if they can't be used.
    pub fn new(certificate: Vec<u8>, key: Vec<u8>, authority: Vec<u8>) -> Result<Self, Error> {
        let invalid = |error| Error::Invalid(format!("TLS of members: {error}"));
        let loaded = Reloaded::new([], move || load(&certificate, &key, &authority).map_err(invalid))?;
        Ok(Self { loaded: Arc::new(loaded) })
    }

    /// The same from files. When they have changed, connections that are made from then on use what they hold now.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Invalid`] if they can't be read or used.
    pub fn from_files(certificate: PathBuf, key: PathBuf, authority: PathBuf) -> Result<Self, Error> {
        let paths = [certificate, key, authority];
        let files = paths.clone();
        let read = |path: &PathBuf| {
            let io = |error: io::Error| Error::io(format!("TLS of members: {}", path.display()), &error);
            std::fs::read(path).map_err(io)
        };
        let loaded = Reloaded::new(paths, move || {
            let invalid = |error| Error::Invalid(format!("TLS of members: {files:?}: {error}"));
            load(&read(&files[0])?, &read(&files[1])?, &read(&files[2])?).map_err(invalid)
        })?;
        Ok(Self { loaded: Arc::new(loaded) })
    }

    /// For connections to others.
    pub(super) fn client(&self) -> ClientTlsConfig {
        self.loaded.get().client.clone()
    }

    /// Lets another member in.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.loaded.get().server.clone());
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake takes too long");
        tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await.map_err(late)?
    }
}
