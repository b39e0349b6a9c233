//! Bringing the number of running pods to what is wanted.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use rk_api::{DeleteOptions, Preconditions};

use super::{
    Sync, indexes,
    pods::{backoff, index_failures, index_of, make},
};
use crate::{
    Action, Error,
    common::{batch, meta, pod},
    error::is_terminating,
};

/// Pods created in one reconciliation at most.
const BURST: usize = 500;

impl Sync<'_> {
    /// Creates or deletes pods; answers when to look again, if a failure's delay has to pass first.
    pub(super) async fn manage(&mut self) -> Result<Action, Error> {
        let active = self.active();
        let parallelism = usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or(0);
        let succeeded = usize::try_from(self.succeeded()).unwrap_or(0);
        let mut wanted = match self.spec.completions {
            Some(completions) => parallelism.min(usize::try_from(completions).unwrap_or(0).saturating_sub(succeeded)),
            None if succeeded > 0 => active.len().min(parallelism),
            None => parallelism,
        };
        let (surplus, kept) = self.surplus(&active);
        let surplus: Vec<_> = surplus.into_iter().chain(kept.iter().skip(wanted).cloned()).collect();
        if !surplus.is_empty() {
            self.delete(&surplus).await?;
        }
        if self.only_failed() {
            wanted = wanted.saturating_sub(self.terminating());
        }
        let missing = wanted.saturating_sub(kept.len()).min(BURST);
        if missing == 0 {
            return Ok(Action::await_change());
        }
        let now = rk_api::now();
        let ended = || self.pods.iter().map(AsRef::as_ref).filter(|pod| pod::is_terminal(pod));
        let per_index = self.spec.backoff_limit_per_index.is_some();
        if !per_index {
            let wait = backoff(ended(), now);
            if !wait.is_zero() {
                return Ok(Action::requeue(wait));
            }
        }
        let mut action = Action::await_change();
        let new: Vec<Pod> = match self.completions_if_indexed() {
            None => vec![make(&self.job, None); missing],
            Some(completions) => {
                let mut new = Vec::new();
                for index in self.free_indexes(&kept, completions) {
                    if new.len() == missing {
                        break;
                    }
                    let of_index = || ended().filter(|pod| index_of(pod) == Some(index));
                    let wait = if per_index { backoff(of_index(), now) } else { std::time::Duration::ZERO };
                    if !wait.is_zero() {
                        action = action.or_sooner(Action::requeue(wait));
                        continue;
                    }
                    let failed = of_index().filter(|pod| pod::phase(pod) == "Failed");
                    let failures = failed.map(|pod| index_failures(pod) + 1).max().unwrap_or(0);
                    new.push(make(&self.job, Some((index, failures))));
                }
                new
            }
        };
        self.create(&new).await?;
        Ok(action)
    }

    /// Ends all running pods: the Job is decided or suspended.
    pub(super) async fn stop_all(&mut self) -> Result<(), Error> {
        let active = self.active();
        self.delete(&active).await
    }

    /// Indexes without a pod, that are neither complete nor failed.
    fn free_indexes(&self, active: &[Arc<Pod>], completions: i32) -> impl Iterator<Item = i32> + use<> {
        let parse = |text: &Option<String>| indexes::parse(text.as_deref().unwrap_or_default());
        let mut taken: BTreeSet<i32> = parse(&self.status.completed_indexes);
        taken.extend(parse(&self.status.failed_indexes));
        taken.extend(active.iter().filter_map(|pod| index_of(pod)));
        if self.only_failed() {
            taken.extend(self.pods.iter().filter(|pod| !pod::is_terminal(pod)).filter_map(|pod| index_of(pod)));
        }
        (0..completions).filter(move |index| !taken.contains(index))
    }

    /// Active pods that are of no use in an indexed Job (an index too high, complete, or taken twice), and the others,
    /// the most useful first.
    fn surplus(&self, active: &[Arc<Pod>]) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
        let mut active = active.to_vec();
        let useful =
            |pod: &Arc<Pod>| (!pod::is_ready(pod), pod::node_name(pod).is_empty(), meta::created(&pod.metadata));
        active.sort_by_key(useful);
        let Some(completions) = self.completions_if_indexed() else { return (Vec::new(), active) };
        let completed = indexes::parse(self.status.completed_indexes.as_deref().unwrap_or_default());
        let mut seen = BTreeSet::new();
        active.into_iter().partition(|pod| {
            let fits = index_of(pod).is_some_and(|i| i < completions && !completed.contains(&i) && seen.insert(i));
            !fits
        })
    }

    async fn create(&self, new: &[Pod]) -> Result<(), Error> {
        let api = self.context.api::<Pod>(&self.key.0);
        self.expectations.expect_creations(&self.key, new.len());
        let create = async |index: usize| match api.create(&new[index]).await {
            Ok(pod) => {
                let message = format!("Created pod: {}", meta::name(&pod.metadata));
                self.context.events.normal(&self.about, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                if !is_terminating(&error) {
                    self.context.events.warning(&self.about, "FailedCreate", format!("Error creating: {error}"));
                }
                Err(error)
            }
        };
        let (done, result) = batch::slow_start(new.len(), create).await;
        for _ in done..new.len() {
            self.expectations.created(&self.key);
        }
        match result {
            Err(error) if is_terminating(&error) => Ok(()),
            other => other.map_err(Error::told),
        }
    }

    async fn delete(&self, doomed: &[Arc<Pod>]) -> Result<(), Error> {
        let api = self.context.api::<Pod>(&self.key.0);
        self.expectations.expect_deletions(&self.key, doomed.iter().map(|pod| meta::uid(&pod.metadata).to_owned()));
        let delete = async |pod: &Arc<Pod>| {
            let (name, uid) = (meta::name(&pod.metadata), meta::uid(&pod.metadata));
            let preconditions = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
            let result = api.delete(name, DeleteOptions { preconditions, ..DeleteOptions::default() }).await;
            if result.is_err() {
                self.expectations.deleted(&self.key, uid);
            }
            match result {
                Ok(_) => {
                    let message = format!("Deleted pod: {name}");
                    self.context.events.normal(&self.about, "SuccessfulDelete", message);
                    Ok(())
                }
                Err(error) if error.is_not_found() => Ok(()),
                Err(error) => Err(Error::from(error)),
            }
        };
        batch::all(doomed.iter().map(delete)).await
    }
}
