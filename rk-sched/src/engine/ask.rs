//! Asking extenders: an engine does not wait, so it answers with what has to be asked, and whoever drives it comes back with the answer.
//!
//! As in kube-scheduler extenders are asked one after the other which nodes do (`findNodesThatPassExtenders`) and which proposals of preemption
//! stand (`callExtenders`), and all at once for scores (`prioritizeNodes`).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::Arc,
};

use futures::future::join_all;
use k8s_openapi::api::{core::v1::Node, resource::v1::ResourceClaim};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Cause, Decision, Engine, gang::GangCycle, room::Unfit};
use crate::{
    cycle::{Cluster, Failure, Found},
    framework::{
        CycleState, Diagnosis, Extender, MAX_EXTENDER_SCORE, MAX_SCORE, NodeVictims, Profile, Status, VictimIds,
    },
    model::{NodeIndex, PodInfo, Snapshot},
    plugins::best_preemption,
    queue::QueuedPod,
};

/// What extenders have to be asked about a pod. Where nodes change before the engine has the [`Answer`](super::Engine::answer), they are
/// asked anew.
pub struct Question {
    pub(super) pod: Arc<PodInfo>,
    pub(super) extenders: Vec<Arc<dyn Extender>>,
    pub(super) about: About,
    pub(super) queued: QueuedPod,
    pub(super) profile: Arc<Profile>,
    pub(super) found: Box<Found>,
    /// Whether the node is one that was promised to the pod; others were not tried yet.
    pub(super) promised: bool,
    /// What the nodes were like ([`Snapshot::layout`](crate::model::Snapshot::layout)).
    pub(super) layout: u64,
    /// The cycle of the pod's group, if it is placed with one.
    pub(super) gang: Option<Box<GangCycle>>,
    /// The claim whose allocation PostFilter asked to take back.
    pub(super) deallocation: Option<Arc<ResourceClaim>>,
}

/// What is asked.
pub(super) enum About {
    /// Which of these nodes do, and how good they are.
    Nodes(Vec<Arc<Node>>),
    /// On which of these nodes pods may be preempted.
    Victims(Vec<NodeVictims>),
}

/// What extenders answered.
#[derive(Debug)]
pub struct Answer(pub(super) Kind);

#[derive(Debug)]
pub(super) enum Kind {
    Nodes(Nodes),
    Victims(BTreeMap<String, VictimIds>),
    Failed(Status),
}

/// What is left of the nodes.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// The names of those that will do.
    pub(super) fit: HashSet<String>,
    /// Why others won't.
    pub(super) refused: HashMap<String, Status>,
    /// What is added to the scores, by name.
    pub(super) scores: HashMap<String, i64>,
}

impl Nodes {
    /// What is added to the score of a node.
    pub(super) fn score_of(&self, snapshot: &Snapshot, index: NodeIndex) -> i64 {
        self.scores.get(snapshot.node(index).name.as_ref()).copied().unwrap_or(0)
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("pod", &self.pod.name).finish_non_exhaustive()
    }
}

impl Question {
    /// The pod that it is about.
    pub fn pod(&self) -> &Arc<PodInfo> {
        &self.pod
    }

    /// Asks the extenders.
    pub async fn ask(&self) -> Answer {
        let answer = match &self.about {
            About::Nodes(nodes) => self.nodes(nodes).await.map(Kind::Nodes),
            About::Victims(proposals) => self.victims(proposals).await.map(Kind::Victims),
        };
        Answer(answer.unwrap_or_else(Kind::Failed))
    }

    async fn nodes(&self, all: &[Arc<Node>]) -> Result<Nodes, Status> {
        let mut nodes: Vec<Arc<Node>> = all.to_vec();
        let mut answer = Nodes::default();
        for extender in self.extenders.iter().filter(|extender| extender.parts().filter) {
            if nodes.is_empty() {
                break;
            }
            let filtered = match extender.filter(&self.pod, &nodes).await {
                Ok(filtered) => filtered,
                Err(error) if extender.is_ignorable() => {
                    tracing::warn!(extender = extender.name(), %error, "extender is left out, as it is ignorable");
                    continue;
                }
                Err(error) => return Err(Status::error(error.to_string())),
            };
            for (node, reason) in filtered.failed {
                answer.refused.insert(node, Status::unschedulable(reason));
            }
            for (node, reason) in filtered.unresolvable {
                answer.refused.insert(node, Status::unresolvable(reason));
            }
            let fit: HashSet<String> = filtered.nodes.into_iter().collect();
            nodes.retain(|node| node.metadata.name.as_ref().is_some_and(|name| fit.contains(name)));
        }
        answer.fit = names(&nodes);
        if nodes.len() > 1 {
            answer.scores = self.scores(&nodes).await;
        }
        Ok(answer)
    }

    /// The weighted sums, on the scale of the plugins' scores. Extenders that fail have no say.
    async fn scores(&self, nodes: &[Arc<Node>]) -> HashMap<String, i64> {
        let scoring = self.extenders.iter().filter(|extender| extender.parts().prioritize);
        let answers = join_all(scoring.map(|extender| async move {
            let scores = extender.prioritize(&self.pod, nodes).await;
            scores.map(|scores| (extender.weight(), scores)).inspect_err(|error| {
                tracing::warn!(extender = extender.name(), %error, "extender has no say on scores, as it failed");
            })
        }));
        let mut sums: HashMap<String, i64> = HashMap::new();
        for (weight, scores) in answers.await.into_iter().flatten() {
            for (node, score) in scores {
                let score = score.saturating_mul(weight).saturating_mul(MAX_SCORE / MAX_EXTENDER_SCORE);
                let sum = sums.entry(node).or_default();
                *sum = sum.saturating_add(score);
            }
        }
        sums
    }

    async fn victims(&self, proposals: &[NodeVictims]) -> Result<BTreeMap<String, VictimIds>, Status> {
        let mut left: BTreeMap<String, VictimIds> = proposals.iter().map(ids).collect();
        let mut proposals = proposals.to_vec();
        for extender in self.extenders.iter().filter(|extender| extender.parts().preempt) {
            if left.is_empty() {
                break;
            }
            let mut answer = match extender.preempt(&self.pod, &proposals).await {
                Ok(answer) => answer,
                Err(error) if extender.is_ignorable() => {
                    tracing::warn!(extender = extender.name(), %error, "extender is left out, as it is ignorable");
                    continue;
                }
                Err(error) => return Err(Status::error(error.to_string())),
            };
            if let Some(empty) = answer.iter().find(|victims| victims.uids.is_empty())
                && !extender.is_ignorable()
            {
                return Err(Status::error(format!("expected at least one victim pod on node {:?}", empty.node)));
            }
            answer.retain(|victims| !victims.uids.is_empty());
            left = answer.into_iter().map(|victims| (victims.node.clone(), victims)).collect();
            // The next one is asked about what this one leaves.
            proposals.retain_mut(|proposal| {
                let Some(victims) = left.get(proposal.node.as_ref()) else { return false };
                proposal.pods.retain(|pod| victims.uids.iter().any(|uid| *uid == *pod.uid));
                true
            });
        }
        Ok(left)
    }
}

/// Who blames extenders (`ExtenderName`); no plugin of this name has hints, so any event may change their mind.
const EXTENDER: &str = "Extender";

impl Engine {
    /// The extenders that are interested in a pod, if there are any.
    pub(super) fn interested(&self, pod: &PodInfo) -> Option<Vec<Arc<dyn Extender>>> {
        if self.extenders.is_empty() {
            return None;
        }
        let interested = self.extenders.iter().filter(|extender| {
            let parts = extender.parts();
            (parts.filter || parts.prioritize || parts.preempt) && extender.is_interested(pod)
        });
        let interested: Vec<_> = interested.cloned().collect();
        (!interested.is_empty()).then_some(interested)
    }

    /// The extenders that bind a pod.
    pub(super) fn binders(&self, pod: &PodInfo) -> Vec<Arc<dyn Extender>> {
        let binders = self.extenders.iter().filter(|extender| extender.parts().bind && extender.is_interested(pod));
        binders.cloned().collect()
    }

    /// The first half of a cycle, up to where extenders have a say.
    pub(super) fn put_to(
        &mut self,
        extenders: Vec<Arc<dyn Extender>>,
        queued: QueuedPod,
        profile: &Arc<Profile>,
        promised: bool,
        now: Instant,
    ) -> Decision {
        let (pod, percent) = (Arc::clone(&queued.pod), self.percent(profile));
        let cluster = Cluster { profile, snapshot: &self.snapshot, nominated: &self.nominated };
        let alone = cluster.promised(&pod).filter(|_| promised);
        match cluster.find(&pod, percent, &mut self.start, promised, None) {
            Ok(found) => {
                let nodes = found.nodes.iter().map(|index| Arc::clone(&self.snapshot.node(*index).node)).collect();
                let promised = alone.is_some_and(|node| found.nodes == [node]);
                let (about, profile) = (About::Nodes(nodes), Arc::clone(profile));
                let (found, layout) = (Box::new(found), self.snapshot.layout());
                Decision::Ask(Box::new(Question {
                    pod,
                    extenders,
                    about,
                    queued,
                    profile,
                    found,
                    promised,
                    layout,
                    gang: None,
                    deallocation: None,
                }))
            }
            Err(Failure::Unfit(diagnosis, state)) => {
                self.put_victims_to(extenders, queued, profile, diagnosis, state, now)
            }
            Err(Failure::Error(status)) => Decision::Refused(self.refuse(queued, Cause::Failed(status), None, now)),
        }
    }

    /// No node would do: finds room, on which extenders may have a say.
    pub(super) fn put_victims_to(
        &mut self,
        extenders: Vec<Arc<dyn Extender>>,
        queued: QueuedPod,
        profile: &Arc<Profile>,
        mut diagnosis: Box<Diagnosis>,
        state: CycleState,
        now: Instant,
    ) -> Decision {
        let pod = Arc::clone(&queued.pod);
        let proposals = Mutex::new(Vec::new());
        let noted = extenders.iter().any(|extender| extender.parts().preempt).then_some(&proposals);
        let unfit = Unfit { proposals: noted, ..Unfit::new(&pod, profile, &state, &mut diagnosis) };
        let room = self.find_room(unfit, now);
        let proposals = proposals.into_inner();
        if room.is_none() || proposals.is_empty() {
            let eviction = self.promise(&pod, room, now);
            return Decision::Refused(self.refuse(queued, Cause::Unfit(diagnosis), eviction, now));
        }
        Decision::Ask(Box::new(Question {
            pod,
            extenders,
            about: About::Victims(proposals),
            queued,
            profile: Arc::clone(profile),
            found: Box::new(Found { nodes: Vec::new(), state, diagnosis }),
            promised: false,
            layout: self.snapshot.layout(),
            gang: None,
            deallocation: self.deallocation.take(),
        }))
    }

    /// The second half of a cycle, with what the extenders answered. A pod that is gone, on its way out or bound meanwhile is left out.
    pub fn answer(&mut self, mut question: Question, answer: Answer, now: Instant) -> Decision {
        if let Some(cycle) = question.gang.take() {
            return self.answer_member(cycle, question, answer, now);
        }
        if self.has_gone(&question.pod.uid) {
            return Decision::Skip(question.pod);
        }
        if question.layout != self.snapshot.layout() && matches!(question.about, About::Nodes(_)) {
            // What was found is of nodes that may be gone.
            let Question { extenders, queued, profile, .. } = question;
            return self.put_to(extenders, queued, &profile, true, now);
        }
        match (question.about, answer.0) {
            (About::Nodes(_), Kind::Nodes(nodes)) => {
                let Question { extenders, queued, profile, found, promised, .. } = question;
                self.answer_nodes(extenders, queued, &profile, (*found, promised), &nodes, now)
            }
            (About::Victims(proposals), answer) => {
                let (queued, mut diagnosis) = (question.queued, question.found.diagnosis);
                self.deallocation = question.deallocation;
                let left = match answer {
                    Kind::Victims(left) => self.proposals(proposals, &left),
                    Kind::Failed(status) => Err(status),
                    Kind::Nodes(_) => Err(Status::error("the answer is to another question")),
                };
                let best = left.map(best_preemption).unwrap_or_else(|status| {
                    diagnosis.post_filter = format!("preemption: {}", status.message());
                    None
                });
                let eviction = self.promise(&question.pod, best.map(|best| (best.node, best.pods)), now);
                Decision::Refused(self.refuse(queued, Cause::Unfit(diagnosis), eviction, now))
            }
            (About::Nodes(_), Kind::Failed(status)) => {
                Decision::Refused(self.refuse(question.queued, Cause::Failed(status), None, now))
            }
            (About::Nodes(_), Kind::Victims(_)) => {
                let status = Status::error("the answer is to another question");
                Decision::Refused(self.refuse(question.queued, Cause::Failed(status), None, now))
            }
        }
    }

    /// Whether a pod that was in flight has gone or got a node, or is on its way out: then its cycle is over.
    pub(super) fn has_gone(&mut self, uid: &str) -> bool {
        match self.queue.in_flight(uid) {
            Some(pod) if !pod.terminating() => false,
            Some(_) => {
                self.queue.remove(uid);
                true
            }
            None => true,
        }
    }

    /// Leaves the nodes that extenders left.
    pub(super) fn narrow(&self, found: &mut Found, nodes: &Nodes) {
        let all = found.nodes.len();
        let diagnosis = &mut found.diagnosis;
        found.nodes.retain(|index| {
            let name = self.snapshot.node(*index).name.as_ref();
            let fits = nodes.fit.contains(name);
            if let Some(status) = nodes.refused.get(name).filter(|_| !fits) {
                diagnosis.tried.push(*index, status.clone());
            }
            fits
        });
        if found.nodes.len() < all {
            found.diagnosis.plugins.insert(EXTENDER);
        }
    }

    fn answer_nodes(
        &mut self,
        extenders: Vec<Arc<dyn Extender>>,
        queued: QueuedPod,
        profile: &Arc<Profile>,
        (mut found, promised): (Found, bool),
        nodes: &Nodes,
        now: Instant,
    ) -> Decision {
        self.narrow(&mut found, nodes);
        if found.nodes.is_empty() {
            if promised {
                // The others have not been tried.
                return self.put_to(extenders, queued, profile, false, now);
            }
            found.diagnosis.blame_tried();
            return self.put_victims_to(extenders, queued, profile, found.diagnosis, found.state, now);
        }
        let pod = Arc::clone(&queued.pod);
        let cluster = Cluster { profile, snapshot: &self.snapshot, nominated: &self.nominated };
        match cluster.choose(&pod, found, |index| nodes.score_of(&self.snapshot, index), &mut self.random) {
            Ok(chosen) => {
                let node = Arc::clone(&self.snapshot.node(chosen.node).name);
                self.place(queued, profile, node, chosen.state, now)
            }
            Err(Failure::Unfit(diagnosis, _)) => {
                Decision::Refused(self.refuse(queued, Cause::Unfit(diagnosis), None, now))
            }
            Err(Failure::Error(status)) => Decision::Refused(self.refuse(queued, Cause::Failed(status), None, now)),
        }
    }

    /// The proposals that extenders left, in their order, with the pods that they name.
    fn proposals(
        &self,
        proposals: Vec<NodeVictims>,
        left: &BTreeMap<String, VictimIds>,
    ) -> Result<Vec<NodeVictims>, Status> {
        let kept = proposals.into_iter().filter_map(|proposal| Some((left.get(proposal.node.as_ref())?, proposal)));
        let named = kept.map(|(ids, proposal)| {
            let there = |uid: &String| {
                let pod = self.snapshot.pod(uid).filter(|_| self.snapshot.node_of(uid) == Some(&proposal.node));
                pod.cloned().ok_or_else(|| {
                    Status::error(format!(
                        "extender claims to preempt pod (UID: {uid}) on node: {}, but the pod is not found on that node",
                        proposal.node
                    ))
                })
            };
            let pods = ids.uids.iter().map(there).collect::<Result<Vec<_>, _>>()?;
            Ok(NodeVictims { node: Arc::clone(&proposal.node), pods, violations: ids.violations })
        });
        named.collect()
    }
}

fn names(nodes: &[Arc<Node>]) -> HashSet<String> {
    nodes.iter().filter_map(|node| node.metadata.name.clone()).collect()
}

fn ids(proposal: &NodeVictims) -> (String, VictimIds) {
    let ids = VictimIds {
        node: proposal.node.to_string(),
        uids: proposal.pods.iter().map(|pod| pod.uid.to_string()).collect(),
        violations: proposal.violations,
    };
    (ids.node.clone(), ids)
}
