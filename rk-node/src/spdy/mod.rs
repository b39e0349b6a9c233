//! SPDY/3.1 on the server's side, as far as Kubernetes' streaming uses it.
//!
//! kubectl's port-forward (inside a WebSocket or on an upgraded connection) and the exec of older clients speak SPDY:
//! many streams on one connection, each opened by the client with headers that say what it is for. [`serve`] runs the
//! protocol on a connection and hands out [`Stream`]s. Neither client-go nor the kubelet uses SPDY's flow
//! control, so there is none here: a stream that is not read holds up its connection.
//!
//! Source: SPDY Protocol, Draft 3.1 (<https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>).

mod frame;
mod headers;
mod session;

pub use frame::SpdyError;
pub use session::{Session, Stream, serve};
