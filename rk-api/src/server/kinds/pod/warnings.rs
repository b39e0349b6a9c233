//! What clients are told of pods and templates of pods that are valid all the same.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::overlaps;
use crate::server::kinds::{
    field::Path,
    storage,
    value::Peek,
    warn::{self, Warnings},
};

/// Of a new pod. Nothing is said of changes: those are made by programs.
pub fn pod(pod: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    if old.is_none() {
        warn::host_name(pod, "the Pod's hostname", warnings);
        template(pod, &Path::Root, warnings);
    }
}

/// Of the template at a path of a workload.
pub fn workload(workload: &Value, old: Option<&Value>, path: &str, warnings: &mut Warnings) {
    if warn::is_news(workload, old) {
        template(workload.at(path), &Path::Root.child(path), warnings);
    }
}

/// The same for a workload whose pods are named after it.
pub fn named_workload(object: &Value, old: Option<&Value>, path: &str, warnings: &mut Warnings) {
    if old.is_none() {
        warn::host_name(object, "Pod names and hostnames", warnings);
    }
    workload(object, old, path, warnings);
}

/// Of metadata and spec.
fn template(template: &Value, path: &Path<'_>, warnings: &mut Warnings) {
    let (spec, spec_path) = (template.at("spec"), path.child("spec"));
    placement(spec, &spec_path, warnings);
    annotations(template, path, warnings);
    volumes(spec, &spec_path, warnings);
    let aliases = spec_path.child("hostAliases");
    repeated(spec.list("hostAliases"), "ip", &aliases, warnings);
    let secrets = spec_path.child("imagePullSecrets");
    repeated(spec.list("imagePullSecrets"), "name", &secrets, warnings);
    for (i, _) in spec.list("imagePullSecrets").iter().enumerate().filter(|(_, secret)| secret.text("name").is_empty())
    {
        warnings.at(&secrets.index(i).child("name"), "invalid empty name \"\"");
    }
    warn::fractions(spec.at("overhead"), &BYTES, &spec_path.child("overhead"), warnings);
    if spec.int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        let text = "must be >= 0; negative values are invalid and will be treated as 1";
        warnings.at(&spec_path.child("terminationGracePeriodSeconds"), text);
    }
    let mut ports = HashMap::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let path = spec_path.child(list);
        for (i, container) in spec.list(list).iter().enumerate() {
            one_container(container, &path.index(i), &mut ports, warnings);
        }
    }
}

/// Resources of containers that come in whole bytes.
const BYTES: [&str; 2] = ["memory", "ephemeral-storage"];

fn placement(spec: &Value, path: &Path<'_>, warnings: &mut Warnings) {
    warn::node_labels(spec.at("nodeSelector"), &path.child("nodeSelector"), warnings);
    let (affinity, path_of_nodes) = (spec.at("affinity"), path.child("affinity.nodeAffinity"));
    let nodes = affinity.at("nodeAffinity");
    let terms = path_of_nodes.child("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    let required = nodes.list("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    for (i, term) in required.iter().enumerate() {
        warn::node_term(term, &terms.index(i), warnings);
    }
    let terms = path_of_nodes.child("preferredDuringSchedulingIgnoredDuringExecution");
    for (i, term) in nodes.list("preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
        warn::node_term(term.at("preference"), &terms.index(i).child("preference"), warnings);
    }
    let constraints = path.child("topologySpreadConstraints");
    for (i, constraint) in spec.list("topologySpreadConstraints").iter().enumerate() {
        let (key, path) = (constraint.text("topologyKey"), constraints.index(i));
        if let Some(text) = warn::old_label(key) {
            warnings.at(&path.child("topologyKey"), format!("{key} is {text}"));
        }
        selects(constraint, &path, warnings);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (terms, path) = (affinity.at(kind), path.child("affinity"));
        let path = path.child(kind);
        let required = path.child("requiredDuringSchedulingIgnoredDuringExecution");
        for (i, term) in terms.list("requiredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            selects(term, &required.index(i), warnings);
        }
        let preferred = path.child("preferredDuringSchedulingIgnoredDuringExecution");
        for (i, term) in terms.list("preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            selects(term.at("podAffinityTerm"), &preferred.index(i).child("podAffinityTerm"), warnings);
        }
    }
}

/// Of a selector of pods that is not there.
fn selects(term: &Value, path: &Path<'_>, warnings: &mut Warnings) {
    if !term.has("labelSelector") {
        warnings.at(&path.child("labelSelector"), "a null labelSelector results in matching no pod");
    }
}

/// Annotations that do nothing any more, since when, and the field in their place.
const OLD_ANNOTATIONS: [(&str, &str, &str); 3] = [
    ("scheduler.alpha.kubernetes.io/critical-pod", "v1.16", "priorityClassName"),
    ("security.alpha.kubernetes.io/sysctls", "v1.11", "sysctls"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "v1.11", "sysctls"),
];

fn annotations(template: &Value, path: &Path<'_>, warnings: &mut Warnings) {
    let Some(annotations) = template.at("metadata.annotations").as_object() else { return };
    let path = path.child("metadata.annotations");
    let mut say = |key: &str, state: &str, field: &str| {
        if annotations.contains_key(key) {
            warnings.at(&path.key(key), format!("{state}; use the {field:?} field instead"));
        }
    };
    for (key, since, field) in OLD_ANNOTATIONS {
        say(key, &format!("non-functional in {since}+"), field);
    }
    let spec = template.at("spec");
    let profile = |holder: &Value, field: &str| holder.at("securityContext").has(field);
    if !profile(spec, "seccompProfile") {
        say("seccomp.security.alpha.kubernetes.io/pod", "non-functional in v1.27+", "seccompProfile");
    }
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    for container in lists.iter().flat_map(|list| spec.list(list)) {
        let name = container.text("name");
        if !profile(container, "seccompProfile") {
            let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
            say(&key, "non-functional in v1.27+", "seccompProfile");
        }
        if !profile(container, "appArmorProfile") && !profile(spec, "appArmorProfile") {
            let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
            say(&key, "deprecated since v1.30", "appArmorProfile");
        }
    }
}

/// Sources of volumes that are obsolete.
const OLD_VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Of the source of a volume.
pub fn volume_source(source: &Value, path: &Path<'_>, warnings: &mut Warnings) {
    for (field, text) in OLD_VOLUMES.iter().filter(|(field, _)| source.has(field)) {
        warnings.at(&path.child(field), text);
    }
}

fn volumes(spec: &Value, path: &Path<'_>, warnings: &mut Warnings) {
    let path = path.child("volumes");
    for (i, volume) in spec.list("volumes").iter().enumerate() {
        overlaps::volume(volume, warnings);
        let path = path.index(i);
        volume_source(volume, &path, warnings);
        let claim = volume.at("ephemeral.volumeClaimTemplate.spec");
        storage::warnings::claim_spec(claim, &path.child("ephemeral.volumeClaimTemplate.spec"), warnings);
    }
}

/// Of items that have the same value in a field.
fn repeated(items: &[Value], field: &str, path: &Path<'_>, warnings: &mut Warnings) {
    let mut seen = HashSet::new();
    for (i, value) in items.iter().map(|item| item.text(field)).enumerate() {
        if !seen.insert(value) {
            warnings.at(&path.index(i).child(field), format!("duplicate {field} {value:?}"));
        }
    }
}

/// Ports of containers by number and protocol, each with its path.
type Ports<'a> = HashMap<(i64, &'a str), Vec<(&'a Value, String)>>;

fn one_container<'a>(container: &'a Value, path: &Path<'_>, known: &mut Ports<'a>, warnings: &mut Warnings) {
    let resources = path.child("resources");
    for list in ["limits", "requests"] {
        warn::fractions(container.at("resources").at(list), &BYTES, &resources.child(list), warnings);
    }
    let (variables, mut seen) = (path.child("env"), HashSet::new());
    for (i, variable) in container.list("env").iter().enumerate() {
        let (name, value) = (variable.text("name"), variable.text("value"));
        // One that goes on with what was before hides nothing.
        let before = format!("$({name})");
        let goes_on = !variable.has("valueFrom") && value != before && value.contains(&before);
        if !seen.insert(name) && !goes_on {
            let text = format!("hides previous definition of {name:?}, which may be dropped when using apply");
            warnings.at(&variables.index(i), text);
        }
    }
    let list = path.child("ports");
    for (i, port) in container.list("ports").iter().enumerate() {
        one_port(port, &list.index(i), known, warnings);
    }
}

fn one_port<'a>(port: &'a Value, path: &Path<'_>, known: &mut Ports<'a>, warnings: &mut Warnings) {
    let (ip, host) = (port.text("hostIP"), port.int("hostPort").unwrap_or(0));
    if !ip.is_empty() && host == 0 {
        warnings.at(path, format!("hostIP set without hostPort: {port}"));
    }
    let same = known.entry((port.int("containerPort").unwrap_or(0), port.text("protocol"))).or_default();
    for (other, place) in same.iter() {
        let (other_ip, other_host) = (other.text("hostIP"), other.int("hostPort").unwrap_or(0));
        let how = if (ip, host) == (other_ip, other_host) {
            "duplicate"
        } else if host == 0 || other_host == 0 {
            "overlapping"
        } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
            "dangerously ambiguous"
        } else {
            continue;
        };
        warnings.at(path, format!("{how} port definition with {place}"));
    }
    same.push((port, path.to_string()));
}
