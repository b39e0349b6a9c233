//! Certificates that a server makes for itself: what `--auto-tls` and `--peer-auto-tls` are for in etcd (its `transport.SelfCert`).
//!
//! They keep others from reading what is sent. They prove to nobody who sent it.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rk_store::Error;

use crate::url::Url;

/// A certificate for the hosts of these URLs and its key, in the data directory's `fixtures/KIND`: those that are there, or new ones, which do not
/// expire.
///
/// # Errors
/// [`Error::Io`] with the file; [`Error::Invalid`] for a host that no certificate can be for.
pub(crate) fn self_signed<'a>(
    data_dir: &Path,
    kind: &str,
    urls: impl Iterator<Item = &'a Url>,
) -> Result<(PathBuf, PathBuf), Error> {
    let dir = data_dir.join("fixtures").join(kind);
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    if cert.exists() && key.exists() {
        return Ok((cert, key));
    }
    let hosts: Vec<_> = urls.map(|url| url.host().to_owned()).collect();
    let invalid = |error: rcgen::Error| Error::Invalid(format!("a certificate for {hosts:?}: {error}"));
    let mut params = CertificateParams::new(hosts.clone()).map_err(invalid)?;
    params.distinguished_name.push(DnType::OrganizationName, "rk-etcd");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let pair = KeyPair::generate().map_err(invalid)?;
    let certificate = params.self_signed(&pair).map_err(invalid)?;
    fs::create_dir_all(&dir).map_err(|error| Error::io(dir.display().to_string(), &error))?;
    // The certificate is written last: one without its key is made anew.
    for (path, text) in [(&key, pair.serialize_pem()), (&cert, certificate.pem())] {
        write_whole(path, text.as_bytes()).map_err(|error| Error::io(path.display().to_string(), &error))?;
    }
    Ok((cert, key))
}

/// Writes a file that is there as a whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(unfinished, path)
}
