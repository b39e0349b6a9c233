//! The TLS of members.

use std::{io, path::PathBuf, sync::Arc};

use rk_store::{Error, Reloaded};
use rustls::{
    DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::HANDSHAKE;

/// What members show each other: certificates of one authority, that of the group's members, or such that prove nothing.
#[derive(Debug, Clone)]
pub struct PeerTls {
    loaded: Arc<Reloaded<Loaded>>,
}

struct Loaded {
    client: ClientTlsConfig,
    /// Who others are taken for, if no authority says it.
    anyone: Option<Arc<Anyone>>,
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
fn load(certificate: &[u8], key: &[u8], authority: Option<&[u8]>) -> Result<Loaded, String> {
    let all = |pem| CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(wrong);
    let provider = Arc::new(ring::default_provider());
    let mut client = ClientTlsConfig::new().identity(Identity::from_pem(certificate, key));
    let (verifier, anyone) = match authority {
        Some(authority) => {
            client = client.ca_certificate(Certificate::from_pem(authority));
            let mut roots = RootCertStore::empty();
            for root in all(authority)? {
                roots.add(root).map_err(wrong)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
            (verifier.map_err(wrong)?, None)
        }
        None => (WebPkiClientVerifier::no_client_auth(), Some(Arc::new(Anyone(provider.clone())))),
    };
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(all(certificate)?, PrivateKeyDer::from_pem_slice(key).map_err(wrong)?)
        .map_err(wrong)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Loaded { client, anyone, server: Arc::new(server) })
}

impl PeerTls {
    /// A member's certificate, for its host names and for both ends of a connection, the certificate's key, and the
    /// authority's certificate, in PEM.
    ///
    /// # Errors
    /// [`Error::Invalid`] if they can't be used.
    pub fn new(certificate: Vec<u8>, key: Vec<u8>, authority: Vec<u8>) -> Result<Self, Error> {
        let invalid = |error| Error::Invalid(format!("TLS of members: {error}"));
        let loaded = Reloaded::new([], move || load(&certificate, &key, Some(&authority)).map_err(invalid))?;
        Ok(Self { loaded: Arc::new(loaded) })
    }

    /// The same from files. When they have changed, connections that are made from then on use what they hold now.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Invalid`] if they can't be read or used.
    pub fn from_files(certificate: PathBuf, key: PathBuf, authority: PathBuf) -> Result<Self, Error> {
        Self::of_files(vec![certificate, key, authority])
    }

    /// A certificate and its key from files, for members that do not ask each other for an authority: nobody on the way can read what
    /// they send, and whoever reaches a member may say that it is another one (etcd's `--peer-auto-tls`).
    ///
    /// # Errors
    /// As [`PeerTls::from_files`].
    pub fn unverified(certificate: PathBuf, key: PathBuf) -> Result<Self, Error> {
        Self::of_files(vec![certificate, key])
    }

    fn of_files(paths: Vec<PathBuf>) -> Result<Self, Error> {
        let files = paths.clone();
        let read = |path: &PathBuf| {
            let io = |error: io::Error| Error::io(format!("TLS of members: {}", path.display()), &error);
            std::fs::read(path).map_err(io)
        };
        let loaded = Reloaded::new(paths, move || {
            let invalid = |error| Error::Invalid(format!("TLS of members: {files:?}: {error}"));
            let authority = files.get(2).map(read).transpose()?;
            load(&read(&files[0])?, &read(&files[1])?, authority.as_deref()).map_err(invalid)
        })?;
        Ok(Self { loaded: Arc::new(loaded) })
    }

    /// Has an endpoint connect to others so.
    pub(super) fn apply(&self, endpoint: Endpoint) -> Result<Endpoint, tonic::transport::Error> {
        let loaded = self.loaded.get();
        match &loaded.anyone {
            None => endpoint.tls_config(loaded.client.clone()),
            Some(anyone) => endpoint.tls_config_with_verifier(loaded.client.clone(), anyone.clone()),
        }
    }

    /// Lets another member in.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.loaded.get().server.clone());
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake takes too long");
        tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await.map_err(late)?
    }
}
