//! Times that are handed in.

use std::time::Duration;

use tokio::time::Instant;

/// As good as never: 30 years.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The time so much later; of waits that no clock can hold, one that nobody lives to see.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait.min(NEVER)).unwrap_or(now)
}

/// A duration in the words of Go's `Duration.String`, as Kubernetes' messages have them: `1m0s`, `1.5s`, `250ms`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let whole = |number: u128, scale: u128| {
        let fraction = format!("{:0width$}", number % scale, width = scale.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() || scale == 1 { "" } else { "." };
        format!("{}{dot}{}", number / scale, if scale == 1 { "" } else { fraction })
    };
    let nanoseconds = duration.as_nanos();
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => format!("{}µs", whole(nanoseconds, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", whole(nanoseconds, 1_000_000)),
        _ => {
            let (minutes, rest) = (duration.as_secs() / 60, nanoseconds % 60_000_000_000);
            let seconds = format!("{}s", whole(rest, 1_000_000_000));
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_gos() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (1_500_000_000, "1.5s"),
            (10_000_000_000, "10s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (5_400_010_000_000, "1h30m0.01s"),
        ];
        for (nanoseconds, text) in cases {
            assert_eq!(go_duration(Duration::from_nanos(nanoseconds)), text);
        }
    }

    #[test]
    fn no_wait_is_too_long() {
        let now = Instant::now();
        assert_eq!(after(now, Duration::from_secs(5)), now + Duration::from_secs(5));
        assert_eq!(after(now, Duration::MAX), now + NEVER);
    }
}
