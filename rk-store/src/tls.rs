//! The rules of TLS that a server keeps towards its clients, and members of a group towards each other: what is offered, and whose
//! certificate is taken.

/// The part of a verifier that another one does: how signatures are checked.
macro_rules! signatures_checked_by {
    ($other:ident) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.$other.verify_tls12_signature(message, certificate, signed)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.$other.verify_tls13_signature(message, certificate, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.$other.supported_verify_schemes()
        }
    };
}

mod names;
mod offer;

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ConfigBuilder, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    WantsVerifier,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

pub use self::names::CertificateNames;
use self::{names::Named, offer::Offer};
use crate::{Error, Reloaded};

/// What is offered and whose certificate is taken, besides that it is one of an authority.
#[derive(Debug, Clone, Default)]
pub struct TlsRules {
    offer: Offer,
    revoked: Option<PathBuf>,
    names: Option<Arc<CertificateNames>>,
}

impl TlsRules {
    /// With these versions only: etcd's names `TLS1.2` and `TLS1.3`, or nothing for the lowest and the highest there is.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another name, or if nothing is left.
    pub fn with_versions(mut self, lowest: &str, highest: &str) -> Result<Self, Error> {
        self.offer.limit_versions(lowest, highest)?;
        Ok(self)
    }

    /// With these cipher suites only, by the names that IANA and Go have for them. As in Go, those of TLS 1.3 are always offered.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that is not there, or for any where no version before TLS 1.3 is offered.
    pub fn with_suites<S: AsRef<str>>(mut self, suites: &[S]) -> Result<Self, Error> {
        self.offer.limit_suites(suites)?;
        Ok(self)
    }

    /// Without certificates that a list in this file has revoked, in PEM or DER. Those that no list says anything of are taken.
    pub fn with_revoked(mut self, list: Option<PathBuf>) -> Self {
        self.revoked = list;
        self
    }

    /// With certificates of these names only.
    pub fn with_names(mut self, names: Option<CertificateNames>) -> Self {
        self.names = names.map(Arc::new);
        self
    }

    /// Whether certificates are told from each other, beyond what an authority says.
    pub fn judges(&self) -> bool {
        self.revoked.is_some() || self.names.is_some()
    }

    /// The file that the rules come from, if there is one.
    pub fn file(&self) -> Option<&PathBuf> {
        self.revoked.as_ref()
    }

    /// The cryptography that is offered.
    pub fn provider(&self) -> Arc<CryptoProvider> {
        self.offer.provider()
    }

    /// The beginning of a server's configuration.
    ///
    /// # Errors
    /// [`Error::Invalid`] if nothing can be offered.
    pub fn server(&self) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, Error> {
        let builder = ServerConfig::builder_with_provider(self.provider());
        builder.with_protocol_versions(self.offer.versions()).map_err(|error| Error::Invalid(error.to_string()))
    }

    /// Checks whoever connects. When the list of the revoked has changed, what it says then counts.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Invalid`] if the list can't be read.
    pub fn check_clients(&self, authorities: RootCertStore) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let (authorities, rules) = (Arc::new(authorities), self.clone());
        let load = move || {
            let builder = WebPkiClientVerifier::builder_with_provider(authorities.clone(), rules.provider());
            let verifier = builder.with_crls(rules.lists()?).allow_unknown_revocation_status().build();
            let verifier = verifier.map_err(|error| rules.unusable(error))?;
            Ok(match &rules.names {
                None => verifier,
                Some(names) => Arc::new(Named::new(verifier, names.clone())),
            })
        };
        let now = Reloaded::new(self.revoked.clone(), load)?;
        Ok(Arc::new(Current { first: Arc::clone(&now.get()), now }))
    }

    /// Checks to whom a connection is made, by what the list of the revoked says now.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Invalid`] if the list can't be read.
    pub fn check_servers(&self, authorities: RootCertStore) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), self.provider());
        let verifier = builder.with_crls(self.lists()?).allow_unknown_revocation_status().build();
        let verifier = verifier.map_err(|error| self.unusable(error))?;
        Ok(match &self.names {
            None => verifier,
            Some(names) => Arc::new(Named::new(verifier as Arc<dyn ServerCertVerifier>, names.clone())),
        })
    }

    fn lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
        let Some(path) = &self.revoked else { return Ok(Vec::new()) };
        let bytes = std::fs::read(path).map_err(|error| Error::io(path.display().to_string(), &error))?;
        let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| self.unusable(error))?;
        Ok(if lists.is_empty() { vec![bytes.into()] } else { lists })
    }

    fn unusable(&self, error: impl std::fmt::Display) -> Error {
        let file = self.revoked.as_ref().map(|path| format!("{}: ", path.display()));
        Error::Invalid(format!("{}{error}", file.unwrap_or_default()))
    }
}

/// A check that is made anew when its files have changed.
#[derive(Debug)]
struct Current {
    /// What does not change: whose certificates are asked for, and how signatures are checked.
    first: Arc<Arc<dyn ClientCertVerifier>>,
    now: Reloaded<Arc<dyn ClientCertVerifier>>,
}

impl ClientCertVerifier for Current {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.first.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.now.get().verify_client_cert(certificate, between, now)
    }

    signatures_checked_by!(first);
}
