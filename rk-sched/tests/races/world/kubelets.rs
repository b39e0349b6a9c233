//! What kubelets, the garbage collector, the volume controller and provisioners do.

use serde_json::{Value, json};

use super::{
    World,
    users::{fresh, volume},
};
use crate::api::{BOUND, Kind, SELECTED_NODE, annotation, cores, ended, leaving, node_of, number, text, uid};

impl World {
    pub(super) fn kubelets(&mut self) {
        if self.two() {
            self.admit();
        }
        for (name, pod) in self.api.copies(Kind::Pod) {
            let node = node_of(&pod);
            if node.is_empty() || !self.chance(if self.faults { 30 } else { 100 }) {
                continue;
            }
            if leaving(&pod) || self.api.get(Kind::Node, node).is_none() {
                self.note(|| format!("{name} leaves {node}"));
                self.api.remove(Kind::Pod, &name);
            } else if self.fault(20) {
                self.note(|| format!("{name} ends on {node}"));
                self.api.change(Kind::Pod, &name, |pod| pod["status"]["phase"] = "Succeeded".into());
            }
        }
    }

    /// Kubelets take pods in the order in which they were bound, and fail those for which there is no room.
    fn admit(&mut self) {
        for of in self.order.clone() {
            let found = self.api.all(Kind::Pod).find(|(_, pod)| uid(pod) == of);
            let Some((name, pod)) = found.map(|(name, pod)| (name.to_owned(), pod.clone())) else { continue };
            let node = node_of(&pod).to_owned();
            let Some(there) = self.api.get(Kind::Node, &node) else { continue };
            if self.admitted.contains(&of) || ended(&pod) {
                continue;
            }
            let (size, most) = (number(there, "cpu"), number(there, "pods"));
            let others = self.api.on(&node).filter(|(_, other)| self.admitted.contains(uid(other)));
            let others: Vec<(String, u64)> = others.map(|(_, other)| (uid(other).to_owned(), cores(other))).collect();
            let used: u64 = others.iter().map(|(_, cores)| cores).sum();
            if used + cores(&pod) <= size && (others.len() as u64) < most {
                self.admitted.insert(of);
                continue;
            }
            let seen = self.seen.get(&of);
            if others.iter().all(|(other, _)| seen.is_some_and(|seen| seen.contains(other))) {
                self.fail(format!("{node} is given {name} by a scheduler that saw there was no room"));
            }
            self.note(|| format!("{node} refuses {name}"));
            self.api.change(Kind::Pod, &name, |pod| {
                pod["status"]["phase"] = "Failed".into();
                pod["status"]["reason"] = "OutOfcpu".into();
            });
            self.pods += 1;
            let again = format!("pod-{}", self.pods);
            self.note(|| format!("{again} is made in its place"));
            self.api.set(Kind::Pod, &again, fresh(pod));
        }
    }

    /// Binds claims to the volumes that were given to them, provides volumes, and takes those back whose claims are gone or have another one.
    pub(super) fn volume_controller(&mut self) {
        for (name, volume) in self.api.copies(Kind::Volume) {
            let claim = text(&volume, "/spec/claimRef/name").to_owned();
            if claim.is_empty() || self.fault(30) {
                continue;
            }
            let of = text(&volume, "/spec/claimRef/uid");
            let found = self.api.get(Kind::Claim, &claim).filter(|found| uid(found) == of).cloned();
            match found.as_ref().map(|found| text(found, "/spec/volumeName")) {
                Some("") => {
                    self.note(|| format!("{claim} is bound to {name}"));
                    self.api.change(Kind::Claim, &claim, |claim| {
                        claim["spec"]["volumeName"] = name.as_str().into();
                        claim["metadata"]["annotations"][BOUND] = "yes".into();
                        claim["status"]["phase"] = "Bound".into();
                    });
                    self.api.change(Kind::Volume, &name, |volume| volume["status"]["phase"] = "Bound".into());
                }
                Some(other) if other == name => {}
                _ if text(&volume, "/spec/storageClassName") == "made" => {
                    self.note(|| format!("{name} is deleted, as {claim} is gone"));
                    self.api.remove(Kind::Volume, &name);
                }
                _ => {
                    self.note(|| format!("{name} is free again, {claim} has no use for it"));
                    self.api.change(Kind::Volume, &name, |volume| {
                        volume["spec"]["claimRef"] = Value::Null;
                        volume["status"]["phase"] = "Available".into();
                    });
                }
            }
        }
        self.provisioner();
    }

    /// Makes volumes for the nodes that were chosen; where it can't, another node is to be chosen.
    fn provisioner(&mut self) {
        for (name, claim) in self.api.copies(Kind::Claim) {
            let node = annotation(&claim, SELECTED_NODE);
            let made = text(&claim, "/spec/storageClassName") == "made";
            if !made || node.is_empty() || claim["spec"]["volumeName"].is_string() || self.fault(50) {
                continue;
            }
            let disk = format!("pvc-{}", uid(&claim));
            if self.api.get(Kind::Volume, &disk).is_some() {
                continue;
            }
            if self.api.get(Kind::Node, node).is_none() || self.fault(20) {
                self.note(|| format!("no volume for {name} on {node}"));
                self.api.change(Kind::Claim, &name, |claim| {
                    claim["metadata"]["annotations"].as_object_mut().expect("there is one").remove(SELECTED_NODE);
                });
                continue;
            }
            self.note(|| format!("{disk} is made for {name} on {node}"));
            let mut made = volume("made", node, 1);
            made["spec"]["claimRef"] = json!({
                "kind": "PersistentVolumeClaim", "namespace": "default", "name": name, "uid": uid(&claim),
            });
            self.api.set(Kind::Volume, &disk, made);
        }
    }
}
