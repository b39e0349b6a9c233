//! The API of a simulated cluster, for the plugins that bind pods: what they write takes its time, and has its effect.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use rand::RngExt;
use rk_api::{Error, Object, Patch, PatchKind, Request, Resource, Status, Verb, status};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    clock::Event,
    options::{Chance, chance},
    pods::{Phase, uid},
    simulation::Simulation,
    store::merge,
    virtual_time::Asked,
};
use crate::model::PodInfo;

fn no(status: Status) -> Error {
    Error::Api(Box::new(status))
}

fn object(of: &impl Serialize) -> Result<Arc<Object>, Error> {
    let value = serde_json::to_value(of).map_err(|error| Error::decode("object", &error))?;
    Object::from_value(&value).map(Arc::new)
}

/// A number of a text, the same each time (FNV-1a).
pub(super) fn number_of(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Simulation<'_> {
    /// Lets bindings go on until all of them wait for something that takes time; whether any did.
    pub(super) fn carry_on(&mut self) -> bool {
        let mut any = false;
        while self.tasks.has_news() {
            any = true;
            for asked in self.tasks.asked() {
                self.asked(asked);
            }
            for (placement, status) in self.tasks.poll() {
                self.binding_ended(&placement, status);
            }
        }
        any
    }

    /// A plugin asks the API for something: what is written takes a while.
    fn asked(&mut self, asked: Asked) {
        let Request { resource, namespace, name, subresource, verb } = &asked.request;
        let late = match verb {
            Verb::Get => Duration::ZERO,
            // Nobody reads them.
            Verb::Create(..) if resource.kind == "Event" => Duration::ZERO,
            _ if subresource == "binding" => {
                let number = self.pods.find(&uid(namespace, name)).unwrap_or_default();
                let attempts = self.pods.attempts(number);
                self.takes(self.options.binding, Chance::Binding, number as u64, attempts)
            }
            _ => self.write_takes(&resource.kind, namespace, name),
        };
        if late.is_zero() { self.answer(asked) } else { self.clock.add(late, Event::Answer(Box::new(asked))) }
    }

    /// How long a write of an object takes.
    pub(super) fn write_takes(&self, kind: &str, namespace: &str, name: &str) -> Duration {
        let version = self.objects.get(kind, namespace, name).map_or(0, |object| object.revision());
        self.takes(self.options.binding, Chance::Write, number_of(&format!("{kind}/{namespace}/{name}")), version)
    }

    /// From half to one and a half of a mean time.
    pub(super) fn takes(&self, mean: Duration, what: Chance, who: u64, time: u64) -> Duration {
        mean.mul_f64(chance(self.seed, what, who, time).random_range(0.5..1.5))
    }

    /// The API answers.
    pub(super) fn answer(&mut self, asked: Asked) {
        let answer = self.serve(&asked.request);
        // Who asked may have been given up.
        let _ = asked.answer.send(answer);
    }

    fn serve(&mut self, request: &Request) -> Result<Arc<Object>, Error> {
        let Request { resource, namespace, name, subresource, verb } = request;
        match (resource.kind.as_ref(), subresource.as_str(), verb) {
            (_, "", Verb::Get) => self.read(resource, namespace, name),
            ("Pod", "binding", Verb::Create(body, _)) => self.bind_pod(resource, namespace, name, body),
            ("Event", "", Verb::Create(body, _)) => Object::from_value(body).map(Arc::new),
            (
                "PersistentVolume" | "PersistentVolumeClaim" | "ResourceClaim",
                "" | "status",
                Verb::Update(..) | Verb::Patch(..),
            ) => {
                let current = self.read(resource, namespace, name)?;
                let changed = changed(&current, verb, resource, name)?;
                self.write(changed_part(&current.value()?, changed, subresource == "status"))
            }
            _ => Err(no(status::method_not_allowed())),
        }
    }

    fn read(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Arc<Object>, Error> {
        let missing = || no(status::not_found(resource, name));
        match resource.kind.as_ref() {
            "Pod" => {
                let number = self.pods.find(&uid(namespace, name)).ok_or_else(missing)?;
                let life = self.pods.get(number);
                if life.phase == Phase::Gone { Err(missing()) } else { object(life.pod.as_ref()) }
            }
            "Node" => {
                let snapshot = self.engine.snapshot();
                let node: &Node = &snapshot.node(snapshot.find(name).ok_or_else(missing)?).node;
                object(node)
            }
            kind => self.objects.get(kind, namespace, name).cloned().ok_or_else(missing),
        }
    }

    /// Takes the next version of an object, of which controllers hear.
    pub(super) fn write(&mut self, value: Value) -> Result<Arc<Object>, Error> {
        let change = self.objects.write(value)?;
        self.engine.apply(&change, self.clock.instant());
        self.controllers(change.object());
        Ok(Arc::clone(change.object()))
    }

    /// A pod is bound to a node, if it still can be.
    fn bind_pod(
        &mut self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        body: &Value,
    ) -> Result<Arc<Object>, Error> {
        let missing = || no(status::not_found(resource, name));
        let conflict = |why: &str| Err(no(status::conflict(resource, name, why)));
        let node = body["target"]["name"].as_str().unwrap_or_default();
        let number = self.pods.find(&uid(namespace, name)).ok_or_else(missing)?;
        let life = self.pods.get(number);
        match life.phase {
            Phase::Placed => {}
            Phase::Waiting | Phase::Gone => return Err(missing()),
            Phase::Running | Phase::Stopping => return conflict("the pod is already assigned to a node"),
        }
        if self.engine.snapshot().find(node).is_none() {
            return Err(no(status::not_found(&Resource::of::<Node>(), node)));
        }
        if life.pod.metadata.deletion_timestamp.is_some() {
            return conflict("pod is being deleted, cannot be assigned to a host");
        }
        let mut random = chance(self.seed, Chance::Binding, number as u64 + (1 << 40), u64::from(life.attempts));
        if random.random_bool(self.options.binding_failures) {
            return conflict("the binding fails by chance");
        }
        let mut pod = Pod::clone(&life.pod);
        pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
        let state = pod.status.get_or_insert_default();
        (state.phase, state.start_time) = (Some("Running".to_owned()), Some(self.clock.timestamp()));
        let pod = Arc::new(pod);
        self.pods.get_mut(number).pod = Arc::clone(&pod);
        self.explain(number, || format!("bound to {node}"));
        self.engine.set_pod(pod, self.clock.instant());
        self.runs(number);
        object(&Status { status: Some("Success".to_owned()), ..Status::default() })
    }

    /// The API has heard all of a pod's binding.
    fn binding_ended(&mut self, placement: &crate::engine::Placement, status: crate::framework::Status) {
        if status.is_success() {
            self.engine.bound(&placement.pod.uid, status, self.clock.instant());
            return;
        }
        if self.is_placed(&placement.pod) {
            self.summary.failed_bindings += 1;
        }
        self.unbound(placement, status);
    }

    /// Whether a pod has a node that the API does not know of.
    pub(super) fn is_placed(&self, pod: &PodInfo) -> bool {
        self.pods.find(&pod.uid).is_some_and(|number| self.pods.get(number).phase == Phase::Placed)
    }
}

/// The object as a request wants it.
fn changed(current: &Object, verb: &Verb, resource: &Resource, name: &str) -> Result<Value, Error> {
    let mut value = current.value()?;
    match verb {
        Verb::Update(body, _) => value.clone_from(body),
        Verb::Patch(Patch { kind: kind @ (PatchKind::Merge | PatchKind::Strategic), body, .. }, _) => {
            merge(&mut value, body, *kind == PatchKind::Strategic).map_err(|why| no(status::bad_request(why)))?;
        }
        _ => return Err(no(status::method_not_allowed())),
    }
    let meta = current.meta();
    let is = |field: &str, known: &str| {
        value["metadata"][field].as_str().is_none_or(|text| text.is_empty() || text == known)
    };
    if !is("uid", &meta.uid) || !is("resourceVersion", &meta.resource_version) {
        return Err(no(status::conflict(resource, name, status::MODIFIED)));
    }
    Ok(value)
}

/// Of a change the part that may be written: the status, or all else.
fn changed_part(current: &Value, changed: Value, status: bool) -> Value {
    let (mut to, from) = if status { (current.clone(), changed) } else { (changed, current.clone()) };
    match from.get("status") {
        Some(status) => to["status"] = status.clone(),
        None => drop(to.as_object_mut().and_then(|fields| fields.remove("status"))),
    }
    if to["metadata"]["uid"].is_null() {
        to["metadata"]["uid"] = json!(current["metadata"]["uid"]);
    }
    to
}
