//! The pod's status, from what its worker knows.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus as ApiStatus, HostIP, Pod, PodCondition, PodIP, PodStatus, VolumeMountStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::{Map, Value, json};

use super::{
    spec::{self, Member, RestartPolicy, Role},
    worker::{End, Ending, Worker},
};
use crate::runtime::types::{Container, ContainerMetadata, ContainerState, ContainerStatus};

/// Longest termination message, in bytes.
const MESSAGE: usize = 4096;

/// Whether the API says that the pod is over.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Containers that the API knows to have run: what stands for them where the runtime has lost them.
pub(super) fn lost(pod: &Pod) -> BTreeMap<String, ContainerStatus> {
    let mut lost = BTreeMap::new();
    let Some(status) = &pod.status else { return lost };
    let all = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    for known in all.into_iter().flatten().flatten() {
        let Some((runtime, id)) = known.container_id.as_deref().and_then(|id| id.split_once("://")) else { continue };
        let ended = known.state.as_ref().and_then(|state| state.terminated.as_ref());
        let ended = ended.or(known.last_state.as_ref().and_then(|state| state.terminated.as_ref()));
        let running = known.state.as_ref().is_some_and(|state| state.running.is_some());
        tracing::debug!(runtime, id, "container known to the API");
        let (exit_code, reason, message) = match ended.filter(|_| !running) {
            Some(ended) => {
                (ended.exit_code, ended.reason.clone().unwrap_or_default(), ended.message.clone().unwrap_or_default())
            }
            None => (
                137,
                "ContainerStatusUnknown".to_owned(),
                "The container could not be located when the pod was terminated".to_owned(),
            ),
        };
        let attempt = u32::try_from(known.restart_count).unwrap_or(0);
        let time = |time: Option<&Time>| time.map(|time| time.0);
        let container = Container {
            id: String::new(),
            metadata: ContainerMetadata { name: known.name.clone(), attempt },
            state: ContainerState::Exited,
            ..Container::default()
        };
        let status = ContainerStatus {
            container,
            exit_code,
            reason,
            message,
            started_at: ended.and_then(|ended| time(ended.started_at.as_ref())),
            finished_at: ended.and_then(|ended| time(ended.finished_at.as_ref())).or_else(|| Some(rk_api::now())),
            image_ref: known.image_id.clone(),
            ..ContainerStatus::default()
        };
        lost.insert(known.name.clone(), status);
    }
    lost
}

/// Times are written in whole seconds.
fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn terminated(worker: &Worker, member: &Member, status: &ContainerStatus) -> ContainerStateTerminated {
    let reason = match (status.reason.as_str(), status.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let message =
        if status.message.is_empty() { termination_message(worker, member, status) } else { status.message.clone() };
    ContainerStateTerminated {
        container_id: Some(container_id(worker, &status.container.id)).filter(|id| !id.is_empty()),
        exit_code: status.exit_code,
        reason: Some(reason.to_owned()),
        message: Some(message).filter(|message| !message.is_empty()),
        signal: None,
        started_at: status.started_at.map(time),
        finished_at: status.finished_at.map(time),
    }
}

/// What the container left in its termination log, or the end of its output where the policy says so.
fn termination_message(worker: &Worker, member: &Member, status: &ContainerStatus) -> String {
    let container = &member.container;
    let path =
        spec::termination_log(&worker.shared.config, &worker.pod, &container.name, status.container.metadata.attempt);
    let mut text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let fall_back = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if text.is_empty() && fall_back && status.exit_code != 0 {
        text = crate::server::logs::last_lines(&status.log_path, 80, 2048);
    }
    let mut end = text.len().min(MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

fn container_id(worker: &Worker, id: &str) -> String {
    if id.is_empty() { String::new() } else { format!("{}://{id}", worker.shared.runtime_name) }
}

fn container_status(worker: &Worker, member: &Member, waiting: &str) -> ApiStatus {
    let container = &member.container;
    let name = &container.name;
    let instances = worker.instances.get(name).map_or(&[][..], Vec::as_slice);
    let newest = instances.first();
    let blocked = worker.waiting.get(name);
    let mut state = ApiState::default();
    let mut last_state = ApiState::default();
    let wait =
        |reason: &str, message: Option<String>| ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    match newest.map(|status| (status, status.container.state)) {
        Some((status, ContainerState::Running)) => {
            state.running = Some(ContainerStateRunning { started_at: status.started_at.map(time) });
            last_state.terminated = instances.get(1).map(|last| terminated(worker, member, last));
        }
        Some((status, ContainerState::Exited)) => {
            let restarts = RestartPolicy::of(&worker.pod, member).restarts(status.exit_code) && worker.end.is_none();
            let ended = terminated(worker, member, status);
            match blocked.filter(|_| restarts) {
                Some(blocked) => {
                    state.waiting = Some(wait(blocked.reason, Some(blocked.message.clone())));
                    last_state.terminated = Some(ended);
                }
                None => {
                    state.terminated = Some(ended);
                    last_state.terminated = instances.get(1).map(|last| terminated(worker, member, last));
                }
            }
        }
        _ => {
            state.waiting = Some(match blocked {
                Some(blocked) => wait(blocked.reason, Some(blocked.message.clone())),
                None => wait(waiting, None),
            });
            last_state.terminated = instances
                .iter()
                .find(|status| status.container.state == ContainerState::Exited)
                .map(|last| terminated(worker, member, last));
        }
    }
    let probes = worker.probes.get(name).filter(|_| state.running.is_some());
    let started = probes.is_some_and(|probes| probes.started);
    let ready = match member.role {
        Role::Init => state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0),
        Role::Ephemeral => false,
        _ => probes.is_some_and(|probes| probes.ready),
    };
    let mounts = container.volume_mounts.iter().flatten().map(|mount| VolumeMountStatus {
        mount_path: mount.mount_path.clone(),
        name: mount.name.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: mount
            .read_only
            .filter(|read_only| *read_only)
            .map(|_| mount.recursive_read_only.clone().unwrap_or_else(|| "Disabled".to_owned())),
        ..VolumeMountStatus::default()
    });
    let mounts: Vec<_> = mounts.collect();
    let resources =
        container.resources.clone().filter(|resources| resources.limits.is_some() || resources.requests.is_some());
    ApiStatus {
        allocated_resources: resources.as_ref().and_then(|resources| resources.requests.clone()),
        container_id: newest.map(|status| container_id(worker, &status.container.id)).filter(|id| !id.is_empty()),
        image: container.image.clone().unwrap_or_default(),
        image_id: newest.map(|status| status.image_ref.clone()).unwrap_or_default(),
        last_state: Some(last_state),
        name: name.clone(),
        ready,
        resources,
        restart_count: newest.map_or(0, |s| i32::try_from(s.container.metadata.attempt).unwrap_or(i32::MAX)),
        started: Some(started),
        state: Some(state),
        volume_mounts: Some(mounts).filter(|mounts| !mounts.is_empty()),
        ..ApiStatus::default()
    }
}

/// The phase that the containers' states add up to: the kubelet's `getPhase`.
fn phase(pod: &Pod, members: &[Member], statuses: &BTreeMap<String, ApiStatus>) -> &'static str {
    let state = |member: &Member| statuses.get(&member.container.name).and_then(|status| status.state.as_ref());
    let policy = |member: &Member| RestartPolicy::of(pod, member);
    let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
    let mut restarting = false;
    for member in members.iter().filter(|member| member.role == Role::Main) {
        let last = statuses.get(&member.container.name).and_then(|status| status.last_state.as_ref());
        match state(member) {
            Some(ApiState { running: Some(_), .. }) => running += 1,
            Some(ApiState { terminated: Some(ended), .. }) => {
                stopped += 1;
                succeeded += i32::from(ended.exit_code == 0);
                restarting |= policy(member).restarts(ended.exit_code);
            }
            Some(_) if last.is_some_and(|last| last.terminated.is_some()) => {
                stopped += 1;
                restarting = true;
            }
            _ => waiting += 1,
        }
    }
    for member in members {
        let started = statuses.get(&member.container.name).and_then(|status| status.started) == Some(true);
        match (member.role, state(member)) {
            (Role::Init, Some(ApiState { terminated: Some(ended), .. })) if ended.exit_code != 0 => {
                return if policy(member).restarts(ended.exit_code) { "Pending" } else { "Failed" };
            }
            (Role::Init, Some(ApiState { terminated: Some(_), .. })) => {}
            (Role::Init, _) if running + stopped == 0 => return "Pending",
            (Role::Sidecar, _) if running + stopped == 0 && !started => return "Pending",
            _ => {}
        }
    }
    match (waiting, running, stopped) {
        (1.., _, _) => "Pending",
        (_, 1.., _) => "Running",
        (_, 0, 1..) if restarting => "Running",
        (_, 0, 1..) if stopped == succeeded => "Succeeded",
        (_, 0, 1..) => "Failed",
        _ => "Pending",
    }
}

/// A condition with its transition time kept while its status is unchanged.
struct Conditions<'a> {
    pod: &'a Pod,
    list: Vec<PodCondition>,
}

impl Conditions<'_> {
    fn set(&mut self, kind: &str, holds: bool, because: Option<(&str, String)>) {
        let status = if holds { "True" } else { "False" };
        let old = self.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let old = old.into_iter().flatten().find(|condition| condition.type_ == kind);
        let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
        let (reason, message) = because.map(|(reason, message)| (reason.to_owned(), message)).unzip();
        self.list.push(PodCondition {
            last_probe_time: None,
            last_transition_time: since.or_else(|| Some(time(rk_api::now()))),
            message: message.filter(|message| !message.is_empty()),
            observed_generation: self.pod.metadata.generation,
            reason,
            status: status.to_owned(),
            type_: kind.to_owned(),
        });
    }
}

fn conditions(worker: &Worker, phase: &str, statuses: &BTreeMap<String, ApiStatus>) -> Vec<PodCondition> {
    let pod = &*worker.pod;
    let mut set = Conditions { pod, list: Vec::new() };
    let has_sandbox = worker.sandbox.is_some() && !matches!(worker.end, Some((_, Ending::Over)));
    set.set("PodReadyToStartContainers", has_sandbox, None);
    let of_role = |wanted: &[Role]| -> Vec<&Member> {
        worker.members.iter().filter(|member| wanted.contains(&member.role)).collect()
    };
    let begun = of_role(&[Role::Main]).iter().any(|member| worker.instances.contains_key(&member.container.name));
    let incomplete = of_role(&[Role::Init, Role::Sidecar]).into_iter().filter(|member| {
        let status = statuses.get(&member.container.name);
        !begun
            && !match member.role {
                Role::Init => status.is_some_and(|status| status.ready),
                _ => status.is_some_and(|status| status.started == Some(true)),
            }
    });
    let incomplete: Vec<&str> = incomplete.map(|member| member.container.name.as_str()).collect();
    let unready = of_role(&[Role::Main, Role::Sidecar]).into_iter();
    let unready = unready.filter(|member| !statuses.get(&member.container.name).is_some_and(|status| status.ready));
    let unready: Vec<&str> = unready.map(|member| member.container.name.as_str()).collect();
    let (initialized, not_initialized) = match phase {
        "Succeeded" => (true, Some(("PodCompleted", String::new()))),
        _ if incomplete.is_empty() => (true, None),
        _ => (
            false,
            Some((
                "ContainersNotInitialized",
                format!("containers with incomplete status: [{}]", incomplete.join(" ")),
            )),
        ),
    };
    set.set("Initialized", initialized, not_initialized);
    let not_ready = match phase {
        "Succeeded" => Some(("PodCompleted", String::new())),
        "Failed" => Some(("PodFailed", String::new())),
        _ if unready.is_empty() && incomplete.is_empty() => None,
        _ => Some(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))),
    };
    let gates: Vec<String> = spec::spec(pod)
        .readiness_gates
        .iter()
        .flatten()
        .filter_map(|gate| {
            let list = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            let found = list.into_iter().flatten().find(|condition| condition.type_ == gate.condition_type);
            let kind = &gate.condition_type;
            match found.map(|condition| condition.status.as_str()) {
                Some("True") => None,
                Some(_) => Some(format!("the status of pod readiness gate \"{kind}\" is not \"True\", but False")),
                None => Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
            }
        })
        .collect();
    let not_ready_pod = match &not_ready {
        None if !gates.is_empty() => Some(("ReadinessGatesNotReady", gates.join(", "))),
        other => other.clone(),
    };
    set.set("Ready", not_ready_pod.is_none(), not_ready_pod);
    set.set("ContainersReady", not_ready.is_none(), not_ready);
    if worker.is_static {
        set.set("PodScheduled", true, None);
    }
    set.list
}

/// The whole status that the pod should have.
pub(super) fn pod_status(worker: &Worker) -> PodStatus {
    let pod = &*worker.pod;
    let old = pod.status.clone().unwrap_or_default();
    if let (true, Some((End::Completed, Ending::Over))) = (is_terminal(pod), &worker.end) {
        // It ended before; what was reported then is what counts.
        if worker.instances.is_empty() {
            return old;
        }
    }
    // By whether there are init containers, not by how far they are, as the kubelet has it.
    let initializes = worker.members.iter().any(|member| matches!(member.role, Role::Init | Role::Sidecar));
    let waiting = if initializes { "PodInitializing" } else { "ContainerCreating" };
    let mut statuses = BTreeMap::new();
    for member in &worker.members {
        statuses.insert(member.container.name.clone(), container_status(worker, member, waiting));
    }
    let old_phase = old.phase.clone().unwrap_or_else(|| "Pending".to_owned());
    let failed = match &worker.end {
        Some((End::Failed { reason, message }, _)) => Some((reason.clone(), message.clone())),
        _ => None,
    };
    let over = matches!(&worker.end, Some((_, Ending::Over)));
    let mut phase = if failed.is_some() { "Failed" } else { phase(pod, &worker.members, &statuses) }.to_owned();
    if matches!(&worker.end, Some((End::Deleted, _))) && over && !matches!(phase.as_str(), "Succeeded" | "Failed") {
        // A pod whose containers all ended does not stay Running, whatever its restart policy.
        phase = "Failed".to_owned();
    }
    // While anything may run the pod is not over, and what is over stays so.
    if matches!(phase.as_str(), "Succeeded" | "Failed") && !over || is_terminal(pod) {
        phase = old_phase;
    }
    let list = |roles: &[Role]| {
        let found: Vec<ApiStatus> = worker
            .members
            .iter()
            .filter(|member| roles.contains(&member.role))
            .filter_map(|member| statuses.get(&member.container.name).cloned())
            .collect();
        Some(found).filter(|found| !found.is_empty())
    };
    let mut pod_ips = worker.pod_ips();
    if pod_ips.is_empty() {
        pod_ips = old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    }
    let host_ip = worker.shared.config.address.to_string();
    let (reason, message) = failed.unzip();
    PodStatus {
        conditions: Some(conditions(worker, &phase, &statuses)),
        container_statuses: list(&[Role::Main]),
        init_container_statuses: list(&[Role::Init, Role::Sidecar]),
        ephemeral_container_statuses: list(&[Role::Ephemeral]),
        host_ips: Some(vec![HostIP { ip: host_ip.clone() }]),
        host_ip: Some(host_ip),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: Some(pod_ips.into_iter().map(|ip| PodIP { ip }).collect()).filter(|ips: &Vec<PodIP>| !ips.is_empty()),
        phase: Some(phase),
        reason: reason.or_else(|| old.reason.clone().filter(|_| is_terminal(pod))),
        message: message.or_else(|| old.message.clone().filter(|_| is_terminal(pod))),
        qos_class: old.qos_class.clone().or_else(|| Some(spec::qos_class(pod).to_owned())),
        start_time: old.start_time.clone().or_else(|| Some(time(rk_api::now()))),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    }
}

/// Fields of the status that are the kubelet's; others (`nominatedNodeName`, `resize`, ...) are left alone.
const OWNED: [&str; 14] = [
    "conditions",
    "containerStatuses",
    "initContainerStatuses",
    "ephemeralContainerStatuses",
    "hostIP",
    "hostIPs",
    "message",
    "observedGeneration",
    "phase",
    "podIP",
    "podIPs",
    "qosClass",
    "reason",
    "startTime",
];

/// The merge patch that takes the pod to the wanted status, on the very version that was looked at; `None` if there
/// is nothing to change. Conditions of others are kept.
pub(super) fn patch(pod: &Pod, wanted: &PodStatus) -> Option<Value> {
    let mut wanted = wanted.clone();
    let old = pod.status.clone().unwrap_or_default();
    let mut conditions = wanted.conditions.take().unwrap_or_default();
    for other in old.conditions.iter().flatten() {
        if !conditions.iter().any(|own| own.type_ == other.type_) {
            conditions.push(other.clone());
        }
    }
    // The order in which they were first written stays.
    conditions.sort_by_key(|condition| {
        let position = old.conditions.iter().flatten().position(|old| old.type_ == condition.type_);
        position.unwrap_or(usize::MAX)
    });
    wanted.conditions = Some(conditions);
    let (Ok(Value::Object(old)), Ok(Value::Object(mut new))) =
        (serde_json::to_value(&old), serde_json::to_value(&wanted))
    else {
        return None;
    };
    let mut changes = Map::new();
    for field in OWNED {
        let value = new.remove(field).unwrap_or(Value::Null);
        if old.get(field).unwrap_or(&Value::Null) != &value {
            changes.insert(field.to_owned(), value);
        }
    }
    if changes.is_empty() {
        return None;
    }
    let meta = json!({"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version});
    Some(json!({"metadata": meta, "status": changes}))
}
