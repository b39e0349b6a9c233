//! Who a client certificate names.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use x509_parser::{
    oid_registry::Oid,
    prelude::{FromDer, X509Certificate},
    time::ASN1Time,
};

use crate::server::{AuthenticationError, Authenticator, Credentials, UserInfo};

/// Takes the common name of a client certificate for the user and its organizations for the groups
/// (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates>).
///
/// The TLS layer has checked that the cluster's client CA signed it; dates and usage are checked here. What a certificate says is
/// remembered, for it comes with each request of its connection.
#[derive(Debug, Default)]
pub struct ClientCertificates {
    known: RwLock<HashMap<Bytes, Named>>,
}

/// Certificates that are remembered.
const KNOWN: usize = 1024;

/// Whom a certificate names, and from when to when.
#[derive(Debug, Clone)]
struct Named {
    user: UserInfo,
    valid: (Timestamp, Timestamp),
}

/// The attribute of a subject that holds the user's uid, as Kubernetes has it: 1.3.6.1.4.1.57683.2.
const UID: &[u64] = &[1, 3, 6, 1, 4, 1, 57683, 2];

impl ClientCertificates {
    /// The user that a certificate in DER names at a point in time; `None` if it has no common name.
    ///
    /// # Errors
    /// It is no certificate, not valid at that time, or not for clients.
    pub fn user(der: &[u8], now: Timestamp) -> Result<Option<UserInfo>, AuthenticationError> {
        Ok(Self::read(der, now)?.map(|named| named.user))
    }

    fn read(der: &[u8], now: Timestamp) -> Result<Option<Named>, AuthenticationError> {
        let refuse = |why: String| Err(AuthenticationError(format!("x509: {why}")));
        let certificate = match X509Certificate::from_der(der) {
            Ok((_, certificate)) => certificate,
            Err(error) => return refuse(format!("malformed certificate: {error}")),
        };
        let validity = certificate.validity();
        // The end of a certificate that never ends (RFC 5280, 4.1.2.5) is some hours behind the last time there is here.
        let last = Timestamp::MAX.as_second();
        let at = |time: &ASN1Time| Timestamp::from_second(time.timestamp().min(last)).unwrap_or_default();
        let valid = (at(&validity.not_before), at(&validity.not_after));
        if now < valid.0 || now > valid.1 {
            let side = if now < valid.0 { format!("before {}", valid.0) } else { format!("after {}", valid.1) };
            return refuse(format!(
                "certificate has expired or is not yet valid: current time {} is {side}",
                Timestamp::from_second(now.as_second()).unwrap_or(now)
            ));
        }
        match certificate.extended_key_usage() {
            Ok(None) => {}
            Ok(Some(usage)) if usage.value.client_auth || usage.value.any => {}
            Ok(Some(_)) => return refuse("certificate specifies an incompatible key usage".to_owned()),
            Err(error) => return refuse(format!("malformed extended key usage: {error}")),
        }
        let subject = certificate.subject();
        let texts = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let names = texts(subject.iter_common_name().filter_map(|value| value.as_str().ok()).collect());
        // Of several the last counts, as in Go: signers judge the same one.
        let Some(name) = names.into_iter().next_back().filter(|name| !name.is_empty()) else { return Ok(None) };
        let groups = texts(subject.iter_organization().filter_map(|value| value.as_str().ok()).collect());
        let oid = Oid::from(UID).expect("a valid object identifier");
        let uid = subject.iter_by_oid(&oid).find_map(|value| value.as_str().ok()).unwrap_or_default().to_owned();
        let digest: String = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
        let credential =
            ("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("X509SHA256={digest}")]);
        Ok(Some(Named { user: UserInfo { name, uid, groups, extra: [credential].into() }, valid }))
    }

    fn look_up(&self, der: &Bytes, now: Timestamp) -> Result<Option<UserInfo>, AuthenticationError> {
        if let Some(named) = self.known.read().get(der)
            && (named.valid.0..=named.valid.1).contains(&now)
        {
            return Ok(Some(named.user.clone()));
        }
        let Some(named) = Self::read(der, now)? else { return Ok(None) };
        let mut known = self.known.write();
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(der.clone(), named.clone());
        Ok(Some(named.user))
    }
}

#[async_trait]
impl Authenticator for ClientCertificates {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<UserInfo>, AuthenticationError> {
        match &credentials.certificate {
            Some(Ok(der)) => self.look_up(der, crate::now()),
            Some(Err(why)) => Err(AuthenticationError(format!("x509: {why}"))),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, KeyPair, date_time_ymd};

    fn certificate(names: &[(DnType, &str)], usages: &[Usage], until: i32) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.extended_key_usages = usages.to_vec();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_subject_is_the_user_if_dates_and_usage_fit() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let jane = [(DnType::CommonName, "jane"), (DnType::OrganizationName, "dev")];
        let user = ClientCertificates::user(&certificate(&jane, &[Usage::ClientAuth], 2030), now).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.groups.as_slice()), ("jane", ["dev".to_owned()].as_slice()));
        assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
        assert!(ClientCertificates::user(&certificate(&jane, &[], 2030), now).unwrap().is_some());
        let nobody = [(DnType::OrganizationName, "dev")];
        assert!(ClientCertificates::user(&certificate(&nobody, &[], 2030), now).unwrap().is_none());
        let mut endless = CertificateParams::default();
        endless.distinguished_name.push(DnType::CommonName, "jane");
        endless.not_after = date_time_ymd(9999, 12, 31);
        let endless = endless.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert!(ClientCertificates::user(endless.der(), now).unwrap().is_some());
        let two = [(DnType::CommonName, "jane"), (DnType::CustomDnType(vec![2, 5, 4, 3]), "joe")];
        assert_eq!(ClientCertificates::user(&certificate(&two, &[], 2030), now).unwrap().unwrap().name, "joe");
        for (der, word) in [
            (certificate(&jane, &[Usage::ClientAuth], 2025), "expired"),
            (certificate(&jane, &[Usage::ServerAuth], 2030), "usage"),
            (b"junk".to_vec(), "malformed"),
        ] {
            let error = ClientCertificates::user(&der, now).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let (known, jane) = (ClientCertificates::default(), Bytes::from(certificate(&jane, &[], 2030)));
        for _ in 0..2 {
            assert!(known.look_up(&jane, now).unwrap().is_some());
        }
        assert!(
            known.look_up(&jane, "2031-01-01T00:00:00Z".parse().unwrap()).is_err(),
            "remembered is not valid for ever"
        );
        let early: Timestamp = "2019-01-01T00:00:00Z".parse().unwrap();
        assert!(ClientCertificates::user(&jane, early).is_err());
    }
}
