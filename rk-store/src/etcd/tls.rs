//! The TLS of a server: certificates from PEM files, client certificates checked where an authority is given.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::{danger::HandshakeSignatureValid, verify_server_name},
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{
        ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

use crate::{Error, Reloaded};

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

/// Clients whose certificate is one for this host, too.
#[derive(Debug)]
struct OfHost {
    authorities: Arc<dyn ClientCertVerifier>,
    host: ServerName<'static>,
}

impl ClientCertVerifier for OfHost {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.authorities.verify_client_cert(certificate, between, now)?;
        verify_server_name(&ParsedCertificate::try_from(certificate)?, &self.host)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// A server's TLS from its certificate chain and key, which are read again when the files have changed. With the authorities of `client_ca`,
/// clients must have a certificate of theirs; with `client_host` too, one for this host name or address.
///
/// # Errors
/// [`Error::Invalid`] with the file, if one can't be read or does not fit, or with the host.
pub fn server_tls(
    cert: &Path,
    key: &Path,
    client_ca: Option<&Path>,
    client_host: Option<&str>,
) -> Result<ServerConfig, Error> {
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
            let authorities = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let authorities = authorities.map_err(|error| wrong(path, error))?;
            builder.with_client_cert_verifier(match client_host {
                None => authorities,
                Some(host) => {
                    let name = ServerName::try_from(host.to_owned());
                    let host = name.map_err(|error| Error::Invalid(format!("{host:?} is no host name: {error}")))?;
                    Arc::new(OfHost { authorities, host })
                }
            })
        }
    };
    let (cert, key): (PathBuf, PathBuf) = (cert.into(), key.into());
    let resolver = Reloaded::new([cert.clone(), key.clone()], move || certified_key(&cert, &key))?;
    let mut config = builder.with_cert_resolver(Arc::new(Resolver(resolver)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
