//! What schedulers decide, and what becomes of it on its way to the API.

use std::{future::poll_fn, sync::Arc, task::Poll};

use rand::RngExt;
use rk_api::{Error, Object, Request};
use rk_sched::{
    engine::{Decision, Placement, Refusal},
    framework::Status,
};
use serde_json::Value;

use super::{Bug, World};
use crate::{
    api::{BOUND, Kind, annotation, claim_of, cores, node_of, number, place_of, text, uid},
    scheduler::{Binding, Eviction, Late, Stage},
    wire::silence,
};

impl World {
    /// One scheduling cycle; that of a gang's pod with all decisions on the gang.
    pub(super) fn cycle(&mut self, which: usize) -> bool {
        let Some(mut decision) = self.schedulers[which].engine.next(self.now) else { return false };
        // What the first decision is on; what comes behind it may be on other pods.
        let mut gang = None;
        let mut first = true;
        loop {
            let group = match &decision {
                Decision::Place(placement) => placement.pod.spec().scheduling_group.clone(),
                Decision::Refused(refusal) => refusal.pod.spec().scheduling_group.clone(),
                _ => None,
            };
            match decision {
                Decision::Place(placement) => {
                    if let Some(name) = group.as_ref().and_then(|group| group.pod_group_name.clone()) {
                        let members = self.members.entry(name.clone()).or_default();
                        members.insert(placement.pod.uid.to_string());
                        gang = gang.or_else(|| first.then_some(name));
                    }
                    self.placed(which, placement);
                }
                Decision::Refused(refusal) => self.refused(which, &refusal),
                _ => {}
            }
            first = false;
            let next = if group.is_some() { self.schedulers[which].engine.next(self.now) } else { None };
            match next {
                Some(next) => decision = next,
                None => break,
            }
        }
        if let Some(name) = gang {
            self.check_gang(which, &name);
        }
        true
    }

    /// Pods of a gang were placed: then as many are as have to be, be it on nodes that have gone since.
    fn check_gang(&mut self, which: usize, name: &str) {
        let Some(group) = self.api.get(Kind::Group, name) else { return };
        let least = group["spec"]["schedulingPolicy"]["gang"]["minCount"].as_u64().unwrap_or(0);
        let snapshot = self.schedulers[which].engine.snapshot();
        let members = self.members.get(name).into_iter().flatten();
        let placed = members.filter(|of| snapshot.node_of(of).is_some()).count() as u64;
        if placed < least {
            self.fail(format!("{placed} pods of {name} are placed, {least} have to be"));
        }
    }

    fn placed(&mut self, which: usize, placement: Placement) {
        let (of, name, node) = (&placement.pod.uid, &placement.pod.name, &placement.node);
        let scheduler = &mut self.schedulers[which];
        let by = scheduler.name;
        if scheduler.done.contains(of) {
            self.fail(format!("{by} binds {name}, which it knows to be bound or gone"));
            return;
        }
        let snapshot = scheduler.engine.snapshot();
        if let Some(index) = snapshot.find(node) {
            let info = snapshot.node(index);
            let others = info.pods.iter().map(|entry| entry.pod.uid.to_string());
            self.seen.insert(of.to_string(), others.filter(|other| **other != **of).collect());
            if info.requested.milli_cpu > info.allocatable.milli_cpu || info.pods.len() as i64 > info.allowed_pods {
                let what = format!("{by} gives {node} more than it has, by its own account: {name}");
                self.fail(what);
            }
        }
        let (of, name, node) = (Arc::clone(of), Arc::clone(name), Arc::clone(node));
        self.note(|| format!("{by} places {name} on {node}"));
        let (events, bug) = (self.events.clone(), self.bug);
        let scheduler = &mut self.schedulers[which];
        scheduler.bind(placement, &events, bug);
        if self.bug == Some(Bug::ForgetAssumed) {
            scheduler.engine.bound(&of, Status::error("forgotten"), self.now);
        }
        self.poll(which);
    }

    pub(super) fn refused(&mut self, which: usize, refusal: &Refusal) {
        let pod = &refusal.pod;
        self.note(|| format!("{} is refused: {}", pod.name, refusal.message()));
        let (name, of) = (pod.name.to_string(), pod.uid.to_string());
        let nominated = refusal.nominated.as_ref().map(ToString::to_string);
        if self.fault(10) {
            self.schedulers[which].late.push(Late::Nominated(name, of, nominated));
        } else if !self.fault(20) {
            self.nominate(&name, &of, nominated.as_deref());
        }
        for victim in refusal.eviction.iter().flat_map(|eviction| &eviction.victims) {
            if victim.priority >= pod.priority {
                let what = format!("{} of priority {} goes for {}", victim.name, victim.priority, pod.name);
                self.fail(what);
            }
            self.note(|| format!("{} is to go for {}", victim.name, pod.name));
            let (name, uid) = (victim.name.to_string(), victim.uid.to_string());
            self.schedulers[which].evictions.push(Eviction { name, uid, preemptor: Arc::clone(&pod.uid) });
        }
    }

    /// A write of a pod's nominated node arrives.
    fn nominate(&mut self, name: &str, of: &str, node: Option<&str>) {
        let same = self.api.get(Kind::Pod, name).is_some_and(|now| {
            uid(now) == of
                && node_of(now).is_empty()
                && text(now, "/status/nominatedNodeName") != node.unwrap_or_default()
        });
        if same {
            self.api.change(Kind::Pod, name, |pod| {
                pod["status"]["nominatedNodeName"] = node.map_or(Value::Null, Value::from);
            });
        }
    }

    pub(super) fn evict(&mut self, which: usize) {
        let Some(Eviction { name, uid, preemptor }) = self.schedulers[which].evictions.pop() else { return };
        if self.fault(20) {
            self.note(|| format!("{name} is not evicted"));
            self.schedulers[which].engine.not_evicted(&preemptor, &uid, self.now);
        } else {
            self.note(|| format!("{name} is evicted"));
            self.api.delete_pod(&name, &uid);
        }
    }

    /// Somebody decides on a pod that is held back.
    pub(super) fn permit(&mut self, which: usize) {
        let Some((pod, _)) = self.schedulers[which].waiting.list().into_iter().next() else { return };
        if self.fault(25) {
            self.note(|| format!("{} is not permitted", pod.name));
            self.schedulers[which].waiting.reject(&pod.uid, "Gate", "not today");
        } else {
            self.note(|| format!("{} is permitted", pod.name));
            self.permitted.insert(pod.uid.to_string());
            self.schedulers[which].waiting.allow(&pod.uid, "Gate");
        }
        self.poll(which);
    }

    /// A request reaches the API; what it answers.
    pub(super) fn request(&mut self, which: usize, request: &Request) -> Result<Arc<Object>, Error> {
        let answer = self.api.request(request);
        if matches!(request.verb, rk_api::Verb::Get) {
            return answer;
        }
        let (by, what) = (self.schedulers[which].name, &request.resource.plural);
        let said = answer.as_ref().map_or_else(|error| error.reason().to_owned(), |_| "done".to_owned());
        self.note(|| format!("{by} writes {what} {} {}: {said}", request.name, request.subresource));
        if request.subresource == "binding" && answer.is_ok() {
            self.check_bound(&request.name);
        }
        answer
    }

    /// A pod was bound: once, with all that it has to have, and where there was room.
    fn check_bound(&mut self, name: &str) {
        let Some(pod) = self.api.get(Kind::Pod, name).cloned() else { return };
        let (of, node) = (uid(&pod).to_owned(), node_of(&pod).to_owned());
        let times = self.bound.entry(of.clone()).or_default();
        *times += 1;
        if *times > 1 {
            self.fail(format!("{name} is bound twice"));
        }
        if pod["metadata"]["labels"]["permit"].is_string() && !self.permitted.contains(&of) {
            self.fail(format!("{name} is bound without a permit"));
        }
        if !claim_of(&pod).is_empty() {
            let claim = self.api.get(Kind::Claim, claim_of(&pod));
            let volume = claim.filter(|claim| !annotation(claim, BOUND).is_empty());
            let volume = volume.and_then(|claim| self.api.get(Kind::Volume, text(claim, "/spec/volumeName")));
            if volume.map(place_of) != Some(&node) {
                let at = volume.map(place_of).map(str::to_owned);
                self.fail(format!("{name} is bound to {node}, and its volume is on {at:?}"));
            }
        }
        self.order.push(of);
        self.check_room(&node);
    }

    /// With one scheduler what is bound to a node is never more than it has.
    fn check_room(&mut self, node: &str) {
        let Some(of) = self.api.get(Kind::Node, node) else { return };
        let used: u64 = self.api.on(node).map(|(_, pod)| cores(pod)).sum();
        let count = self.api.on(node).count() as u64;
        if !self.two() && (used > number(of, "cpu") || count > number(of, "pods")) {
            let size = number(of, "cpu");
            self.fail(format!("{node} of {size} cores has {count} pods with {used}"));
        }
    }

    /// One of the requests gets a step further, or the engine hears of a binding that has ended.
    pub(super) fn advance(&mut self, which: usize) {
        self.poll(which);
        let ended = |binding: &Binding| matches!(binding.stage, Stage::Ended(_));
        let at = self.schedulers[which].bindings.iter().position(ended);
        if let Some(at) = at.filter(|_| !self.fault(40)) {
            let Binding { placement, stage } = self.schedulers[which].bindings.remove(at);
            if let Stage::Ended(status) = stage {
                self.told(which, &placement, status);
            }
            return;
        }
        let count = self.schedulers[which].wire.0.lock().len();
        if count == 0 {
            return;
        }
        let at = self.random.random_range(0..count);
        let call = self.schedulers[which].wire.0.lock().remove(at);
        let answer = if self.fault(6) {
            Err(silence())
        } else if self.fault(15) {
            // The client gives up; the request is on its way still.
            self.note(|| format!("nobody waits for the answer on {} any more", call.request.name));
            self.schedulers[which].late.push(Late::Request(call.request));
            Err(silence())
        } else {
            let answer = self.request(which, &call.request);
            if self.fault(10) { Err(silence()) } else { answer }
        };
        // The binding may have ended by its own patience.
        let _ = call.reply.send(answer);
        self.poll(which);
    }

    /// What a client gave up arrives.
    pub(super) fn late(&mut self, which: usize) {
        let count = self.schedulers[which].late.len();
        if count == 0 {
            return;
        }
        let at = self.random.random_range(0..count);
        match self.schedulers[which].late.remove(at) {
            Late::Request(request) => {
                self.note(|| format!("late, for {}:", request.name));
                // Nobody hears the answer.
                let _ = self.request(which, &request);
            }
            Late::Nominated(name, of, node) => self.nominate(&name, &of, node.as_deref()),
        }
    }

    /// Bindings go on as far as they can.
    pub(super) fn poll(&mut self, which: usize) {
        for binding in &mut self.schedulers[which].bindings {
            let Stage::Running(work) = &mut binding.stage else { continue };
            let polled = self.runtime.block_on(poll_fn(|context| Poll::Ready(work.as_mut().poll(context))));
            if let Poll::Ready(status) = polled {
                binding.stage = Stage::Ended(status);
            }
        }
    }

    /// The scheduler is told how a binding ended.
    fn told(&mut self, which: usize, placement: &Placement, status: Status) {
        let name = &placement.pod.name;
        self.note(|| format!("{name}{}: {status}", group(placement)));
        if !status.is_success() {
            if self.bug != Some(Bug::NoUnreserve) {
                placement.unreserve();
            }
            if self.bug == Some(Bug::DropOutcome) {
                return;
            }
        }
        if let Some(refusal) = self.schedulers[which].engine.bound(&placement.pod.uid, status, self.now) {
            self.refused(which, &refusal);
        }
    }
}

/// The group of a pod, for the history.
fn group(placement: &Placement) -> String {
    let group = placement.pod.spec().scheduling_group.as_ref().and_then(|group| group.pod_group_name.as_deref());
    group.map(|name| format!(" of {name}")).unwrap_or_default()
}
