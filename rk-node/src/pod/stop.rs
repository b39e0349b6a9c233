//! Ending containers: preStop, the runtime's stop, and a grace that may be cut short meanwhile.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use tokio::{sync::watch, time::Instant};

use super::{
    prober,
    spec::{Member, Role},
    start::run_hook,
};
use crate::{
    runtime::RuntimeError,
    shared::{Shared, about_container},
};

/// Time a container has left after its preStop hook used up the grace, as in the kubelet.
const MINIMUM: Duration = Duration::from_secs(2);

/// A running container to be ended.
pub(crate) struct Stop {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) member: Member,
    pub(crate) container_id: String,
    pub(crate) pod_ip: String,
    /// The event's message.
    pub(crate) why: String,
}

impl Stop {
    /// Ends the container by the deadline, which may come nearer.
    pub(crate) async fn run(self, mut deadline: watch::Receiver<Instant>) -> Result<(), RuntimeError> {
        let runtime = &self.shared.config.runtime;
        let about = about_container(&self.pod, &self.member);
        self.shared.recorder.normal(&about, "Killing", self.why.clone());
        let hook = self.member.container.lifecycle.as_ref().and_then(|hooks| hooks.pre_stop.as_ref());
        let graceful = *deadline.borrow() > Instant::now();
        if let (Some(hook), true) = (hook, graceful) {
            let target = prober::target_of(runtime, &self.container_id, &self.member.container, &self.pod_ip);
            let hooked = run_hook(&target, hook, Duration::from_secs(3600));
            tokio::pin!(hooked);
            loop {
                let end = *deadline.borrow_and_update();
                tokio::select! {
                    done = &mut hooked => {
                        if let Err(message) = done {
                            let message = format!("PreStopHook failed: {message}");
                            self.shared.recorder.warning(&about, "FailedPreStopHook", message);
                        }
                        break;
                    }
                    () = tokio::time::sleep_until(end) => break,
                    Ok(()) = deadline.changed() => {}
                }
            }
        }
        let floor = if graceful { MINIMUM } else { Duration::ZERO };
        loop {
            let left = deadline.borrow_and_update().saturating_duration_since(Instant::now());
            let least = if hook.is_some() { floor } else { Duration::ZERO };
            tokio::select! {
                stopped = runtime.stop_container(&self.container_id, left.max(least)) => return stopped,
                Ok(()) = deadline.changed() => {}
            }
        }
    }
}

/// Ends all running containers of a pod: containers together, then sidecars in reverse order.
pub(crate) async fn stop_all(stops: Vec<Stop>, deadline: watch::Receiver<Instant>) -> Result<(), RuntimeError> {
    let (sidecars, others): (Vec<_>, Vec<_>) = stops.into_iter().partition(|stop| stop.member.role == Role::Sidecar);
    let all = others.into_iter().map(|stop| stop.run(deadline.clone()));
    let mut result = futures::future::join_all(all).await.into_iter().collect::<Result<(), _>>();
    for stop in sidecars.into_iter().rev() {
        result = result.and(stop.run(deadline.clone()).await);
    }
    result
}
