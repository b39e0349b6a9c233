//! Whose certificates are taken, of those that an authority vouches for.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Error;

/// Names of which a certificate must have one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum CertificateNames {
    /// The common name of its subject is one of these.
    Common(Vec<String>),
    /// It is for one of these hosts.
    Hosts(Vec<ServerName<'static>>),
}

impl CertificateNames {
    /// Certificates for one of these host names and addresses.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is neither.
    pub fn hosts<S: AsRef<str>>(hosts: &[S]) -> Result<Self, Error> {
        let host = |host: &str| {
            ServerName::try_from(host.to_owned())
                .map_err(|error| Error::Invalid(format!("{host:?} is no host name: {error}")))
        };
        Ok(Self::Hosts(hosts.iter().map(|name| host(name.as_ref())).collect::<Result<_, _>>()?))
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        match self {
            Self::Common(names) => {
                let bad = |_| rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding);
                let (_, parsed) = X509Certificate::from_der(certificate).map_err(bad)?;
                // The last counts, as in Go.
                let name = parsed.subject().iter_common_name().last().and_then(|name| name.as_str().ok());
                if name.is_some_and(|name| names.iter().any(|allowed| allowed == name)) {
                    return Ok(());
                }
                Err(rustls::Error::General(format!("the certificate of {:?} is not allowed here", name.unwrap_or(""))))
            }
            Self::Hosts(hosts) => {
                let parsed = ParsedCertificate::try_from(certificate)?;
                if hosts.iter().any(|host| verify_server_name(&parsed, host).is_ok()) {
                    return Ok(());
                }
                Err(rustls::Error::General("the certificate is for none of the hosts that are allowed here".into()))
            }
        }
    }
}

/// Whoever another check takes, and has one of these names.
#[derive(Debug)]
pub(super) struct Named<V: ?Sized> {
    names: Arc<CertificateNames>,
    authorities: Arc<V>,
}

impl<V: ?Sized> Named<V> {
    pub(super) fn new(authorities: Arc<V>, names: Arc<CertificateNames>) -> Self {
        Self { names, authorities }
    }
}

impl ClientCertVerifier for Named<dyn ClientCertVerifier> {
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
        self.names.check(certificate)?;
        Ok(verified)
    }

    signatures_checked_by!(authorities);
}

impl ServerCertVerifier for Named<dyn ServerCertVerifier> {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.authorities.verify_server_cert(certificate, between, server, ocsp, now)?;
        self.names.check(certificate)?;
        Ok(verified)
    }

    signatures_checked_by!(authorities);
}
