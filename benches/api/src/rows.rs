//! What is measured. Each row gives its figures of one API.

mod bodies;
mod costs;
mod growth;
mod idle;
mod lists;
mod local;
mod verbs;
mod watch;

use std::{io, time::Duration};

pub use self::local::measure as in_process;
use crate::{
    http2::Request,
    load::{self, Load, Outcome},
    options::Options,
    table::Figure,
    target::{Servers, Target},
};

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// From the start of the program to its first answer, and memory then.
    Start,
    /// Create, get, update, patch, delete of objects of 1 KiB, by so many clients.
    Verbs(usize),
    /// Lists of ever more objects.
    Lists,
    /// Many watchers, and creates as fast as they go.
    WatchFree,
    /// Many watchers, and 20 creates per second.
    WatchSlow,
    /// What admission plugins, bindings and definitions cost that nobody needs.
    Costs,
    /// What requests cost as objects grow in number.
    Growth,
}

impl Row {
    /// All rows, in the order of the table.
    pub fn all() -> Vec<Self> {
        vec![
            Self::Start,
            Self::Verbs(1),
            Self::Verbs(16),
            Self::Verbs(64),
            Self::Lists,
            Self::WatchSlow,
            Self::WatchFree,
            Self::Costs,
            Self::Growth,
        ]
    }

    /// Its name, for `--only` too.
    pub fn name(self) -> String {
        match self {
            Self::Start => "start".into(),
            Self::Verbs(clients) => format!("verbs-{clients}"),
            Self::Lists => "lists".into(),
            Self::WatchFree => "watch-free-running".into(),
            Self::WatchSlow => "watch-20-per-second".into(),
            Self::Costs => "costs".into(),
            Self::Growth => "growth".into(),
        }
    }

    /// Whether it is about servers that it starts itself.
    pub fn needs_own_server(self) -> bool {
        matches!(self, Self::Start | Self::Costs)
    }

    /// Measures once.
    pub async fn measure(
        self,
        target: Target,
        servers: Option<&Servers>,
        options: &Options,
    ) -> io::Result<Vec<Figure>> {
        match self {
            Self::Start => idle::measure(&target).await,
            Self::Verbs(clients) => verbs::measure(&target, clients, options).await,
            Self::Lists => lists::measure(&target, options).await,
            Self::WatchFree => watch::measure(&target, watch::Pace::Free, options).await,
            Self::WatchSlow => watch::measure(&target, watch::Pace::Every(Duration::from_millis(50)), options).await,
            Self::Costs => match servers {
                Some(servers) => costs::measure(&target, servers, options).await,
                None => Err(io::Error::other("there is no server to start")),
            },
            Self::Growth => growth::measure(&target, options).await,
        }
    }
}

/// A load and what its server used for it.
struct Measured {
    outcome: Outcome,
    /// CPU seconds.
    cpu: f64,
}

impl Measured {
    /// CPU in milliseconds for each answer.
    fn cpu_each(&self) -> f64 {
        self.cpu * 1e3 / self.outcome.latencies.len().max(1) as f64
    }
}

/// Runs a load and measures the server meanwhile.
async fn run<W: FnMut() -> Option<Request> + 'static>(target: &Target, load: Load, work: W) -> io::Result<Measured> {
    let mut cpu = Vec::new();
    let measured = || {
        cpu.push(target.usage()?.cpu);
        Ok(())
    };
    let outcome = load::run(&target.endpoint, load, work, measured).await?;
    let cpu = cpu.last().copied().unwrap_or_default() - cpu.first().copied().unwrap_or_default();
    Ok(Measured { outcome, cpu })
}
