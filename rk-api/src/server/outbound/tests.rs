//! Whom the server believes, over real TLS.

use std::{path::PathBuf, process::Command};

use rustls::{
    ServerConfig,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::server::{
    fixture::Objects,
    pki::{Pki, Wanted},
    plugins::call_webhook,
    tls_config,
};

/// The folder of an authority, and the variable that tells a process of it.
const AUTHORITY: &str = "AUTHORITY_OF_THE_TEST";

/// Where the test's own authority is, in a process whose system trusts that (or nobody). Such a process is started for the test of this
/// name, and has to end well; then there is nothing left to do in this one, and the answer is `None`.
pub(crate) fn in_a_system(trusting: bool, test: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(AUTHORITY) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    Pki::open(folder.path()).unwrap();
    let trusted = folder.path().join(if trusting { "ca.crt" } else { "none" });
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args([test, "--exact"]).env(AUTHORITY, folder.path());
    let ended = process.env("SSL_CERT_FILE", trusted).env_remove("SSL_CERT_DIR").output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && said.contains("1 passed"), "{said}");
    None
}

/// Answers every request over TLS, as `127.0.0.1` and `hook.dev.svc`; its port.
pub(crate) async fn answering(pki: &Pki) -> u16 {
    let names = ["127.0.0.1".to_owned(), "hook.dev.svc".to_owned()];
    let identity = pki.identity("hook", &Wanted::server("hook", names)).unwrap();
    let tls = tls_config(&identity.certificate, &identity.key, None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(tls.config());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let answer = hyper::service::service_fn(|_: Request<hyper::body::Incoming>| async {
                    Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from_static(b"{}"))))
                });
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn the_systems_authorities_are_believed_where_none_are_named() {
    let test = "server::outbound::tests::the_systems_authorities_are_believed_where_none_are_named";
    let Some(folder) = in_a_system(true, test) else { return };
    let port = answering(&Pki::open(&folder).unwrap()).await;
    let (url, reader) = (format!("https://127.0.0.1:{port}/"), Objects::new([]));
    Remote::new(&url, "").unwrap().json(Method::GET, None).await.unwrap();
    for bundle in [json!(null), json!("")] {
        let config = json!({"url": url, "caBundle": bundle});
        assert_eq!(call_webhook(&config, &json!({}), &*reader).await, Ok(json!({})));
    }
    // Who names authorities believes them only.
    let other = tempfile::tempdir().unwrap();
    let other = Pki::open(other.path()).unwrap();
    Remote::new(&url, other.ca()).unwrap().json(Method::GET, None).await.unwrap_err();
    let config = json!({"url": url, "caBundle": STANDARD.encode("nobody")});
    let refused = call_webhook(&config, &json!({}), &*reader).await.unwrap_err();
    assert_eq!(refused, "failed to call webhook: caBundle: no certificate of an authority");
}

#[tokio::test]
async fn a_system_that_trusts_nobody_is_told_of() {
    let test = "server::outbound::tests::a_system_that_trusts_nobody_is_told_of";
    let Some(folder) = in_a_system(false, test) else { return };
    let port = answering(&Pki::open(&folder).unwrap()).await;
    let config = json!({"url": format!("https://127.0.0.1:{port}/")});
    let refused = call_webhook(&config, &json!({}), &*Objects::new([])).await.unwrap_err();
    let start = "failed to call webhook: caBundle: no authorities are named, and the system has none; ";
    assert!(refused.starts_with(start) && refused.contains(&*folder.to_string_lossy()), "{refused}");
    assert!(Remote::new("https://127.0.0.1:1/", "").is_err());
    Remote::new("http://127.0.0.1:1/", "").unwrap();
}

/// Shows one's certificate and signs with another's key.
#[derive(Debug)]
struct Stolen(Arc<CertifiedKey>);

impl ResolvesServerCert for Stolen {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn whoever_is_believed_holds_the_key_of_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(folder.path()).unwrap();
    let [shown, held] = ["a", "b"].map(|name| pki.identity(name, &Wanted::server(name, [name.to_owned()])).unwrap());
    let chain = vec![CertificateDer::from_pem_slice(shown.certificate.as_bytes()).unwrap()];
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (key, believed) in [(&shown.key, true), (&held.key, false)] {
            let key = any_supported_type(&PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap();
            let stolen = Stolen(Arc::new(CertifiedKey::new(chain.clone(), key)));
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
            let config = Arc::new(config.with_no_client_auth().with_cert_resolver(Arc::new(stolen)));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let served = tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                TlsAcceptor::from(config).accept(stream).await.is_ok()
            });
            let tls = client_tls(Trust::Anybody, None).unwrap();
            let connected = connect(&address, Some((&tls, "127.0.0.1"))).await.map(drop);
            assert_eq!(connected.is_ok(), believed, "{version:?}: {connected:?}");
            served.await.unwrap();
        }
    }
}
