//! Whether a case holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rk_sched::{
    Profile,
    framework::{Code, Status},
    model::{PodInfo, Snapshot},
    testing::{Decision, Decisions, only},
};

use crate::{
    case::{Case, Table},
    cluster, gang,
};

/// Everything that is not as expected.
pub fn check(table: &Table, case: &Case) -> Vec<String> {
    let mut profile = cluster::profile(&case.args);
    if table.plugin == "GangScheduling" {
        profile = profile.with_gangs();
    }
    // Preemption is about what the filters refuse, so it is asked within the profile.
    if !table.plugin.is_empty() && table.plugin != "DefaultPreemption" {
        profile = only(&profile, &table.plugin);
    }
    let snapshot = cluster::snapshot(case);
    let pod = cluster::pod_info(case.pod.as_ref().unwrap_or(&serde_json::json!({})), "pod");
    let checked = Checked { case, profile: &profile, snapshot: &snapshot, pod: &pod, wrong: Vec::new() };
    checked.run()
}

struct Checked<'a> {
    case: &'a Case,
    profile: &'a Profile,
    snapshot: &'a Snapshot,
    pod: &'a Arc<PodInfo>,
    wrong: Vec<String>,
}

pub fn expected_of<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, got: &T) -> Option<String> {
    (expected != got).then(|| format!("{what}: expected {expected:?}, got {got:?}"))
}

impl Checked<'_> {
    fn run(mut self) -> Vec<String> {
        let case = self.case;
        let mut expectations = 0;
        let mut found = Vec::new();
        let mut expect = |is_there: bool, check: &dyn Fn(&Self) -> Vec<String>| {
            if is_there {
                expectations += 1;
                found.extend(check(&self));
            }
        };
        expect(case.fits.is_some() || !case.refused.is_empty() || !case.hopeless.is_empty(), &Self::filter);
        expect(case.scores.is_some() || !case.ranking.is_empty(), &Self::score);
        expect(case.placed.is_some() || case.evicts.is_some() || case.message.is_some(), &Self::schedule);
        expect(case.gated.is_some(), &Self::gates);
        expect(!case.order.is_empty(), &Self::order);
        expect(!case.events.is_empty(), &Self::events);
        expect(case.together.is_some(), &|checked| gang::check(checked.case));
        self.wrong = found;
        if expectations == 0 {
            self.wrong.push("nothing is expected".to_owned());
        }
        self.wrong
    }

    fn decisions(&self) -> Decisions<'_> {
        let mut decisions = Decisions::new(self.profile, self.snapshot);
        for (number, waiting) in self.case.waiting.iter().enumerate() {
            let pod = cluster::pod_info(waiting, &format!("waiting-{number}"));
            if let Some(node) = pod.nominated_node_name().map(str::to_owned) {
                decisions.promise(pod, &node);
            }
        }
        decisions
    }

    fn filter(&self) -> Vec<String> {
        let case = self.case;
        let mut expected: BTreeMap<&str, Status> = BTreeMap::new();
        for name in case.fits.iter().flatten() {
            expected.insert(name, Status::success());
        }
        let all = |code: Code, reasons: Vec<&str>| {
            reasons.into_iter().fold(Status::new(code), |status, reason| status.because(reason.to_owned()))
        };
        for (name, reasons) in &case.refused {
            expected.insert(name, all(Code::Unschedulable, reasons.all()));
        }
        for (name, reasons) in &case.hopeless {
            expected.insert(name, all(Code::UnschedulableAndUnresolvable, reasons.all()));
        }
        let nodes: BTreeSet<&str> = case.nodes.keys().map(String::as_str).collect();
        let told: BTreeSet<&str> = expected.keys().copied().collect();
        if nodes != told {
            return vec![format!("the case is of nodes {nodes:?} and expects something of {told:?}")];
        }
        let answers = match self.decisions().filter(self.pod) {
            Ok(answers) => answers,
            Err(failure) => return vec![format!("a plugin failed: {failure}")],
        };
        let answer = |name: &str| answers.get(name).map(|status| (status.code(), status.message()));
        let wrong = expected.iter().filter_map(|(name, status)| {
            expected_of(&format!("filter on {name}"), &Some((status.code(), status.message())), &answer(name))
        });
        wrong.collect()
    }

    fn score(&self) -> Vec<String> {
        let listed = self.case.scores.iter().flat_map(BTreeMap::keys).chain(self.case.ranking.iter().flatten());
        let names: BTreeSet<&str> = listed.map(String::as_str).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let scores = match self.decisions().score(self.pod, &names) {
            Ok(scores) => scores,
            Err(failure) => return vec![format!("a plugin failed: {failure}")],
        };
        let scores: BTreeMap<String, i64> = scores.into_iter().map(|(name, score)| (name.to_string(), score)).collect();
        let mut wrong = Vec::new();
        if let Some(expected) = &self.case.scores {
            wrong.extend(expected_of("scores", expected, &scores));
        }
        if !self.case.ranking.is_empty() {
            let mut by_score: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
            for (name, score) in &scores {
                by_score.entry(-score).or_default().insert(name.clone());
            }
            let got: Vec<BTreeSet<String>> = by_score.into_values().collect();
            let expected: Vec<BTreeSet<String>> =
                self.case.ranking.iter().map(|names| names.iter().cloned().collect()).collect();
            wrong.extend(expected_of("ranking", &expected, &got).map(|text| format!("{text} by {scores:?}")));
        }
        wrong
    }

    /// Whatever the seed, as equals may be chosen.
    fn schedule(&self) -> Vec<String> {
        let case = self.case;
        let decisions = self.decisions();
        let wrong = (0..8).find_map(|seed| match decisions.schedule(self.pod, seed) {
            Decision::Node(node) => match &case.placed {
                Some(expected) if expected.all().contains(&node.as_ref()) => None,
                _ => Some(format!("placed on {node}")),
            },
            Decision::Room(node, victims) => {
                let mut got: Vec<String> = victims.iter().map(|pod| pod.name.to_string()).collect();
                got.sort();
                match &case.evicts {
                    Some(expected) => {
                        expected_of("evicts", &(expected.node.clone(), expected.pods.clone()), &(node.to_string(), got))
                    }
                    None => Some(format!("evicts {got:?} on {node}")),
                }
            }
            Decision::Unschedulable(diagnosis) => {
                expected_of("message", &case.message.clone().unwrap_or_default(), &diagnosis.to_string())
            }
            other => Some(format!("{other:?}")),
        });
        wrong.into_iter().collect()
    }

    fn gates(&self) -> Vec<String> {
        let said = self.decisions().pre_enqueue(self.pod).message();
        expected_of("PreEnqueue", &self.case.gated.clone().unwrap_or_default(), &said).into_iter().collect()
    }

    fn order(&self) -> Vec<String> {
        let waiting = self.case.waiting.iter().enumerate();
        let waiting = waiting.map(|(number, pod)| cluster::pod_info(pod, &format!("waiting-{number}"))).collect();
        let got: Vec<String> = rk_sched::testing::queued(self.profile, waiting);
        expected_of("order", &self.case.order, &got).into_iter().collect()
    }

    fn events(&self) -> Vec<String> {
        let decisions = self.decisions();
        let events = self.case.events.iter().enumerate();
        let wrong = events.filter_map(|(number, event)| {
            let woken = decisions.wakes(self.pod, &cluster::event(event));
            expected_of(&format!("event {number} wakes"), &event.wakes, &woken)
        });
        wrong.collect()
    }
}
