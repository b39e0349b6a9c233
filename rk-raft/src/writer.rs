//! The task that writes the log: what has come up while it wrote goes into the next write, under one sync.

use std::{sync::Arc, time::Duration};

use rk_store::Error;
use tokio::sync::mpsc;

use crate::{
    log::{Batch, RaftLog, Staged},
    node::Event,
    shared::{Shared, Space},
};

/// What the log's writer is to do, in order.
pub(crate) enum Write {
    /// Write a batch, and tell this number when it is durable.
    Batch(u64, Batch),
    /// Start from a state that came from elsewhere, behind the entry `index`, and tell this number.
    Install { number: u64, index: u64, staged: Box<dyn Staged>, batch: Batch },
    /// Forget entries that a durable state holds.
    DropTo(u64),
}

/// Most writes that share a sync.
const MOST: usize = 1024;
/// How long a full disk is left alone.
const RETRY: Duration = Duration::from_millis(200);

/// Works until the member stops, or the log fails, which is told.
pub(crate) async fn run(
    mut log: Box<dyn RaftLog>,
    mut queue: mpsc::UnboundedReceiver<Write>,
    events: mpsc::UnboundedSender<Event>,
    shared: Arc<Shared>,
) {
    let mut items = Vec::new();
    while queue.recv_many(&mut items, MOST).await > 0 {
        if let Err(error) = work(&mut *log, items.drain(..), &events, &shared).await {
            shared.set_no_space(Space::Log, None);
            let _stopped = events.send(Event::Failed(error));
            return;
        }
        shared.set_log_size(log.size());
    }
}

async fn work(
    log: &mut dyn RaftLog,
    items: impl Iterator<Item = Write>,
    events: &mpsc::UnboundedSender<Event>,
    shared: &Shared,
) -> Result<(), Error> {
    let (mut pending, mut last) = (Batch::default(), None);
    for item in items {
        match item {
            Write::Batch(number, batch) => {
                pending.add(batch);
                last = Some(number);
            }
            Write::Install { number, index, staged, batch } => {
                write(log, std::mem::take(&mut pending), shared).await?;
                staged.publish().await?;
                let state = batch.state.clone().unwrap_or_default();
                while !has_space(log.reset(index, state.clone()).await, shared).await? {}
                write(log, batch, shared).await?;
                last = Some(number);
            }
            Write::DropTo(index) => {
                write(log, std::mem::take(&mut pending), shared).await?;
                if let Err(error) = log.drop_to(index).await {
                    // They only take space until the next time.
                    tracing::warn!(%error, "old entries of the raft log stay");
                }
            }
        }
    }
    write(log, pending, shared).await?;
    if let Some(number) = last {
        // The member has stopped if nobody listens.
        let _stopped = events.send(Event::Persisted(number));
    }
    Ok(())
}

/// Writes a batch, as soon as there is space for it.
async fn write(log: &mut dyn RaftLog, batch: Batch, shared: &Shared) -> Result<(), Error> {
    if batch == Batch::default() {
        return Ok(());
    }
    while !has_space(log.write(batch.clone()).await, shared).await? {}
    Ok(())
}

/// Whether a write was done; if there was no space for it, it may be tried again after this.
async fn has_space(written: Result<(), Error>, shared: &Shared) -> Result<bool, Error> {
    match written {
        Err(Error::NoSpace(reason)) => {
            tracing::warn!(reason, "the raft log waits for space");
            shared.set_no_space(Space::Log, Some(reason));
            tokio::time::sleep(RETRY).await;
            Ok(false)
        }
        result => {
            shared.set_no_space(Space::Log, None);
            result.map(|()| true)
        }
    }
}

impl Batch {
    /// Makes this batch what it is with a later one behind it.
    fn add(&mut self, later: Batch) {
        if let Some(first) = later.entries.first() {
            let keep = self.entries.partition_point(|entry| entry.index < first.index);
            self.entries.truncate(keep);
            self.entries.extend(later.entries);
        }
        self.state = later.state.or(self.state.take());
    }
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::{Entry, HardState};
    use rk_store::Clock;

    use super::*;
    use crate::{Membership, MemoryLog, Recovered};

    /// A log on a disk that is full a few times.
    struct Full {
        log: MemoryLog,
        refusals: u32,
    }

    impl Full {
        fn refuse(&mut self) -> Result<(), Error> {
            self.refusals -= u32::from(self.refusals > 0);
            if self.refusals > 0 { Err(Error::NoSpace("the disk is full".into())) } else { Ok(()) }
        }
    }

    #[async_trait::async_trait]
    impl RaftLog for Full {
        async fn load(&mut self) -> Result<Recovered, Error> {
            RaftLog::load(&mut self.log).await
        }

        async fn write(&mut self, batch: Batch) -> Result<(), Error> {
            self.refuse()?;
            self.log.write(batch).await
        }

        async fn drop_to(&mut self, index: u64) -> Result<(), Error> {
            self.refuse()?;
            self.log.drop_to(index).await
        }

        async fn reset(&mut self, index: u64, state: HardState) -> Result<(), Error> {
            self.refuse()?;
            self.log.reset(index, state).await
        }

        fn size(&self) -> u64 {
            0
        }
    }

    struct Nothing;

    #[async_trait::async_trait]
    impl Staged for Nothing {
        async fn publish(self: Box<Self>) -> Result<(), Error> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_disk_delays_every_kind_of_write_and_fails_none() {
        let entry = Entry { index: 2, term: 1, ..Entry::default() };
        let batch = || Batch { entries: vec![entry.clone()], state: None };
        let kinds: [fn(Batch) -> Write; 3] = [
            |batch| Write::Batch(7, batch),
            |batch| Write::Install { number: 7, index: 1, staged: Box::new(Nothing), batch },
            |_| Write::DropTo(1),
        ];
        for kind in kinds {
            let mut log = Full { log: MemoryLog::new(&[1]), refusals: 4 };
            let (events, mut heard) = mpsc::unbounded_channel();
            let shared = Shared::new(Membership::numbered(&[1]), 1, Clock::default());
            work(&mut log, [kind(batch()), Write::Batch(8, batch())].into_iter(), &events, &shared).await.unwrap();
            assert!(matches!(heard.recv().await, Some(Event::Persisted(8))));
            assert_eq!((log.log.entries(), shared.no_space()), (1, None));
        }
    }

    #[test]
    fn a_later_batch_replaces_what_it_conflicts_with() {
        let entries = |range: std::ops::RangeInclusive<u64>, term| -> Vec<Entry> {
            range.map(|index| Entry { index, term, ..Entry::default() }).collect()
        };
        let state = |term| Some(HardState { term, ..HardState::default() });
        let mut batch = Batch { entries: entries(5..=8, 1), state: state(1) };
        batch.add(Batch { entries: entries(7..=7, 2), state: None });
        assert_eq!(
            batch.entries.iter().map(|entry| (entry.index, entry.term)).collect::<Vec<_>>(),
            [(5, 1), (6, 1), (7, 2)]
        );
        batch.add(Batch { entries: entries(4..=4, 3), state: state(3) });
        assert_eq!((batch.entries.len(), batch.state), (1, state(3)));
    }
}
