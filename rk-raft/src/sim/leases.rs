//! Leases in use, and whether any has ended before its time.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_store::{Error, LeaseId, Op, PutRequest, Txn};

use super::{scene::Scene, watching::Log};

/// A lease that bound a key.
#[derive(Debug)]
pub(crate) struct Used {
    id: LeaseId,
    key: String,
    ttl: i64,
    /// When the last renewal that was acknowledged was asked for, or the grant, in milliseconds of the run.
    renewed: u64,
    /// Its owner may have ended it.
    revoked: bool,
}

/// A client that takes one lease after another, keeps each alive for a while and forgets it then.
pub(crate) async fn owner(group: Arc<Scene>, client: u64, seed: u64, until: u64) -> Vec<Used> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut all = Vec::new();
    let pause = |milliseconds| tokio::time::sleep(Duration::from_millis(milliseconds));
    for number in 1.. {
        if group.trace.now() >= until {
            break;
        }
        let Some(store) = group.any(&mut random) else {
            pause(100).await;
            continue;
        };
        let id = (client * 1_000_000 + number) as LeaseId;
        let ttl = random.random_range(2..5);
        let granted = group.trace.now();
        if store.lease_grant(id, ttl).await.is_err() {
            pause(100).await;
            continue;
        }
        let key = format!("lease/{id}");
        let bound = PutRequest { lease: id, ..PutRequest::new(key.clone(), key.clone()) };
        let mut used = Used { id, key, ttl, renewed: granted, revoked: false };
        match store.txn(Txn { success: vec![Op::Put(bound)], ..Txn::default() }).await {
            // If it is not known whether the key was bound, it is deleted in time or was never there.
            Ok(_) | Err(Error::Unavailable(_) | Error::Timeout | Error::NoLeader) => {}
            Err(error) => used.refused(&group, &error),
        }
        for _ in 0..random.random_range(0..8) {
            pause(random.random_range(100..1500)).await;
            let Some(store) = group.any(&mut random) else { continue };
            let asked = group.trace.now();
            match store.lease_keep_alive(id).await {
                Ok(lease) => {
                    group.trace.tell(|| format!("client {client}: renewed {id} as asked for at {asked}"));
                    if lease.ttl != ttl {
                        group.trace.violation(format!("lease {id} of {ttl} s was renewed for {} s", lease.ttl));
                    }
                    used.renewed = asked;
                }
                Err(error) => used.refused(&group, &error),
            }
        }
        if random.random_bool(0.2)
            && let Some(store) = group.any(&mut random)
        {
            used.revoked = true;
            if let Err(error) = store.lease_revoke(id).await {
                group.trace.tell(|| format!("client {client}: revoking {id}: {error}"));
            }
        }
        all.push(used);
        pause(random.random_range(10..300)).await;
    }
    all
}

impl Used {
    /// What a renewal that failed says of the lease.
    fn refused(&self, group: &Scene, error: &Error) {
        group.trace.tell(|| format!("lease {}: {error}", self.id));
        let now = group.trace.now();
        if matches!(error, Error::LeaseNotFound(_)) && self.is_early(now, group) {
            let age = now - self.renewed;
            group.trace.violation(format!("lease {} of {} s is gone {age} ms after it was renewed", self.id, self.ttl));
        }
    }

    /// Whether its time can't be over, whichever member's clock it goes by.
    fn is_early(&self, now: u64, group: &Scene) -> bool {
        let slack = Duration::from_millis(1);
        now < self.renewed || group.longest(self.renewed, now) + slack < Duration::from_secs(self.ttl as u64)
    }

    /// Whether its key went before its time.
    pub(crate) fn check(&self, log: &Log, group: &Scene) {
        let Some(deleted) = log.deleted_at(self.key.as_bytes()) else { return };
        if !self.revoked && self.is_early(deleted, group) {
            group.trace.violation(format!(
                "lease {} of {} s was renewed at {} ms, and its key was gone at {deleted} ms",
                self.id, self.ttl, self.renewed
            ));
        }
    }
}
