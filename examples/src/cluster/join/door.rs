//! The side that is asked.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use rk_raft::RaftStore;
use rk_store::{
    Cluster as _, ClusterError as MemberError, Compare, CompareOp, CompareTarget, KeyRange, Op, PutRequest,
    RangeRequest, Store as _, Txn,
};
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{Answer, Question, Token, WAIT, Welcome, receive, send, shared_files};
use crate::cluster::{Addresses, addresses::PLACES, store};

/// In the store, beside what belongs to the API: which process has which place.
const CLAIMS: &str = "/mini-cluster/places/";
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The store's key of who has a place.
pub(super) fn place_key(place: u16) -> String {
    format!("{CLAIMS}{place}")
}

/// Lets other processes into the group.
pub(in crate::cluster) struct Door {
    /// What opens it.
    pub(in crate::cluster) token: Token,
    /// The member through which it is done.
    pub(in crate::cluster) member: Arc<RaftStore>,
    /// Where this server's files are.
    pub(in crate::cluster) data_dir: PathBuf,
    /// The cluster's block of addresses.
    pub(in crate::cluster) block: u8,
}

impl Door {
    /// Answers who comes until `shutdown`.
    pub(in crate::cluster) async fn serve(
        self,
        listener: TcpListener,
        acceptor: TlsAcceptor,
        shutdown: CancellationToken,
    ) {
        let door = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (door, acceptor) = (Arc::clone(&door), acceptor.clone());
            tokio::spawn(async move {
                let served = async { door.answer(acceptor.accept(stream).await?).await };
                match timeout(WAIT, served).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "who wants to join is not understood"),
                    Err(_) => tracing::debug!("who wants to join takes too long"),
                }
            });
        }
    }

    async fn answer(&self, mut stream: TlsStream<tokio::net::TcpStream>) -> std::io::Result<()> {
        let question: Question = receive(&mut stream).await?;
        let answer = self.judge(&question).await;
        send(&mut stream, &answer).await?;
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await
    }

    async fn judge(&self, question: &Question) -> Answer {
        // Digests are compared: how long that takes says nothing of the secret.
        if Sha256::digest(&question.secret) != Sha256::digest(&self.token.secret) {
            return Answer::Refused("the token is not that of this cluster".to_owned());
        }
        let place = match self.place_of(&question.process).await {
            Ok(Some(place)) => place,
            Ok(None) => return Answer::Refused(format!("a cluster has at most {PLACES} processes")),
            Err(error) => return Answer::Later(error.to_string()),
        };
        let url = store::url(Addresses::first_of(self.block, place));
        match self.member.member_add(vec![url], true).await {
            // It was told of before.
            Ok(_) | Err(MemberError::PeerUrlExists) => {}
            Err(error) => return Answer::Later(error.to_string()),
        }
        match self.welcome(place).await {
            Ok(welcome) => Answer::Welcome(welcome),
            Err(why) => Answer::Later(why),
        }
    }

    /// The place of a process, a free one if it has none; `None` if none is left.
    async fn place_of(&self, process: &str) -> Result<Option<u16>, rk_store::Error> {
        loop {
            let taken = self.member.range(RangeRequest::new(KeyRange::prefix(CLAIMS))).await?;
            if let Some(own) = taken.kvs.iter().find(|kv| kv.value == process.as_bytes()) {
                let place = String::from_utf8_lossy(&own.key).trim_start_matches(CLAIMS).parse();
                return Ok(place.ok());
            }
            // The first process began the group and has place 0.
            let free = (1..PLACES).find(|place| taken.kvs.iter().all(|kv| kv.key != place_key(*place).as_bytes()));
            let Some(place) = free else { return Ok(None) };
            let absent = Compare {
                range: KeyRange::key(place_key(place)),
                op: CompareOp::Equal,
                target: CompareTarget::ModRevision(0),
            };
            let put = Op::Put(PutRequest::new(place_key(place), process.to_owned()));
            let txn = Txn { compare: vec![absent], success: vec![put], failure: Vec::new() };
            if self.member.txn(txn).await?.succeeded {
                return Ok(Some(place));
            }
        }
    }

    async fn welcome(&self, place: u16) -> Result<Welcome, String> {
        let read = |name: String| {
            let file = std::fs::read_to_string(self.data_dir.join(&name)).map_err(|e| format!("{name}: {e}"))?;
            Ok((name, file))
        };
        let files = shared_files().into_iter().map(read).collect::<Result<BTreeMap<_, _>, String>>()?;
        let members = self.member.members(false).await.map_err(|error| error.to_string())?;
        let running = members.into_iter().filter(|member| !member.name.is_empty());
        let peers = running.flat_map(|member| member.peer_urls).collect();
        Ok(Welcome { place, block: self.block, peers, files })
    }
}
