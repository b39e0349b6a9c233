//! A watch: history first, then the hub.
//!
//! The watcher joins the hub before it reads history up to the revision at which it joined, so nothing falls in
//! between and nothing comes twice. One that falls behind what the hub keeps does the same again: it is slow then, and costs
//! no one else anything.

mod stream;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

pub use self::stream::{ProgressRequest, WatchStream};
use crate::{
    Error, Revision, WatchBatch, WatchRequest,
    hub::{Place, Taken},
    planted::{Bug, is_planted},
    replica::Replica,
};

/// How often a watch that asked for progress is told how far it is, while nothing happens that concerns it.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Records of history looked at in one go.
const HISTORY_BUDGET: usize = 1000;

/// Batches taken from the hub in one go.
const TAKE: usize = 64;

struct Watcher {
    replica: Arc<Replica>,
    request: WatchRequest,
    place: Place,
    /// Batches taken and not delivered yet.
    taken: VecDeque<WatchBatch>,
    /// The first revision whose changes were not delivered yet.
    next: Revision,
    /// The revision up to which history is to be read, from `next` on.
    history: Revision,
    /// The last revision of the store that the watcher has seen.
    seen: Revision,
    next_progress: Instant,
    asked: ProgressRequest,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.replica.hub().leave(&self.place);
    }
}

/// Starts a watch on a replica.
pub(crate) fn watch(replica: Arc<Replica>, request: WatchRequest) -> Result<WatchStream, Error> {
    let from = request.start_revision;
    // Nothing is published while the machine can be read, so the hub stands at the machine's revision.
    let machine = replica.machine();
    let skips = from > 0 && is_planted(Bug::WatchSkipsCompacted);
    let from = if skips { from.max(machine.compacted() + 1) } else { from };
    if from > 0 && from < machine.compacted() {
        return Err(Error::Compacted { requested: from, compacted: machine.compacted() });
    }
    let (place, joined) = replica.hub().join(&request)?;
    drop(machine);
    let next = if from == 0 { joined + 1 } else { from };
    let asked = ProgressRequest::default();
    let watcher = Watcher {
        replica,
        request,
        place,
        taken: VecDeque::new(),
        next,
        history: joined - Revision::from(is_planted(Bug::WatchMissesJoin)),
        seen: joined,
        next_progress: Instant::now() + PROGRESS_INTERVAL,
        asked: asked.clone(),
    };
    let batches = futures::stream::unfold(Some(Box::new(watcher)), |watcher| async {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(batch) => Some((Ok(batch), Some(watcher))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(WatchStream::new(batches, asked))
}

impl Watcher {
    async fn next(&mut self) -> Result<WatchBatch, Error> {
        let batch = self.next_batch().await?;
        if self.request.progress {
            self.next_progress = Instant::now() + PROGRESS_INTERVAL;
        }
        Ok(batch)
    }

    async fn next_batch(&mut self) -> Result<WatchBatch, Error> {
        let mut asked = false;
        loop {
            while self.next <= self.history {
                if let Some(batch) = self.read_history()? {
                    return Ok(self.answer_later(asked, batch));
                }
                tokio::task::yield_now().await;
            }
            while let Some(batch) = self.taken.pop_front() {
                // One that starts in the future is not concerned by all that its group is.
                if batch.revision >= self.next {
                    self.next = batch.revision + 1;
                    return Ok(self.answer_later(asked, batch));
                }
            }
            let hub = self.replica.hub();
            // In this order: what comes after one of these was looked at is seen by the next.
            let (changed, closed, reached) = (self.place.changed(), hub.closed(), hub.revision());
            match self.place.take(&mut self.taken, TAKE) {
                Taken::Some => {
                    self.seen = self.taken.back().map_or(self.seen, |batch| batch.revision);
                    continue;
                }
                Taken::Cut => {
                    self.history = hub.rejoin(&mut self.place);
                    if self.history < self.seen {
                        return Err(Error::Unavailable("the store went back to an earlier revision".into()));
                    }
                    self.seen = self.history;
                    continue;
                }
                Taken::Nothing => {
                    self.seen = self.seen.max(reached);
                    self.next = self.next.max(reached + 1);
                }
            }
            if let Some(error) = closed {
                return Err(error);
            }
            let progress = WatchBatch { revision: reached, events: Arc::new([]) };
            if asked {
                return Ok(progress);
            }
            tokio::select! {
                () = changed => {}
                // Answered when it is found, after this, that there is nothing to deliver.
                () = self.asked.requested() => asked = self.asked.take(),
                () = sleep_until(self.next_progress), if self.request.progress => return Ok(progress),
            }
        }
    }

    /// Delivers a batch before the answer to a question that was taken.
    fn answer_later(&self, asked: bool, batch: WatchBatch) -> WatchBatch {
        if asked {
            self.asked.request();
        }
        batch
    }

    /// The next stretch of history, `None` if nothing in it concerns the watcher.
    fn read_history(&mut self) -> Result<Option<WatchBatch>, Error> {
        let (reached, mut events) =
            self.replica.history(&self.request.range, self.next, self.request.prev_kv, HISTORY_BUDGET)?;
        // What came after the watcher joined, it finds in the hub.
        events.retain(|event| event.kv.mod_revision <= self.history && self.request.wants(event));
        let reached = reached.min(self.history);
        self.next = reached + 1;
        Ok((!events.is_empty()).then(|| WatchBatch { revision: reached, events: events.into() }))
    }
}
