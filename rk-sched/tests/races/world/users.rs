//! What users do: pods, nodes, claims and volumes come, change and go.

use rand::RngExt;
use serde_json::{Value, json};

use super::{NAMES, World, node};
use crate::api::{Kind, claim_of, group_of, text, uid};

impl World {
    pub(super) fn add_pod(&mut self) {
        if self.api.all(Kind::Pod).count() >= 24 {
            return;
        }
        let of = if self.two() { NAMES[self.random.random_range(0..2)] } else { NAMES[0] };
        let mut pod = json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "schedulerName": of,
                "priority": self.random.random_range(0..3),
                "containers": [{"name": "c", "resources": {"requests": {"cpu": self.random.random_range(1..4).to_string()}}}],
            },
        });
        if !self.two() && self.chance(25) {
            pod["metadata"]["labels"]["licence"] = "yes".into();
        }
        if self.chance(10) {
            pod["metadata"]["labels"]["permit"] = "wanted".into();
        }
        if self.chance(10) {
            pod["spec"]["schedulingGates"] = json!([{"name": "wait"}]);
        }
        if self.chance(20) {
            pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        }
        self.pods += 1;
        let number = self.pods;
        if self.chance(30) {
            self.give_claim(&mut pod);
        } else if self.chance(10) {
            return self.add_gang(pod);
        }
        self.make_pod(&format!("pod-{number}"), pod);
    }

    fn make_pod(&mut self, name: &str, pod: Value) {
        self.note(|| format!("{name} of {} is made{}", text(&pod, "/spec/schedulerName"), about(&pod)));
        self.api.set(Kind::Pod, name, pod);
    }

    /// A claim of the pod's own, or one that it shares with another.
    fn give_claim(&mut self, pod: &mut Value) {
        let name = match self.some(Kind::Claim) {
            Some(shared) if self.chance(20) => shared,
            _ => {
                let name = format!("claim-{}", self.pods);
                let class = if self.chance(50) { "local" } else { "made" };
                let claim = json!({"spec": {
                    "accessModes": ["ReadWriteMany"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}},
                }});
                if self.chance(30) {
                    self.unborn.push((name.clone(), claim));
                } else {
                    self.api.set(Kind::Claim, &name, claim);
                }
                name
            }
        };
        pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": name}}]);
    }

    /// Pods that are to be placed together, and perhaps one more.
    fn add_gang(&mut self, mut pod: Value) {
        let name = format!("gang-{}", self.pods);
        let least = self.random.random_range(2..4);
        let group = json!({"spec": {"schedulingPolicy": {"gang": {"minCount": least}}}});
        if self.chance(50) {
            self.unborn_groups.push((name.clone(), group));
        } else {
            self.api.set(Kind::Group, &name, group);
        }
        pod["spec"]["schedulingGroup"] = json!({"podGroupName": name});
        pod["spec"]["schedulingGates"] = Value::Null;
        for _ in 0..least + self.random.random_range(0..2) {
            self.pods += 1;
            let name = format!("pod-{}", self.pods);
            self.make_pod(&name, pod.clone());
        }
    }

    fn some(&mut self, kind: Kind) -> Option<String> {
        let count = self.api.all(kind).count();
        let at = self.random.random_range(0..count.max(1));
        self.api.all(kind).nth(at).map(|(name, _)| name.to_owned())
    }

    pub(super) fn change_pod(&mut self) {
        let Some(name) = self.some(Kind::Pod) else { return };
        let number = self.random.random_range(0..3);
        self.note(|| format!("{name} changes"));
        self.api.change(Kind::Pod, &name, |pod| match number {
            0 => pod["spec"]["schedulingGates"] = Value::Null,
            1 => pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]),
            _ => pod["metadata"]["labels"]["app"] = "db".into(),
        });
    }

    pub(super) fn delete_pod(&mut self) {
        let Some(name) = self.some(Kind::Pod) else { return };
        let Some(pod) = self.api.get(Kind::Pod, &name).cloned() else { return };
        self.note(|| format!("{name} is deleted"));
        self.api.delete_pod(&name, uid(&pod));
        if self.api.get(Kind::Pod, &name).is_none() && self.chance(40) {
            // Another pod takes the name before anybody has looked.
            self.note(|| format!("{name} is made again"));
            self.api.set(Kind::Pod, &name, fresh(pod));
        }
    }

    pub(super) fn change_node(&mut self) {
        let number = self.random.random_range(0..5);
        let name = format!("node-{}", self.random.random_range(0..5));
        let there = self.api.get(Kind::Node, &name).is_some();
        if !there {
            let size = self.sizes.get(&name).copied().unwrap_or(self.random.random_range(4..9));
            self.sizes.insert(name.clone(), size);
            self.note(|| format!("{name} comes with {size} cores"));
            self.api.set(Kind::Node, &name, node(&name, size));
            return;
        }
        self.note(|| format!("{name} changes, {number}"));
        match number {
            0 | 1 if self.api.all(Kind::Node).count() > 1 => self.api.remove(Kind::Node, &name),
            2 => {
                let size = self.sizes[&name] + 1;
                self.sizes.insert(name.clone(), size);
                let size = size.to_string();
                self.api.change(Kind::Node, &name, |node| node["status"]["allocatable"]["cpu"] = size.into());
            }
            3 => self.api.change(Kind::Node, &name, |node| {
                let cordoned = node["spec"]["unschedulable"] == json!(true);
                node["spec"]["unschedulable"] = json!(!cordoned);
            }),
            _ => self.api.change(Kind::Node, &name, |node| {
                let tainted = node["spec"]["taints"].is_array();
                let taints = json!([{"key": "k", "effect": "NoSchedule"}]);
                node["spec"]["taints"] = if tainted { Value::Null } else { taints };
            }),
        }
    }

    /// Claims and groups come that pods wait for, local volumes come, and both go that nobody uses.
    pub(super) fn change_volumes(&mut self) {
        match self.random.random_range(0..8) {
            0 | 1 => self.bear(),
            2..6 => {
                let number = self.random.random_range(0..12);
                let (name, node) = (format!("disk-{number}"), format!("node-{}", number % 5));
                if self.api.get(Kind::Volume, &name).is_none() {
                    self.note(|| format!("{name} comes, on {node}"));
                    self.api.set(Kind::Volume, &name, volume("local", &node, 1 + number % 3));
                }
            }
            6 => {
                let free = |(_, volume): &(&str, &Value)| !volume["spec"]["claimRef"].is_object();
                let found = self.api.all(Kind::Volume).find(free).map(|(name, _)| name.to_owned());
                if let Some(name) = found {
                    self.note(|| format!("{name} goes"));
                    self.api.remove(Kind::Volume, &name);
                }
            }
            _ => {
                let used = |name: &str| self.api.all(Kind::Pod).any(|(_, pod)| claim_of(pod) == name);
                let found = self.api.all(Kind::Claim).map(|(name, _)| name.to_owned()).find(|name| !used(name));
                if let Some(name) = found {
                    self.note(|| format!("{name} goes"));
                    self.api.remove(Kind::Claim, &name);
                }
            }
        }
    }

    /// What pods name is made at last.
    pub(super) fn bear(&mut self) {
        if let Some((name, claim)) = self.unborn.pop() {
            self.note(|| format!("{name} is made"));
            self.api.set(Kind::Claim, &name, claim);
        }
        if let Some((name, group)) = self.unborn_groups.pop() {
            self.note(|| format!("{name} is made"));
            self.api.set(Kind::Group, &name, group);
        }
    }
}

/// An available volume on a node.
pub(super) fn volume(class: &str, node: &str, size: u32) -> Value {
    let host = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
    json!({
        "spec": {
            "capacity": {"storage": format!("{size}Gi")}, "accessModes": ["ReadWriteMany"], "storageClassName": class,
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [host]}]}},
        },
        "status": {"phase": "Available"},
    })
}

/// What is special about a pod, for the history.
pub(super) fn about(pod: &Value) -> String {
    let mut about = String::new();
    for (what, name) in [("claim", claim_of(pod)), ("group", group_of(pod))] {
        if !name.is_empty() {
            about += &format!(", {what} {name}");
        }
    }
    for label in ["licence", "permit"] {
        if pod["metadata"]["labels"][label].is_string() {
            about += &format!(", with {label}");
        }
    }
    about
}

/// Another pod of the same spec.
pub(super) fn fresh(mut pod: Value) -> Value {
    for path in ["uid", "deletionTimestamp"] {
        pod["metadata"][path] = Value::Null;
    }
    pod["spec"]["nodeName"] = Value::Null;
    pod["status"] = Value::Null;
    pod
}
