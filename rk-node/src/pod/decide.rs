//! What a pod needs next: the kubelet's `computePodActions`, as operations that run beside the worker.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    prober::{self, Probes},
    spec::{self, Member, RestartPolicy, Role},
    start::{Start, StartError},
    status,
    stop::{Stop, stop_all},
    worker::{Done, End, Ending, Worker},
};
use crate::{
    runtime::types::{ContainerState, ContainerStatus},
    shared::{about, about_container},
};

/// Time between tries after a failure that has no back-off of its own.
const RETRY: Duration = Duration::from_secs(5);

/// What has to happen with one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Start,
}

impl Worker {
    /// Starts the operations that the pod needs now.
    pub(super) fn decide(&mut self) {
        if let Some(grace) = self.deletion() {
            self.begin_end(End::Deleted, grace);
        }
        if self.end.is_none() && status::is_terminal(&self.pod) {
            self.begin_end(End::Completed, Duration::ZERO);
        }
        if self.end.is_none() {
            self.check_deadline();
        }
        if self.end.is_none() && self.is_complete() {
            let grace = spec::spec(&self.pod).termination_grace_period_seconds.unwrap_or(30);
            self.begin_end(End::Completed, Duration::from_secs(u64::try_from(grace).unwrap_or(0)));
        }
        match self.end {
            Some((_, ending)) => self.decide_end(ending),
            None => self.decide_life(),
        }
    }

    /// `activeDeadlineSeconds` ends the pod as failed.
    fn check_deadline(&mut self) {
        let spec = spec::spec(&self.pod);
        let Some(seconds) = spec.active_deadline_seconds else { return };
        let Some(started) = self.pod.status.as_ref().and_then(|status| status.start_time.as_ref()) else { return };
        let allowed = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let passed = Duration::try_from(rk_api::now().duration_since(started.0)).unwrap_or_default();
        match allowed.checked_sub(passed).filter(|left| !left.is_zero()) {
            Some(left) => self.wake_in(left),
            None => {
                let message = "Pod was active on the node longer than the specified deadline".to_owned();
                let reason = "DeadlineExceeded".to_owned();
                self.shared.recorder.normal(&about(&self.pod), &reason, message.clone());
                let grace = spec.termination_grace_period_seconds.unwrap_or(30);
                self.begin_end(End::Failed { reason, message }, Duration::from_secs(u64::try_from(grace).unwrap_or(0)));
            }
        }
    }

    /// The container's newest instance.
    pub(super) fn newest(&self, name: &str) -> Option<&ContainerStatus> {
        self.instances.get(name).and_then(|list| list.first())
    }

    fn is_running(&self, name: &str) -> bool {
        self.newest(name).is_some_and(|status| status.container.state == ContainerState::Running)
    }

    /// Whether all containers ended for good, or initialization failed for good.
    fn is_complete(&self) -> bool {
        if !self.busy.is_empty() {
            return false;
        }
        let over = |member: &Member| {
            self.newest(&member.container.name).filter(|status| status.container.state == ContainerState::Exited)
        };
        let policy = |member: &Member| RestartPolicy::of(&self.pod, member);
        let init_failed = self.members.iter().filter(|member| member.role == Role::Init).any(|member| {
            over(member).is_some_and(|status| status.exit_code != 0 && !policy(member).restarts(status.exit_code))
        });
        let mut mains = self.members.iter().filter(|member| member.role == Role::Main);
        init_failed || mains.all(|member| over(member).is_some_and(|s| !policy(member).restarts(s.exit_code)))
    }

    fn decide_life(&mut self) {
        if let Some(at) = self.setup_retry.filter(|at| *at > Instant::now()) {
            self.wake_in(at - Instant::now());
        } else if self.tokens.as_ref().and_then(|tokens| tokens.next_renewal()).is_some_and(|at| at <= rk_api::now()) {
            self.setup_due = true;
        }
        if self.setup_due && !self.busy.contains("volumes/") && self.setup_retry.is_none_or(|at| at <= Instant::now()) {
            self.set_up();
        }
        if let Some(at) = self.tokens.as_ref().and_then(|tokens| tokens.next_renewal()) {
            let left = Duration::try_from(at.duration_since(rk_api::now())).unwrap_or_default();
            self.wake_in(left.max(Duration::from_secs(1)));
        }
        if self.volumes.is_none() || self.busy.contains("") {
            return;
        }
        if self.sandbox.is_none() {
            self.make_sandbox();
            return;
        }
        self.decide_probes();
        let initialized = self.decide_init();
        if initialized {
            let mains: Vec<Member> =
                self.members.iter().filter(|m| matches!(m.role, Role::Main | Role::Ephemeral)).cloned().collect();
            for member in mains {
                if self.need(&member) == Need::Start {
                    self.start(&member);
                }
            }
        }
    }

    fn make_sandbox(&mut self) {
        let now = rk_api::now();
        if let Some(failed) = self.failed_start.get("").copied() {
            let passed = Duration::try_from(now.duration_since(failed)).unwrap_or_default();
            if let Some(left) = RETRY.checked_sub(passed).filter(|left| !left.is_zero()) {
                return self.wake_in(left);
            }
        }
        if self.sandbox_attempts > 0 {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.shared.recorder.normal(&about(&self.pod), "SandboxChanged", message);
        }
        self.busy.insert(String::new());
        let config = spec::sandbox_config(&self.pod, &self.shared.config, self.sandbox_attempts);
        let runtime = Arc::clone(&self.shared.config.runtime);
        self.ops.spawn(async move {
            let made = async {
                let id = runtime.run_pod_sandbox(&config).await?;
                runtime.pod_sandbox_status(&id).await
            };
            Done::Sandbox(made.await)
        });
    }

    /// Starts probes of running containers, ends those of others, and stops what failed them.
    fn decide_probes(&mut self) {
        let ip = self.pod_ips().first().cloned().unwrap_or_default();
        for member in self.members.clone() {
            let name = &member.container.name;
            let running = self.newest(name).filter(|status| status.container.state == ContainerState::Running);
            let Some(id) = running.map(|status| status.container.id.clone()) else {
                self.probes.remove(name);
                continue;
            };
            if self.busy.contains(name) {
                continue;
            }
            if self.probes.get(name).is_none_or(|probes| probes.container_id != id) {
                let target = prober::target_of(&self.shared.config.runtime, &id, &member.container, &ip);
                let about = about_container(&self.pod, &member);
                let probes = Probes::start(target, about, self.shared.recorder.clone(), self.myself.clone());
                self.probes.insert(name.clone(), probes);
            }
            let outdated = self
                .newest(name)
                .is_some_and(|status| spec::is_outdated(&member.container, &status.container.annotations));
            let verdict = self.probes.get(name).and_then(Probes::verdict);
            let grace = spec::spec(&self.pod).termination_grace_period_seconds.unwrap_or(30);
            if let Some((word, own_grace)) = verdict {
                let why = format!("Container {name} failed {word} probe, will be restarted");
                self.stop(&member, &id, why, own_grace.unwrap_or(grace));
            } else if self.resize(&member, &id) {
                continue;
            } else if outdated && member.role != Role::Ephemeral {
                let why = format!("Container {name} definition changed, will be restarted");
                self.stop(&member, &id, why, grace);
            }
        }
    }

    /// Gives a running container the limits that its spec has now; answers whether there was something to do.
    fn resize(&mut self, member: &Member, id: &str) -> bool {
        let wanted = spec::resources(&self.pod, &member.container, self.shared.memory());
        if self.limits.get(id) == Some(&wanted) {
            return false;
        }
        self.limits.insert(id.to_owned(), wanted.clone());
        let name = member.container.name.clone();
        self.busy.insert(name.clone());
        let (runtime, id) = (Arc::clone(&self.shared.config.runtime), id.to_owned());
        self.ops.spawn(async move {
            let result = runtime.update_container_resources(&id, &wanted).await;
            Done::Resized { name, result }
        });
        true
    }

    fn stop(&mut self, member: &Member, id: &str, why: String, grace: i64) {
        let name = member.container.name.clone();
        self.busy.insert(name.clone());
        let stop = self.stop_of(member, id, why);
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let (sender, deadline) = tokio::sync::watch::channel(Instant::now() + grace);
        self.ops.spawn(async move {
            let result = stop.run(deadline).await;
            drop(sender);
            Done::Stopped { name, result }
        });
    }

    fn stop_of(&self, member: &Member, id: &str, why: String) -> Stop {
        Stop {
            shared: Arc::clone(&self.shared),
            pod: Arc::clone(&self.pod),
            member: member.clone(),
            container_id: id.to_owned(),
            pod_ip: self.pod_ips().first().cloned().unwrap_or_default(),
            why,
        }
    }

    /// Brings initialization on; answers whether the containers may start.
    fn decide_init(&mut self) -> bool {
        // Once a container of this sandbox was started, initialization is over, whatever became of its containers.
        let begun = self.members.iter().filter(|member| member.role == Role::Main).any(|member| {
            let newest = self.newest(&member.container.name);
            newest.is_some_and(|status| self.is_current(status)) || self.busy.contains(&member.container.name)
        });
        for member in self.members.clone() {
            match member.role {
                Role::Sidecar => {
                    if self.need(&member) == Need::Start {
                        self.start(&member);
                    }
                    let name = &member.container.name;
                    let started = self.is_running(name) && self.probes.get(name).is_some_and(|probes| probes.started);
                    if !started && !begun {
                        return false;
                    }
                }
                Role::Init if !begun => {
                    let done = self.newest(&member.container.name).is_some_and(|status| {
                        status.container.state == ContainerState::Exited
                            && status.exit_code == 0
                            && self.is_current(status)
                    });
                    if !done {
                        if self.need(&member) == Need::Start {
                            self.start(&member);
                        }
                        return false;
                    }
                }
                _ => {}
            }
        }
        true
    }

    /// Whether an instance is of the sandbox that the pod has now.
    fn is_current(&self, status: &ContainerStatus) -> bool {
        self.sandbox.as_ref().is_some_and(|sandbox| sandbox.id == status.container.pod_sandbox_id)
    }

    /// Whether a container has to be started now; if it only has to later, the worker will wake.
    fn need(&mut self, member: &Member) -> Need {
        let name = &member.container.name;
        if self.busy.contains(name) {
            return Need::Nothing;
        }
        let now = rk_api::now();
        let newest = self.newest(name).cloned();
        if let Some(failed) = self.failed_start.get(name).copied() {
            return self.retry(member, failed);
        }
        let Some(status) = newest else { return Need::Start };
        match status.container.state {
            ContainerState::Running => return Need::Nothing,
            ContainerState::Created | ContainerState::Unknown => return Need::Start,
            ContainerState::Exited => {}
        }
        // A container of an earlier sandbox that ended well is repeated with the init containers, else its policy decides.
        let repeated = member.role == Role::Init && !self.is_current(&status);
        if !repeated && !RestartPolicy::of(&self.pod, member).restarts(status.exit_code) {
            return Need::Nothing;
        }
        self.after(member, status.finished_at.unwrap_or(now))
    }

    /// Start, or wait in CrashLoopBackOff after an end at `ended`.
    fn after(&mut self, member: &Member, ended: jiff::Timestamp) -> Need {
        let (name, now) = (member.container.name.clone(), rk_api::now());
        match self.backoff.remaining(&name, ended, now) {
            None => {
                self.backoff.next(&name, ended, now);
                Need::Start
            }
            Some((left, whole)) => {
                self.wake_in(left);
                let pod = format!("{}_{}({})", spec::name(&self.pod), spec::namespace(&self.pod), spec::uid(&self.pod));
                let text = format!("restarting failed container={name} pod={pod}");
                let message = format!("back-off {} {text}", duration(whole));
                let waiting = StartError { reason: "CrashLoopBackOff", message };
                if self.waiting.get(&name).is_none_or(|known| *known != waiting) {
                    let about = about_container(&self.pod, member);
                    let event = format!("Back-off restarting failed container {name} in pod {pod}");
                    self.shared.recorder.warning(&about, "BackOff", event);
                    self.waiting.insert(name, waiting);
                }
                Need::Nothing
            }
        }
    }

    /// A start failed at `failed`, before there was a process.
    fn retry(&mut self, member: &Member, failed: jiff::Timestamp) -> Need {
        let (name, now) = (member.container.name.clone(), rk_api::now());
        let reason = self.waiting.get(&name).map_or("", |waiting| waiting.reason);
        match reason {
            "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" => {
                let key = format!("image/{name}");
                if reason == "ErrImagePull" && self.backoff.remaining(&key, failed, now).is_none() {
                    self.backoff.next(&key, failed, failed);
                }
                let Some((left, _)) = self.backoff.remaining(&key, failed, now) else {
                    self.backoff.next(&key, failed, now);
                    self.failed_start.remove(&name);
                    return Need::Start;
                };
                self.wake_in(left);
                let passed = Duration::try_from(now.duration_since(failed)).unwrap_or_default();
                if reason == "ErrImagePull" && passed >= Duration::from_secs(1) {
                    let image = member.container.image.clone().unwrap_or_default();
                    let about = about_container(&self.pod, member);
                    let cause = self.waiting.get(&name).map(|waiting| waiting.message.clone()).unwrap_or_default();
                    let event = format!("Back-off pulling image \"{image}\"");
                    self.shared.recorder.normal(&about, "BackOff", event.clone());
                    self.shared.recorder.warning(&about, "Failed", "Error: ImagePullBackOff");
                    let message = format!("{event}: ErrImagePull: {cause}");
                    self.waiting.insert(name, StartError { reason: "ImagePullBackOff", message });
                } else if reason == "ErrImagePull" {
                    // The cause shows for a moment before the back-off hides it in its message.
                    self.wake_in(Duration::from_secs(1));
                }
                Need::Nothing
            }
            "RunContainerError" | "PostStartHookError" => {
                // There was a container: its end is what counts.
                let ended = self.newest(&name).and_then(|status| status.finished_at).unwrap_or(failed);
                let exit_code = self.newest(&name).map_or(128, |status| status.exit_code);
                if !RestartPolicy::of(&self.pod, member).restarts(exit_code) {
                    self.failed_start.remove(&name);
                    self.waiting.remove(&name);
                    return Need::Nothing;
                }
                self.failed_start.remove(&name);
                self.after(member, ended)
            }
            _ => {
                let passed = Duration::try_from(now.duration_since(failed)).unwrap_or_default();
                match RETRY.checked_sub(passed).filter(|left| !left.is_zero()) {
                    Some(left) => {
                        self.wake_in(left);
                        Need::Nothing
                    }
                    None => {
                        self.failed_start.remove(&name);
                        Need::Start
                    }
                }
            }
        }
    }

    /// The operation that starts a container; older instances but the last are removed first.
    fn start(&mut self, member: &Member) {
        let name = member.container.name.clone();
        let Some(sandbox) = &self.sandbox else { return };
        let attempt = self.newest(&name).map_or(0, |status| match status.container.state {
            ContainerState::Created => status.container.metadata.attempt,
            _ => status.container.metadata.attempt + 1,
        });
        self.busy.insert(name.clone());
        let keep = usize::from(self.newest(&name).is_some_and(|s| s.container.state == ContainerState::Exited));
        let old = self.instances.get(&name).into_iter().flatten().skip(keep);
        let old: Vec<String> = old.map(|status| status.container.id.clone()).filter(|id| !id.is_empty()).collect();
        let start = Start {
            shared: Arc::clone(&self.shared),
            pod: Arc::clone(&self.pod),
            member: member.clone(),
            attempt,
            sandbox_id: sandbox.id.clone(),
            sandbox: spec::sandbox_config(&self.pod, &self.shared.config, sandbox.metadata.attempt),
            pod_ips: self.pod_ips(),
            volumes: self.volumes.clone().unwrap_or_default(),
            sources: Arc::clone(&self.sources),
            target_id: self.newest(&member.target).map(|status| status.container.id.clone()).unwrap_or_default(),
        };
        self.lost.remove(&name);
        let runtime = Arc::clone(&self.shared.config.runtime);
        self.ops.spawn(async move {
            for id in old {
                if let Err(error) = runtime.remove_container(&id).await {
                    tracing::warn!(id, %error, "old container not removed");
                }
            }
            Done::Started { name, result: start.run().await }
        });
    }

    fn decide_end(&mut self, ending: Ending) {
        // Starts under way are let finish, so that nothing is left behind; their containers are stopped then.
        if !self.busy.is_empty() || ending == Ending::Over {
            return;
        }
        self.busy.insert(String::new());
        let runtime = Arc::clone(&self.shared.config.runtime);
        if ending == Ending::Containers {
            let stops: Vec<Stop> = self
                .members
                .iter()
                .filter_map(|member| {
                    let name = &member.container.name;
                    let status = self.newest(name).filter(|s| s.container.state == ContainerState::Running)?;
                    Some(self.stop_of(member, &status.container.id, format!("Stopping container {name}")))
                })
                .collect();
            let deadline = self.deadline.subscribe();
            self.ops.spawn(async move { Done::AllStopped(stop_all(stops, deadline).await) });
        } else {
            let sandbox = self.sandbox.as_ref().map(|sandbox| sandbox.id.clone());
            self.ops.spawn(async move {
                Done::SandboxStopped(match sandbox {
                    Some(id) => runtime.stop_pod_sandbox(&id).await,
                    None => Ok(()),
                })
            });
        }
    }
}

/// As Go prints whole seconds: `10s`, `2m40s`, `5m0s`.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
