//! Times that are handed in.

use std::time::Duration;

use tokio::time::Instant;

/// As good as never: 30 years.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The time so much later; of waits that no clock can hold, one that nobody lives to see.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait.min(NEVER)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wait_is_too_long() {
        let now = Instant::now();
        assert_eq!(after(now, Duration::from_secs(5)), now + Duration::from_secs(5));
        assert_eq!(after(now, Duration::MAX), now + NEVER);
    }
}
