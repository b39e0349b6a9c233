//! The transport over gRPC: members in processes of their own.
//!
//! ```text
//! send ─► queue per peer and lane ─► link: one connection, one stream ─► the peer's server ─► its inbox
//! ```
//! - Each member speaks to each other one over connections of its own, one for raft's messages and one for parts of states, so
//!   that neither waits for the other. Answers come over the peer's own connections.
//! - Queues are bounded: what does not fit is dropped, and raft sends it again.
//! - A link that breaks connects again, after a pause that grows.
//! - A connection begins with who speaks and who is meant to listen. A member of another group, one that was removed, and
//!   one whose place another has taken are refused, which both sides log once.
//! - With TLS both sides show certificates of the group's authority, or none that prove anything ([`PeerTls::unverified`]).

mod link;
mod server;
mod tls;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rk_store::{Error, Member, Traffic};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, server::Connected};

pub use self::tls::PeerTls;
use self::{link::Link, server::Server};
use crate::{Identity, Lane, MemberId, Membership, Packet, Transport, node::failed};

/// Messages of the protocol between members.
#[allow(missing_docs, clippy::all)]
mod proto {
    tonic::include_proto!("rk.raft.v1");
}

/// The version of the protocol between members that this one speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// Packets from other members that wait for this one.
const INBOX: usize = 4096;
/// How long it may take to connect, with TLS.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The longest frame.
const FRAME_BYTES: usize = 64 << 20;

/// Addresses at which a member will be reached by others.
#[derive(Debug)]
pub struct PeerListener {
    listeners: Vec<TcpListener>,
}

impl PeerListener {
    /// Takes addresses; port 0 is any free one.
    ///
    /// # Errors
    /// [`Error::Io`] with the address.
    pub async fn bind(addresses: &[SocketAddr]) -> Result<Self, Error> {
        let mut listeners = Vec::new();
        for address in addresses {
            let io = |error: std::io::Error| Error::io(format!("listening for peers on {address}"), &error);
            listeners.push(TcpListener::bind(address).await.map_err(io)?);
        }
        Ok(Self { listeners })
    }

    /// The addresses taken.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

/// See the module's description. The servers and links end with the last handle.
#[derive(Debug)]
pub struct GrpcTransport {
    shared: Arc<Shared>,
    links: Mutex<Links>,
}

/// What links and servers work with.
#[derive(Debug)]
struct Shared {
    identity: Identity,
    tls: Option<PeerTls>,
    members: RwLock<Membership>,
    inbox: mpsc::Sender<Packet>,
    traffic: Mutex<BTreeMap<MemberId, Traffic>>,
}

impl Shared {
    /// Counts something about a peer, unless it is none any more.
    fn note(&self, peer: MemberId, note: impl FnOnce(&mut Traffic)) {
        let members = self.members.read();
        if members.members.contains_key(&peer) {
            note(self.traffic.lock().entry(peer).or_insert_with(|| Traffic::new(peer)));
        }
    }

    /// Counts packets that went to a peer or came from it.
    fn count(&self, peer: MemberId, packets: &[Bytes], direction: impl FnOnce(&mut Traffic) -> &mut u64) {
        let bytes = packets.iter().map(|packet| packet.len() as u64).sum::<u64>();
        self.note(peer, |traffic| *direction(traffic) += bytes);
    }
}

#[derive(Debug)]
struct Links {
    by_peer: BTreeMap<MemberId, Peer>,
    /// They end with it.
    _servers: JoinSet<()>,
}

#[derive(Debug)]
struct Peer {
    urls: Vec<String>,
    raft: Link,
    bulk: Link,
}

/// Connects to a peer.
async fn connect(url: &str, tls: Option<&PeerTls>) -> Result<Channel, Error> {
    let error = |error: tonic::transport::Error| {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        failed(&format!("connecting to {url}"), text)
    };
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(error)?
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20);
    if let Some(tls) = tls {
        endpoint = tls.apply(endpoint).map_err(error)?;
    }
    // One that is stopped has its connections accepted by the system, and then says nothing.
    let silent = |_| failed(&format!("connecting to {url}"), "no handshake in time");
    tokio::time::timeout(HANDSHAKE, endpoint.connect()).await.map_err(silent)?.map_err(error)
}

/// Who belongs to the group that members at these URLs belong to: its id, and its members.
///
/// # Errors
/// [`Error::Unavailable`] if none of them answers, with what each said.
pub async fn discover(urls: &[String], tls: Option<&PeerTls>) -> Result<(u64, Vec<Member>), Error> {
    let mut reasons = Vec::new();
    for url in urls {
        let channel = match connect(url, tls).await {
            Ok(channel) => channel,
            Err(error) => {
                reasons.push(error.to_string());
                continue;
            }
        };
        let mut client = proto::peer_client::PeerClient::new(channel);
        match client.members(proto::MembersRequest {}).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let members = answer.members.into_iter().map(|member| Member {
                    id: member.id,
                    name: member.name,
                    peer_urls: member.peer_urls,
                    client_urls: member.client_urls,
                    is_learner: member.is_learner,
                });
                return Ok((answer.cluster_id, members.collect()));
            }
            Err(status) => reasons.push(format!("{url}: {}", status.message())),
        }
    }
    Err(Error::Unavailable(format!("no member of the group answers: {}", reasons.join("; "))))
}

/// Serves other members who connect to a listener. `secure` makes of a connection what is spoken over.
async fn serve<I, F>(shared: Arc<Shared>, listener: TcpListener, secure: impl Fn(TcpStream) -> F + Send + 'static)
where
    I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    F: Future<Output = std::io::Result<I>> + Send + 'static,
{
    let member = shared.identity.member_id;
    let (ready, incoming) = mpsc::channel(1);
    let accept = async {
        let mut handshakes = JoinSet::new();
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(member, %error, "a peer's connection was not accepted");
                        // Too many open files, most likely: they are not fewer at once.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                Some(_) = handshakes.join_next() => continue,
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(member, %error, "a peer's connection waits before it sends");
            }
            let (stream, ready) = (secure(stream), ready.clone());
            handshakes.spawn(async move {
                match stream.await {
                    // Nobody takes it once the member stops.
                    Ok(stream) => drop(ready.send(Ok::<_, std::io::Error>(stream)).await),
                    Err(error) => tracing::warn!(member, %error, "a peer was refused"),
                }
            });
        }
    };
    let service = proto::peer_server::PeerServer::new(Server { shared }).max_decoding_message_size(FRAME_BYTES);
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .add_service(service)
        .serve_with_incoming(ReceiverStream::new(incoming));
    tokio::select! {
        () = accept => {}
        ended = server => if let Err(error) = ended {
            tracing::error!(member, %error, "other members can't reach this one any more");
        }
    }
}

impl GrpcTransport {
    /// Listens for other members, and connects to those known. The packets that come are for [`crate::Start`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the certificates can't be used.
    pub fn start(
        identity: Identity,
        members: Membership,
        listener: PeerListener,
        tls: Option<PeerTls>,
    ) -> Result<(Self, mpsc::Receiver<Packet>), Error> {
        let (inbox, packets) = mpsc::channel(INBOX);
        let shared = Arc::new(Shared { identity, tls, members: RwLock::default(), inbox, traffic: Mutex::default() });
        let mut servers = JoinSet::new();
        for listener in listener.listeners {
            match shared.tls.clone() {
                None => servers.spawn(serve(shared.clone(), listener, |stream| std::future::ready(Ok(stream)))),
                Some(tls) => servers.spawn(serve(shared.clone(), listener, move |stream| {
                    let tls = tls.clone();
                    async move { tls.accept(stream).await }
                })),
            };
        }
        let links = Mutex::new(Links { by_peer: BTreeMap::new(), _servers: servers });
        let transport = Self { shared, links };
        transport.set_members(&members);
        Ok((transport, packets))
    }
}

impl Transport for GrpcTransport {
    fn send(&self, packet: Packet) {
        let links = self.links.lock();
        let Some(peer) = links.by_peer.get(&packet.to) else { return };
        let link = match packet.lane {
            Lane::Raft => &peer.raft,
            Lane::Bulk => &peer.bulk,
        };
        link.send(packet.payload);
    }

    fn traffic(&self) -> Vec<Traffic> {
        self.shared.traffic.lock().values().cloned().collect()
    }

    fn set_members(&self, members: &Membership) {
        // One that has no state yet knows no more than what it was started with.
        if members.members.is_empty() {
            return;
        }
        self.shared.members.write().clone_from(members);
        let mut links = self.links.lock();
        self.shared.traffic.lock().retain(|id, _| members.members.contains_key(id));
        links.by_peer.retain(|id, peer| members.members.get(id).is_some_and(|member| member.peer_urls == peer.urls));
        for (id, member) in &members.members {
            if *id != self.shared.identity.member_id && !links.by_peer.contains_key(id) {
                let link = |lane| Link::start(self.shared.clone(), *id, member.peer_urls.clone(), lane);
                let peer = Peer { urls: member.peer_urls.clone(), raft: link(Lane::Raft), bulk: link(Lane::Bulk) };
                links.by_peer.insert(*id, peer);
            }
        }
    }
}
