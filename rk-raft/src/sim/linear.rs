//! Whether a concurrent history is linearizable: could all that clients saw have happened in one order that respects real time?
//!
//! The algorithm is that of Wing and Gong with Lowe's memoisation ("Testing for linearizability", 2017), as the Porcupine checker has
//! it: try to put operations one after another, undo when one's end is reached before its place was found, and never visit
//! the same pair (operations placed, state) twice. Operations without an answer, which need no place, are tried last. What it knows of the system under test is a [`Model`] and nothing else, so histories
//! of real processes are checked with it as those of a simulation are.

use std::{
    collections::HashSet,
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
};

/// What one object does, one operation at a time.
pub trait Model {
    /// The object's state.
    type State: Clone + Hash;
    /// An operation with its answer.
    type Call: Debug;

    /// The state before anything was done.
    fn start(&self) -> Self::State;

    /// The state after a call, `None` if it could not have had this answer in this state.
    fn step(&self, state: &Self::State, call: &Self::Call) -> Option<Self::State>;
}

/// One operation of a client.
#[derive(Debug, Clone)]
pub struct Operation<C> {
    /// Who did it. Only for the report.
    pub client: u64,
    /// What was asked and answered.
    pub call: C,
    /// When it was asked, in any unit.
    pub begin: u64,
    /// When it was answered, in the same unit. `None` if it never was: then it took effect at any time after `begin`, or never.
    pub end: Option<u64>,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains all answers.
    Linearizable,
    /// There is none. The report shows how far the best attempt came.
    Violated(String),
    /// The search was given up after so many steps.
    Undecided(usize),
}

/// What stands for a pair that was visited: of the pairs themselves, millions would take gigabytes. No two of them have the same 128
/// bits by chance.
fn fingerprint(visited: &impl Hash) -> u128 {
    let half = |which: u8| {
        let mut hasher = DefaultHasher::new();
        (which, visited).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// Steps after which a search is given up.
pub(crate) const MOST_STEPS: usize = 4_000_000;

/// The set of the operations that have their place, one bit each.
#[derive(Clone, Hash)]
struct Placed(Box<[u64]>);

impl Placed {
    fn set(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn clear(&mut self, at: usize) {
        self.0[at / 64] &= !(1 << (at % 64));
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }
}

/// Begins and ends of operations in the order of time, as a list from which pairs can be lifted and put back.
struct Events {
    /// The operation of each event, and whether this is its end.
    of: Vec<(usize, bool)>,
    next: Vec<usize>,
    previous: Vec<usize>,
    begin_of: Vec<usize>,
    end_of: Vec<Option<usize>>,
}

/// The list's head, before the first event.
const HEAD: usize = 0;

impl Events {
    fn new<C>(operations: &[Operation<C>]) -> Self {
        // At one time begins come first: what is not known to be apart may overlap.
        let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * operations.len());
        for (i, operation) in operations.iter().enumerate() {
            order.push((operation.begin, false, i));
            order.extend(operation.end.map(|end| (end, true, i)));
        }
        order.sort_unstable();
        let count = order.len() + 1;
        let mut events = Self {
            of: vec![(usize::MAX, false)],
            next: (1..=count).map(|i| i % count).collect(),
            previous: (0..count).map(|i| (i + count - 1) % count).collect(),
            begin_of: vec![0; operations.len()],
            end_of: vec![None; operations.len()],
        };
        for (at, (_, is_end, operation)) in (1..).zip(order) {
            events.of.push((operation, is_end));
            match is_end {
                true => events.end_of[operation] = Some(at),
                false => events.begin_of[operation] = at,
            }
        }
        events
    }

    fn lift(&mut self, operation: usize) {
        for at in [Some(self.begin_of[operation]), self.end_of[operation]].into_iter().flatten() {
            let (previous, next) = (self.previous[at], self.next[at]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// Puts back what was lifted last.
    fn put_back(&mut self, operation: usize) {
        for at in [self.end_of[operation], Some(self.begin_of[operation])].into_iter().flatten() {
            let (previous, next) = (self.previous[at], self.next[at]);
            self.next[previous] = at;
            self.previous[next] = at;
        }
    }
}

/// Checks the history of one object.
///
/// ```
/// use rk_raft::sim::linear::{Model, Operation, Verdict, check};
///
/// /// A number that is read (`Ok`) and written (`Err`).
/// struct Register;
/// impl Model for Register {
///     type State = u8;
///     type Call = Result<u8, u8>;
///     fn start(&self) -> u8 { 0 }
///     fn step(&self, state: &u8, call: &Self::Call) -> Option<u8> {
///         match *call {
///             Ok(read) => (read == *state).then_some(read),
///             Err(written) => Some(written),
///         }
///     }
/// }
/// let at = |begin, end, call| Operation { client: 1, call, begin, end: Some(end) };
/// assert_eq!(check(&Register, &[at(1, 4, Err(7)), at(2, 3, Ok(0))]), Verdict::Linearizable);
/// assert!(matches!(check(&Register, &[at(1, 2, Err(7)), at(3, 4, Ok(0))]), Verdict::Violated(_)));
/// ```
pub fn check<M: Model>(model: &M, operations: &[Operation<M::Call>]) -> Verdict {
    search(model, operations, MOST_STEPS)
}

/// Checks the history of one object and gives up after so many steps.
pub(crate) fn search<M: Model>(model: &M, operations: &[Operation<M::Call>], most_steps: usize) -> Verdict {
    let mut events = Events::new(operations);
    let mut placed = Placed(vec![0; operations.len().div_ceil(64)].into());
    let mut state = model.start();
    let mut seen = HashSet::new();
    let mut stack: Vec<(usize, M::State)> = Vec::new();
    // How far it came, and what stood in the way there.
    let mut best: (usize, usize, Placed) = (0, 0, placed.clone());
    let mut unanswered = operations.iter().filter(|operation| operation.end.is_some()).count();
    let optional = |operation: usize| operations[operation].end.is_none();
    let mut at = events.next[HEAD];
    // Whether it is the turn of those without an answer.
    let mut last_resort = false;
    for _ in 0..most_steps {
        if unanswered == 0 {
            return Verdict::Linearizable;
        }
        let (operation, is_end) = events.of[at];
        if !is_end {
            if optional(operation) == last_resort
                && let Some(next) = model.step(&state, &operations[operation].call)
            {
                placed.set(operation);
                if seen.insert(fingerprint(&(&placed, &next))) {
                    stack.push((operation, std::mem::replace(&mut state, next)));
                    events.lift(operation);
                    unanswered -= usize::from(!last_resort);
                    (at, last_resort) = (events.next[HEAD], false);
                    continue;
                }
                placed.clear(operation);
            }
            at = events.next[at];
            continue;
        }
        // This operation had ended before those behind it began, so it must have its place by now.
        if !last_resort {
            (at, last_resort) = (events.next[HEAD], true);
            continue;
        }
        if stack.len() >= best.0 {
            best = (stack.len(), operation, placed.clone());
        }
        let Some((undone, before)) = stack.pop() else {
            return Verdict::Violated(report(operations, &best));
        };
        state = before;
        placed.clear(undone);
        events.put_back(undone);
        last_resort = optional(undone);
        unanswered += usize::from(!last_resort);
        at = events.next[events.begin_of[undone]];
    }
    Verdict::Undecided(most_steps)
}

/// The operation that found no place in the best attempt, with those around it.
fn report<C: Debug>(operations: &[Operation<C>], (count, stuck, placed): &(usize, usize, Placed)) -> String {
    use std::fmt::Write;
    let mut text = format!("{count} of {} operations fit; the first without a place:", operations.len());
    let stuck_end = operations[*stuck].end.unwrap_or(u64::MAX);
    let mut near: Vec<usize> = (0..operations.len()).collect();
    near.sort_by_key(|&i| operations[i].begin);
    let near: Vec<usize> = near.into_iter().filter(|&i| operations[i].begin <= stuck_end).collect();
    let first = near.len().saturating_sub(REPORTED);
    for &i in &near[first..] {
        let Operation { client, call, begin, end } = &operations[i];
        let mark = if i == *stuck {
            "!!"
        } else if placed.has(i) {
            "  "
        } else {
            "??"
        };
        let end = end.map_or("never".into(), |end| end.to_string());
        // Writing to a string does not fail.
        let _ = write!(text, "\n  {mark} {begin}..{end} client {client}: {call:?}");
    }
    text
}

/// Operations shown in a report.
const REPORTED: usize = 24;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Call {
        Read(u8),
        Write(u8),
        /// From, to, and whether it was done.
        Swap(u8, u8, bool),
        /// A write of which nobody knows.
        Lost(u8),
    }
    use Call::*;

    struct Register;

    impl Model for Register {
        type State = u8;
        type Call = Call;

        fn start(&self) -> u8 {
            0
        }

        fn step(&self, state: &u8, call: &Call) -> Option<u8> {
            match *call {
                Read(value) => (value == *state).then_some(value),
                Write(value) | Lost(value) => Some(value),
                Swap(from, to, true) => (from == *state).then_some(to),
                Swap(from, _, false) => (from != *state).then_some(*state),
            }
        }
    }

    fn history(calls: &[(u64, u64, Call)]) -> Vec<Operation<Call>> {
        let operation = |(client, &(begin, end, call)): (u64, &(u64, u64, Call))| {
            let end = (!matches!(call, Lost(_))).then_some(end);
            Operation { client, call, begin, end }
        };
        (0..).zip(calls).map(operation).collect()
    }

    fn holds(calls: &[(u64, u64, Call)]) -> bool {
        match check(&Register, &history(calls)) {
            Verdict::Linearizable => true,
            Verdict::Violated(_) => false,
            Verdict::Undecided(steps) => panic!("not decided after {steps} steps"),
        }
    }

    #[test]
    fn good_histories_pass() {
        assert!(holds(&[]));
        assert!(holds(&[(1, 2, Write(1)), (3, 4, Read(1))]));
        // A read beside a write sees it or not; here two readers see it and then a third, later than both.
        assert!(holds(&[(1, 10, Write(1)), (2, 3, Read(0)), (4, 5, Read(1)), (6, 7, Read(1))]));
        assert!(holds(&[(1, 10, Write(1)), (1, 10, Write(2)), (2, 3, Read(2)), (4, 5, Read(1))]));
        assert!(holds(&[(1, 9, Swap(0, 1, true)), (1, 9, Swap(0, 2, false)), (10, 11, Read(1))]));
        // A lost write may take effect late or never.
        assert!(holds(&[(1, 0, Lost(5)), (2, 3, Read(0)), (4, 5, Write(1)), (6, 7, Read(5))]));
        assert!(holds(&[(1, 0, Lost(5)), (2, 3, Read(0)), (4, 5, Write(1)), (6, 7, Read(1))]));
        // At one time, they may overlap.
        assert!(holds(&[(1, 2, Write(1)), (2, 3, Read(0))]));
    }

    #[test]
    fn bad_histories_are_found() {
        assert!(!holds(&[(1, 2, Read(1))]), "a value from nowhere");
        assert!(!holds(&[(1, 2, Write(1)), (3, 4, Read(0))]), "a stale read");
        assert!(!holds(&[(1, 10, Write(1)), (2, 3, Read(1)), (4, 5, Read(0))]), "back in time");
        assert!(!holds(&[(1, 9, Swap(0, 1, true)), (1, 9, Swap(0, 2, true))]), "both won");
        assert!(!holds(&[(1, 2, Write(1)), (3, 4, Swap(1, 2, false))]), "refused for no reason");
        assert!(!holds(&[(5, 0, Lost(1)), (2, 3, Read(1))]), "seen before it was asked for");
        assert!(!holds(&[(1, 0, Lost(5)), (2, 3, Read(5)), (4, 5, Write(1)), (6, 7, Read(5))]), "took effect twice");
        let crossed = [(1, 10, Write(1)), (1, 10, Write(2)), (2, 3, Read(1)), (4, 5, Read(2)), (6, 7, Read(1))];
        assert!(!holds(&crossed), "two orders of two writes");
    }

    #[test]
    fn the_report_names_the_call_without_a_place() {
        let bad = history(&[(1, 2, Write(1)), (3, 4, Read(1)), (5, 6, Read(7))]);
        let Verdict::Violated(text) = check(&Register, &bad) else { panic!("it was not found") };
        assert!(text.contains("2 of 3 operations fit"), "{text}");
        assert!(text.contains("!! 5..6 client 2: Read(7)"), "{text}");
    }

    #[test]
    fn what_was_lost_is_placed_only_where_it_must_be() {
        // In each order of the lost writes but for none, the search would end only at the last read.
        let mut calls: Vec<_> = (0..40).map(|i| (i, 0, Lost(100 + i as u8))).collect();
        calls.extend(
            (0..40)
                .flat_map(|i| [(100 + 4 * i, 101 + 4 * i, Write(i as u8)), (102 + 4 * i, 103 + 4 * i, Read(i as u8))]),
        );
        calls.push((900, 901, Swap(39, 7, true)));
        calls.push((902, 903, Read(7)));
        assert!(holds(&calls));
    }

    #[test]
    fn a_long_history_is_checked_in_time() {
        let mut calls = Vec::new();
        for i in 0..2000_u64 {
            let value = (i % 200) as u8;
            calls.push((10 * i, 10 * i + 25, Write(value)));
            calls.push((10 * i + 6, 10 * i + 9, Read(value)));
        }
        assert!(holds(&calls));
    }

    /// All orders, one after another.
    fn naive(left: &[Operation<Call>], state: u8) -> bool {
        if left.iter().all(|operation| operation.end.is_none()) {
            return true;
        }
        let first_end = left.iter().filter_map(|operation| operation.end).min().unwrap_or(u64::MAX);
        (0..left.len()).filter(|&i| left[i].begin <= first_end).any(|i| {
            let rest = [&left[..i], &left[i + 1..]].concat();
            Register.step(&state, &left[i].call).is_some_and(|next| naive(&rest, next))
        })
    }

    fn call() -> impl Strategy<Value = Call> {
        prop_oneof![
            4 => (0..3_u8).prop_map(Read),
            3 => (0..3_u8).prop_map(Write),
            2 => (0..3_u8, 0..3_u8, any::<bool>()).prop_map(|(from, to, done)| Swap(from, to, done)),
            1 => (0..3_u8).prop_map(Lost),
        ]
    }

    proptest! {
        #[test]
        fn is_as_trying_all_orders(calls in prop::collection::vec((0..12_u64, 0..6_u64, call()), 0..7)) {
            let calls: Vec<_> = calls.into_iter().map(|(begin, time, call)| (begin, begin + time, call)).collect();
            prop_assert_eq!(holds(&calls), naive(&history(&calls), 0), "{:?}", calls);
        }
    }
}
