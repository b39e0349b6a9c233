//! An API server on a port, servers that it asks, and a client of both.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rk_api::server::{
    Security, Server, ServerBuilder, ServiceAccountIssuer, Tls, UserInfo, authn,
    bootstrap::{Config, ensure},
    pki::{Identity, Pki, Wanted},
    serve, tls_config,
};
use rk_store::MemoryStore;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Keys made for tests only.
pub const KEY: &str = include_str!("../../src/server/authn/service_account/keys/p256.pem");
pub const OLD_KEY: &str = include_str!("../../src/server/authn/service_account/keys/rsa.pem");
pub const ISSUER: &str = "https://kubernetes.default.svc";

/// An API server with its own authority. The bearer of `admin` may do everything.
pub struct Api {
    pub server: Server,
    pub address: String,
    pub pki: Pki,
    pub tls: Tls,
    pub folder: tempfile::TempDir,
    shutdown: CancellationToken,
}

/// Who calls.
#[derive(Default)]
pub struct Caller<'a> {
    pub identity: Option<&'a Identity>,
    pub token: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
}

pub fn bearer(token: &str) -> Caller<'_> {
    Caller { token, ..Caller::default() }
}

/// With these headers too.
pub fn with<'a>(token: &'a str, headers: &'a [(&'a str, &'a str)]) -> Caller<'a> {
    Caller { token, headers, identity: None }
}

pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

pub fn issuer() -> ServiceAccountIssuer {
    ServiceAccountIssuer {
        url: ISSUER.into(),
        jwks_uri: format!("{ISSUER}/openid/v1/jwks"),
        key: KEY.into(),
        ..ServiceAccountIssuer::default()
    }
}

impl Api {
    pub async fn start(change: impl FnOnce(&Pki, Security) -> Security) -> Self {
        Self::build(change, |_, builder| builder).await
    }

    pub async fn build(
        change: impl FnOnce(&Pki, Security) -> Security,
        more: impl FnOnce(&Pki, ServerBuilder) -> ServerBuilder,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path()).unwrap();
        let serving = pki.identity("apiserver", &Wanted::api_server([])).unwrap();
        let tls = tls_config(&serving.certificate, &serving.key, Some(pki.ca())).unwrap();
        let tokens = authn::StaticTokens::new([
            ("admin".to_owned(), UserInfo::new("admin", ["system:masters"])),
            ("jane".to_owned(), UserInfo::new("jane", ["dev"])),
        ]);
        let security = Security { tokens, service_accounts: Some(issuer()), ..Security::default() };
        let security = change(&pki, security);
        let builder = more(&pki, Server::builder(Arc::new(MemoryStore::new())));
        let server = security.build(builder).await.unwrap();
        ensure(&*server.client(UserInfo::loopback()), &Config::default()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap().to_string(), CancellationToken::new());
        tokio::spawn(serve(listener, server.service(), Some(tls.clone()), shutdown.clone()));
        Self { server, address, pki, tls, folder, shutdown }
    }

    pub async fn call(&self, caller: &Caller<'_>, method: &str, path: &str, body: Value) -> Answer {
        call(&self.address, self.pki.ca(), caller, method, path, body).await
    }

    pub async fn get(&self, caller: &Caller<'_>, path: &str) -> Answer {
        self.call(caller, "GET", path, Value::Null).await
    }

    /// Makes an object as the administrator.
    pub async fn create(&self, path: &str, object: Value) -> Value {
        let answer = self.call(&bearer("admin"), "POST", path, object).await;
        assert_eq!(answer.code, 201, "{path}: {}", answer.body);
        answer.body
    }

    /// Who a caller is, by their own review; the code if it is nobody.
    pub async fn whoami(&self, caller: &Caller<'_>) -> Result<Value, u16> {
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let question = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let answer = self.call(caller, "POST", path, question).await;
        if answer.code == 201 { Ok(answer.body["status"]["userInfo"].clone()) } else { Err(answer.code) }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// One request over a connection of its own.
pub async fn call(address: &str, ca: &str, caller: &Caller<'_>, method: &str, path: &str, body: Value) -> Answer {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let config = match caller.identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    if !caller.token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", caller.token));
    }
    if !body.is_null() && !caller.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    for (name, value) in caller.headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    Answer {
        code: head.status.as_u16(),
        headers: head.headers,
        body: serde_json::from_slice(&body).unwrap_or_else(|_| text()),
    }
}

/// A server that answers every request with what `answer` makes of its path and body; its URL.
pub async fn https<F>(pki: &Pki, answer: F) -> String
where
    F: Fn(&str, Value) -> Value + Send + Sync + 'static,
{
    let identity = pki.identity("other-server", &Wanted::server("other", ["localhost".to_owned()])).unwrap();
    let tls = tls_config(&identity.certificate, &identity.key, None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, answer) = (tokio_rustls::TlsAcceptor::from(tls.config()), Arc::clone(&answer));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = Arc::clone(&answer);
                    async move {
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let body = answer(&path, serde_json::from_slice(&body).unwrap_or_default());
                        let code = if body.is_null() { 404 } else { 200 };
                        let response = Response::builder().status(code).body(Full::new(Bytes::from(body.to_string())));
                        Ok::<_, Infallible>(response.unwrap())
                    }
                });
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    url
}
