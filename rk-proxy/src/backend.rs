//! The contract of what makes service addresses lead to endpoints.

use std::net::SocketAddr;

use async_trait::async_trait;

use crate::{PortKey, Protocol, ServiceChange};

/// Makes service addresses lead to endpoints.
///
/// # Guarantees
/// An implementation keeps these; `rk_proxy::testing` (feature `testing`) checks them.
/// 1. When `apply` returns, new connections see the change: an upserted port's addresses lead to its usable endpoints
///    (see [`usable`](crate::usable)), evenly; a port with none refuses; a removed one refuses.
/// 2. Ports that the change does not name are not disturbed.
/// 3. A connection that is open stays with its endpoint for as long as both ends want it, whatever changes.
/// 4. Applying the same change twice is the same as once.
/// 5. A port that can't be served in part (an address is taken) is served for the rest, and told of.
/// 6. When the backend is dropped nothing of it stays behind.
#[async_trait]
pub trait ProxyBackend: Send + Sync + 'static {
    /// Its name in logs, such as `userspace`.
    fn name(&self) -> &str;

    /// Applies a change. Answers what it could not serve of the ports named; those are tried again when they are next
    /// upserted.
    ///
    /// # Errors
    /// Nothing of the change may have been applied; it will come again.
    async fn apply(&self, change: ServiceChange) -> Result<Vec<Unserved>, BackendError>;
}

/// An address of a service port that could not be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("can't serve {key} at {address}: {reason}")]
pub struct Unserved {
    /// The port.
    pub key: PortKey,
    /// The address.
    pub address: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// What is in the way.
    pub reason: String,
}

/// A change could not be applied at all.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{backend}: {message}")]
pub struct BackendError {
    /// The backend.
    pub backend: String,
    /// What went wrong.
    pub message: String,
}
