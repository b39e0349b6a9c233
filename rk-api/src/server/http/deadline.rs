//! The time that a request has.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, status};

/// When a request has to be answered; never if it may last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    pub(super) fn of(started: Instant, time: Option<Duration>) -> Self {
        Self(time.map(|time| started + time))
    }

    pub(super) fn at(self) -> Option<Instant> {
        self.0
    }

    pub(super) fn is_some(self) -> bool {
        self.0.is_some()
    }

    /// Works until then.
    ///
    /// # Errors
    /// As of the work; 504: it is not done by then.
    pub(super) async fn keep<T>(self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let Some(at) = self.0 else { return work.await };
        tokio::time::timeout_at(at, work).await.unwrap_or_else(|_| {
            let message = "Timeout: request did not complete within the allotted timeout";
            Err(status::failure(504, "Timeout", message).into())
        })
    }
}
