//! Certificates of the kubelet API.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::ServerError;
use crate::{Identity, NodeConfig};

fn wrong(error: impl std::fmt::Display) -> ServerError {
    ServerError::Certificates(error.to_string())
}

/// A self-signed identity, as the kubelet makes where nobody gives it one.
fn self_signed(config: &NodeConfig) -> Result<Identity, ServerError> {
    let names = vec![config.name.clone(), config.address.to_string()];
    let made = rcgen::generate_simple_self_signed(names).map_err(wrong)?;
    Ok(Identity { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() })
}

pub(super) fn config(config: &NodeConfig) -> Result<ServerConfig, ServerError> {
    let identity = match &config.serving {
        Some(identity) => identity.clone(),
        None => self_signed(config)?,
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<_, _>>().map_err(wrong)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(wrong)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(wrong)?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
                roots.add(certificate.map_err(wrong)?).map_err(wrong)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            // Who shows none may still ask for `/healthz`.
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().map_err(wrong)?)
        }
    };
    let mut server = builder.with_single_cert(chain, key).map_err(wrong)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(server)
}
