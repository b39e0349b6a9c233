//! `/readyz`, `/livez`, `/healthz` with their single checks, and `/version`.

use http::Response;
use serde_json::{Value, json};

use super::{answer, body::Body, query::Query};
use crate::server::pipeline::Core;

/// The Kubernetes version whose API is served.
const VERSION: (&str, &str, &str) = ("1", "36", "v1.36.0");

/// What `/version` says.
pub(super) fn version() -> Value {
    json!({
        "major": VERSION.0, "minor": VERSION.1, "gitVersion": format!("{}+rk{}", VERSION.2, env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
        "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, arch()),
    })
}

/// The machine's architecture under Go's name.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The checks of an endpoint: name and failure.
fn checks(core: &Core, endpoint: &str) -> Vec<(&'static str, Option<String>)> {
    let broken = core.cache.broken();
    let mut checks = vec![("ping", None), ("log", None), ("etcd", broken.clone())];
    if endpoint == "readyz" {
        checks.push(("informer-sync", broken));
        checks.push(("shutdown", core.stopping.is_cancelled().then(|| "process is shutting down".to_owned())));
    }
    checks
}

/// The answer of a health endpoint or one of its checks; `None` if the path is none.
pub(super) fn answer(core: &Core, path: &str, query: &Query) -> Option<Response<Body>> {
    let mut parts = path.trim_matches('/').split('/');
    let endpoint = parts.next().filter(|endpoint| matches!(*endpoint, "readyz" | "livez" | "healthz"))?;
    let single = parts.next();
    let checks = checks(core, endpoint);
    if let Some(single) = single {
        let (_, failure) = checks.into_iter().find(|(name, _)| *name == single)?;
        return Some(match failure {
            None => answer::text(200, "ok"),
            Some(reason) => answer::text(500, format!("internal server error: {reason}\n")),
        });
    }
    let failed = checks.iter().any(|(_, failure)| failure.is_some());
    if !failed && !query.flag("verbose") {
        return Some(answer::text(200, "ok"));
    }
    let mut lines: String = checks
        .iter()
        .map(|(name, failure)| match failure {
            None => format!("[+]{name} ok\n"),
            Some(_) => format!("[-]{name} failed: reason withheld\n"),
        })
        .collect();
    lines.push_str(&format!("{endpoint} check {}\n", if failed { "failed" } else { "passed" }));
    Some(answer::text(if failed { 500 } else { 200 }, lines))
}
