//! Calls that the server makes: to webhooks, issuers of tokens, and other API servers.

#[cfg(test)]
pub(crate) mod tests;
mod trust;

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) use trust::{Trust, bundle_tls, client_tls};

/// No answer is longer, in bytes, but for those that are passed on.
const MAX_ANSWER: usize = 8 << 20;

/// A connection that requests can be sent over.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Host and port as URLs and dialers have them.
pub(crate) fn authority(host: &str, port: impl fmt::Display) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Connects to an address (host and port), with TLS to somebody of that name.
pub(crate) async fn connect(
    address: &str,
    tls: Option<(&Arc<ClientConfig>, &str)>,
) -> std::io::Result<Box<dyn Connection>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let Some((config, name)) = tls else { return Ok(Box::new(stream)) };
    Ok(Box::new(secure(stream, config, name).await?))
}

/// TLS over a connection, to somebody of that name (a host's name or address).
pub(crate) async fn secure(
    stream: TcpStream,
    config: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).map_err(std::io::Error::other)?;
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// Sends a request over a connection and reads the whole answer.
pub(crate) async fn exchange(
    stream: Box<dyn Connection>,
    request: Request<Full<Bytes>>,
) -> Result<http::Response<Bytes>, String> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
        Ok(http::Response::from_parts(head, body.to_bytes()))
    };
    // The connection is driven here and ends with this call; its own error shows in the exchange.
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

/// What an answer of success says in JSON.
pub(crate) fn json(answer: http::Response<Bytes>) -> Result<Value, String> {
    if !answer.status().is_success() {
        let start = &answer.body()[..answer.body().len().min(512)];
        return Err(format!("status {}: {}", answer.status(), String::from_utf8_lossy(start)));
    }
    serde_json::from_slice(answer.body()).map_err(|error| format!("the answer is no JSON: {error}"))
}

/// A server that this one calls: where it is, whom to believe there, and how to show oneself.
#[derive(Clone)]
pub struct Remote {
    uri: Uri,
    address: String,
    host: String,
    tls: Option<Arc<ClientConfig>>,
    token: Option<HeaderValue>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// A server that can't be called as it is described.
#[derive(Debug, Clone, thiserror::Error)]
#[error("can't call {what}: {reason}")]
pub struct RemoteError {
    /// The URL, or the file that describes it.
    pub what: String,
    /// Why not.
    pub reason: String,
}

impl Remote {
    /// A server at an URL, whose certificate is of these authorities (PEM) or, if the text is empty, of the system's. Plain `http`
    /// has none.
    ///
    /// # Errors
    /// It is no such URL, or the authorities are none.
    pub fn new(url: &str, ca: &str) -> Result<Self, RemoteError> {
        Self::with(url, Trust::named_or_system(ca), None)
    }

    fn with(url: &str, trust: Trust<'_>, identity: Option<(&str, &str)>) -> Result<Self, RemoteError> {
        let fail = |reason: String| RemoteError { what: url.to_owned(), reason };
        let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| fail(error.to_string()))?;
        let host = uri.host().ok_or_else(|| fail("it has no host".to_owned()))?.to_owned();
        let (tls, port) = match uri.scheme_str() {
            Some("https") => (Some(client_tls(trust, identity).map_err(|error| fail(error.to_string()))?), 443),
            Some("http") => (None, 80),
            _ => return Err(fail("it is neither https nor http".to_owned())),
        };
        let address = format!("{host}:{}", uri.port_u16().unwrap_or(port));
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self { uri, address, host, tls, token: None })
    }

    /// The current context of a kubeconfig, which is how webhooks of the API server are described
    /// (<https://kubernetes.io/docs/reference/access-authn-authz/webhook/>). Certificates and keys are embedded or in files;
    /// where no authority is named, the system's are believed.
    ///
    /// # Errors
    /// The text is no kubeconfig, or names a file that can't be read.
    pub fn from_kubeconfig(text: &str) -> Result<Self, RemoteError> {
        let fail = |reason: String| RemoteError { what: "the server of a kubeconfig".to_owned(), reason };
        let config: Value = serde_saphyr::from_str(text).map_err(|error| fail(error.to_string()))?;
        let named = |list: &str, name: &Value, what: &str| {
            let all = config[list].as_array().map(Vec::as_slice).unwrap_or_default();
            let found = all.iter().find(|entry| name.is_null() || entry["name"] == *name);
            found.map(|entry| entry[what].clone()).unwrap_or_default()
        };
        let context = named("contexts", &config["current-context"], "context");
        let cluster = named("clusters", &context["cluster"], "cluster");
        let user = named("users", &context["user"], "user");
        let part = |of: &Value, data: &str, file: &str| -> Result<Option<String>, RemoteError> {
            if let Some(data) = of[data].as_str() {
                let bytes = STANDARD.decode(data).map_err(|error| fail(error.to_string()))?;
                return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
            }
            let Some(path) = of[file].as_str() else { return Ok(None) };
            std::fs::read_to_string(path).map(Some).map_err(|error| fail(format!("{path}: {error}")))
        };
        let ca = part(&cluster, "certificate-authority-data", "certificate-authority")?;
        let certificate = part(&user, "client-certificate-data", "client-certificate")?;
        let key = part(&user, "client-key-data", "client-key")?;
        let server = cluster["server"].as_str().ok_or_else(|| fail("no cluster with a server".to_owned()))?;
        let trust = match (&ca, cluster["insecure-skip-tls-verify"] == true) {
            (_, true) => Trust::Anybody,
            (ca, false) => Trust::named_or_system(ca.as_deref().unwrap_or_default()),
        };
        let identity = certificate.as_deref().zip(key.as_deref());
        let mut remote = Self::with(server, trust, identity)?;
        if let Some(token) = user["token"].as_str() {
            let value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| fail(error.to_string()))?;
            remote.token = Some(value);
        }
        Ok(remote)
    }

    /// Whether what is said on the way stays secret.
    pub(crate) fn is_https(&self) -> bool {
        self.tls.is_some()
    }

    /// The path and query of the URL.
    pub(crate) fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }

    /// Another place on the same terms.
    pub(crate) fn at(&self, url: &str) -> Result<Self, RemoteError> {
        let fail = |reason: &str| RemoteError { what: url.to_owned(), reason: reason.to_owned() };
        let uri: Uri = url.parse().map_err(|_| fail("it is no URL"))?;
        let host = uri.host().ok_or_else(|| fail("it has no host"))?.to_owned();
        if uri.scheme_str() != self.uri.scheme_str() {
            return Err(fail("it is of another scheme"));
        }
        let port = uri.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 });
        let address = format!("{host}:{port}");
        Ok(Self { uri, address, host: host.trim_matches(['[', ']']).to_owned(), ..self.clone() })
    }

    /// Sends a request to the URL and reads a JSON answer.
    ///
    /// # Errors
    /// Nobody answers, the code is none of success, or the answer is no JSON.
    pub(crate) async fn json(&self, method: Method, question: Option<&Value>) -> Result<Value, String> {
        let tls = self.tls.as_ref().map(|tls| (tls, self.host.as_str()));
        let stream = connect(&self.address, tls).await.map_err(|error| format!("dial {}: {error}", self.address))?;
        let mut headers = HeaderMap::new();
        let host =
            HeaderValue::from_str(self.uri.authority().map_or(self.host.as_str(), |authority| authority.as_str()));
        headers.insert(header::HOST, host.map_err(|error| error.to_string())?);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.extend(self.token.clone().map(|token| (header::AUTHORIZATION, token)));
        if question.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let body = question.map(Value::to_string).unwrap_or_default();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = self.path().parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
        *request.headers_mut() = headers;
        json(exchange(stream, request).await?)
    }
}
