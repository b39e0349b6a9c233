//! Forwarding UDP datagrams: one socket to an endpoint for each client.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::UdpSocket, sync::mpsc, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Balancer, UserspaceConfig};

/// The largest datagram.
const LARGEST: usize = 65_535;
/// Clients of one listener at a time; the datagrams of more are dropped until some have been silent for long enough.
const CLIENTS: usize = 4096;

struct Session {
    target: SocketAddr,
    socket: Arc<UdpSocket>,
    last: Instant,
    _stop: DropGuard,
}

pub(super) fn bind(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Forwards until `stop`.
pub(super) async fn serve(
    socket: UdpSocket,
    balancer: Arc<Balancer>,
    config: Arc<UserspaceConfig>,
    stop: CancellationToken,
) {
    let socket = Arc::new(socket);
    let (tell_alive, mut alive) = mpsc::channel::<SocketAddr>(1024);
    let mut sessions: HashMap<SocketAddr, Session> = HashMap::new();
    let mut buffer = vec![0; LARGEST];
    let mut sweep = tokio::time::interval(config.udp_timeout.max(std::time::Duration::from_millis(10)));
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, from)) => {
                    let known = sessions.get(&from).is_some_and(|session| balancer.contains(session.target));
                    if !known {
                        sessions.remove(&from);
                        if sessions.len() >= CLIENTS {
                            tracing::warn!(%from, "too many UDP clients, datagram dropped");
                            continue;
                        }
                        match open(&socket, from, &balancer, &stop, &tell_alive).await {
                            Ok(Some(session)) => drop(sessions.insert(from, session)),
                            Ok(None) => continue,
                            Err(error) => {
                                tracing::warn!(%error, %from, "no socket for a UDP client");
                                continue;
                            }
                        }
                    }
                    let Some(session) = sessions.get_mut(&from) else { continue };
                    session.last = Instant::now();
                    if let Err(error) = session.socket.send(&buffer[..length]).await {
                        // The endpoint's port is closed: the next datagram tries another one.
                        tracing::debug!(%error, target = %session.target, "datagram not delivered");
                        sessions.remove(&from);
                    }
                }
                Err(error) => tracing::debug!(%error, "no datagram received"),
            },
            Some(from) = alive.recv() => {
                if let Some(session) = sessions.get_mut(&from) {
                    session.last = Instant::now();
                }
            }
            _ = sweep.tick(), if !sessions.is_empty() => {
                sessions.retain(|_, session| session.last.elapsed() < config.udp_timeout);
            }
        }
    }
}

/// A socket to an endpoint, with a task that returns what the endpoint answers.
async fn open(
    listener: &Arc<UdpSocket>,
    from: SocketAddr,
    balancer: &Balancer,
    stop: &CancellationToken,
    alive: &mpsc::Sender<SocketAddr>,
) -> io::Result<Option<Session>> {
    let Some(target) = balancer.choose(from.ip()).first().copied() else { return Ok(None) };
    let any: SocketAddr =
        if target.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    let socket = Arc::new(socket);
    let stop = stop.child_token();
    let answers = answer(Arc::clone(&socket), Arc::clone(listener), from, alive.clone());
    let until = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = until.cancelled() => {}
            () = answers => {}
        }
    });
    Ok(Some(Session { target, socket, last: Instant::now(), _stop: stop.drop_guard() }))
}

async fn answer(
    endpoint: Arc<UdpSocket>,
    listener: Arc<UdpSocket>,
    client: SocketAddr,
    alive: mpsc::Sender<SocketAddr>,
) {
    loop {
        match receive(&endpoint).await {
            Ok(datagram) => {
                if let Err(error) = listener.send_to(&datagram, client).await {
                    tracing::debug!(%error, %client, "answer not delivered");
                }
                // Only the session's age hangs on it, and a full queue means that it is seen to be alive.
                let _ = alive.try_send(client);
            }
            Err(error) => {
                tracing::debug!(%error, %client, "endpoint refuses datagrams");
                return;
            }
        }
    }
}

/// The next datagram. While there is none no room is held for it: there may be thousands of sessions.
async fn receive(endpoint: &UdpSocket) -> io::Result<Vec<u8>> {
    let take = || {
        let mut buffer = [0; LARGEST];
        endpoint.try_recv(&mut buffer).map(|length| buffer[..length].to_vec())
    };
    loop {
        endpoint.readable().await?;
        match take() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return received,
        }
    }
}
