//! The TLS of a server: certificates from PEM files, client certificates checked where an authority is given.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{Error, Reloaded, TlsRules};

fn wrong(what: &Path, error: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("{}: {error}", what.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all = CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, error))?;
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(path, error))?;
    if all.is_empty() { Err(wrong(path, "no certificate")) } else { Ok(all) }
}

/// The certificate of the files as they are when a client connects.
#[derive(Debug)]
struct Resolver(Reloaded<CertifiedKey>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get())
    }
}

fn certified_key(cert: &Path, key: &Path) -> Result<CertifiedKey, Error> {
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error))?;
    CertifiedKey::from_der(certificates(cert)?, private, &ring::default_provider()).map_err(|error| wrong(cert, error))
}

/// A server's TLS from its certificate chain and key, which are read again when the files have changed. With the authorities of `client_ca`,
/// clients must have a certificate of theirs, and one that the rules allow.
///
/// # Errors
/// [`Error::Invalid`] and [`Error::Io`] with the file, if one can't be read or does not fit.
pub fn server_tls(cert: &Path, key: &Path, client_ca: Option<&Path>, rules: &TlsRules) -> Result<ServerConfig, Error> {
    let builder = match client_ca {
        None => rules.server()?.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|error| wrong(path, error))?;
            }
            rules.server()?.with_client_cert_verifier(rules.check_clients(roots)?)
        }
    };
    let (cert, key): (PathBuf, PathBuf) = (cert.into(), key.into());
    let resolver = Reloaded::new([cert.clone(), key.clone()], move || certified_key(&cert, &key))?;
    let mut config = builder.with_cert_resolver(Arc::new(Resolver(resolver)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
