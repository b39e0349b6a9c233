//! Automatic compaction of any store: etcd's two policies (its `--auto-compaction-mode`), by etcd's times.

use std::{collections::VecDeque, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{Error, Revision, Store};

/// How often the policy by revision looks.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Longest time between two compactions of the policy by time.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How much history stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    /// The last so many revisions. Looked at every five minutes.
    Revision(Revision),
    /// That of the last time of this length, and up to an hour or, if it is less, the time itself more. For that
    /// the revision is noted ten times in that span, in memory: after a start, nothing is compacted for the whole time.
    Periodic(Duration),
}

/// Compacts a store by a policy, for ever, whenever `active` says so: of a group's members, the one that leads. A compaction that fails is
/// told to the log and tried again.
pub async fn auto_compact(store: &dyn Store, policy: AutoCompaction, active: impl Fn() -> bool) {
    match policy {
        AutoCompaction::Revision(kept) => by_revision(store, kept, active).await,
        AutoCompaction::Periodic(kept) => by_time(store, kept, active).await,
    }
}

async fn by_revision(store: &dyn Store, kept: Revision, active: impl Fn() -> bool) {
    let mut done = 0;
    loop {
        sleep(REVISION_INTERVAL).await;
        if active()
            && let Some(now) = revision(store).await
            && now.saturating_sub(kept) > done
            && compact(store, now - kept).await
        {
            done = now - kept;
        }
    }
}

async fn by_time(store: &dyn Store, kept: Duration, active: impl Fn() -> bool) {
    let interval = kept.min(LONGEST_INTERVAL);
    let step = (interval / 10).max(Duration::from_millis(1));
    let steps = usize::try_from(kept.as_nanos() / step.as_nanos()).unwrap_or(usize::MAX).saturating_add(1);
    let mut revisions: VecDeque<Revision> = VecDeque::new();
    let (mut done, mut last, mut wait) = (0, Instant::now(), kept);
    loop {
        revisions.extend(revision(store).await);
        if revisions.len() > steps {
            revisions.pop_front();
        }
        sleep(step).await;
        let Some(&oldest) = revisions.front() else { continue };
        if !active() || last.elapsed() < wait || oldest == done {
            continue;
        }
        wait = interval;
        if compact(store, oldest).await {
            (done, last) = (oldest, Instant::now());
        }
    }
}

async fn revision(store: &dyn Store) -> Option<Revision> {
    match store.status().await {
        Ok(status) => Some(status.revision),
        Err(error) => {
            tracing::warn!(%error, "the revision to compact could not be found");
            None
        }
    }
}

/// Whether history before the revision is gone.
async fn compact(store: &dyn Store, revision: Revision) -> bool {
    match store.compact(revision).await {
        Ok(()) | Err(Error::Compacted { .. }) => true,
        Err(error) => {
            tracing::warn!(revision, %error, "automatic compaction failed");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;

    const MINUTE: Duration = Duration::from_secs(60);

    async fn compacted(store: &MemoryStore) -> Revision {
        store.status().await.unwrap().compact_revision
    }

    async fn put(store: &MemoryStore, count: usize) {
        for _ in 0..count {
            store.put("a".into(), "x".into()).await.unwrap();
        }
    }

    fn start(store: &MemoryStore, policy: AutoCompaction) {
        let store = store.clone();
        tokio::spawn(async move { auto_compact(&store, policy, || true).await });
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_revisions_stay() {
        let store = MemoryStore::new();
        start(&store, AutoCompaction::Revision(10));
        put(&store, 5).await;
        sleep(6 * MINUTE).await;
        assert_eq!(compacted(&store).await, 0, "there are no more than 10");
        put(&store, 20).await;
        sleep(3 * MINUTE).await;
        assert_eq!(compacted(&store).await, 0, "it looks every 5 minutes");
        sleep(2 * MINUTE).await;
        assert_eq!(compacted(&store).await, 26 - 10);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_hour_stays() {
        let store = MemoryStore::new();
        start(&store, AutoCompaction::Periodic(60 * MINUTE));
        // A revision per minute: at minute m the revision is m + 1.
        for minute in 1..=300 {
            sleep(MINUTE).await;
            let oldest = compacted(&store).await;
            if minute < 60 {
                assert_eq!(oldest, 0, "nothing goes in the first hour");
            } else {
                let kept = minute - oldest.saturating_sub(1);
                assert!((60..=2 * 60 + 6).contains(&kept) || oldest == 0, "{kept} minutes are kept at {minute}");
            }
            put(&store, 1).await;
        }
        assert!(compacted(&store).await >= 170, "it goes on by the hour");
    }

    #[tokio::test(start_paused = true)]
    async fn a_day_is_compacted_by_the_hour() {
        let store = MemoryStore::new();
        start(&store, AutoCompaction::Periodic(24 * 60 * MINUTE));
        for _ in 0..47 * 6 {
            put(&store, 1).await;
            sleep(10 * MINUTE).await;
        }
        // 282 revisions, six per hour.
        let oldest = compacted(&store).await;
        assert!((282 - 25 * 6 - 2..=282 - 24 * 6 + 1).contains(&oldest), "{oldest}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_lead_does_nothing() {
        let store = MemoryStore::new();
        put(&store, 20).await;
        let same = store.clone();
        tokio::spawn(async move { auto_compact(&same, AutoCompaction::Revision(5), || false).await });
        sleep(60 * MINUTE).await;
        assert_eq!(compacted(&store).await, 0);
    }
}
