//! The TLS of members.

use std::{io, path::PathBuf, sync::Arc};

use rk_store::{Error, Reloaded, TlsRules};
use rustls::{
    DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::{ClientTlsConfig, Endpoint, Identity};

use super::HANDSHAKE;

/// What members show each other: certificates of one authority, that of the group's members, or such that prove nothing.
#[derive(Debug, Clone)]
pub struct PeerTls {
    loaded: Arc<Reloaded<Loaded>>,
}

struct Loaded {
    client: ClientTlsConfig,
    /// Who others are taken for.
    servers: Arc<dyn ServerCertVerifier>,
    server: Arc<ServerConfig>,
}

fn wrong(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Whoever has the key of the certificate that is shown.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A member's certificate, its key, and the authority's certificate if others are to show theirs, in PEM.
fn load(certificate: &[u8], key: &[u8], authority: Option<&[u8]>, rules: &TlsRules) -> Result<Loaded, String> {
    let all = |pem| CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(wrong);
    let (clients, servers): (_, Arc<dyn ServerCertVerifier>) = match authority {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            for root in all(authority)? {
                roots.add(root).map_err(wrong)?;
            }
            (rules.check_clients(roots.clone()).map_err(wrong)?, rules.check_servers(roots).map_err(wrong)?)
        }
        None => (WebPkiClientVerifier::no_client_auth(), Arc::new(Anyone(rules.provider()))),
    };
    let mut server = rules
        .server()
        .map_err(wrong)?
        .with_client_cert_verifier(clients)
        .with_single_cert(all(certificate)?, PrivateKeyDer::from_pem_slice(key).map_err(wrong)?)
        .map_err(wrong)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    let client = ClientTlsConfig::new().identity(Identity::from_pem(certificate, key));
    Ok(Loaded { client, servers, server: Arc::new(server) })
}

impl PeerTls {
    /// A member's certificate, for its host names and for both ends of a connection, the certificate's key, and the
    /// authority's certificate, in PEM.
    ///
    /// # Errors
    /// [`Error::Invalid`] if they can't be used.
    pub fn new(certificate: Vec<u8>, key: Vec<u8>, authority: Vec<u8>) -> Result<Self, Error> {
        let invalid = |error| Error::Invalid(format!("TLS of members: {error}"));
        let rules = TlsRules::default();
        let loaded = Reloaded::new([], move || load(&certificate, &key, Some(&authority), &rules).map_err(invalid))?;
        Ok(Self { loaded: Arc::new(loaded) })
    }

    /// The same from files, and members on both ends of a connection are such as the rules allow. When the files have changed, connections
    /// that are made from then on use what they hold now.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Invalid`] if they can't be read or used.
    pub fn from_files(certificate: PathBuf, key: PathBuf, authority: PathBuf, rules: TlsRules) -> Result<Self, Error> {
        Self::of_files(vec![certificate, key, authority], rules)
    }

    /// A certificate and its key from files, for members that do not ask each other for an authority: nobody on the way can read what
    /// they send, and whoever reaches a member may say that it is another one (etcd's `--peer-auto-tls`). The rules say what is offered.
    ///
    /// # Errors
    /// As [`PeerTls::from_files`].
    pub fn unverified(certificate: PathBuf, key: PathBuf, rules: TlsRules) -> Result<Self, Error> {
        Self::of_files(vec![certificate, key], rules)
    }

    fn of_files(files: Vec<PathBuf>, rules: TlsRules) -> Result<Self, Error> {
        let paths: Vec<_> = files.iter().chain(rules.file()).cloned().collect();
        let read = |path: &PathBuf| {
            let io = |error: io::Error| Error::io(format!("TLS of members: {}", path.display()), &error);
            std::fs::read(path).map_err(io)
        };
        let loaded = Reloaded::new(paths, move || {
            let invalid = |error| Error::Invalid(format!("TLS of members: {files:?}: {error}"));
            let authority = files.get(2).map(read).transpose()?;
            load(&read(&files[0])?, &read(&files[1])?, authority.as_deref(), &rules).map_err(invalid)
        })?;
        Ok(Self { loaded: Arc::new(loaded) })
    }

    /// Has an endpoint connect to others so.
    pub(super) fn apply(&self, endpoint: Endpoint) -> Result<Endpoint, tonic::transport::Error> {
        let loaded = self.loaded.get();
        endpoint.tls_config_with_verifier(loaded.client.clone(), loaded.servers.clone())
    }

    /// Lets another member in.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.loaded.get().server.clone());
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake takes too long");
        tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await.map_err(late)?
    }
}
