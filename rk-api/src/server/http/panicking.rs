//! Requests whose work panics: they are answered all the same, and others of their connection go on
//! (apiserver's `WithPanicRecovery`).

use std::{any::Any, panic::AssertUnwindSafe};

use futures::FutureExt;
use http::{HeaderValue, Response, header};

use super::{
    answer,
    body::{self, Body},
};

/// What kube-apiserver tells the client.
const MESSAGE: &str = "This request caused apiserver to panic. Look in the logs for details.\n";

/// Works on a request.
///
/// # Errors
/// What the work said as it panicked. It holds nothing any more that it had taken, a seat or a lock.
pub(super) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
        let why = said(&*panic);
        tracing::error!(why, "a request caused a panic");
        why
    })
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown".to_owned())
}

/// The answer to such a request.
pub(super) fn response() -> Response<Body> {
    let mut response = answer::respond(500, "text/plain; charset=utf-8", body::full(MESSAGE));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
