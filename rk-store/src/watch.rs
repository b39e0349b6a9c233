//! A watch: history first, then the hub.
//!
//! The watcher joins the hub before it reads history up to the revision at which it joined, so nothing falls in
//! between and nothing comes twice.

mod stream;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{Error, Revision, WatchBatch, WatchRequest, hub::Taken, replica::Replica};

pub use self::stream::{ProgressRequest, WatchStream};

/// How often a watch that asked for progress is told of a revision that did not concern it.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Records of history looked at in one go.
const HISTORY_BUDGET: usize = 1000;

struct Watcher {
    replica: Arc<Replica>,
    request: WatchRequest,
    id: u64,
    wake: Arc<Notify>,
    /// What is left to read of history, first and last revision.
    history: Option<(Revision, Revision)>,
    /// The last revision told.
    reached: Revision,
    next_progress: Instant,
    asked: ProgressRequest,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.replica.hub().unregister(self.id);
    }
}

/// Starts a watch on a replica.
pub(crate) fn watch(replica: Arc<Replica>, request: WatchRequest) -> Result<WatchStream, Error> {
    let from = request.start_revision;
    // Nothing is published while the machine can be read, so the hub stands at the machine's revision.
    let machine = replica.machine();
    if from > 0 && from <= machine.compacted() {
        return Err(Error::Compacted { requested: from, compacted: machine.compacted() });
    }
    let (id, wake, joined) = replica.hub().register(request.clone())?;
    drop(machine);
    let asked = ProgressRequest::default();
    let watcher = Watcher {
        replica,
        request,
        id,
        wake,
        history: (from > 0 && from <= joined).then_some((from, joined)),
        reached: if from == 0 { joined } else { from - 1 },
        next_progress: Instant::now() + PROGRESS_INTERVAL,
        asked: asked.clone(),
    };
    let batches = futures::stream::unfold(Some(watcher), |watcher| async {
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
        self.reached = batch.revision;
        self.next_progress = Instant::now() + PROGRESS_INTERVAL;
        Ok(batch)
    }

    async fn next_batch(&mut self) -> Result<WatchBatch, Error> {
        while let Some((from, last)) = self.history {
            if let Some(batch) = self.read_history(from, last)? {
                return Ok(batch);
            }
            tokio::task::yield_now().await;
        }
        loop {
            // Taken first: what comes after the question need not be in the answer.
            let asked = self.asked.take();
            let reached = match self.replica.hub().take(self.id)? {
                Taken::Batch(batch) => {
                    if asked {
                        self.asked.request();
                    }
                    return Ok(batch);
                }
                Taken::Nothing(reached) => reached,
            };
            if asked {
                return Ok(WatchBatch { revision: reached, events: Arc::new([]) });
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.asked.requested() => {}
                () = sleep_until(self.next_progress), if self.request.progress => {
                    if reached > self.reached {
                        return Ok(WatchBatch { revision: reached, events: Arc::new([]) });
                    }
                    self.next_progress = Instant::now() + PROGRESS_INTERVAL;
                }
            }
        }
    }

    /// The next stretch of history, `None` if nothing in it concerns the watcher.
    fn read_history(&mut self, from: Revision, last: Revision) -> Result<Option<WatchBatch>, Error> {
        let (reached, mut events) =
            self.replica.machine().history(&self.request.range, from, self.request.prev_kv, HISTORY_BUDGET)?;
        // What came after the watcher joined, it finds in the hub.
        events.retain(|event| event.kv.mod_revision <= last && self.request.wants(event));
        let reached = reached.min(last);
        self.history = (reached < last).then_some((reached + 1, last));
        Ok((!events.is_empty()).then(|| WatchBatch { revision: reached, events: events.into() }))
    }
}
