//! The TLS that the flags ask for.

use std::sync::Arc;

use rk_raft::PeerTls;
use rk_store::{CertificateNames, TlsRules, etcd::server_tls};

use crate::{
    auto_tls::self_signed,
    flags::{ClientTls, Flags},
    server::Error,
};

/// A list without what is empty: an environment file may name a variable and say nothing.
fn given(list: &[String]) -> Vec<String> {
    list.iter().filter(|item| !item.is_empty()).cloned().collect()
}

/// What is offered to clients and members alike.
fn offered(flags: &Flags) -> Result<TlsRules, Error> {
    let suites = given(&flags.cipher_suites);
    let rules = TlsRules::default().with_versions(&flags.tls_min_version, &flags.tls_max_version);
    rules.and_then(|rules| rules.with_suites(&suites)).map_err(Error::Tls)
}

/// Certificates for one of these hosts, if there are any.
fn hosts(hosts: &[String]) -> Result<Option<CertificateNames>, Error> {
    let hosts = given(hosts);
    if hosts.is_empty() { Ok(None) } else { CertificateNames::hosts(&hosts).map(Some).map_err(Error::Tls) }
}

/// The TLS of clients, if there are certificates for it.
pub(crate) fn client_tls(flags: &Flags) -> Result<Option<Arc<rustls::ServerConfig>>, Error> {
    let ClientTls { cert_file, key_file, client_cert_auth, trusted_ca_file, auto_tls, .. } = &flags.client_tls;
    let ClientTls { client_cert_allowed_hostname, client_crl_file, .. } = &flags.client_tls;
    let rules = offered(flags)?.with_revoked(client_crl_file.clone()).with_names(hosts(client_cert_allowed_hostname)?);
    let urls = || flags.listen_client_urls.iter().chain(&flags.listen_metrics_urls).filter(|url| url.tls);
    let (cert, key) = match (cert_file, key_file) {
        (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        _ if *auto_tls && urls().next().is_some() => {
            self_signed(&flags.data_dir(), "client", urls()).map_err(Error::Tls)?
        }
        _ => return Ok(None),
    };
    if *client_cert_auth && trusted_ca_file.is_none() {
        return Err(Error::Flags("--client-cert-auth needs --trusted-ca-file".into()));
    }
    let config = server_tls(&cert, &key, trusted_ca_file.as_deref(), &rules).map_err(Error::Tls)?;
    Ok(Some(Arc::new(config)))
}

/// The TLS of members, if their URLs want it. Members always show each other certificates, be it such that prove nothing.
pub(crate) fn peer_tls(flags: &Flags) -> Result<Option<PeerTls>, Error> {
    let urls = flags.listen_peer_urls.iter().chain(&flags.initial_advertise_peer_urls);
    if !urls.clone().any(|url| url.tls) {
        return Ok(None);
    }
    if !urls.clone().all(|url| url.tls) {
        return Err(Error::Flags("peer URLs are either all http or all https".into()));
    }
    let files = &flags.peer_tls;
    let names = match given(&files.peer_cert_allowed_cn) {
        names if names.is_empty() => hosts(&files.peer_cert_allowed_hostname)?,
        names => Some(CertificateNames::Common(names)),
    };
    let rules = offered(flags)?.with_revoked(files.peer_crl_file.clone()).with_names(names);
    if files.peer_auto_tls && files.peer_cert_file.is_none() {
        if rules.judges() {
            return Err(Error::Flags(
                "with --peer-auto-tls nobody proves who they are: no peer can be told from another".into(),
            ));
        }
        let (certificate, key) = self_signed(&flags.data_dir(), "peer", urls).map_err(Error::Tls)?;
        return PeerTls::unverified(certificate, key, rules).map(Some).map_err(Error::Tls);
    }
    let (Some(certificate), Some(key), Some(authority)) =
        (&files.peer_cert_file, &files.peer_key_file, &files.peer_trusted_ca_file)
    else {
        let needs = "https among members needs --peer-cert-file, --peer-key-file and --peer-trusted-ca-file, or --peer-auto-tls";
        return Err(Error::Flags(needs.into()));
    };
    PeerTls::from_files(certificate.clone(), key.clone(), authority.clone(), rules).map(Some).map_err(Error::Tls)
}
