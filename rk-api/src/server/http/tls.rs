//! How the server does TLS: what it shows, whom of those who show something it believes, and how both change while it runs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{
        ClientHello, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::identity::ClientCertificate;

/// How often files are looked at for a new content.
const LOOK: Duration = Duration::from_secs(10);

/// How long it holds that a certificate is of an authority: some certificate between them may end.
const TRUSTED: Duration = Duration::from_secs(10);

/// Certificates or keys that can't be used for TLS.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct TlsError {
    /// Which part.
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

fn tls_error(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> TlsError {
    move |error| TlsError { what, reason: error.to_string() }
}

/// How a server does TLS: made by [`tls_config`]. Clones are the same, and change together.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    serving: Arc<Serving>,
    /// Checks the certificates of clients; `None` to ask for none.
    clients: Option<Arc<AskForCertificate>>,
}

impl Tls {
    /// The configuration for a listener of one's own, which then has to check what clients show: the handshake takes
    /// any certificate whose key the client holds.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// What the client of a connection shows of itself; `None` if it shows nothing, or is asked for nothing.
    pub(super) fn shown(&self, chain: Option<&[CertificateDer<'_>]>) -> Option<Shown> {
        let chain = chain.filter(|chain| !chain.is_empty())?;
        let chain = chain.iter().map(|certificate| CertificateDer::from(certificate.to_vec())).collect();
        Some(Shown { chain, clients: Arc::clone(self.clients.as_ref()?), checked: Mutex::default() })
    }

    /// Shows another certificate from the next handshake on, and believes other authorities from the next request on. Whether clients are asked for
    /// certificates at all stays as it was.
    ///
    /// # Errors
    /// One of the parts is not what it should be; then nothing changes.
    pub fn reload(&self, certificate: &str, key: &str, client_ca: Option<&str>) -> Result<(), TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let serving = certified_key(certificate, key, &provider)?;
        let verifier = client_ca.map(|pem| client_verifier(pem, provider)).transpose()?;
        self.serving.0.store(Arc::new(serving));
        if let (Some(clients), Some(verifier)) = (&self.clients, verifier) {
            clients.0.store(Arc::new(verifier));
        }
        Ok(())
    }

    /// Takes over the content of files whenever it changes, until `stop`. Files that can't be used (half of a renewed pair,
    /// say) change nothing, and are looked at again.
    pub async fn follow(&self, files: TlsFiles, stop: CancellationToken) {
        let mut known = files.read().ok();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            match files.read() {
                Ok(read) if known.as_ref() == Some(&read) => {}
                Ok(read) => match self.reload(&read.0, &read.1, read.2.as_deref()) {
                    Ok(()) => {
                        tracing::info!(certificate = %files.certificate.display(), "the serving certificate was renewed");
                        known = Some(read);
                    }
                    Err(error) => tracing::warn!(%error, "the files of the serving certificate are not taken over"),
                },
                Err((path, error)) => {
                    tracing::warn!(path = %path.display(), %error, "a file of the serving certificate can't be read");
                }
            }
        }
    }
}

/// Where the parts of a server's TLS are, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The serving certificate, with what stands between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of clients' certificates.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// The content of all.
    fn read(&self) -> Result<(String, String, Option<String>), (PathBuf, std::io::Error)> {
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| (path.to_owned(), error));
        Ok((read(&self.certificate)?, read(&self.key)?, self.client_ca.as_deref().map(read).transpose()?))
    }
}

/// The certificates that the client of a connection shows, and what was found of them.
pub(super) struct Shown {
    chain: Vec<CertificateDer<'static>>,
    clients: Arc<AskForCertificate>,
    checked: Mutex<Option<Checked>>,
}

/// What was found, by whom and when.
struct Checked {
    by: Arc<Verifier>,
    at: Instant,
    certificate: ClientCertificate,
}

impl Shown {
    /// The client's certificate, or why it is not trusted: by the authorities of the moment, for a connection may outlive them.
    pub(super) fn certificate(&self) -> ClientCertificate {
        let (verifier, now) = (self.clients.0.load(), Instant::now());
        let mut checked = self.checked.lock();
        if let Some(last) = &*checked
            && Arc::ptr_eq(&last.by, &verifier)
            && now.duration_since(last.at) < TRUSTED
        {
            return last.certificate.clone();
        }
        let (leaf, intermediates) = self.chain.split_first().expect("no chain is empty");
        let trusted = verifier.0.verify_client_cert(leaf, intermediates, UnixTime::now());
        let chain: Arc<[_]> = self.chain.iter().map(|certificate| Bytes::copy_from_slice(certificate)).collect();
        let trusted = trusted.map(|_| chain[0].clone()).map_err(|error| error.to_string());
        let certificate = ClientCertificate { trusted, chain };
        *checked = Some(Checked { by: Arc::clone(&verifier), at: now, certificate: certificate.clone() });
        certificate
    }
}

/// The certificate that is shown now.
#[derive(Debug)]
struct Serving(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// What checks clients' certificates now.
#[derive(Debug)]
struct Verifier(Arc<dyn ClientCertVerifier>);

/// Asks clients for a certificate and takes any whose key they hold. As in kube-apiserver the handshake does not tell
/// whom to trust: that is a question of authentication, whose answer is 401.
#[derive(Debug)]
struct AskForCertificate(ArcSwap<Verifier>);

impl ClientCertVerifier for AskForCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None are named, for they may change, and a front proxy's are others.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.load().0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.load().0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.load().0.supported_verify_schemes()
    }
}

fn certified_key(certificate: &str, key: &str, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let bad_certificate = tls_error("serving certificate");
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| bad_certificate(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| tls_error("serving key")(&error))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| bad_certificate(&error))
}

/// The authorities in PEM; there may be none.
///
/// # Errors
/// One is no certificate of an authority.
pub(crate) fn roots(what: &'static str, pem: &str) -> Result<RootCertStore, TlsError> {
    let wrong = tls_error(what);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    Ok(roots)
}

fn client_verifier(pem: &str, provider: Arc<CryptoProvider>) -> Result<Verifier, TlsError> {
    let roots = Arc::new(roots("client CA", pem)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
    verifier.allow_unauthenticated().build().map(Verifier).map_err(|error| tls_error("client CA")(&error))
}

/// TLS with a serving certificate and key in PEM. With `client_ca` (PEM), certificates that clients show are checked
/// against it; clients may show none. One that does not hold is no end of the connection, but wrong credentials.
///
/// # Errors
/// One of the parts is not what it should be.
pub fn tls_config(certificate: &str, key: &str, client_ca: Option<&str>) -> Result<Tls, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let serving = Arc::new(Serving(ArcSwap::from_pointee(certified_key(certificate, key, &provider)?)));
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| tls_error("serving certificate")(&error))?;
    let (builder, clients) = match client_ca {
        None => (builder.with_no_client_auth(), None),
        Some(pem) => {
            let clients = Arc::new(AskForCertificate(ArcSwap::from_pointee(client_verifier(pem, provider)?)));
            (builder.with_client_cert_verifier(clients.clone()), Some(clients))
        }
    };
    let mut config = builder.with_cert_resolver(serving.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Tls { config: Arc::new(config), serving, clients })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            certificate: folder.path().join("tls.crt"),
            key: folder.path().join("tls.key"),
            client_ca: Some(folder.path().join("ca.crt")),
        };
        let write = |pair: &(String, String)| {
            std::fs::write(&files.certificate, &pair.0).unwrap();
            std::fs::write(&files.key, &pair.1).unwrap();
        };
        let (first, second) = (pair(), pair());
        write(&first);
        std::fs::write(files.client_ca.as_ref().unwrap(), &first.0).unwrap();
        let tls = tls_config(&first.0, &first.1, Some(&first.0)).unwrap();
        let (before, stop) = (tls.serving.0.load_full(), CancellationToken::new());
        let following = tokio::spawn({
            let (tls, files, stop) = (tls.clone(), files.clone(), stop.clone());
            async move { tls.follow(files, stop).await }
        });
        // Half of a pair does not fit.
        tokio::time::sleep(LOOK / 2).await;
        std::fs::write(&files.certificate, &second.0).unwrap();
        tokio::time::sleep(LOOK).await;
        assert!(Arc::ptr_eq(&before, &tls.serving.0.load_full()));
        write(&second);
        tokio::time::sleep(LOOK).await;
        assert_ne!(before.cert, tls.serving.0.load_full().cert);
        stop.cancel();
        following.await.unwrap();
    }
}
