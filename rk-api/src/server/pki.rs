//! The certificates of a cluster: an authority, what it signs, and the key of service-account tokens, as files.
//!
//! The layout is kubeadm's (`ca.crt`, `ca.key`, `apiserver.crt`, `sa.key`, ...). Files are made once and reused; a
//! certificate is issued anew when it is about to end, when the authority is another, or when its names or addresses
//! changed. Every file has mode 0600 and appears whole or not at all.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use serde_json::json;
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    pem::parse_x509_pem,
    prelude::X509Certificate,
};

/// What can go wrong with the files and their contents.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file or directory can't be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is there but is not what it should be. Remove it to have it made anew.
    #[error("{path} is corrupt: {message}; remove it to have it made anew")]
    Corrupt {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A certificate could not be made of what was asked.
    #[error("can't issue a certificate for {name:?}: {message}")]
    Issue {
        /// For whom.
        name: String,
        /// Why.
        message: String,
    },
}

/// A certificate and its private key, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS #8.
    pub key: String,
}

/// A certificate to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Common name: for a client the user.
    pub common_name: String,
    /// Organization: for a client the group; empty for none.
    pub organization: String,
    /// DNS names and IP addresses that a server answers on; empty for who is only a client.
    pub names: Vec<String>,
    /// Whether it is for a client. With names it is for both ends, as those who speak with their like need it.
    pub client: bool,
}

impl Wanted {
    /// A client's certificate: the user and, unless empty, the group.
    pub fn client(user: &str, group: &str) -> Self {
        Self { common_name: user.to_owned(), organization: group.to_owned(), names: Vec::new(), client: true }
    }

    /// A server's certificate for these DNS names and IP addresses.
    pub fn server(common_name: &str, names: impl IntoIterator<Item = String>) -> Self {
        let names = names.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        Self { common_name: common_name.to_owned(), organization: String::new(), names, client: false }
    }

    /// The API server's certificate: the names of the `kubernetes` service, localhost, and these.
    pub fn api_server(names: impl IntoIterator<Item = String>) -> Self {
        let service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let own = service.into_iter().chain(["kubernetes.default.svc.cluster.local", "localhost", "127.0.0.1"]);
        Self::server("kube-apiserver", own.map(str::to_owned).chain(names))
    }

    /// The administrator's: `kubernetes-admin` in `system:masters`.
    pub fn admin() -> Self {
        Self::client("kubernetes-admin", "system:masters")
    }

    /// The client certificate of a node: `system:node:NAME` in `system:nodes`.
    pub fn kubelet_client(node: &str) -> Self {
        Self::client(&format!("system:node:{node}"), "system:nodes")
    }

    /// The serving certificate of a node, on its name and these addresses.
    pub fn kubelet_server(node: &str, addresses: impl IntoIterator<Item = String>) -> Self {
        let names = [node.to_owned()].into_iter().chain(addresses);
        Self { organization: "system:nodes".to_owned(), ..Self::server(&format!("system:node:{node}"), names) }
    }

    /// A store's member that speaks with others like it, at these addresses. Sign it by an authority of its own: whoever has a
    /// certificate of that authority can change the store.
    pub fn peer(name: &str, addresses: impl IntoIterator<Item = String>) -> Self {
        Self { client: true, ..Self::server(name, addresses) }
    }

    /// The certificate with which the API server calls the servers behind it. Sign it by an authority of its own: whoever has a
    /// certificate of that authority says who calls, and is believed.
    pub fn front_proxy() -> Self {
        Self::client("front-proxy-client", "")
    }

    /// The certificate with which the API server calls nodes.
    pub fn api_server_kubelet_client() -> Self {
        Self::client("kube-apiserver-kubelet-client", "system:masters")
    }
}

/// A cluster's authority and its directory.
pub struct Pki {
    directory: PathBuf,
    certificate: String,
    key_id: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    key: String,
    service_account_key: String,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Years that the authority counts.
const AUTHORITY_YEARS: i64 = 10;
/// Years that a certificate counts.
const CERTIFICATE_YEARS: i64 = 1;
/// A certificate with less than this left is issued anew.
const RENEW_BEFORE_DAYS: i64 = 30;

impl Pki {
    /// Opens a cluster's directory; what is missing of authority and service-account key is made.
    ///
    /// # Errors
    /// The directory can't be used, a file in it is corrupt, or the authority has ended.
    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        use std::os::unix::fs::DirBuilderExt;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(directory).map_err(|source| PkiError::Io { path: directory.to_owned(), source })?;
        let (key_path, path) = (directory.join("ca.key"), directory.join("ca.crt"));
        let key = load_or_make_key(&key_path)?;
        let certificate = match read(&path)? {
            Some(certificate) => certificate,
            None => {
                let issue = |error: rcgen::Error| issue_error("kubernetes", &error);
                let certificate = authority_params().self_signed(&key).map_err(issue)?.pem();
                write_private(&path, certificate.as_bytes())?;
                certificate
            }
        };
        let (ends, public, key_id) = with_certificate(&path, &certificate, |certificate| {
            let public = certificate.public_key().subject_public_key.data.to_vec();
            (certificate.validity().not_after.timestamp(), public, subject_key_id(certificate))
        })?;
        let corrupt = |message: &str| PkiError::Corrupt { path: path.clone(), message: message.to_owned() };
        if public != key.public_key_raw() {
            return Err(corrupt("it does not belong to ca.key"));
        }
        if ends < Timestamp::now().as_second() {
            return Err(corrupt("the authority has expired"));
        }
        let key_id = key_id.ok_or_else(|| corrupt("it has no subject key identifier"))?;
        let key_pem = key.serialize_pem();
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(|error| corrupt(&error.to_string()))?;
        let signing = directory.join("sa.key");
        let service_account_key = load_or_make_key(&signing)?;
        let public = directory.join("sa.pub");
        if read(&public)?.is_none() {
            write_private(&public, service_account_key.public_key_pem().as_bytes())?;
        }
        let service_account_key = service_account_key.serialize_pem();
        Ok(Self { directory: directory.to_owned(), certificate, key_id, issuer, key: key_pem, service_account_key })
    }

    /// The authority's certificate in PEM: what clients trust.
    pub fn ca(&self) -> &str {
        &self.certificate
    }

    /// The authority's private key in PEM, for who signs what others ask for.
    pub fn ca_key(&self) -> &str {
        &self.key
    }

    /// The private key that signs service-account tokens, in PEM, for [`TokenSigner`](super::authn::TokenSigner).
    pub fn service_account_key(&self) -> &str {
        &self.service_account_key
    }

    /// The certificate in `NAME.crt` and `NAME.key`; issued if it is missing, about to end, by another authority, or
    /// not what is wanted.
    ///
    /// # Errors
    /// A file can't be read or written or is corrupt, or a name is no DNS name or address.
    pub fn identity(&self, name: &str, wanted: &Wanted) -> Result<Identity, PkiError> {
        let (path, key_path) = (self.directory.join(format!("{name}.crt")), self.directory.join(format!("{name}.key")));
        let key = load_or_make_key(&key_path)?;
        let public = key.public_key_raw();
        if let Some(certificate) = read(&path)? {
            let fits = with_certificate(&path, &certificate, |found| {
                found.public_key().subject_public_key.data.as_ref() == public && self.fits(found, wanted)
            })?;
            if fits {
                return Ok(Identity { certificate, key: key.serialize_pem() });
            }
            tracing::info!(path = %path.display(), "issuing the certificate anew");
        }
        let certificate = self.issue(wanted, &key)?;
        write_private(&path, certificate.as_bytes())?;
        Ok(Identity { certificate, key: key.serialize_pem() })
    }

    fn fits(&self, found: &X509Certificate<'_>, wanted: &Wanted) -> bool {
        let soon = Timestamp::now().as_second() + RENEW_BEFORE_DAYS * 24 * 3600;
        let text = |mut values: Vec<&str>| values.pop().unwrap_or_default().to_owned();
        let subject = found.subject();
        let common_name = text(subject.iter_common_name().filter_map(|value| value.as_str().ok()).collect());
        let organization = text(subject.iter_organization().filter_map(|value| value.as_str().ok()).collect());
        let client = found.extended_key_usage().ok().flatten().is_some_and(|usage| usage.value.client_auth);
        found.validity().not_after.timestamp() > soon
            && common_name == wanted.common_name
            && organization == wanted.organization
            && client == wanted.client
            && authority_key_id(found).as_deref() == Some(&self.key_id)
            && names(found) == wanted.names.iter().cloned().collect()
    }

    fn issue(&self, wanted: &Wanted, key: &KeyPair) -> Result<String, PkiError> {
        let issue = |error: rcgen::Error| issue_error(&wanted.common_name, &error);
        let mut params = CertificateParams::new(wanted.names.clone()).map_err(issue)?;
        validity(&mut params, CERTIFICATE_YEARS);
        params.distinguished_name = distinguished_name(&wanted.common_name, &wanted.organization);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        if wanted.client {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        if !(wanted.client && wanted.names.is_empty()) {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer).map_err(issue)?.pem())
    }
}

/// A kubeconfig with everything embedded: one cluster, one user, one context, in YAML.
pub fn kubeconfig(cluster: &str, server: &str, ca: &str, user: &str, identity: &Identity) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let context = format!("{user}@{cluster}");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(ca),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": STANDARD.encode(&identity.certificate),
            "client-key-data": STANDARD.encode(&identity.key),
        }}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
        "preferences": {},
    });
    serde_saphyr::to_string(&config).expect("strings and maps are always YAML")
}

/// Writes a file of mode 0600 that appears whole or not at all: a temporary beside it, synced, then renamed.
///
/// # Errors
/// The directory can't be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    use std::os::unix::fs::OpenOptionsExt;
    let fail = |source| PkiError::Io { path: path.to_owned(), source };
    let temporary = path.with_extension(format!("tmp{:08x}", rand::random::<u32>()));
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(parent)?.sync_all()
    };
    write().map_err(|error| {
        // The error that matters is the one at hand; a temporary that was never made can't be removed either.
        let _ = fs::remove_file(&temporary);
        fail(error)
    })
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(PkiError::Corrupt { path: path.to_owned(), message: "it is not text".to_owned() })
        }
        Err(source) => Err(PkiError::Io { path: path.to_owned(), source }),
    }
}

fn issue_error(name: &str, error: &rcgen::Error) -> PkiError {
    PkiError::Issue { name: name.to_owned(), message: error.to_string() }
}

fn load_or_make_key(path: &Path) -> Result<KeyPair, PkiError> {
    if let Some(pem) = read(path)? {
        return KeyPair::from_pem(&pem)
            .map_err(|error| PkiError::Corrupt { path: path.to_owned(), message: format!("no private key: {error}") });
    }
    let key = KeyPair::generate().map_err(|error| issue_error("a new key", &error))?;
    write_private(path, key.serialize_pem().as_bytes())?;
    Ok(key)
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    validity(&mut params, AUTHORITY_YEARS);
    params.distinguished_name = distinguished_name("kubernetes", "");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn distinguished_name(common_name: &str, organization: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if !organization.is_empty() {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// From yesterday (clocks differ) for so many years, with a serial number of its own.
fn validity(params: &mut CertificateParams, years: i64) {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let day = |date: jiff::civil::Date| {
        let part = |number: i8| u8::try_from(number).expect("months and days are positive");
        date_time_ymd(date.year().into(), part(date.month()), part(date.day()))
    };
    params.not_before = day(today.saturating_sub(1.day()));
    params.not_after = day(today.saturating_add(years.years()));
    // 16 random bytes; the first bit off keeps the number positive, the second on keeps its length.
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
}

fn with_certificate<T>(path: &Path, pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> Result<T, PkiError> {
    let corrupt = |message: String| PkiError::Corrupt { path: path.to_owned(), message };
    let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|error| corrupt(format!("no PEM: {error}")))?;
    let certificate = pem.parse_x509().map_err(|error| corrupt(format!("no certificate: {error}")))?;
    Ok(look(&certificate))
}

fn subject_key_id(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

fn authority_key_id(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    })
}

fn names(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let address = |bytes: &[u8]| match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    };
    let found = certificate.subject_alternative_name().ok().flatten();
    let all = found.iter().flat_map(|names| &names.value.general_names);
    all.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|ip| ip.to_string()),
        _ => None,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn identities_are_made_once_and_renewed_when_they_no_longer_fit() {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::open(directory.path()).unwrap();
        let wanted = Wanted::api_server(["10.96.0.1".to_owned(), "::1".to_owned()]);
        let first = pki.identity("apiserver", &wanted).unwrap();
        let again = Pki::open(directory.path()).unwrap();
        assert_eq!(again.ca(), pki.ca());
        assert_eq!(again.service_account_key(), pki.service_account_key());
        assert_eq!(again.identity("apiserver", &wanted).unwrap(), first);
        let found = with_certificate(Path::new("x"), &first.certificate, names).unwrap();
        assert!(found.is_superset(
            &["10.96.0.1", "::1", "kubernetes.default.svc.cluster.local", "localhost"].map(str::to_owned).into()
        ));

        let more = Wanted::api_server(["10.96.0.1".to_owned(), "example.test".to_owned()]);
        let second = again.identity("apiserver", &more).unwrap();
        assert_ne!(second.certificate, first.certificate);
        assert_eq!(second.key, first.key);

        let admin = pki.identity("admin", &Wanted::admin()).unwrap();
        let pem = parse_x509_pem(admin.certificate.as_bytes()).unwrap().1;
        let user = crate::server::authn::ClientCertificates::user(&pem.contents, Timestamp::now()).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.groups), ("kubernetes-admin", vec!["system:masters".to_owned()]));
        for entry in fs::read_dir(directory.path()).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn another_authority_makes_other_certificates() {
        let directory = tempfile::tempdir().unwrap();
        let first = Pki::open(directory.path()).unwrap().identity("admin", &Wanted::admin()).unwrap();
        fs::remove_file(directory.path().join("ca.crt")).unwrap();
        fs::remove_file(directory.path().join("ca.key")).unwrap();
        let second = Pki::open(directory.path()).unwrap().identity("admin", &Wanted::admin()).unwrap();
        assert_ne!(first.certificate, second.certificate);
    }

    #[test]
    fn a_certificate_near_its_end_is_renewed() {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::open(directory.path()).unwrap();
        let key = load_or_make_key(&directory.path().join("admin.key")).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name("kubernetes-admin", "system:masters");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_after = date_time_ymd(2020, 1, 1);
        let old = params.signed_by(&key, &pki.issuer).unwrap().pem();
        write_private(&directory.path().join("admin.crt"), old.as_bytes()).unwrap();
        assert_ne!(pki.identity("admin", &Wanted::admin()).unwrap().certificate, old);
    }

    #[test]
    fn corrupt_files_are_named() {
        for file in ["ca.key", "ca.crt", "sa.key", "admin.crt"] {
            let directory = tempfile::tempdir().unwrap();
            Pki::open(directory.path()).unwrap();
            fs::write(directory.path().join(file), "junk").unwrap();
            let error = match Pki::open(directory.path()) {
                Ok(pki) => pki.identity("admin", &Wanted::admin()).unwrap_err(),
                Err(error) => error,
            };
            assert!(matches!(error, PkiError::Corrupt { .. }), "{file}: {error}");
            assert!(error.to_string().contains(file), "{error}");
        }
    }

    #[test]
    fn a_kubeconfig_embeds_everything() {
        let identity = Identity { certificate: "CERT".into(), key: "KEY".into() };
        let text = kubeconfig("rk", "https://127.0.0.1:6443", "CA", "admin", &identity);
        let config: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
        assert_eq!(config["users"][0]["user"]["client-key-data"], "S0VZ");
        assert_eq!(config["current-context"], "admin@rk");
    }
}
