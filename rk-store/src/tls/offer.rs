//! Protocol versions and cipher suites.

use std::sync::Arc;

use rustls::{
    ALL_VERSIONS, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
};

use crate::Error;

/// What is offered to the other side.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
}

impl Default for Offer {
    fn default() -> Self {
        Self { provider: Arc::new(ring::default_provider()), versions: ALL_VERSIONS.to_vec() }
    }
}

impl Offer {
    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        self.provider.clone()
    }

    pub(super) fn versions(&self) -> &[&'static SupportedProtocolVersion] {
        &self.versions
    }

    pub(super) fn limit_versions(&mut self, lowest: &str, highest: &str) -> Result<(), Error> {
        let (from, to) = (version(lowest)?, version(highest)?);
        let number = |version: ProtocolVersion| u16::from(version);
        let within = |version: ProtocolVersion| {
            from.is_none_or(|from| number(from) <= number(version)) && to.is_none_or(|to| number(version) <= number(to))
        };
        self.versions.retain(|version| within(version.version));
        if self.versions.is_empty() {
            return Err(Error::Invalid(format!("min version ({lowest}) is greater than max version ({highest})")));
        }
        Ok(())
    }

    pub(super) fn limit_suites<S: AsRef<str>>(&mut self, names: &[S]) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        if self.versions.iter().all(|version| version.version == ProtocolVersion::TLSv1_3) {
            return Err(Error::Invalid("cipher suites cannot be configured when only TLS1.3 is enabled".into()));
        }
        let known = ring::default_provider().cipher_suites;
        let mut suites = Vec::with_capacity(known.len());
        for wanted in names {
            let found = known.iter().find(|suite| is_called(suite, wanted.as_ref()));
            suites.push(*found.ok_or_else(|| unknown(wanted.as_ref(), &known))?);
        }
        let always = known.iter().filter(|suite| suite.version().version == ProtocolVersion::TLSv1_3);
        let always: Vec<_> = always.filter(|suite| !suites.contains(suite)).copied().collect();
        suites.extend(always);
        self.provider = Arc::new(CryptoProvider { cipher_suites: suites, ..ring::default_provider() });
        Ok(())
    }
}

fn version(name: &str) -> Result<Option<ProtocolVersion>, Error> {
    match name {
        "" => Ok(None),
        "TLS1.2" => Ok(Some(ProtocolVersion::TLSv1_2)),
        "TLS1.3" => Ok(Some(ProtocolVersion::TLSv1_3)),
        _ => Err(Error::Invalid(format!("unexpected TLS version {name:?} (must be one of: TLS1.2, TLS1.3)"))),
    }
}

/// A suite's name where everybody else looks it up.
fn name(suite: &SupportedCipherSuite) -> String {
    suite.suite().as_str().unwrap_or_default().replace("TLS13_", "TLS_")
}

/// Go once left the hash out of some names.
fn is_called(suite: &SupportedCipherSuite, wanted: &str) -> bool {
    let name = name(suite);
    name == wanted || wanted.ends_with("_CHACHA20_POLY1305") && name.strip_suffix("_SHA256") == Some(wanted)
}

fn unknown(name_: &str, known: &[SupportedCipherSuite]) -> Error {
    let known = known.iter().map(name).collect::<Vec<_>>().join(", ");
    Error::Invalid(format!("unexpected TLS cipher suite {name_:?} (there are: {known})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suites(offer: &Offer) -> Vec<String> {
        offer.provider.cipher_suites.iter().map(name).collect()
    }

    #[test]
    fn suites_have_the_names_that_others_know_them_by() {
        let mut offer = Offer::default();
        let wanted = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"];
        offer.limit_suites(&wanted).unwrap();
        let always = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];
        let of_1_2 = [wanted[0], "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"];
        assert_eq!(suites(&offer), of_1_2.iter().chain(&always).copied().collect::<Vec<_>>());
        // Those of TLS 1.3 may be named too.
        let mut offer = Offer::default();
        offer.limit_suites(&[wanted[0], "TLS_AES_128_GCM_SHA256"]).unwrap();
        assert_eq!(suites(&offer), [wanted[0], always[1], always[0], always[2]]);
        let refused = offer.limit_suites(&["TLS_RSA_WITH_RC4_128_SHA"]).unwrap_err().to_string();
        assert!(refused.contains("unexpected TLS cipher suite \"TLS_RSA_WITH_RC4_128_SHA\" (there are: "), "{refused}");
        Offer::default().limit_suites::<&str>(&[]).unwrap();
    }

    #[test]
    fn versions_are_those_between_two() {
        let versions = |lowest, highest| {
            let mut offer = Offer::default();
            offer.limit_versions(lowest, highest).map(|()| offer.versions.iter().map(|v| v.version).collect::<Vec<_>>())
        };
        let (v2, v3) = (ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3);
        for (lowest, highest, wanted) in [
            ("", "", vec![v3, v2]),
            ("TLS1.2", "", vec![v3, v2]),
            ("TLS1.3", "", vec![v3]),
            ("", "TLS1.2", vec![v2]),
            ("TLS1.3", "TLS1.3", vec![v3]),
        ] {
            assert_eq!(versions(lowest, highest).unwrap(), wanted, "{lowest} to {highest}");
        }
        assert!(versions("TLS1.3", "TLS1.2").unwrap_err().to_string().contains("is greater than max version"));
        assert!(versions("TLS1.1", "").unwrap_err().to_string().contains("unexpected TLS version \"TLS1.1\""));
        let mut only = Offer::default();
        only.limit_versions("TLS1.3", "").unwrap();
        let refused = only.limit_suites(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]).unwrap_err().to_string();
        assert!(refused.contains("cannot be configured"), "{refused}");
    }
}
