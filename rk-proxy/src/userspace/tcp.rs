//! Forwarding TCP connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{Balancer, UserspaceConfig};

/// Connections the system queues for us.
const BACKLOG: u32 = 1024;
/// Bytes held per direction of a connection.
const BUFFER: usize = 32 * 1024;

pub(super) fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of an earlier listener may still be in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shared)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until `stop`; connections go on until `end`.
pub(super) async fn serve(
    listener: TcpListener,
    balancer: Arc<Balancer>,
    config: Arc<UserspaceConfig>,
    stop: CancellationToken,
    end: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, from)) => {
                let (balancer, config, end) = (Arc::clone(&balancer), Arc::clone(&config), end.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = end.cancelled() => {}
                        () = forward(client, from, &balancer, &config) => {}
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, or a client that went at once: neither ends the listener.
                tracing::warn!(%error, "can't accept a connection");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                }
            }
        }
    }
}

async fn forward(mut client: TcpStream, from: SocketAddr, balancer: &Balancer, config: &UserspaceConfig) {
    let Some(mut endpoint) = connect(from, balancer, config).await else {
        reset(&client);
        return;
    };
    // What one end sends small and at once, the other gets at once.
    for stream in [&client, &endpoint] {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
    }
    if let Err(error) = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER, BUFFER).await {
        tracing::debug!(%error, %from, "connection broke");
        reset(&client);
        reset(&endpoint);
    }
}

/// Makes the coming close abrupt, as that of the other end was.
fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "no SO_LINGER");
    }
}

/// Connects to the chosen endpoint, or to the next that answers.
async fn connect(from: SocketAddr, balancer: &Balancer, config: &UserspaceConfig) -> Option<TcpStream> {
    for (turn, target) in balancer.choose(from.ip()).into_iter().enumerate() {
        match tokio::time::timeout(config.connect_timeout, TcpStream::connect(target)).await {
            Ok(Ok(stream)) => {
                if turn > 0 {
                    balancer.moved(from.ip(), target);
                }
                return Some(stream);
            }
            Ok(Err(error)) => tracing::debug!(%target, %error, "endpoint does not answer"),
            Err(_) => tracing::debug!(%target, "endpoint does not answer in time"),
        }
    }
    None
}
