//! A webhook that fails as a seed says.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rk_api::server::{
    pki::{Pki, Wanted},
    tls_config,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::log::NAMESPACES;

/// The path of the validating webhook, whose failures fail the write.
pub const OBEYED: &str = "/obeyed";
/// The path of the mutating webhook, whose failures are ignored.
pub const IGNORED: &str = "/ignored";
/// What becomes of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Answers,
    /// 500.
    Fails,
    /// Closes the connection.
    HangsUp,
    /// Answers with what is no review.
    Babbles,
    /// Does not answer.
    Stalls,
}

#[derive(Clone)]
pub struct Hook {
    seed: u64,
    /// How long the API server waits for an answer, in seconds: enough for one that does not stall on a busy machine.
    timeout: u64,
    /// How often the two webhooks have failed.
    failed: Arc<[AtomicU64; 2]>,
}

impl Hook {
    pub fn new(seed: u64, timeout: u64) -> Self {
        Self { seed, timeout, failed: Arc::default() }
    }

    /// What becomes of the question about a write: the same however often it is asked.
    pub fn fate(&self, path: &str, serial: u64) -> Fate {
        let mut mixed = self.seed ^ serial ^ ((path.len() as u64) << 48);
        for _ in 0..2 {
            mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        match mixed >> 32 & 255 {
            0..9 => Fate::Fails,
            9..18 => Fate::HangsUp,
            18..27 => Fate::Babbles,
            27 => Fate::Stalls,
            _ => Fate::Answers,
        }
    }

    /// Failures of the webhook that is obeyed, and of the one that is ignored.
    pub fn failures(&self) -> [u64; 2] {
        [0, 1].map(|at| self.failed[at].load(Ordering::Relaxed))
    }

    /// Serves both webhooks from now on; the configurations that name them.
    pub async fn serve(&self) -> [(&'static str, Value); 2] {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path()).unwrap();
        let identity = pki.identity("hook", &Wanted::server("hook", ["127.0.0.1".to_owned()])).unwrap();
        let acceptor = TlsAcceptor::from(tls_config(&identity.certificate, &identity.key, None).unwrap().config());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hook = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, hook) = (acceptor.clone(), hook.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| hook.clone().answer(request));
                    // Whoever asked may have given up, and the webhook hangs up itself.
                    let _ended = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let timeout = self.timeout;
        let configuration = |kind: &'static str, path: &str, policy: &str| {
            let rule = json!({"operations": ["CREATE", "UPDATE"], "apiGroups": ["", "soak.example.com"],
                "apiVersions": ["v1"], "resources": ["configmaps", "samples"]});
            let webhook = json!({"name": format!("{}.example.com", &path[1..]), "rules": [rule], "failurePolicy": policy,
                "clientConfig": {"url": format!("https://{address}{path}"), "caBundle": STANDARD.encode(pki.ca())},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACES[0]}},
                "sideEffects": "None", "timeoutSeconds": timeout, "admissionReviewVersions": ["v1"]});
            (kind, json!({"metadata": {"name": &path[1..]}, "webhooks": [webhook]}))
        };
        [
            configuration("ValidatingWebhookConfiguration", OBEYED, "Fail"),
            configuration("MutatingWebhookConfiguration", IGNORED, "Ignore"),
        ]
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, io::Error> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        let review: Value = serde_json::from_slice(&body)?;
        let serial = &review["request"]["object"]["metadata"]["annotations"]["serial"];
        let serial = serial.as_str().expect("every write has its number");
        let fate = self.fate(&path, serial.parse().expect("a number"));
        if fate != Fate::Answers {
            self.failed[usize::from(path == IGNORED)].fetch_add(1, Ordering::Relaxed);
        }
        let mut response = json!({"uid": review["request"]["uid"], "allowed": true});
        if path == IGNORED {
            let patch = json!([{"op": "add", "path": "/metadata/annotations/seen", "value": serial}]);
            response["patchType"] = "JSONPatch".into();
            response["patch"] = STANDARD.encode(patch.to_string()).into();
        }
        let mut answer =
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).to_string();
        let mut code = 200;
        match fate {
            Fate::Answers => {}
            Fate::Fails => code = 500,
            Fate::HangsUp => return Err(io::ErrorKind::ConnectionReset.into()),
            Fate::Babbles => answer.truncate(answer.len() / 2),
            // Until the API server hangs up: an answer that is a little late may be in time where everybody is.
            Fate::Stalls => std::future::pending().await,
        }
        Ok(Response::builder().status(code).body(Full::new(answer.into())).expect("a response"))
    }
}
