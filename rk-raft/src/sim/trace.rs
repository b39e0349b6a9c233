//! What a run has done, as one number, and what was wrong with it.

use std::{
    cell::RefCell,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Once},
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Notes what happens in a run. Clones note in the same place.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    state: Arc<Mutex<State>>,
    begin: Instant,
}

#[derive(Debug, Default)]
struct State {
    hasher: DefaultHasher,
    violations: Vec<String>,
    verbose: bool,
}

thread_local! {
    /// The trace of the run on this thread, for panics of its tasks.
    static CURRENT: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

/// Makes a panic on a thread with a run a violation of that run.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match CURRENT.try_with(|current| current.borrow().clone()) {
            Ok(Some(trace)) => trace.violation(panic.to_string()),
            _ => usual(panic),
        }));
    });
}

/// Violations after which the rest is not told any more.
const MOST: usize = 20;

impl Trace {
    /// An empty trace from now on; with `verbose`, what happens is printed too.
    pub(crate) fn new(verbose: bool) -> Self {
        let state = State { verbose, ..State::default() };
        let trace = Self { state: Arc::new(Mutex::new(state)), begin: Instant::now() };
        watch_panics();
        CURRENT.set(Some(trace.clone()));
        trace
    }

    /// When the run has begun.
    pub(crate) fn begin(&self) -> Instant {
        self.begin
    }

    /// Milliseconds since the run's begin.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes that something has happened now.
    pub(crate) fn note(&self, what: impl Hash) {
        let now = self.now();
        (now, what).hash(&mut self.state.lock().hasher);
    }

    /// Notes something worth reading.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        // That it happened is noted anyway; to make its text takes time.
        self.note(());
        if self.state.lock().verbose {
            println!("{:>8} ms  {}", self.now(), what());
        }
    }

    /// Notes that a promise was broken.
    pub(crate) fn violation(&self, what: impl Into<String>) {
        let what = format!("at {} ms: {}", self.now(), what.into());
        self.tell(|| what.clone());
        let mut state = self.state.lock();
        if state.violations.len() < MOST && !state.violations.contains(&what) {
            state.violations.push(what);
        }
    }

    /// Ends the run: the number of all that was noted, and the violations.
    pub(crate) fn end(&self) -> (u64, Vec<String>) {
        CURRENT.set(None);
        let mut state = self.state.lock();
        (state.hasher.finish(), std::mem::take(&mut state.violations))
    }
}
