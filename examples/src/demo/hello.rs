//! The sample application: an HTTP server that says who it is.

use std::{convert::Infallible, net::Ipv4Addr};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::signal::unix::{SignalKind, signal};

/// Serves on `port` of the address in `POD_IP` until SIGTERM.
///
/// # Errors
/// The address or port can't be had.
pub async fn serve(port: u16) -> std::io::Result<()> {
    let env = |name: &str| std::env::var(name).unwrap_or_default();
    let address = env("POD_IP").parse().unwrap_or(Ipv4Addr::LOCALHOST);
    let listener = tokio::net::TcpListener::bind((address, port)).await?;
    println!("listening on {address}:{port}");
    let name = env("POD_NAME");
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let (stream, _) = tokio::select! {
            connection = listener.accept() => connection?,
            _ = terminate.recv() => return Ok(()),
        };
        let body = format!("hello from {name}\n");
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let body = body.clone();
                async move {
                    println!("{} {}", request.method(), request.uri().path());
                    Ok::<_, Infallible>(Response::new(body))
                }
            });
            // A client that breaks off is its own affair.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
