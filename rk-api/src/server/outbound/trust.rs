//! Whom the server believes that it calls.

use std::{
    fmt::{self, Write},
    sync::{Arc, OnceLock},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use serde_json::Value;

use crate::server::{TlsError, http::roots};

/// Whom to believe on the other side.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trust<'a> {
    /// Certificates of these authorities, in PEM.
    Authorities(&'a str),
    /// Certificates of the authorities that the system trusts.
    System,
    /// Anybody: somebody asked for that in so many words (`insecureSkipTLSVerify`), or nobody could know whose certificate it should
    /// be (`proxy` to a pod).
    Anybody,
}

impl<'a> Trust<'a> {
    /// These authorities (PEM), or the system's if none are named.
    pub(crate) fn named_or_system(pem: &'a str) -> Self {
        if pem.is_empty() { Self::System } else { Self::Authorities(pem) }
    }
}

/// The authorities that the system trusts. They are where OpenSSL has them, or where `SSL_CERT_FILE` and `SSL_CERT_DIR` say, and
/// read once; if there were none, again the next time.
fn system() -> Result<Arc<RootCertStore>, TlsError> {
    static READ: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(read) = READ.get() {
        return Ok(Arc::clone(read));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let mut reason = "no authorities are named, and the system has none".to_owned();
        for error in found.errors {
            let _ = write!(reason, "; {error}");
        }
        return Err(TlsError { what: "CA", reason });
    }
    Ok(Arc::clone(READ.get_or_init(|| Arc::new(roots))))
}

/// How to do TLS with somebody whose authorities are in a `caBundle` (base64 of PEM). If that is missing or empty, they are the system's
/// (API reference of `WebhookClientConfig` and `APIServiceSpec`).
///
/// # Errors
/// As of [`client_tls`]; or the bundle is no base64.
pub(crate) fn bundle_tls(bundle: &Value, identity: Option<(&str, &str)>) -> Result<Arc<ClientConfig>, TlsError> {
    let pem = STANDARD.decode(bundle.as_str().unwrap_or_default());
    let pem = pem.map_err(|error| TlsError { what: "CA", reason: error.to_string() })?;
    client_tls(Trust::named_or_system(&String::from_utf8_lossy(&pem)), identity)
}

/// How to do TLS as a client; with an identity (certificate and key in PEM) it shows that.
///
/// # Errors
/// A part is not what it should be, or no authorities are named and the system has none.
pub(crate) fn client_tls(trust: Trust<'_>, identity: Option<(&str, &str)>) -> Result<Arc<ClientConfig>, TlsError> {
    let wrong = |what, reason: &dyn fmt::Display| TlsError { what, reason: reason.to_string() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| wrong("TLS", &error))?;
    let builder = match trust {
        Trust::Authorities(pem) => {
            let roots = roots("CA", pem)?;
            if roots.is_empty() {
                return Err(wrong("CA", &"no certificate of an authority"));
            }
            builder.with_root_certificates(roots)
        }
        Trust::System => builder.with_root_certificates(system()?),
        Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider))),
    };
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|error| wrong("client certificate", &error))?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| wrong("client key", &error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| wrong("client certificate", &error))?
        }
    };
    Ok(Arc::new(config))
}

/// Takes any certificate whose key the other side holds.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
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
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
