//! A whole group in one process.

use std::{collections::BTreeMap, sync::Arc};

use rk_store::Error;

use crate::{LocalNetwork, MemberId, MemoryLog, RaftOptions, RaftStore, Start, cluster::keep_published};

/// A group whose members live in this process, on logs in memory and a [`LocalNetwork`]. Members can be stopped and started again
/// on what their logs hold.
///
/// Under tokio's paused clock a group with one seed does the same each time it is asked the same.
#[derive(Debug)]
pub struct LocalGroup {
    options: RaftOptions,
    network: LocalNetwork,
    logs: BTreeMap<MemberId, MemoryLog>,
    members: BTreeMap<MemberId, Arc<RaftStore>>,
}

impl LocalGroup {
    /// Starts a new group of `size` members, numbered from 1.
    pub async fn start(size: u64, options: RaftOptions) -> Result<Self, Error> {
        let ids: Vec<_> = (1..=size).collect();
        let logs = ids.iter().map(|&id| (id, MemoryLog::new(&ids))).collect();
        let network = LocalNetwork::new(options.seed);
        let mut group = Self { options, network, logs, members: BTreeMap::new() };
        for id in ids {
            group.restart(id).await?;
        }
        Ok(group)
    }

    /// The members that run.
    pub fn members(&self) -> impl Iterator<Item = &Arc<RaftStore>> {
        self.members.values()
    }

    /// A member that runs.
    pub fn member(&self, id: MemberId) -> Option<&Arc<RaftStore>> {
        self.members.get(&id)
    }

    /// The network between the members.
    pub fn network(&self) -> &LocalNetwork {
        &self.network
    }

    /// Stops a member as a crash would. Its log stays.
    pub fn stop(&mut self, id: MemberId) {
        if let Some(member) = self.members.remove(&id) {
            member.stop();
        }
    }

    /// Starts a member on what its log holds, stopping it first if it runs. Its name is its number; one that has joined tells the group
    /// so as soon as it can.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a number that is not in the group; otherwise those of [`RaftStore::start`].
    pub async fn restart(&mut self, id: MemberId) -> Result<(), Error> {
        let log = self.logs.get(&id).ok_or_else(|| Error::Invalid(format!("the group has no member {id}")))?;
        let log = log.clone();
        self.stop(id);
        let packets = self.network.connect(id);
        let transport = Arc::new(self.network.clone());
        let start = Start { id, log: Box::new(log.clone()), states: Arc::new(log), transport, packets };
        let store = RaftStore::start(start, self.options.clone()).await?;
        // Without a name a member counts as one that has never started, and others could not be removed beside it.
        tokio::spawn(keep_published(&store, id.to_string(), Vec::new()));
        self.members.insert(id, Arc::new(store));
        Ok(())
    }

    /// Starts a member that some member was told of with [`rk_store::Cluster::member_add`], on an empty log.
    ///
    /// # Errors
    /// Those of [`RaftStore::start`].
    pub async fn join(&mut self, id: MemberId) -> Result<(), Error> {
        self.logs.insert(id, MemoryLog::default());
        self.restart(id).await
    }

    /// The member that leads, waiting until most of those that run agree on one. Waits for ever if they can't.
    pub async fn leader(&self) -> MemberId {
        loop {
            let mut votes = BTreeMap::new();
            for leader in self.members().filter_map(|member| member.leader()) {
                *votes.entry(leader).or_insert(0) += 1;
            }
            let winner =
                votes.into_iter().find(|(id, votes)| votes * 2 > self.logs.len() && self.members.contains_key(id));
            if let Some((id, _)) = winner {
                return id;
            }
            tokio::time::sleep(self.options.tick).await;
        }
    }
}
