//! A certificate authority that signs what was asked for, with the subject, names and key just as they are in the request.

use std::{fmt, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use x509_parser::{extensions::ParsedExtension, pem::parse_x509_pem};

use super::{
    der::{bits, element, extension, sequence, time},
    request::Asked,
};

/// A certificate or key that can't sign.
#[derive(Debug, Clone, thiserror::Error)]
#[error("certificate authority: {0}")]
pub struct AuthorityError(String);

/// How far clocks may differ: so much earlier than now a certificate begins, as kube-controller-manager has it.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// Signs certificates. Clones are the same authority.
#[derive(Clone)]
pub struct Authority(Arc<Inner>);

struct Inner {
    key: KeyPair,
    /// The algorithm of signatures, in DER.
    algorithm: &'static [u8],
    /// The authority's name, in DER.
    subject: Vec<u8>,
    key_id: Option<Vec<u8>>,
    ends: Timestamp,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("ends", &self.0.ends).finish_non_exhaustive()
    }
}

/// `AlgorithmIdentifier` of what the key signs with (RFC 5758, 8017, 8410).
fn algorithm(key: &KeyPair) -> Option<&'static [u8]> {
    let used = key.algorithm();
    if *used == rcgen::PKCS_ECDSA_P256_SHA256 {
        Some(&[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02])
    } else if *used == rcgen::PKCS_ECDSA_P384_SHA384 {
        Some(&[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03])
    } else if *used == rcgen::PKCS_RSA_SHA256 {
        Some(&[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00])
    } else if *used == rcgen::PKCS_ED25519 {
        Some(&[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70])
    } else {
        None
    }
}

/// Bits of the extension `keyUsage`, in their order (RFC 5280, 4.2.1.3).
const KEY_USAGES: [(&str, u8); 10] = [
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
    ("signing", 0),
];

/// Purposes of the extension `extKeyUsage`: the identifiers' encoded arcs. Most are below 1.3.6.1.5.5.7.3.
const PURPOSES: [(&str, &[u8]); 13] = [
    ("any", &[0x55, 0x1d, 0x25, 0]),
    ("server auth", &pkix(1)),
    ("client auth", &pkix(2)),
    ("code signing", &pkix(3)),
    ("email protection", &pkix(4)),
    ("s/mime", &pkix(4)),
    ("ipsec end system", &pkix(5)),
    ("ipsec tunnel", &pkix(6)),
    ("ipsec user", &pkix(7)),
    ("timestamping", &pkix(8)),
    ("ocsp signing", &pkix(9)),
    ("microsoft sgc", &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x0a, 0x03, 0x03]),
    ("netscape sgc", &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x42, 0x04, 0x01]),
];

const fn pkix(arc: u8) -> [u8; 8] {
    [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, arc]
}

impl Authority {
    /// An authority's certificate and key, in PEM.
    ///
    /// # Errors
    /// They are none, or do not belong together.
    pub fn new(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let fail = |what: &str, error: &dyn fmt::Display| AuthorityError(format!("{what}: {error}"));
        let key = KeyPair::from_pem(key).map_err(|error| fail("key", &error))?;
        let algorithm = algorithm(&key).ok_or_else(|| fail("key", &"it is of a kind that does not sign here"))?;
        let (_, pem) = parse_x509_pem(certificate.as_bytes()).map_err(|error| fail("certificate", &error))?;
        let parsed = pem.parse_x509().map_err(|error| fail("certificate", &error))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(fail("certificate", &"it does not belong to the key"));
        }
        let key_id = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        // An authority that never ends (RFC 5280, 4.1.2.5) does so behind the last time there is here.
        let ends = parsed.validity().not_after.timestamp().min(Timestamp::MAX.as_second());
        let ends = Timestamp::from_second(ends).map_err(|error| fail("certificate", &error))?;
        let subject = parsed.subject().as_raw().to_vec();
        Ok(Self(Arc::new(Inner { key, algorithm, subject, key_id, ends })))
    }

    /// Signs what was asked for; for so long, but not longer than the authority itself counts. The certificate is in PEM.
    pub(super) fn sign(
        &self,
        asked: &Asked,
        usages: &[String],
        counts: SignedDuration,
    ) -> Result<String, AuthorityError> {
        let authority = &*self.0;
        let now = rk_api::now();
        let after = |span: SignedDuration| now.saturating_add(span).unwrap_or(Timestamp::MAX);
        let (begins, ends) = (after(-BACKDATE), after(counts).min(authority.ends));
        if ends <= now {
            return Err(AuthorityError("the authority has expired".to_owned()));
        }
        // 16 random bytes; the first bit off keeps the number positive, the second on keeps its length.
        let mut serial: [u8; 16] = rand::random();
        serial[0] = serial[0] & 0x7f | 0x40;
        let algorithm = authority.algorithm.to_vec();
        let certificate = sequence(&[
            element(0xa0, &element(0x02, &[2])),
            element(0x02, &serial),
            algorithm.clone(),
            authority.subject.clone(),
            sequence(&[time(begins), time(ends)]),
            asked.subject.clone(),
            asked.public_key.clone(),
            element(0xa3, &sequence(&extensions(asked, usages, authority.key_id.as_deref()))),
        ]);
        let signature = authority.key.sign(&certificate).map_err(|error| AuthorityError(error.to_string()))?;
        Ok(pem(&sequence(&[certificate, algorithm, bits(&signature)])))
    }
}

fn extensions(asked: &Asked, usages: &[String], key_id: Option<&[u8]>) -> Vec<Vec<u8>> {
    // 2.5.29 with these last arcs.
    let id = |arc: u8| [0x55, 0x1d, arc];
    let mut all = Vec::new();
    let mut flags = 0_u16;
    let mut purposes = Vec::new();
    for usage in usages {
        if let Some((_, bit)) = KEY_USAGES.iter().find(|(name, _)| name == usage) {
            flags |= 0x8000 >> bit;
        }
        if let Some((_, arcs)) = PURPOSES.iter().find(|(name, _)| name == usage) {
            purposes.push(element(0x06, arcs));
        }
    }
    if flags != 0 {
        // DER leaves the zeros at the end of named bits out.
        let [first, second] = flags.to_be_bytes();
        let unused = (flags.trailing_zeros() % 8) as u8;
        let value = if second == 0 { vec![unused, first] } else { vec![unused, first, second] };
        all.push(extension(&id(15), true, &element(0x03, &value)));
    }
    if !purposes.is_empty() {
        all.push(extension(&id(37), false, &sequence(&purposes)));
    }
    all.push(extension(&id(19), true, &sequence(&[])));
    if let Some(key_id) = key_id {
        all.push(extension(&id(35), false, &sequence(&[element(0x80, key_id)])));
    }
    if !asked.names.is_empty() {
        all.push(extension(&id(17), false, &asked.names));
    }
    all
}

fn pem(der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests;
