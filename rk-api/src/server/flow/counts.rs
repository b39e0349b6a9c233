//! Metrics of priority and fairness, under Kubernetes' names.

use std::{collections::HashSet, sync::Arc};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::level::Refused;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Flow {
    priority_level: String,
    flow_schema: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejection {
    #[prometheus(flatten)]
    flow: Flow,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    priority_level: String,
}

/// What is counted.
#[derive(Default)]
pub(super) struct Counts {
    waiting: Family<Flow, Gauge>,
    executing: Family<Flow, Gauge>,
    seats: Family<Flow, Gauge>,
    dispatched: Family<Flow, Counter>,
    rejected: Family<Rejection, Counter>,
    nominal: Family<Of, Gauge>,
    current: Family<Of, Gauge>,
}

fn number(seats: usize) -> i64 {
    i64::try_from(seats).unwrap_or(i64::MAX)
}

impl Counts {
    pub(super) fn register(&self, registry: &mut Registry) {
        let name = |name: &str| format!("apiserver_flowcontrol_{name}");
        let flows = [
            ("current_inqueue_requests", "Requests that wait in queues", &self.waiting),
            ("current_executing_requests", "Requests that have their seats", &self.executing),
            ("current_executing_seats", "Seats that requests have", &self.seats),
        ];
        for (metric, help, family) in flows {
            registry.register(name(metric), help, Family::clone(family));
        }
        let help = "Requests that got their seats";
        registry.register(name("dispatched_requests"), help, Family::clone(&self.dispatched));
        let help = "Requests that got no seats, by reason";
        registry.register(name("rejected_requests"), help, Family::clone(&self.rejected));
        let help = "Seats of a priority level by its shares";
        registry.register(name("nominal_limit_seats"), help, Family::clone(&self.nominal));
        let help = "Seats of a priority level with what it lends and borrows now";
        registry.register(name("current_limit_seats"), help, Family::clone(&self.current));
    }

    /// Where the requests of a FlowSchema are counted.
    pub(super) fn tally(&self, level: &str, schema: &str) -> Arc<Tally> {
        let flow = Flow { priority_level: level.to_owned(), flow_schema: schema.to_owned() };
        Arc::new(Tally {
            waiting: self.waiting.get_or_create(&flow).clone(),
            executing: self.executing.get_or_create(&flow).clone(),
            seats: self.seats.get_or_create(&flow).clone(),
            dispatched: self.dispatched.get_or_create(&flow).clone(),
            rejected: self.rejected.clone(),
            flow,
        })
    }

    /// How many seats a level has.
    pub(super) fn limits(&self, level: &str, nominal: usize, current: usize) {
        let of = Of { priority_level: level.to_owned() };
        self.nominal.get_or_create(&of).set(number(nominal));
        self.current.get_or_create(&of).set(number(current));
    }

    /// Of these, only those are shown any more that are counted still.
    pub(super) fn keep<'a>(&self, of: &[Arc<Tally>], counted: impl Iterator<Item = &'a Arc<Tally>>) {
        let counted: HashSet<&Flow> = counted.map(|tally| &tally.flow).collect();
        for Tally { flow, .. } in of.iter().map(|tally| &**tally).filter(|tally| !counted.contains(&tally.flow)) {
            for family in [&self.waiting, &self.executing, &self.seats] {
                family.remove(flow);
            }
            self.dispatched.remove(flow);
            for reason in Refused::ALL.map(Refused::reason) {
                self.rejected.remove(&Rejection { flow: flow.clone(), reason });
            }
        }
    }

    /// A level is gone.
    pub(super) fn forget(&self, level: &str) {
        let of = Of { priority_level: level.to_owned() };
        self.nominal.remove(&of);
        self.current.remove(&of);
    }
}

/// Counts the requests of one FlowSchema in one priority level.
pub(super) struct Tally {
    flow: Flow,
    waiting: Gauge,
    executing: Gauge,
    seats: Gauge,
    dispatched: Counter,
    rejected: Family<Rejection, Counter>,
}

impl Tally {
    pub(super) fn reject(&self, why: Refused) {
        let reason = why.reason();
        self.rejected.get_or_create(&Rejection { flow: self.flow.clone(), reason }).inc();
    }

    /// Counts a request that waits, until it does not any more.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.inc();
        Waiting { tally: self, told: false }
    }

    /// Counts a request that has its seats, until it is done.
    pub(super) fn execute(&self, seats: usize) -> Executing {
        let seats = number(seats);
        self.dispatched.inc();
        self.executing.inc();
        self.seats.inc_by(seats);
        Executing { executing: self.executing.clone(), of: self.seats.clone(), seats }
    }
}

/// A request that waits. One that is dropped as it does has been given up by its client.
pub(super) struct Waiting<'a> {
    tally: &'a Tally,
    told: bool,
}

impl Waiting<'_> {
    /// It was told something.
    pub(super) fn told(mut self) {
        self.told = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.tally.waiting.dec();
        if !self.told {
            self.tally.reject(Refused::Cancelled);
        }
    }
}

/// A request that has its seats.
pub(super) struct Executing {
    executing: Gauge,
    of: Gauge,
    seats: i64,
}

impl Drop for Executing {
    fn drop(&mut self) {
        self.executing.dec();
        self.of.dec_by(self.seats);
    }
}
