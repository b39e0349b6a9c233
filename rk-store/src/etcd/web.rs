//! What etcd answers to plain HTTP: `/health`, `/livez`, `/readyz`, `/version` and `/metrics`.

use std::sync::atomic::Ordering::Relaxed;

use http::{Method, Response, StatusCode, header};

use super::{VERSION, grpc::Body, service::Shared};
use crate::{AlarmKind, KeyRange, RangeRequest};

fn answer(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::plain(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

impl Shared {
    /// Answers a request that is not gRPC.
    pub(crate) async fn web(&self, method: &Method, uri: &http::Uri) -> Response<Body> {
        if !["/health", "/livez", "/readyz", "/version", "/metrics"].contains(&uri.path()) {
            return answer(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n".into());
        }
        if method != Method::GET {
            let text = "Method Not Allowed\n".into();
            return answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", text);
        }
        let asked = |name: &str, value: &str| {
            uri.query().is_some_and(|query| query.split('&').any(|pair| pair.split_once('=') == Some((name, value))))
        };
        let text = "text/plain; charset=utf-8";
        match uri.path() {
            "/version" => {
                let cluster = VERSION.rsplit_once('.').map_or(VERSION, |(minor, _)| minor);
                let body = format!("{{\"etcdserver\":\"{VERSION}\",\"etcdcluster\":\"{cluster}.0\"}}");
                answer(StatusCode::OK, "application/json", body)
            }
            "/metrics" => match self.metrics_text().await {
                Ok(metrics) => answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics),
                Err(status) => answer(StatusCode::INTERNAL_SERVER_ERROR, text, format!("{status}\n")),
            },
            "/health" => match self.sick(asked("serializable", "true"), asked("exclude", "NOSPACE")).await {
                None => {
                    self.metrics.healthy.fetch_add(1, Relaxed);
                    answer(StatusCode::OK, "application/json", r#"{"health":"true","reason":""}"#.into())
                }
                Some(reason) => {
                    self.metrics.unhealthy.fetch_add(1, Relaxed);
                    // Quoted as a Rust string, which for these texts is JSON too.
                    let body = format!("{{\"health\":\"false\",\"reason\":{reason:?}}}");
                    answer(StatusCode::SERVICE_UNAVAILABLE, "application/json", body)
                }
            },
            path => match self.sick(path == "/livez", true).await {
                None => answer(StatusCode::OK, text, "ok\n".into()),
                Some(reason) => answer(StatusCode::SERVICE_UNAVAILABLE, text, format!("{reason}\n")),
            },
        }
    }

    /// Why this member does not do its work, `None` if it does: alarms, no leader, reads that fail.
    async fn sick(&self, alone: bool, with_no_space: bool) -> Option<String> {
        // As this member knows them: without a leader nobody can be asked.
        let status = match self.cluster.member_status().await {
            Ok(status) => status,
            Err(error) => return Some(format!("STATUS ERROR:{error}")),
        };
        for alarm in status.alarms {
            match alarm.kind {
                AlarmKind::NoSpace if !with_no_space => return Some("ALARM NOSPACE".into()),
                AlarmKind::Corrupt => return Some("ALARM CORRUPT".into()),
                AlarmKind::NoSpace => {}
            }
        }
        if !alone && status.leader.is_none() {
            return Some("RAFT NO LEADER".into());
        }
        let probe = RangeRequest { limit: 1, serializable: alone, ..RangeRequest::new(KeyRange::key("health")) };
        self.store.range(probe).await.err().map(|error| format!("RANGE ERROR:{error}"))
    }
}
