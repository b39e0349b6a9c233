//! Authorities and what they issue, in files.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationList, CertificateRevocationListParams, DnType, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes a new certificate for 127.0.0.1 with this name, its key, and the authority's certificate into a folder: `cert`, `key`
    /// and `ca`.
    pub fn write(&self, dir: &Path, name: &str) {
        self.write_numbered(dir, name, 1);
    }

    /// The same, and the certificate has this serial number.
    pub fn write_numbered(&self, dir: &Path, name: &str, number: u64) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(number));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        for (file, text) in [("cert", certificate.pem()), ("key", key.serialize_pem()), ("ca", self.pem.clone())] {
            std::fs::write(dir.join(file), text).unwrap();
        }
    }

    /// The same in a new folder of the certificate's name in this one: the paths of the three files.
    pub fn issue(&self, dir: &Path, name: &str, number: u64) -> [String; 3] {
        let own = dir.join(format!("{name}-{number}"));
        std::fs::create_dir(&own).unwrap();
        self.write_numbered(&own, name, number);
        ["cert", "key", "ca"].map(|file| own.join(file).display().to_string())
    }

    /// The list that revokes the certificates of these numbers.
    pub fn revoke(&self, numbers: &[u64]) -> CertificateRevocationList {
        let revoked = |number: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*number),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2126, 1, 1),
            crl_number: SerialNumber::from(numbers.len() as u64),
            issuing_distribution_point: None,
            revoked_certs: numbers.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap()
    }
}

/// Puts a file in another one's place.
pub fn replace(path: &Path, content: impl AsRef<[u8]>) {
    let new = PathBuf::from(format!("{}.new", path.display()));
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, path).unwrap();
}
