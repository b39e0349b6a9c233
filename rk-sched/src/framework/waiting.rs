//! Pods that a Permit plugin holds back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use super::Status;
use crate::{
    model::PodInfo,
    time::{after, go_duration},
};

/// The pods that have a node and wait for a permit. Clones are one; give one to the plugin that permits and the same to
/// [`SchedulerConfig::waiting`](crate::SchedulerConfig::waiting).
#[derive(Clone, Default)]
pub struct WaitingPods {
    pods: Arc<Mutex<IndexMap<Arc<str>, Waiting>>>,
}

struct Waiting {
    pod: Arc<PodInfo>,
    node: Arc<str>,
    /// Plugins that have not allowed it yet, with the end of their patience.
    plugins: BTreeMap<&'static str, Patience>,
    decide: oneshot::Sender<Status>,
}

/// How long a plugin lets a pod wait, and until when that is.
#[derive(Clone, Copy)]
struct Patience {
    time: Duration,
    until: Instant,
}

impl WaitingPods {
    /// Every waiting pod with its node, the one that waits longest first.
    pub fn list(&self) -> Vec<(Arc<PodInfo>, Arc<str>)> {
        self.pods.lock().values().map(|waiting| (Arc::clone(&waiting.pod), Arc::clone(&waiting.node))).collect()
    }

    /// How many pods wait.
    pub fn len(&self) -> usize {
        self.pods.lock().len()
    }

    /// Whether no pod waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A plugin allows a pod; it goes on once all plugins that held it back did. `false` if it does not wait.
    pub fn allow(&self, uid: &str, plugin: &str) -> bool {
        let mut pods = self.pods.lock();
        let Some(waiting) = pods.get_mut(uid) else { return false };
        waiting.plugins.remove(plugin);
        if waiting.plugins.is_empty() {
            Self::decide(&mut pods, uid, Status::success());
        }
        true
    }

    /// A plugin rejects a pod; its node is given back. `false` if it does not wait.
    pub fn reject(&self, uid: &str, plugin: &'static str, reason: &str) -> bool {
        let status = Status::unschedulable(reason.to_owned()).from_plugin(plugin);
        Self::decide(&mut self.pods.lock(), uid, status)
    }

    fn decide(pods: &mut IndexMap<Arc<str>, Waiting>, uid: &str, status: Status) -> bool {
        // The binding task may have gone with the scheduler; then nobody asks.
        pods.shift_remove(uid).is_some_and(|waiting| waiting.decide.send(status).is_ok())
    }

    /// Notes a pod that has to wait for these plugins from now on.
    pub(crate) fn insert(
        &self,
        pod: Arc<PodInfo>,
        node: Arc<str>,
        plugins: impl IntoIterator<Item = (&'static str, Duration)>,
        now: Instant,
    ) -> Waited {
        let patience = |(name, time)| (name, Patience { time, until: after(now, time) });
        let plugins: BTreeMap<_, _> = plugins.into_iter().map(patience).collect();
        let (decide, decided) = oneshot::channel();
        let uid = Arc::clone(&pod.uid);
        self.pods.lock().insert(Arc::clone(&uid), Waiting { pod, node, plugins, decide });
        Waited { waiting: self.clone(), uid, decided }
    }

    /// The plugin whose patience ends first.
    fn next(&self, uid: &str) -> Option<(&'static str, Instant)> {
        let pods = self.pods.lock();
        let first = pods.get(uid)?.plugins.iter().min_by_key(|(_, patience)| patience.until);
        first.map(|(plugin, patience)| (*plugin, patience.until))
    }
}

/// A pod's wait. Once it is dropped the pod waits no more.
pub struct Waited {
    waiting: WaitingPods,
    uid: Arc<str>,
    decided: oneshot::Receiver<Status>,
}

impl Waited {
    /// Waits for the word of the plugins, or the end of the patience of one that has not said it.
    pub async fn decided(mut self) -> Status {
        while let Some((plugin, until)) = self.waiting.next(&self.uid) {
            tokio::select! {
                biased;
                status = &mut self.decided => return status.unwrap_or_else(|_| Status::unschedulable("rejected")),
                () = tokio::time::sleep_until(until) => {
                    if let Some(status) = self.over(plugin) {
                        return status;
                    }
                }
            }
        }
        (&mut self.decided).await.unwrap_or_else(|_| Status::unschedulable("rejected"))
    }

    /// What was decided by now, for those that don't wait in a task; `None` for nothing yet. Ask again by [`Waited::until`].
    pub fn poll(&mut self, now: Instant) -> Option<Status> {
        match self.decided.try_recv() {
            Ok(status) => Some(status),
            Err(oneshot::error::TryRecvError::Closed) => Some(Status::unschedulable("rejected")),
            Err(oneshot::error::TryRecvError::Empty) => {
                let (plugin, _) = self.waiting.next(&self.uid).filter(|(_, until)| *until <= now)?;
                self.over(plugin)
            }
        }
    }

    /// When the first plugin's patience ends, if nothing is decided before.
    pub fn until(&self) -> Option<Instant> {
        self.waiting.next(&self.uid).map(|(_, until)| until)
    }

    /// A plugin's patience is over: that decides, unless the plugin has allowed the pod.
    fn over(&self, plugin: &'static str) -> Option<Status> {
        let mut pods = self.waiting.pods.lock();
        let time = pods.get(&self.uid)?.plugins.get(plugin)?.time;
        pods.shift_remove(&self.uid);
        let reason = format!("rejected due to timeout after waiting {} at plugin {plugin}", go_duration(time));
        Some(Status::unschedulable(reason).from_plugin(plugin))
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        self.waiting.pods.lock().shift_remove(&self.uid);
    }
}
