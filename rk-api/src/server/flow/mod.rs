//! How many requests are worked on at once, and whose: max in flight, or priority and fairness
//! (<https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>, KEP-1040).
//!
//! ```text
//! request -> FlowSchema (by caller and what is asked) -> its priority level and flow
//!         -> a seat at once, or a place in a queue of the flow, or 429
//! ```
//! Watches, connections and other requests that last take no seat. A request takes one, whatever it asks for, and a level lends
//! no seats to others: its share of the whole is what it has.

mod config;
mod level;
mod matching;

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;

use super::{Attributes, Reader, authz::SUPERUSERS};
use crate::{Error, StatusExt, status};

use config::{Classified, Config};
pub(crate) use config::{EXEMPT, GROUP, is_mandatory};
use level::{Level, Seat};

/// How long a request may wait in a queue: a quarter of the time that a request has, as in kube-apiserver.
const PATIENCE: Duration = Duration::from_secs(15);

/// How many requests are worked on at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FlowControl {
    /// Any number.
    #[default]
    Unlimited,
    /// So many that read and so many that write; the others are told to try again. `system:masters` are not counted.
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
    MaxInFlight { reading: Arc<Level>, writing: Arc<Level> },
    Fair(Box<Fair>),
}

/// The priority levels, changed up to the last request.
pub(crate) struct Fair {
    total: usize,
    config: RwLock<Config>,
}

/// A request that was let in: it holds its seat until this is dropped.
pub(crate) struct Admitted {
    seat: Option<Seat>,
    /// The uids of the FlowSchema and of the PriorityLevelConfiguration, for the answer's headers.
    pub(crate) by: Option<(Arc<str>, Arc<str>)>,
}

impl Admitted {
    /// Whether somebody else may wait for it to end.
    pub(crate) fn has_seat(&self) -> bool {
        self.seat.is_some()
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
                Self::MaxInFlight { reading: Level::rejecting(reading), writing: Level::rejecting(writing) }
            }
            FlowControl::Fair { total } => Self::Fair(Box::new(Fair { total, config: RwLock::default() })),
        }
    }

    /// Whether a request has to say what it asks for.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Lets a request in, perhaps after a while.
    ///
    /// # Errors
    /// 429: there are too many.
    pub(crate) async fn enter(&self, asked: &Attributes, reader: &dyn Reader) -> Result<Admitted, Error> {
        match self {
            Self::Open => Ok(Admitted { seat: None, by: None }),
            Self::MaxInFlight { .. } if asked.user.in_group(SUPERUSERS) => Ok(Admitted { seat: None, by: None }),
            Self::MaxInFlight { reading, writing } => {
                let reads = matches!(&*asked.verb, "get" | "list" | "watch");
                let seat = if reads { reading } else { writing }.take(0, PATIENCE).await.ok_or_else(too_many)?;
                Ok(Admitted { seat: Some(seat), by: None })
            }
            Self::Fair(fair) => {
                let (level, flow, by) = fair.classify(asked, reader)?;
                let seat = match level {
                    None => None,
                    Some(level) => Some(level.take(flow, PATIENCE).await.ok_or_else(too_many)?),
                };
                Ok(Admitted { seat, by: Some(by) })
            }
        }
    }
}

impl Fair {
    /// The level of a request (`None` if it is exempt), its flow there, and the names of both.
    fn classify(&self, asked: &Attributes, reader: &dyn Reader) -> Result<Classified, Error> {
        let config = self.config.read();
        if config.is_current(reader)? {
            return Ok(config.classify(asked));
        }
        drop(config);
        let mut config = self.config.write();
        config.follow(reader, self.total)?;
        Ok(config.classify(asked))
    }
}

#[cfg(test)]
mod tests;
