//! The strategy `RollingUpdate`: up with the new, down with the old, within the fenceposts.

use super::{Rollout, available, numbers::fenceposts, wanted};
use crate::{Action, Error};

impl Rollout<'_> {
    pub(super) async fn roll(&mut self) -> Result<Action, Error> {
        let new = self.ensure_new_set().await?;
        let replicas = wanted(&self.sets[new]);
        let target = if replicas > self.replicas() { self.replicas() } else { self.new_set_replicas(replicas) };
        if !self.scale_set(new, target).await? && !self.shrink_old(new).await? && self.is_complete() {
            self.clean_up().await?;
        }
        self.write_progress().await
    }

    /// How many replicas the new ReplicaSet, which has `replicas` now, gets next.
    pub(super) fn new_set_replicas(&self, replicas: i32) -> i32 {
        if self.strategy() == "Recreate" {
            return self.replicas();
        }
        let most = self.replicas() + fenceposts(&self.spec).max_surge;
        let room = most - self.total_wanted();
        replicas + room.min(self.replicas() - replicas).max(0)
    }

    /// Takes replicas from the old ReplicaSets, as many as availability allows: first those that don't work anyway.
    async fn shrink_old(&mut self, new: usize) -> Result<bool, Error> {
        let old = self.old_sets();
        if old.iter().all(|&i| wanted(&self.sets[i]) == 0) {
            return Ok(false);
        }
        let least = self.replicas() - fenceposts(&self.spec).max_unavailable;
        let new_unavailable = wanted(&self.sets[new]) - available(&self.sets[new]);
        let mut unhealthy = self.total_wanted() - least - new_unavailable;
        if unhealthy <= 0 {
            return Ok(false);
        }
        let mut scaled = false;
        for &i in &old {
            let (wanted, available) = (wanted(&self.sets[i]), available(&self.sets[i]));
            let down = unhealthy.min(wanted - available);
            if down > 0 {
                scaled |= self.scale_set(i, wanted - down).await?;
                unhealthy -= down;
            }
        }
        let mut spare = self.sets.iter().map(available).sum::<i32>() - least;
        for &i in &old {
            let wanted = wanted(&self.sets[i]);
            let down = spare.min(wanted);
            if down > 0 {
                scaled |= self.scale_set(i, wanted - down).await?;
                spare -= down;
            }
        }
        Ok(scaled)
    }
}
