//! A member in a process of its own, from its settings: a folder, addresses, and how it comes to its group.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rk_store::{Error, Member, SnapshotStream};
use tokio::time::sleep;

use crate::{
    GrpcTransport, Identity, MemberDir, MemberDirOptions, Membership, PeerListener, PeerTls, RaftOptions, RaftStore,
    Start, cluster::keep_published, discover,
};

/// How a member that has no data yet comes to its group.
pub enum Initial {
    /// As one of the first members of a new group.
    New {
        /// All first members, this one too, each with its name and its peer URLs. All are told the same.
        members: Vec<(String, Vec<String>)>,
        /// What tells groups with the same members apart.
        token: String,
        /// What the group begins with, if not with nothing: [`rk_store::Store::snapshot`]'s bytes. All are given the same.
        backup: Option<SnapshotStream>,
    },
    /// As one that the group was told of with [`rk_store::Cluster::member_add`], by its peer URLs.
    Join {
        /// Peer URLs of members that run.
        peers: Vec<String>,
    },
}

impl std::fmt::Debug for Initial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::New { members, token, .. } => {
                f.debug_struct("New").field("members", members).field("token", token).finish_non_exhaustive()
            }
            Self::Join { peers } => f.debug_struct("Join").field("peers", peers).finish(),
        }
    }
}

/// What a member is started with: see [`RaftStore::open`].
#[derive(Debug)]
#[non_exhaustive]
pub struct MemberConfig {
    /// The folder for its data.
    pub dir: PathBuf,
    /// Its name.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Where it listens for other members.
    pub listener: PeerListener,
    /// Certificates for members, if they use TLS.
    pub tls: Option<PeerTls>,
    /// How it comes to its group. Of no effect once the folder holds data.
    pub initial: Initial,
    /// Whether it goes on as the only member of a new group: see [`MemberDir::force_new_cluster`].
    pub force_new_cluster: bool,
    /// How it uses its folder.
    pub dir_options: MemberDirOptions,
    /// How it works.
    pub options: RaftOptions,
}

impl MemberConfig {
    /// A member with the default options and no TLS.
    pub fn new(
        dir: impl Into<PathBuf>,
        name: impl Into<String>,
        peer_urls: Vec<String>,
        listener: PeerListener,
        initial: Initial,
    ) -> Self {
        Self {
            dir: dir.into(),
            name: name.into(),
            peer_urls,
            client_urls: Vec::new(),
            listener,
            tls: None,
            initial,
            force_new_cluster: false,
            dir_options: MemberDirOptions::default(),
            options: RaftOptions::default(),
        }
    }
}

/// Time before a group that did not answer is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a member that is to join asks for its group.
const PATIENCE: u32 = 20;

fn sorted(urls: &[String]) -> Vec<String> {
    let mut urls = urls.to_vec();
    urls.sort_unstable();
    urls
}

/// The member at an address. While members change one that goes has still the address of the one that comes, which has no name yet.
fn find<'a>(members: impl IntoIterator<Item = &'a Member>, peer_urls: &[String]) -> Option<&'a Member> {
    let wanted = sorted(peer_urls);
    members
        .into_iter()
        .filter(|member| sorted(&member.peer_urls) == wanted)
        .min_by_key(|member| !member.name.is_empty())
}

impl RaftStore {
    /// Starts a member in a process of its own. It goes on from what its folder holds, or comes to its group as `config` says.
    ///
    /// # Errors
    /// - [`Error::InUse`], [`Error::Corrupt`], [`Error::NoSpace`], [`Error::Io`]: the folder.
    /// - [`Error::Invalid`]: the settings contradict each other, the folder, or what the group says.
    /// - [`Error::Unavailable`]: no member of the group to be joined answers, or the certificates are of no use.
    pub async fn open(config: MemberConfig) -> Result<Self, Error> {
        let MemberConfig {
            dir,
            name,
            peer_urls,
            client_urls,
            listener,
            tls,
            initial,
            force_new_cluster,
            dir_options,
            options,
        } = config;
        let dir = MemberDir::open(dir, dir_options).await?;
        let (identity, known) = match dir.identity() {
            Some(identity) => {
                check_same(&initial, &peer_urls, identity)?;
                if force_new_cluster {
                    dir.force_new_cluster().await?;
                }
                (dir.identity().unwrap_or(identity), Membership::default())
            }
            None => begin(&dir, initial, &name, &peer_urls, tls.as_ref()).await?,
        };
        let (transport, packets) = GrpcTransport::start(identity, known, listener, tls)?;
        let start = Start {
            id: identity.member_id,
            log: Box::new(dir.clone()),
            states: Arc::new(dir),
            transport: Arc::new(transport),
            packets,
        };
        let store = Self::start(start, options).await?;
        tokio::spawn(keep_published(&store, name, client_urls));
        Ok(store)
    }
}

/// Refuses a folder of another member of the group that the settings describe.
fn check_same(initial: &Initial, peer_urls: &[String], found: Identity) -> Result<(), Error> {
    let Initial::New { members, token, .. } = initial else { return Ok(()) };
    let Ok(group) = Membership::bootstrap(members, token) else { return Ok(()) };
    match find(group.members.values(), peer_urls) {
        Some(wanted) if group.cluster_id == found.cluster_id && wanted.id != found.member_id => {
            Err(Error::Invalid(format!(
                "the data directory is that of the member {:x} of this cluster, and {} is the member {:x}",
                found.member_id, wanted.name, wanted.id
            )))
        }
        _ => Ok(()),
    }
}

/// Makes a new folder that of a member: who it is, and who else belongs to the group as far as is known.
async fn begin(
    dir: &MemberDir,
    initial: Initial,
    name: &str,
    peer_urls: &[String],
    tls: Option<&PeerTls>,
) -> Result<(Identity, Membership), Error> {
    match initial {
        Initial::New { members, token, backup } => {
            let group = Membership::bootstrap(&members, &token).map_err(|error| Error::Invalid(error.to_string()))?;
            let missing = || Error::Invalid(format!("{name} with {peer_urls:?} is not among the initial members"));
            let own = find(group.members.values(), peer_urls).filter(|own| own.name == name).ok_or_else(missing)?;
            let identity = Identity { cluster_id: group.cluster_id, member_id: own.id };
            refuse_second_start(&group, identity, tls).await?;
            dir.bootstrap(own.id, group.clone(), backup).await?;
            Ok((identity, group))
        }
        Initial::Join { peers } => {
            let mut tries = 0;
            let (cluster_id, members) = loop {
                match discover(&peers, tls).await {
                    Ok(found) => break found,
                    Err(error) if tries == PATIENCE => return Err(error),
                    Err(_) => tries += 1,
                }
                sleep(RETRY).await;
            };
            let missing =
                || Error::Invalid(format!("the cluster {cluster_id:x} was not told of a member at {peer_urls:?}"));
            let own = find(&members, peer_urls).ok_or_else(missing)?;
            if !own.name.is_empty() {
                return Err(already_started(own));
            }
            let identity = Identity { cluster_id, member_id: own.id };
            let members = members.into_iter().map(|member| (member.id, member)).collect();
            dir.join(identity).await?;
            Ok((identity, Membership { cluster_id, members, ..Membership::default() }))
        }
    }
}

fn already_started(member: &Member) -> Error {
    Error::Invalid(format!(
        "the member {:x} ({}) has been started before, and the data directory is empty: a member that has lost its data \
         is removed from the cluster and added as a new one",
        member.id, member.name
    ))
}

/// A first member that has lost its data would break promises if it began anew: the others know that it was there.
async fn refuse_second_start(group: &Membership, own: Identity, tls: Option<&PeerTls>) -> Result<(), Error> {
    let others = group.members.values().filter(|member| member.id != own.member_id);
    let asked = others.map(|member| async move { discover(&member.peer_urls, tls).await });
    for (cluster_id, members) in futures::future::join_all(asked).await.into_iter().flatten() {
        let known = members.iter().find(|member| member.id == own.member_id);
        if cluster_id == own.cluster_id
            && let Some(known) = known.filter(|known| !known.client_urls.is_empty())
        {
            return Err(already_started(known));
        }
    }
    Ok(())
}
