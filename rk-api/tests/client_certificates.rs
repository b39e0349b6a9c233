//! Client certificates over TLS: the good ones name a user, the wrong ones are 401, as wrong tokens are.
#![cfg(feature = "serve")]

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd};
use rk_api::server::{
    Security, Server, Tls, UserInfo, authn,
    pki::{Identity, Pki, Wanted},
    serve, tls_config,
};
use rk_store::MemoryStore;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

struct Api {
    address: std::net::SocketAddr,
    pki: Pki,
    directory: tempfile::TempDir,
    shutdown: CancellationToken,
    tls: Tls,
    serving: Identity,
}

impl Api {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::open(directory.path()).unwrap();
        let serving = pki.identity("apiserver", &Wanted::api_server([])).unwrap();
        let tls = tls_config(&serving.certificate, &serving.key, Some(pki.ca())).unwrap();
        let tokens = authn::StaticTokens::new([("token".to_owned(), UserInfo::new("jane", ["system:masters"]))]);
        let security = Security { tokens, anonymous: true.into(), ..Security::default() };
        let server = security.build(Server::builder(Arc::new(MemoryStore::new()))).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(serve(listener, server.service(), Some(tls.clone()), shutdown.clone()));
        Self { address, pki, directory, shutdown, tls, serving }
    }

    /// A connection whose client shows this.
    async fn connect(&self, identity: Option<&Identity>) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pki.ca().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// Code and body of a list of namespaces.
    async fn list(&self, identity: Option<&Identity>, token: &str) -> (u16, Value) {
        let mut stream = self.connect(identity).await;
        let request = format!(
            "GET /api/v1/namespaces HTTP/1.0\r\nHost: localhost\r\n{}\r\n",
            if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") }
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}")))
    }

    /// An administrator's certificate, signed by an authority, of these years.
    fn issue(&self, authority: &Issuer<'_, KeyPair>, from: i32, until: i32) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kubernetes-admin");
        params.distinguished_name.push(DnType::OrganizationName, "system:masters");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, authority).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }

    fn authority(&self) -> Issuer<'static, KeyPair> {
        let key = std::fs::read_to_string(self.directory.path().join("ca.key")).unwrap();
        Issuer::from_ca_cert_pem(self.pki.ca(), KeyPair::from_pem(&key).unwrap()).unwrap()
    }
}

#[tokio::test]
async fn certificates_that_do_not_hold_are_401() {
    let api = Api::start().await;
    let good = api.issue(&api.authority(), 2020, 2999);
    let (code, answer) = api.list(Some(&good), "").await;
    assert_eq!((code, &answer["kind"]), (200, &"NamespaceList".into()), "{answer}");

    let expired = api.issue(&api.authority(), 2020, 2021);
    let early = api.issue(&api.authority(), 2998, 2999);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Pki::open(elsewhere.path()).unwrap();
    let foreign = other.identity("admin", &Wanted::admin()).unwrap();
    let serving = api.pki.identity("node", &Wanted::kubelet_server("n1", [])).unwrap();
    for (what, identity) in [("expired", &expired), ("early", &early), ("foreign", &foreign), ("serving", &serving)] {
        let (code, answer) = api.list(Some(identity), "").await;
        assert_eq!((code, &answer["code"], &answer["reason"]), (401, &401.into(), &"Unauthorized".into()), "{what}");
        // Another credential that is good is enough.
        assert_eq!(api.list(Some(identity), "token").await.0, 200, "{what}");
        assert_eq!(api.list(Some(identity), "wrong").await.0, 401, "{what}");
    }
    assert_eq!(api.list(None, "wrong").await.0, 401);
    // Who shows nothing is anonymous, and may not list.
    let (code, answer) = api.list(None, "").await;
    assert_eq!((code, &answer["reason"]), (403, &"Forbidden".into()), "{answer}");
    api.shutdown.cancel();
}

#[tokio::test]
async fn a_request_without_tls_is_told_so() {
    let api = Api::start().await;
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: rk\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n");
    api.shutdown.cancel();
}

#[tokio::test]
async fn a_connection_is_trusted_by_the_authorities_of_the_moment() {
    let api = Api::start().await;
    let admin = api.issue(&api.authority(), 2020, 2999);
    let io = hyper_util::rt::TokioIo::new(api.connect(Some(&admin)).await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut list = async || {
        let request = hyper::Request::get("/api/v1/namespaces").header("host", "localhost");
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let code = answer.status().as_u16();
        http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
        code
    };
    assert_eq!(list().await, 200);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Pki::open(elsewhere.path()).unwrap();
    let (certificate, key) = (&api.serving.certificate, &api.serving.key);
    api.tls.reload(certificate, key, Some(other.ca())).unwrap();
    assert_eq!(list().await, 401, "its authority is believed no more");
    api.tls.reload(certificate, key, Some(api.pki.ca())).unwrap();
    assert_eq!(list().await, 200);
    api.shutdown.cancel();
}
