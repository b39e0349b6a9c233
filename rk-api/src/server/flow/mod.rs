//! How many requests are worked on at once, and whose: max in flight, or priority and fairness
//! (<https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>, KEP-1040).
//!
//! ```text
//! request -> FlowSchema (by caller and what is asked) -> its priority level and flow
//!         -> a seat at once, or a place in a queue of the flow, or 429
//! ```
//! A list takes seats by the size of what it reads, a watch the same while it sends its initial events, a write by the number of those
//! who watch what it changes (`cost`), and everything else takes one. Connections and other requests that last take none. Every level
//! has its share of the whole; what it does not need it lends to others, as far as it may, and every ten seconds that is found anew
//! (`borrowing`).

mod borrowing;
mod config;
mod cost;
mod counts;
mod demand;
mod level;
mod matching;
mod queues;
mod share;

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Attributes, Reader, authz::SUPERUSERS};
use crate::{Error, StatusExt, status};

use config::{Classified, Config};
pub(crate) use config::{EXEMPT, GROUP, is_mandatory};
pub(crate) use cost::Cost;
use cost::Seats;
use counts::Executing;
use level::{Level, Refused, Seat, Taken};

/// How long a request may wait in a queue: a quarter of the time that a request has, as in kube-apiserver.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is found who lends seats to whom.
const PERIOD: Duration = Duration::from_secs(10);

/// How many requests are worked on at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FlowControl {
    /// Any number.
    #[default]
    Unlimited,
    /// So many that read and so many that write; the others are told to try again. 0 is any number, as for kube-apiserver's flags.
    /// `system:masters` are not counted.
    MaxInFlight {
        /// `--max-requests-inflight`, 400 by kube-apiserver's default.
        reading: usize,
        /// `--max-mutating-requests-inflight`, 200 by kube-apiserver's default.
        writing: usize,
    },
    /// So many together, shared out by the PriorityLevelConfigurations; FlowSchemas say which requests are whose.
    Fair {
        /// 600 by kube-apiserver's defaults.
        total: usize,
    },
}

/// What lets requests in.
pub(crate) enum Gate {
    Open,
    /// `None` where there may be any number.
    MaxInFlight {
        reading: Option<Arc<Level>>,
        writing: Option<Arc<Level>>,
    },
    Fair(Arc<Fair>),
}

/// The priority levels, changed up to the last request.
pub(crate) struct Fair {
    config: RwLock<Config>,
}

/// A request that was let in: it holds its seats until this is dropped.
pub(crate) struct Admitted {
    seat: Option<Seat>,
    _executing: Option<Executing>,
    exempt: bool,
    /// How long its seats are taken once it is done: those who watch what it changed are told then.
    pub(crate) after: Duration,
    /// The uids of the FlowSchema and of the PriorityLevelConfiguration, for the answer's headers.
    pub(crate) by: Option<(Arc<str>, Arc<str>)>,
}

impl Admitted {
    const FREE: Self = Self { seat: None, _executing: None, exempt: true, after: Duration::ZERO, by: None };

    /// Whether somebody else may wait for it to end.
    pub(crate) fn has_seat(&self) -> bool {
        self.seat.is_some() && !self.exempt
    }
}

fn too_many() -> Error {
    let message = "Too many requests, please try again later.";
    status::failure(429, "TooManyRequests", message).retry_after(1).into()
}

impl Gate {
    pub(crate) fn new(control: FlowControl) -> Self {
        match control {
            FlowControl::Unlimited => Self::Open,
            FlowControl::MaxInFlight { reading, writing } => {
                let level = |most: usize| (most > 0).then(|| Level::rejecting(most));
                Self::MaxInFlight { reading: level(reading), writing: level(writing) }
            }
            FlowControl::Fair { total } => Self::Fair(Arc::new(Fair { config: RwLock::new(Config::new(total)) })),
        }
    }

    /// Whether a request has to say what it asks for.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Whether watches have to wait for seats, too.
    pub(crate) fn holds_watches(&self) -> bool {
        matches!(self, Self::Fair(_))
    }

    /// Shows what is counted.
    pub(crate) fn register(&self, registry: &mut Registry) {
        if let Self::Fair(fair) = self {
            fair.config.read().counts().register(registry);
        }
    }

    /// Finds again and again who lends seats to whom, until `stop`.
    pub(crate) fn lend(&self, stop: CancellationToken) {
        let Self::Fair(fair) = self else { return };
        let fair = Arc::downgrade(fair);
        let work = async move {
            let mut ticks = tokio::time::interval_at(Instant::now() + PERIOD, PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(fair) = fair.upgrade() else { return };
                fair.config.write().lend();
            }
        };
        tokio::spawn(async move { stop.run_until_cancelled(work).await });
    }

    /// Lets a request in, perhaps after a while; `cost` tells what is expected of it.
    ///
    /// # Errors
    /// 429: there are too many.
    pub(crate) async fn enter(
        &self,
        asked: &Attributes,
        cost: impl FnOnce() -> Cost,
        reader: &dyn Reader,
    ) -> Result<Admitted, Error> {
        match self {
            Self::Open => Ok(Admitted::FREE),
            Self::MaxInFlight { .. } if asked.user.in_group(SUPERUSERS) => Ok(Admitted::FREE),
            Self::MaxInFlight { reading, writing } => {
                let reads = matches!(&*asked.verb, "get" | "list" | "watch");
                let level = if reads { reading } else { writing };
                let Some(level) = level else { return Ok(Admitted::FREE) };
                let Ok(Taken::Seat(seat)) = level.ask(0, 1) else { return Err(too_many()) };
                Ok(Admitted { seat: Some(seat), exempt: false, ..Admitted::FREE })
            }
            Self::Fair(fair) => {
                let Some(classified) = fair.classify(asked, reader)? else { return Ok(Admitted::FREE) };
                classified.enter(cost()).await
            }
        }
    }
}

impl Fair {
    fn classify(&self, asked: &Attributes, reader: &dyn Reader) -> Result<Option<Classified>, Error> {
        let config = self.config.read();
        if config.is_current(reader)? {
            return Ok(config.classify(asked));
        }
        drop(config);
        let mut config = self.config.write();
        config.follow(reader)?;
        Ok(config.classify(asked))
    }
}

impl Classified {
    /// Takes seats, or waits for them.
    async fn enter(self, cost: Cost) -> Result<Admitted, Error> {
        let Seats { count: seats, after } = cost.seats(self.most_seats);
        let refuse = |why: Refused| {
            self.tally.reject(why);
            too_many()
        };
        let seat = match self.level.ask(self.flow, seats).map_err(refuse)? {
            Taken::Seat(seat) => seat,
            Taken::Place(place) => {
                let waiting = self.tally.wait();
                let told = place.wait(PATIENCE).await;
                waiting.told();
                told.map_err(refuse)?
            }
        };
        let executing = self.tally.execute(seats);
        Ok(Admitted { seat: Some(seat), _executing: Some(executing), exempt: self.exempt, after, by: Some(self.by) })
    }
}

#[cfg(test)]
mod tests;
