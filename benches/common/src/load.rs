//! Which answers of a load count, and what came of it.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

/// What came of a load.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Microseconds from request to answer, of all that count.
    pub latencies: Vec<u32>,
    /// The time in which they counted.
    pub elapsed: Duration,
}

impl Outcome {
    /// Answers per second.
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// The span of time in which answers count.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    from: Instant,
    to: Option<Instant>,
}

impl Span {
    /// It begins after the time to warm up. With no end the work has one.
    pub fn new(warm_up: Duration, time: Option<Duration>) -> Self {
        let from = Instant::now() + warm_up;
        Self { from, to: time.map(|time| from + time) }
    }

    /// Whether it has passed.
    pub fn is_over(&self, now: Instant) -> bool {
        self.to.is_some_and(|end| now >= end)
    }

    /// Whether an answer counts.
    pub fn counts(&self, now: Instant) -> bool {
        now >= self.from && !self.is_over(now)
    }

    /// Waits until all clients have ended; the time in which their answers counted. `measured` is called when answers begin to
    /// count and when they cease to.
    ///
    /// # Errors
    /// Those of the clients and of `measured`.
    pub async fn pass(
        self,
        clients: &mut JoinSet<io::Result<()>>,
        mut measured: impl FnMut() -> io::Result<()>,
    ) -> io::Result<Duration> {
        let Self { from, to } = self;
        let end = async {
            while let Some(ended) = clients.join_next().await {
                ended.map_err(io::Error::other)??;
            }
            Ok::<_, io::Error>(Instant::now())
        };
        tokio::pin!(end);
        let mut ended = None;
        tokio::select! {
            () = tokio::time::sleep_until(from.into()) => {}
            at = &mut end => ended = Some(at?),
        }
        measured()?;
        if let (Some(to), None) = (to, ended) {
            tokio::select! {
                () = tokio::time::sleep_until(to.into()) => {}
                at = &mut end => ended = Some(at?),
            }
            measured()?;
        }
        let ended = match ended {
            Some(at) => at,
            None => end.await?,
        };
        if to.is_none() {
            measured()?;
        }
        Ok(to.unwrap_or(ended).min(ended).saturating_duration_since(from))
    }
}
