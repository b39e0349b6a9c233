//! gRPC's health check (`grpc.health.v1.Health/Check`), by hand: one message of one field each way.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// `HealthCheckRequest { service = 1 }` in a gRPC frame.
fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

/// The `status` (field 1, an enum) of a framed `HealthCheckResponse`; 0, `UNKNOWN`, if it is not there.
fn status(frame: &[u8]) -> u8 {
    match frame.get(5..) {
        Some([0x08, value, ..]) => *value,
        _ => 0,
    }
}

/// Asks whether a service is `SERVING`.
pub(super) async fn check(host: &str, port: u16, service: &str) -> Result<(), String> {
    let refused = |error: String| format!("timeout: failed to connect service \"{host}:{port}\": {error}");
    let stream = super::connect(host, port, Duration::from_secs(3600)).await.map_err(refused)?;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(request(service)))
        .map_err(|error| error.to_string())?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?;
        let word = |name: &str| {
            let found = body.trailers().and_then(|trailers| trailers.get(name)).or(head.headers.get(name));
            found.and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        match word("grpc-status").as_deref() {
            None | Some("0") => {}
            Some("12") => {
                return Err(
                    "this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned()
                );
            }
            Some(code) => {
                let message = word("grpc-message").unwrap_or_default();
                return Err(format!("rpc error: code = {code} desc = {message}"));
            }
        }
        match status(&body.to_bytes()) {
            1 => Ok(()),
            2 => Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned()),
            other => Err(format!("service unhealthy (responded with status {other})")),
        }
    }
    .await;
    connection.abort();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_grpc() {
        assert_eq!(&request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), 1);
        assert_eq!(status(&[0, 0, 0, 0, 0]), 0);
    }
}
