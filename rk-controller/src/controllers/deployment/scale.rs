//! Scaling: one ReplicaSet, or all in proportion when a Deployment is scaled in the middle of a rollout.

use std::cmp::Reverse;

use super::{
    Rollout, available, by_age,
    numbers::{fenceposts, fraction, share},
    revision::{DESIRED_REPLICAS, MAX_REPLICAS},
    wanted,
};
use crate::{Error, common::meta};

impl Rollout<'_> {
    /// Whether the Deployment's replicas changed since it last scaled its ReplicaSets.
    pub(super) fn is_scaling_event(&self) -> bool {
        self.sets.iter().filter(|set| wanted(set) > 0).any(|set| {
            let desired = meta::annotation(&set.metadata, DESIRED_REPLICAS).and_then(|desired| desired.parse().ok());
            desired.is_some_and(|desired: i32| desired != self.replicas())
        })
    }

    /// Sets a ReplicaSet's replicas and notes the Deployment's size in it; answers whether the replicas changed.
    pub(super) async fn scale_set(&mut self, index: usize, replicas: i32) -> Result<bool, Error> {
        let mut set = self.sets[index].clone();
        let before = wanted(&set);
        self.annotate_size(set.metadata.annotations.get_or_insert_default());
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(replicas);
        }
        if set == self.sets[index] {
            return Ok(false);
        }
        self.sets[index] = self.update_set(&set).await?;
        if before != replicas {
            let direction = if replicas > before { "up" } else { "down" };
            let name = meta::name(&set.metadata);
            let message = format!("Scaled {direction} replica set {name} from {before} to {replicas}");
            self.context.events.normal(&self.about, "ScalingReplicaSet", message);
        }
        Ok(before != replicas)
    }

    /// Brings the ReplicaSets to the Deployment's replicas without going on with a rollout.
    pub(super) async fn scale(&mut self) -> Result<(), Error> {
        if let Some(only) = self.active_or_latest() {
            if wanted(&self.sets[only]) != self.replicas() {
                self.scale_set(only, self.replicas()).await?;
            }
            return Ok(());
        }
        if self.new_is_saturated() {
            for i in self.old_sets() {
                if wanted(&self.sets[i]) > 0 {
                    self.scale_set(i, 0).await?;
                }
            }
            return Ok(());
        }
        if self.strategy() != "RollingUpdate" {
            return Ok(());
        }
        for (index, size) in self.proportions() {
            self.scale_set(index, size).await?;
        }
        Ok(())
    }

    /// The one ReplicaSet that has replicas; if none has, the newest.
    fn active_or_latest(&self) -> Option<usize> {
        let active: Vec<usize> = (0..self.sets.len()).filter(|&i| wanted(&self.sets[i]) > 0).collect();
        match active[..] {
            [] => self.new_set().or_else(|| self.old_sets().last().copied()),
            [only] => Some(only),
            _ => None,
        }
    }

    /// Whether the new ReplicaSet has all the replicas, and all are available.
    fn new_is_saturated(&self) -> bool {
        let Some(new) = self.new_set() else { return false };
        let set = &self.sets[new];
        let desired = meta::annotation(&set.metadata, DESIRED_REPLICAS).and_then(|desired| desired.parse().ok());
        wanted(set) == self.replicas() && desired == Some(self.replicas()) && available(set) == self.replicas()
    }

    /// The next size of each active ReplicaSet: what is added or taken is spread by size, the rest goes to the largest.
    fn proportions(&self) -> Vec<(usize, i32)> {
        let mut active: Vec<usize> = (0..self.sets.len()).filter(|&i| wanted(&self.sets[i]) > 0).collect();
        let total: i32 = active.iter().map(|&i| wanted(&self.sets[i])).sum();
        let most = if self.replicas() > 0 { self.replicas() + fenceposts(&self.spec).max_surge } else { 0 };
        let to_add = most - total;
        // Of equal sizes the newer grows first and the older shrinks first.
        active.sort_by_key(|&i| by_age(&self.sets[i]));
        if to_add > 0 {
            active.reverse();
        }
        active.sort_by_key(|&i| Reverse(wanted(&self.sets[i])));
        let mut added = 0;
        let mut sizes = Vec::with_capacity(active.len());
        for &i in &active {
            let size = wanted(&self.sets[i]);
            let part = if to_add == 0 || to_add == added { 0 } else { share(self.fraction(i, most), to_add, added) };
            added += part;
            sizes.push((i, size + part));
        }
        if let Some((_, largest)) = sizes.first_mut() {
            *largest = (*largest + to_add - added).max(0);
        }
        sizes
    }

    fn fraction(&self, index: usize, most: i32) -> i32 {
        let set = &self.sets[index];
        if self.replicas() == 0 {
            return -wanted(set);
        }
        let known = meta::annotation(&set.metadata, MAX_REPLICAS).and_then(|most| most.parse().ok());
        let status = || self.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
        fraction(wanted(set), known.unwrap_or_else(status), most)
    }
}
