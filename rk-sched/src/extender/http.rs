//! Asking over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, Uri, header};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde_json::Value;

use super::{ExtenderSetupError, tls::Tls};

/// How long an extender may take where its settings don't say (`DefaultExtenderTimeout`).
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// No answer is longer, in bytes: 5,000 nodes in full are fewer.
const MAX_ANSWER: usize = 128 << 20;

/// Where an extender is, with connections that stay open between questions.
pub(super) struct Connection {
    /// Without slashes at its end.
    prefix: String,
    timeout: Duration,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Connection {
    pub(super) fn new(url: &str, tls: Tls, timeout: Duration) -> Result<Self, ExtenderSetupError> {
        let wrong = |reason: String| ExtenderSetupError { field: "urlPrefix", reason };
        let uri: Uri = url.parse().map_err(|error: hyper::http::uri::InvalidUri| wrong(error.to_string()))?;
        if uri.host().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong("must be an URL of http or https".to_owned()));
        }
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls.config).https_or_http();
        let builder = match tls.server_name {
            Some(name) => builder.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name)),
            None => builder,
        };
        let connector = builder.enable_http1().wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { prefix: url.trim_end_matches('/').to_owned(), timeout, client })
    }

    /// Posts a question and reads the answer.
    pub(super) async fn post(&self, verb: &str, question: &Value) -> Result<Value, String> {
        let url = format!("{}/{verb}", self.prefix);
        let answer = tokio::time::timeout(self.timeout, self.exchange(&url, verb, question)).await;
        answer.unwrap_or_else(|_| Err(format!("Post {url:?}: no answer within {:?}", self.timeout)))
    }

    async fn exchange(&self, url: &str, verb: &str, question: &Value) -> Result<Value, String> {
        let failed = |error: &dyn std::error::Error| format!("Post {url:?}: {}", causes(error));
        let request = Request::post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from(question.to_string())))
            .map_err(|error| failed(&error))?;
        let response = self.client.request(request).await.map_err(|error| failed(&error))?;
        if response.status() != StatusCode::OK {
            let code = response.status().as_u16();
            return Err(format!("failed {verb} with extender at URL {url}, code {code}"));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| failed(&*error))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| failed(&error))
    }
}

/// An error with what caused it: hyper tells the outermost only.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
