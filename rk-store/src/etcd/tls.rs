//! The TLS of a server: certificates from PEM files, client certificates checked where an authority is given.

use std::{path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use crate::Error;

fn wrong(what: &Path, error: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("{}: {error}", what.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all = CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, error))?;
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(path, error))?;
    if all.is_empty() { Err(wrong(path, "no certificate")) } else { Ok(all) }
}

/// A server's TLS from its certificate chain and key. With the authorities of `client_ca`, clients must have a certificate of theirs.
///
/// # Errors
/// [`Error::Invalid`] with the file, if one can't be read or does not fit.
pub fn server_tls(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<ServerConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(cert, error))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|error| wrong(path, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| wrong(path, error))?)
        }
    };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error))?;
    let mut config = builder.with_single_cert(certificates(cert)?, private).map_err(|error| wrong(cert, error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
