//! What one request may take.

use std::time::Duration;

/// Bounds of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest body, in bytes.
    pub body: usize,
    /// How long a request may take that is no watch and no connection (`--request-timeout`).
    pub request_timeout: Duration,
}

impl Default for Limits {
    /// kube-apiserver's: 3 MiB, and a minute.
    fn default() -> Self {
        Self { body: 3 << 20, request_timeout: Duration::from_secs(60) }
    }
}
