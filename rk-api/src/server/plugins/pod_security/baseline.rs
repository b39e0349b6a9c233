//! The checks of the level `baseline`.

use serde_json::Value;

use super::{
    super::{list, text},
    Version,
    checks::{Check, Pod, Violation, containers, quoted, setters, sorted, violation},
    restricted,
};

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Harmless sysctls, each with the release of Kubernetes since which it counts as one.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.tcp_wmem", 32),
];

/// SELinux types of containers, each with the release of Kubernetes since which it is allowed.
const SELINUX_TYPES: [(&str, u32); 5] =
    [("", 0), ("container_t", 0), ("container_init_t", 0), ("container_kvm_t", 0), ("container_engine_t", 31)];

fn allowed(list: &[(&str, u32)], name: &str, version: Version) -> bool {
    list.iter().any(|(known, since)| *known == name && version.since(*since))
}

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// What the pod breaks. The level `restricted` has stricter checks of its own for capabilities, volumes and seccomp, since some
/// release each.
pub(super) fn violations(pod: &Pod<'_>, restricted: bool) -> Vec<Violation> {
    let unless_stricter = |since: u32, check: Check| {
        if restricted && pod.version.since(since) { None } else { check(pod) }
    };
    [
        app_armor(pod),
        unless_stricter(restricted::CAPABILITIES, capabilities),
        host_namespaces(pod),
        unless_stricter(0, host_path),
        host_ports(pod),
        host_probes(pod),
        privileged(pod),
        proc_mount(pod),
        selinux(pod),
        unless_stricter(restricted::SECCOMP, seccomp),
        sysctls(pod),
        host_process(pod),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn app_armor(pod: &Pod<'_>) -> Option<Violation> {
    let bad = |context: &Value| {
        let kind = context["appArmorProfile"]["type"].as_str();
        kind.filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost")).map(str::to_owned)
    };
    let mut details = Vec::new();
    let mut kinds: Vec<String> = bad(pod.context()).into_iter().collect();
    let names = pod.secured(|context| bad(context).is_some());
    kinds.extend(pod.containers().filter_map(|container| bad(&container["securityContext"])));
    if let Some(who) = setters(bad(pod.context()).is_some(), &names) {
        let kinds = quoted(&sorted(kinds.into_iter()));
        details.push(format!("{who} must not set AppArmor profile type to {kinds}"));
    }
    let annotations = pod.metadata["annotations"].as_object().into_iter().flatten();
    let forbidden: Vec<_> = annotations
        .filter(|(key, value)| {
            let value = text(value);
            key.starts_with(APPARMOR_ANNOTATION)
                && !(value.is_empty() || value == "runtime/default" || value.starts_with("localhost/"))
        })
        .map(|(key, value)| format!("{key}={:?}", text(value)))
        .collect();
    if !forbidden.is_empty() {
        let noun = if forbidden.len() == 1 { "annotation" } else { "annotations" };
        details.push(format!("{noun} {}", forbidden.join(", ")));
    }
    match details.as_slice() {
        [] => None,
        [one] => violation("forbidden AppArmor profile", one.clone()),
        several => violation("forbidden AppArmor profiles", several.join(", ")),
    }
}

fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let added = |context: &Value| -> Vec<String> {
        let added = list(&context["capabilities"]["add"]).iter().map(text);
        added.filter(|capability| !CAPABILITIES.contains(capability)).map(str::to_owned).collect()
    };
    let names = pod.secured(|context| !added(context).is_empty());
    let all = sorted(pod.containers().flat_map(|container| added(&container["securityContext"])));
    let who = setters(false, &names)?;
    let detail = format!("{who} must not include {} in securityContext.capabilities.add", quoted(&all));
    violation("non-default capabilities", detail)
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let fields = ["hostNetwork", "hostPID", "hostIPC"];
    let set: Vec<_> = fields.iter().filter(|field| pod.spec[**field] == true).map(|f| format!("{f}=true")).collect();
    if set.is_empty() { None } else { violation("host namespaces", set.join(", ")) }
}

fn host_path(pod: &Pod<'_>) -> Option<Violation> {
    let volumes = list(&pod.spec["volumes"]).iter().filter(|volume| !volume["hostPath"].is_null());
    let names: Vec<_> = volumes.map(|volume| text(&volume["name"])).collect();
    if names.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", if names.len() == 1 { "volume" } else { "volumes" }, quoted(&names)))
}

fn host_ports(pod: &Pod<'_>) -> Option<Violation> {
    let ports = |container: &Value| -> Vec<i64> {
        list(&container["ports"]).iter().filter_map(|port| port["hostPort"].as_i64()).filter(|p| *p != 0).collect()
    };
    let names = pod.named(|container| !ports(container).is_empty());
    let all = sorted(pod.containers().flat_map(ports));
    let who = setters(false, &names)?;
    let texts: Vec<_> = all.iter().map(i64::to_string).collect();
    let (verb, noun) =
        (if names.len() == 1 { "uses" } else { "use" }, if all.len() == 1 { "hostPort" } else { "hostPorts" });
    violation("hostPort", format!("{who} {verb} {noun} {}", texts.join(", ")))
}

/// Hosts that probes and lifecycle hooks of a container call.
fn probe_hosts(container: &Value) -> Vec<String> {
    let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
    let hooks = ["postStart", "preStop"].map(|hook| &container["lifecycle"][hook]);
    let handlers = probes.into_iter().chain(hooks);
    let hosts = handlers.flat_map(|handler| ["httpGet", "tcpSocket"].map(|kind| text(&handler[kind]["host"])));
    hosts.filter(|host| !host.is_empty()).map(str::to_owned).collect()
}

fn host_probes(pod: &Pod<'_>) -> Option<Violation> {
    if !pod.version.since(34) {
        return None;
    }
    let names = pod.named(|container| !probe_hosts(container).is_empty());
    let all = sorted(pod.containers().flat_map(probe_hosts));
    let who = setters(false, &names)?;
    let (verb, noun) = (
        if names.len() == 1 { "uses" } else { "use" },
        if all.len() == 1 { "probe or lifecycle host" } else { "probe or lifecycle hosts" },
    );
    violation("probe or lifecycle host", format!("{who} {verb} {noun} {}", quoted(&all)))
}

fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let who = setters(false, &pod.secured(|context| context["privileged"] == true))?;
    violation("privileged", format!("{who} must not set securityContext.privileged=true"))
}

fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    let bad = |context: &Value| context["procMount"].as_str().is_some_and(|mount| mount != "Default");
    let names = pod.secured(bad);
    let who = setters(false, &names)?;
    let contexts = pod.containers().map(|container| &container["securityContext"]);
    let all = sorted(contexts.filter(|context| bad(context)).map(|context| text(&context["procMount"])));
    violation("procMount", format!("{who} must not set securityContext.procMount to {}", quoted(&all)))
}

fn selinux(pod: &Pod<'_>) -> Option<Violation> {
    let options = |context: &'_ Value| context["seLinuxOptions"].clone();
    let bad = |context: &Value| {
        let options = options(context);
        !allowed(&SELINUX_TYPES, text(&options["type"]), pod.version)
            || !text(&options["user"]).is_empty()
            || !text(&options["role"]).is_empty()
    };
    let names = pod.secured(bad);
    let who = setters(bad(pod.context()), &names)?;
    let contexts = || std::iter::once(pod.context()).chain(pod.containers().map(|c| &c["securityContext"]));
    let types = contexts().map(|context| text(&context["seLinuxOptions"]["type"]));
    let types = sorted(types.filter(|kind| !allowed(&SELINUX_TYPES, kind, pod.version)));
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", if types.len() == 1 { "type" } else { "types" }, quoted(&types)));
    }
    for field in ["user", "role"] {
        if contexts().any(|context| !text(&context["seLinuxOptions"][field]).is_empty()) {
            data.push(format!("{field} may not be set"));
        }
    }
    violation("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")))
}

fn seccomp(pod: &Pod<'_>) -> Option<Violation> {
    if pod.version.since(restricted::SECCOMP) { unconfined(pod) } else { unconfined_by_annotation(pod) }
}

/// The same in annotations, where profiles were named before there were fields for them.
fn unconfined_by_annotation(pod: &Pod<'_>) -> Option<Violation> {
    let of_containers = pod.containers().map(|container| format!("{SECCOMP_CONTAINER}{}", text(&container["name"])));
    let named = of_containers.chain([SECCOMP_POD.to_owned()]).filter_map(|key| {
        let profile = pod.metadata["annotations"].get(&key)?.as_str()?;
        let confined = matches!(profile, "runtime/default" | "docker/default") || profile.starts_with("localhost/");
        (!confined).then(|| format!("{key}={profile:?}"))
    });
    let forbidden = sorted(named);
    if forbidden.is_empty() {
        return None;
    }
    let noun = if forbidden.len() == 1 { "annotation" } else { "annotations" };
    violation("seccompProfile", format!("forbidden {noun} {}", forbidden.join(", ")))
}

/// Seccomp profiles that switch filtering off.
pub(super) fn unconfined(pod: &Pod<'_>) -> Option<Violation> {
    let kind = |context: &Value| text(&context["seccompProfile"]["type"]).to_owned();
    let bad = |context: &Value| !matches!(kind(context).as_str(), "" | "RuntimeDefault" | "Localhost");
    let who = setters(bad(pod.context()), &pod.secured(bad))?;
    let contexts = std::iter::once(pod.context()).chain(pod.containers().map(|c| &c["securityContext"]));
    let kinds = sorted(contexts.filter(|context| bad(context)).map(kind));
    violation("seccompProfile", format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&kinds)))
}

fn sysctls(pod: &Pod<'_>) -> Option<Violation> {
    let names = list(&pod.context()["sysctls"]).iter().map(|sysctl| text(&sysctl["name"]));
    let forbidden: Vec<_> = names.filter(|name| !allowed(&SYSCTLS, name, pod.version)).collect();
    if forbidden.is_empty() { None } else { violation("forbidden sysctls", forbidden.join(", ")) }
}

fn host_process(pod: &Pod<'_>) -> Option<Violation> {
    let bad = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let names = pod.secured(bad);
    let mut who = Vec::new();
    if bad(pod.context()) {
        who.push("pod".to_owned());
    }
    if !names.is_empty() {
        who.push(containers(&names));
    }
    if who.is_empty() {
        return None;
    }
    violation(
        "hostProcess",
        format!("{} must not set securityContext.windowsOptions.hostProcess=true", who.join(" and ")),
    )
}
