//! The strategy `Recreate`: all the old go before any new comes.

use k8s_openapi::api::core::v1::Pod;

use super::{Rollout, actual, wanted};
use crate::{
    Action, Error,
    common::{meta, pod},
};

impl Rollout<'_> {
    pub(super) async fn recreate(&mut self) -> Result<Action, Error> {
        let mut shrunk = false;
        for i in self.old_sets() {
            if wanted(&self.sets[i]) > 0 {
                shrunk |= self.scale_set(i, 0).await?;
            }
        }
        if shrunk || self.old_pods_run()? {
            return self.write_progress().await;
        }
        let new = self.ensure_new_set().await?;
        self.scale_set(new, self.replicas()).await?;
        if self.is_complete() {
            self.clean_up().await?;
        }
        self.write_progress().await
    }

    /// Whether a pod of an old template has not ended.
    fn old_pods_run(&self) -> Result<bool, Error> {
        let old = self.old_sets();
        if old.iter().any(|&i| actual(&self.sets[i]) > 0) {
            return Ok(true);
        }
        for i in old {
            for pod in self.pods.controlled_by(meta::uid(&self.sets[i].metadata)) {
                if !pod::is_terminal(pod.typed::<Pod>()?.as_ref()) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}
