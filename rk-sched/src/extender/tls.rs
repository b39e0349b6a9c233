//! TLS with extenders.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use super::ExtenderSetupError;
use crate::config::{ExtenderSettings, ExtenderTls};

/// How to do TLS, and the name in the server's certificate where that is not the URL's host.
pub(super) struct Tls {
    pub(super) config: ClientConfig,
    pub(super) server_name: Option<ServerName<'static>>,
}

fn wrong(field: &'static str, reason: impl ToString) -> ExtenderSetupError {
    ExtenderSetupError { field, reason: reason.to_string() }
}

/// How to do TLS with an extender. Without authorities `enableHTTPS` believes any certificate (as `makeTransport` of kube-scheduler does); an
/// URL of https alone believes those of the system's authorities.
pub(super) fn client_config(settings: &ExtenderSettings) -> Result<Tls, ExtenderSetupError> {
    let tls = settings.tls_config.clone().unwrap_or_default();
    let authorities = part(&tls.ca_data, &tls.ca_file, ["tlsConfig.caData", "tlsConfig.caFile"])?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| wrong("tlsConfig", error))?;
    if tls.insecure && authorities.is_some() {
        return Err(wrong(
            "tlsConfig.insecure",
            "specifying a root certificates file with the insecure flag is not allowed",
        ));
    }
    let anybody = tls.insecure || (settings.enable_https && authorities.is_none());
    let builder = if anybody {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(roots(authorities.as_deref())?)
    };
    let config = match identity(&tls)? {
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(|error| wrong("tlsConfig.certData", error))?
        }
        None => builder.with_no_client_auth(),
    };
    let name = Some(tls.server_name).filter(|name| !name.is_empty());
    let name = name.map(ServerName::try_from).transpose().map_err(|error| wrong("tlsConfig.serverName", error))?;
    Ok(Tls { config, server_name: name })
}

/// PEM from data (base64) or, where that is empty, from a file; `None` if there is neither.
fn part(data: &str, file: &str, fields: [&'static str; 2]) -> Result<Option<Vec<u8>>, ExtenderSetupError> {
    if !data.is_empty() {
        return STANDARD.decode(data).map(Some).map_err(|error| wrong(fields[0], error));
    }
    if file.is_empty() {
        return Ok(None);
    }
    std::fs::read(file).map(Some).map_err(|error| wrong(fields[1], format!("{file}: {error}")))
}

/// The authorities given, or the system's.
fn roots(authorities: Option<&[u8]>) -> Result<RootCertStore, ExtenderSetupError> {
    let mut roots = RootCertStore::empty();
    let Some(pem) = authorities else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| wrong("tlsConfig.caData", error))?;
        roots.add(certificate).map_err(|error| wrong("tlsConfig.caData", error))?;
    }
    if roots.is_empty() {
        return Err(wrong("tlsConfig.caData", "no certificate of an authority"));
    }
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(tls: &ExtenderTls) -> Result<Option<Identity>, ExtenderSetupError> {
    let certificate = part(&tls.cert_data, &tls.cert_file, ["tlsConfig.certData", "tlsConfig.certFile"])?;
    let key = part(&tls.key_data, &tls.key_file, ["tlsConfig.keyData", "tlsConfig.keyFile"])?;
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|error| wrong("tlsConfig.certData", error))?;
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| wrong("tlsConfig.keyData", error))?;
            Ok(Some((chain, key)))
        }
        (Some(_), None) => Err(wrong("tlsConfig.keyData", "a certificate needs its key")),
        (None, Some(_)) => Err(wrong("tlsConfig.certData", "a key needs its certificate")),
    }
}

/// Takes any certificate whose key the other side holds.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
