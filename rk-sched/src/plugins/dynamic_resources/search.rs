//! Devices for all requests of a pod on one node: a depth-first search, in the order of the requests and of the devices, whose first
//! solution is taken (`structured.Allocator`).
//!
//! The devices of one request are tried by rising place only, as their order means nothing. The search is bounded: it may make
//! so many steps for a node, and so many for all nodes of a scheduling cycle.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rk_api::Quantity;
use tokio::time::Instant;

use super::{
    candidates::{Candidate, Candidates, Supply},
    capacity::consumed,
    claims::shown,
    requests::{Choice, Count, MOST_DEVICES, Wanted},
};
use crate::model::Slice;

/// Steps of the search on one node.
pub(super) const NODE_STEPS: u64 = 50_000;
/// Steps of the searches of one scheduling cycle.
pub(super) const CYCLE_STEPS: u64 = 1_000_000;

/// So many steps are made between two looks at the clock.
const STEPS_BETWEEN_LOOKS: u64 = 1024;

/// What a search may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits<'a> {
    /// Steps of all searches of the cycle so far.
    pub(super) spent: &'a AtomicU64,
    /// When the search on this node has to end.
    pub(super) until: Option<Instant>,
}

impl Limits<'_> {
    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }
}

/// A device that was found for a request.
#[derive(Debug, Clone)]
pub(super) struct Pick {
    /// The request's place in [`Wanted::requests`], and its choice.
    pub(super) request: usize,
    pub(super) choice: usize,
    pub(super) slice: Arc<Slice>,
    /// The device's place in the slice.
    pub(super) device: usize,
    /// What is consumed of a device that is shared.
    pub(super) consumed: Option<BTreeMap<String, Quantity>>,
}

/// What a search came to.
#[derive(Debug)]
pub(super) enum Found {
    /// Devices for every request.
    Devices(Vec<Pick>),
    /// There is no solution.
    Nothing,
    /// There is none for a reason worth telling.
    Refused(String),
    /// The search was given up.
    TooLong,
}

/// Searches a node.
///
/// # Errors
/// An expression fails.
pub(super) fn search(
    wanted: &Wanted,
    supply: &Supply,
    (name, labels): (&str, &BTreeMap<String, String>),
    limits: Limits<'_>,
) -> Result<Found, String> {
    let candidates = Candidates::new(supply, name, labels);
    // By request and choice; no device for a choice that can't be made.
    let mut fitting = Vec::with_capacity(wanted.requests.len());
    for request in &wanted.requests {
        let claim = shown(&wanted.claims[request.claim]);
        let (mut choices, mut refused) = (Vec::with_capacity(request.choices.len()), None);
        for choice in &request.choices {
            if limits.is_over() {
                return Ok(Found::TooLong);
            }
            choices.push(candidates.of(choice, &claim)?.unwrap_or_else(|why| {
                refused = why.or(refused.take());
                Vec::new()
            }));
        }
        if choices.iter().all(Vec::is_empty) {
            return Ok(match refused {
                Some(why) => Found::Refused(why),
                None if candidates.any_invalid() => invalid(),
                None => Found::Nothing,
            });
        }
        fitting.push(choices);
    }
    let mut state = State {
        wanted,
        candidates: &candidates,
        fitting: &fitting,
        in_use: vec![0; candidates.devices.len()],
        counters: HashMap::new(),
        shares: HashMap::new(),
        placed: Vec::new(),
        per_claim: vec![0; wanted.claims.len()],
    };
    let before = limits.spent.load(Ordering::Relaxed);
    let mut left = NODE_STEPS.min(CYCLE_STEPS.saturating_sub(before));
    let granted = left;
    let solved = state.solve(&mut left, limits);
    limits.spent.fetch_add(granted - left, Ordering::Relaxed);
    Ok(match solved {
        Some(true) => Found::Devices(state.picks()),
        Some(false) if candidates.any_invalid() => invalid(),
        Some(false) => Found::Nothing,
        None => Found::TooLong,
    })
}

fn invalid() -> Found {
    Found::Refused("invalid resource pools were encountered".to_owned())
}

/// One device of one request.
struct Step {
    request: usize,
    choice: usize,
    /// Which of the choice's devices.
    nth: usize,
    /// The next of the fitting devices to try.
    cursor: usize,
    /// Whether the last of [`State::placed`] is this step's.
    has_device: bool,
}

impl Step {
    fn first(request: usize) -> Self {
        Self { request, choice: 0, nth: 0, cursor: 0, has_device: false }
    }
}

/// A device that is given to a request for now.
struct Placed {
    request: usize,
    choice: usize,
    candidate: usize,
    consumed: Option<BTreeMap<String, Quantity>>,
    admin: bool,
    /// Whether it was charged to the pool's counters.
    counted: bool,
}

struct State<'s> {
    wanted: &'s Wanted,
    candidates: &'s Candidates<'s>,
    fitting: &'s [Vec<Vec<usize>>],
    /// How often each candidate is given, administrative access aside.
    in_use: Vec<u32>,
    /// What is given of pools' counters.
    counters: HashMap<(usize, &'s str, &'s str), Quantity>,
    /// What is given of shared devices' capacities.
    shares: HashMap<(usize, &'s str), Quantity>,
    placed: Vec<Placed>,
    per_claim: Vec<usize>,
}

impl<'s> State<'s> {
    /// Whether there is a solution, which is in `placed` then; `None` if too many steps were made.
    fn solve(&mut self, left: &mut u64, limits: Limits<'_>) -> Option<bool> {
        let mut steps = vec![Step::first(0)];
        if self.wanted.requests.is_empty() {
            return Some(true);
        }
        while let Some(mut step) = steps.pop() {
            if step.has_device {
                self.take_back();
                step.has_device = false;
            }
            if !self.advance(&mut step, left, limits)? {
                continue;
            }
            let next = self.after(&step);
            steps.push(step);
            match next {
                Some(next) => steps.push(next),
                None => return Some(true),
            }
        }
        Some(false)
    }

    /// Gives the step the next device that will do; `false` if there is none, `None` if too many steps were made.
    fn advance(&mut self, step: &mut Step, left: &mut u64, limits: Limits<'_>) -> Option<bool> {
        let request = &self.wanted.requests[step.request];
        loop {
            let choice = &request.choices[step.choice];
            let fitting = &self.fitting[step.request][step.choice];
            let missing = count(choice, fitting) - step.nth;
            while let Some(candidate) = fitting.get(step.cursor) {
                *left = left.checked_sub(1)?;
                if left.is_multiple_of(STEPS_BETWEEN_LOOKS) && limits.is_over() {
                    return None;
                }
                let enough = fitting.len() - step.cursor >= missing || self.may_repeat(choice, fitting);
                if !enough {
                    break;
                }
                // All are wanted: the next one, or none.
                if choice.count == Count::All && step.cursor != step.nth {
                    break;
                }
                step.cursor += 1;
                if self.give(step.request, step.choice, *candidate) {
                    step.has_device = true;
                    return Some(true);
                }
            }
            // The next choice is made only where this one has given back all devices.
            if step.nth > 0 || step.choice + 1 == request.choices.len() {
                return Some(false);
            }
            (step.choice, step.cursor) = (step.choice + 1, 0);
        }
    }

    /// The step that follows one that has its device; `None` if that was the last one.
    fn after(&self, step: &Step) -> Option<Step> {
        let choice = &self.wanted.requests[step.request].choices[step.choice];
        let fitting = &self.fitting[step.request][step.choice];
        if step.nth + 1 < count(choice, fitting) {
            // A shared device may be given again.
            let shared = self.candidates.devices[fitting[step.cursor - 1]].device.shared();
            let again = shared && choice.count != Count::All && !choice.admin;
            let cursor = step.cursor - usize::from(again);
            return Some(Step { nth: step.nth + 1, cursor, has_device: false, ..*step });
        }
        (step.request + 1 < self.wanted.requests.len()).then(|| Step::first(step.request + 1))
    }

    fn may_repeat(&self, choice: &Choice, fitting: &[usize]) -> bool {
        !choice.admin && fitting.iter().any(|candidate| self.candidates.devices[*candidate].device.shared())
    }

    /// Gives a device to a request, if it is free, its constraints hold, and there is enough of what it shares.
    fn give(&mut self, request: usize, choice_number: usize, number: usize) -> bool {
        let claim = self.wanted.requests[request].claim;
        let choice: &'s Choice = &self.wanted.requests[request].choices[choice_number];
        let candidate: &'s Candidate<'s> = &self.candidates.devices[number];
        let device = candidate.device;
        if self.per_claim[claim] >= MOST_DEVICES {
            return false;
        }
        // One claim has a device once, but for shares of it.
        let of_claim =
            |placed: &&Placed| placed.candidate == number && self.wanted.requests[placed.request].claim == claim;
        let mut own = self.placed.iter().filter(of_claim);
        let free = match (choice.admin, device.shared()) {
            (true, _) => own.next().is_none(),
            (false, true) => !own.any(|placed| placed.admin),
            (false, false) => own.next().is_none() && self.in_use[number] == 0,
        };
        if !free || !self.constraints_hold(claim, choice, candidate) {
            return false;
        }
        let mut amounts = None;
        if device.shared() && !choice.admin {
            let Some(wanted) = consumed(&choice.capacity, candidate.driver(), device) else { return false };
            let enough = device.capacity.iter().all(|capacity| {
                let name = capacity.name.as_str();
                let taken = candidate.used.and_then(|used| used.consumed.get(name)).copied().unwrap_or(Quantity::ZERO);
                let given = self.shares.get(&(number, name)).copied().unwrap_or(Quantity::ZERO);
                wanted.get(name).is_none_or(|amount| taken + given + *amount <= capacity.value)
            });
            if !enough {
                return false;
            }
            amounts = Some(wanted);
        }
        let again = || self.placed.iter().any(|placed| placed.candidate == number && placed.counted);
        let counted = !choice.admin && !candidate.is_counted() && !again();
        if counted {
            let enough = device.consumes.iter().all(|of| {
                let given = self.counters.get(&(candidate.pool, of.set.as_str(), of.counter.as_str()));
                self.candidates.left(candidate.pool, of) - given.copied().unwrap_or(Quantity::ZERO) >= of.amount
            });
            if !enough {
                return false;
            }
        }
        let admin = choice.admin;
        self.placed.push(Placed {
            request,
            choice: choice_number,
            candidate: number,
            consumed: amounts,
            admin,
            counted,
        });
        self.account(true);
        true
    }

    /// Notes what the last placed device takes, or gives back.
    fn account(&mut self, give: bool) {
        let Some(placed) = self.placed.last() else { return };
        let candidate: &'s Candidate<'s> = &self.candidates.devices[placed.candidate];
        let change = |sum: &mut Quantity, by: Quantity| if give { *sum += by } else { *sum -= by };
        for capacity in &candidate.device.capacity {
            if let Some(amount) = placed.consumed.as_ref().and_then(|amounts| amounts.get(&capacity.name)) {
                change(self.shares.entry((placed.candidate, capacity.name.as_str())).or_default(), *amount);
            }
        }
        if placed.counted {
            for of in &candidate.device.consumes {
                let counter = (candidate.pool, of.set.as_str(), of.counter.as_str());
                change(self.counters.entry(counter).or_default(), of.amount);
            }
        }
        let claim = self.wanted.requests[placed.request].claim;
        let uses = u32::from(!placed.admin);
        if give {
            self.in_use[placed.candidate] += uses;
            self.per_claim[claim] += 1;
        } else {
            self.in_use[placed.candidate] -= uses;
            self.per_claim[claim] -= 1;
        }
    }

    fn take_back(&mut self) {
        self.account(false);
        self.placed.pop();
    }

    fn constraints_hold(&self, claim: usize, choice: &Choice, candidate: &Candidate<'_>) -> bool {
        self.wanted.constraints[claim].iter().filter(|constraint| constraint.concerns(&choice.name)).all(|constraint| {
            let others = self.placed.iter().filter(|placed| {
                let request = &self.wanted.requests[placed.request];
                request.claim == claim && constraint.concerns(&request.choices[placed.choice].name)
            });
            let others = others.map(|placed| {
                let other = &self.candidates.devices[placed.candidate];
                (other.driver(), other.device)
            });
            constraint.allows((candidate.driver(), candidate.device), others)
        })
    }

    fn picks(self) -> Vec<Pick> {
        let pick = |placed: Placed| {
            let candidate = &self.candidates.devices[placed.candidate];
            Pick {
                request: placed.request,
                choice: placed.choice,
                slice: Arc::clone(candidate.slice),
                device: candidate.at,
                consumed: placed.consumed,
            }
        };
        self.placed.into_iter().map(pick).collect()
    }
}

/// How many devices a choice takes.
fn count(choice: &Choice, fitting: &[usize]) -> usize {
    match choice.count {
        Count::Exactly(count) => count,
        Count::All => fitting.len(),
    }
}
