//! `rk-etcd snapshot restore`: what `etcdctl snapshot restore` is for etcd.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use rk_raft::{MemberDir, MemberDirOptions, MemberId, Membership};
use rk_store::etcd::SnapshotFile;

use crate::{
    flags::{data_dir, members},
    server::{Error, MEMBER},
    url::Url,
};

/// Restores a snapshot that `etcdctl snapshot save` has written, of etcd or of this server.
#[derive(Debug, Clone, Args)]
pub(crate) struct Restore {
    /// The snapshot.
    file: PathBuf,
    /// Human-readable name for this member.
    #[arg(long, default_value = "default")]
    name: String,
    /// Path to the data directory, which must not be there yet; `NAME.etcd` if not given.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// List of this member's peer URLs to advertise to the rest of the cluster.
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2380")]
    initial_advertise_peer_urls: Vec<Url>,
    /// Initial cluster configuration for restore bootstrap: `NAME=URL,...`; this member alone if not given.
    #[arg(long)]
    initial_cluster: Option<String>,
    /// Initial cluster token for the etcd cluster during restore bootstrap.
    #[arg(long, default_value = "etcd-cluster")]
    initial_cluster_token: String,
    /// Ignore snapshot integrity hash value (required if copied from data directory).
    #[arg(long)]
    skip_hash_check: bool,
}

impl Restore {
    /// Fills the data directory. What is in it is there as a whole or not at all.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let members = members(&self.name, &self.initial_advertise_peer_urls, self.initial_cluster.as_deref());
        let members = members.map_err(Error::Flags)?;
        let dir = data_dir(self.data_dir.as_ref(), &self.name);
        let failed = |source| Error::Restore { file: self.file.clone(), source };
        let in_dir = |error: io::Error| failed(rk_store::Error::io(dir.display().to_string(), &error));
        if holds_something(&dir).map_err(in_dir)? {
            return Err(Error::Flags(format!("data-dir {:?} is there and not empty", dir.display())));
        }
        let unchecked = self.skip_hash_check;
        let snapshot =
            if unchecked { SnapshotFile::open_unchecked(&self.file) } else { SnapshotFile::open(&self.file) };
        let snapshot = snapshot.map_err(failed)?;
        if snapshot.users_and_roles() > 0 {
            tracing::warn!(
                "the snapshot's {} users and roles are left out: this server has none",
                snapshot.users_and_roles()
            );
        }
        // Restored twice with the same flags, members must not take each other, or those they were saved from, for their own.
        let hash: String = snapshot.sha256().iter().map(|byte| format!("{byte:02x}")).collect();
        let token = format!("{} {hash}", self.initial_cluster_token);
        let group = Membership::bootstrap(&members, &token).map_err(|error| Error::Flags(error.to_string()))?;
        let own = group.members.values().find(|member| member.name == self.name).map(|member| member.id);
        let own = own.ok_or_else(|| Error::Flags(format!("{} is no member", self.name)))?;
        let (cluster, revision) = (group.cluster_id, snapshot.revision());
        fs::create_dir_all(&dir).and_then(|()| sync(parent(&dir))).map_err(in_dir)?;
        // In the directory itself, which may be a disk of its own.
        let unfinished = dir.join(UNFINISHED);
        let mut made = fill(&unfinished, own, group, snapshot).await.map_err(failed);
        if made.is_ok() {
            made = fs::rename(&unfinished, dir.join(MEMBER)).and_then(|()| sync(&dir)).map_err(in_dir);
        }
        if made.is_err() {
            // The first error is the one to tell.
            let _kept = fs::remove_dir_all(&unfinished);
        }
        made?;
        tracing::info!(
            member = format!("{own:x}"),
            cluster = format!("{cluster:x}"),
            revision,
            data_dir = %dir.display(),
            "the snapshot is restored"
        );
        Ok(())
    }
}

/// The member's folder until it is whole.
const UNFINISHED: &str = "restoring";

/// Fills a member's folder.
async fn fill(dir: &Path, own: MemberId, group: Membership, snapshot: SnapshotFile) -> Result<(), rk_store::Error> {
    let member = MemberDir::open(dir, MemberDirOptions::default()).await?;
    member.bootstrap(own, group, Some(snapshot.into_stream())).await
}

/// Whether there is anything but what a restore has left that was killed, which is removed.
fn holds_something(dir: &Path) -> io::Result<bool> {
    let absent = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
    fs::remove_dir_all(dir.join(UNFINISHED)).or_else(absent)?;
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) => absent(error).map(|()| false),
    }
}

fn parent(dir: &Path) -> &Path {
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes durable what a directory holds.
fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}
