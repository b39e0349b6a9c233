//! What a member says to whoever does not belong, as it is on the wire, and what becomes of messages that can't be sent.

use std::sync::Arc;

use rk_raft::{
    GrpcTransport, Identity, Initial, Lane, MemberConfig, Membership, PROTOCOL_VERSION, Packet, PeerListener, PeerTls,
    RaftStore, Transport,
};
use rk_store::{Cluster, Error, Store};
use tempfile::TempDir;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Certificate, Channel, ClientTlsConfig},
};
use tonic_prost::ProstCodec;

/// The protocol's messages, as their definition has them.
#[derive(Clone, PartialEq, prost::Message)]
struct Hello {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    cluster_id: u64,
    #[prost(uint64, tag = "3")]
    from: u64,
    #[prost(uint64, tag = "4")]
    to: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Frame {
    #[prost(message, optional, tag = "1")]
    hello: Option<Hello>,
    #[prost(uint64, tag = "3")]
    probe: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Welcome {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    probe: u64,
}

/// What is answered to these frames: the first two welcomes.
async fn carry(channel: Channel, frames: Vec<Frame>) -> Result<Vec<Welcome>, Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/rk.raft.v1.Peer/Carry");
    let (frames, open) = (tokio_stream::iter(frames), tokio_stream::pending());
    let frames = Request::new(tokio_stream::StreamExt::chain(frames, open));
    let mut answers = client.streaming(frames, path, ProstCodec::<Frame, Welcome>::default()).await?.into_inner();
    let mut welcomes = Vec::new();
    while welcomes.len() < 2
        && let Some(welcome) = answers.message().await?
    {
        welcomes.push(welcome);
    }
    Ok(welcomes)
}

async fn connect(url: &str) -> Channel {
    Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap()
}

/// A group of one on a folder.
async fn alone(dir: &TempDir, tls: Option<PeerTls>) -> (Arc<RaftStore>, String) {
    let listener = PeerListener::bind(&[([127, 0, 0, 1], 0).into()]).await.unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.addresses()[0]);
    let members = vec![("m".to_owned(), vec![url.clone()])];
    let initial = Initial::New { members, token: "test".into(), backup: None };
    let mut config = MemberConfig::new(dir.path().join("m"), "m", vec![url.clone()], listener, initial);
    config.tls = tls;
    let store = RaftStore::open(config).await.unwrap();
    store.put("key".into(), "value".into()).await.unwrap();
    (Arc::new(store), url)
}

#[tokio::test]
async fn whoever_says_what_is_not_so_is_told_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (store, url) = alone(&dir, None).await;
    let (own, cluster) = (store.id(), store.cluster_id());
    let (known, _) = store.member_add(vec!["http://127.0.0.1:1".into()], true).await.unwrap();
    assert_eq!(store.member_remove(known.id).await.unwrap().len(), 1);
    let (peer, _) = store.member_add(vec!["http://127.0.0.1:2".into()], true).await.unwrap();
    let hello = Hello { version: PROTOCOL_VERSION, cluster_id: cluster, from: peer.id, to: own };
    let next = PROTOCOL_VERSION + 1;
    let cases = [
        (
            Hello { version: next, ..hello.clone() },
            Code::FailedPrecondition,
            format!("the peer speaks version {next} of the protocol, and this member version {PROTOCOL_VERSION}"),
        ),
        (
            Hello { cluster_id: 7, ..hello.clone() },
            Code::FailedPrecondition,
            format!("cluster id mismatch: this member belongs to the cluster {cluster:x}, and the peer to 7"),
        ),
        (
            Hello { to: 9, ..hello.clone() },
            Code::FailedPrecondition,
            format!("this is the member {own:x} and not 9: its address or its data directory was given to another"),
        ),
        (
            Hello { from: own, ..hello.clone() },
            Code::FailedPrecondition,
            format!("another process runs as the member {own:x}: its data directory was copied"),
        ),
        (
            Hello { from: known.id, ..hello.clone() },
            Code::PermissionDenied,
            format!("the member {:x} was removed from the cluster", known.id),
        ),
        (Hello { from: 5, ..hello.clone() }, Code::Unavailable, "the member 5 is not known here".into()),
    ];
    for (hello, code, text) in cases {
        let refused = carry(connect(&url).await, vec![Frame { hello: Some(hello), probe: 0 }]).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (code, text.as_str()));
    }
    let refused = carry(connect(&url).await, vec![Frame::default()]).await.unwrap_err();
    assert_eq!(refused.message(), "the first frame does not say who speaks");
    // Whoever belongs is welcome, and its probes are answered.
    let frames = vec![Frame { hello: Some(hello), probe: 0 }, Frame { hello: None, probe: 11 }];
    let welcomes = carry(connect(&url).await, frames).await.unwrap();
    assert_eq!(welcomes.iter().map(|welcome| welcome.probe).collect::<Vec<_>>(), [0, 11]);
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_not_heard() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);
    let own = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&own, &issuer).unwrap();
    let tls = PeerTls::new(certificate.pem().into(), own.serialize_pem().into(), authority.clone().into()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (store, url) = alone(&dir, Some(tls)).await;
    let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
    let shown = trusting.clone().identity(tonic::transport::Identity::from_pem(certificate.pem(), own.serialize_pem()));
    let hello = Hello { version: PROTOCOL_VERSION, cluster_id: store.cluster_id(), from: 5, to: store.id() };
    let ask = async |tls: ClientTlsConfig| {
        let endpoint = Channel::from_shared(url.clone()).unwrap().tls_config(tls).unwrap();
        match endpoint.connect().await {
            Ok(channel) => carry(channel, vec![Frame { hello: Some(hello.clone()), probe: 0 }]).await.unwrap_err(),
            Err(error) => Status::unavailable(format!("{error:?}")),
        }
    };
    let with = ask(shown).await;
    assert_eq!(with.message(), "the member 5 is not known here", "with a certificate it is heard");
    let without = format!("{:?}", ask(trusting).await);
    assert!(!without.contains("not known here"), "{without}");
    assert!(without.contains("CertificateRequired"), "{without}");
}

#[tokio::test]
async fn the_folder_of_another_member_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let listen = async || PeerListener::bind(&[([127, 0, 0, 1], 0).into()]).await.unwrap();
    let listeners = [listen().await, listen().await];
    let urls = listeners.each_ref().map(|listener| format!("http://{}", listener.addresses()[0]));
    let members: Vec<_> =
        ["a", "b"].into_iter().zip(&urls).map(|(name, url)| (name.into(), vec![url.clone()])).collect();
    let initial = || Initial::New { members: members.clone(), token: "test".into(), backup: None };
    let mut ids = Vec::new();
    for ((name, url), listener) in ["a", "b"].into_iter().zip(&urls).zip(listeners) {
        let config = MemberConfig::new(home.path().join(name), name, vec![url.clone()], listener, initial());
        ids.push(RaftStore::open(config).await.unwrap().id());
    }
    let refused = loop {
        let config = MemberConfig::new(home.path().join("b"), "a", vec![urls[0].clone()], listen().await, initial());
        match RaftStore::open(config).await.unwrap_err() {
            // The member that has stopped gives its folder up in a moment.
            Error::InUse { .. } => tokio::task::yield_now().await,
            refused => break refused,
        }
    };
    let wanted = format!(
        "the data directory is that of the member {:x} of this cluster, and a is the member {:x}",
        ids[1], ids[0]
    );
    assert!(matches!(&refused, Error::Invalid(text) if *text == wanted), "{refused}");
}

#[tokio::test]
async fn messages_that_can_not_be_sent_are_dropped_and_counted() {
    /// What the queue of a link takes.
    const QUEUE: u64 = 4096;
    // It takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut membership = Membership::numbered(&[1, 2]);
    membership.members.get_mut(&2).unwrap().peer_urls = vec![format!("http://{}", silent.local_addr().unwrap())];
    let listener = PeerListener::bind(&[([127, 0, 0, 1], 0).into()]).await.unwrap();
    let identity = Identity { cluster_id: 1, member_id: 1 };
    let (transport, _packets) = GrpcTransport::start(identity, membership, listener, None).unwrap();
    // At once and without waiting for anything.
    for _ in 0..QUEUE + 10 {
        transport.send(Packet { from: 1, to: 2, lane: Lane::Raft, payload: vec![0; 100].into() });
    }
    let traffic = transport.traffic();
    let told: Vec<_> = traffic.iter().map(|peer| (peer.peer, peer.failures, peer.connected, peer.sent)).collect();
    assert_eq!(told, [(2, 10, false, 0)]);
    // Nobody is sent what is for nobody.
    transport.send(Packet { from: 1, to: 3, lane: Lane::Raft, payload: vec![0].into() });
    assert_eq!(transport.traffic().len(), 1);
}
