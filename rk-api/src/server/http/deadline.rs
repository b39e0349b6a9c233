//! The time that a request has.

use std::time::Duration;

use tokio::time::Instant;

use super::query::Query;
use crate::{Error, server::cel, status};

/// When a request has to be answered; never if it may last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    /// What the parameter `timeout` asks for, `most` at most; whatever it asks for, what may last has no end (apiserver's
    /// `WithRequestDeadline`).
    ///
    /// # Errors
    /// 400: it is no duration.
    pub(super) fn asked(started: Instant, query: &Query, most: Duration, lasts: bool) -> Result<Self, Error> {
        if lasts {
            return Ok(Self(None));
        }
        let time = match query.get("timeout") {
            "" => most,
            text => {
                let wrong = "invalid timeout specified in the request URL - time: invalid duration";
                let wrong = || status::bad_request(format!("{wrong} {text:?}"));
                match cel::go_duration(text).and_then(|nanos| u64::try_from(nanos).ok()).ok_or_else(wrong)? {
                    0 => most,
                    nanos => Duration::from_nanos(nanos).min(most),
                }
            }
        };
        Ok(Self(Some(started + time)))
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
