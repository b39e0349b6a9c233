//! Clocks that do not agree.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};
use rk_store::{Clock, Stretch};
use tokio::time::Instant;

/// How far the clocks of members may be apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Skew {
    /// The slowest and the fastest rate as long as things go wrong, and whether clocks jump then.
    pub wrong: (f64, f64, bool),
    /// The slowest and the fastest rate from then on.
    pub usual: (f64, f64),
}

/// What reads by a leader's lease bear: the fastest clock runs less than a third faster than the slowest.
pub(crate) const SLIGHT: Skew = Skew { wrong: (0.88, 1.16, false), usual: (0.88, 1.16) };
/// What a group bears that asks a majority for all it answers.
pub(crate) const WILD: Skew = Skew { wrong: (0.3, 3.0, true), usual: (0.8, 1.2) };

/// The clock of a member, which shows anything at `begin` and changes its pace now and then until `until`.
pub(crate) fn clock(skew: Skew, begin: Instant, until: Duration, random: &mut StdRng) -> Clock {
    let (slowest, fastest, jumps) = skew.wrong;
    let mut at = Stretch { begin, shown: begin + Duration::from_millis(random.random_range(0..10_000_000)), rate: 1.0 };
    let mut stretches = Vec::new();
    loop {
        at.rate = if at.begin < begin + until {
            // As often slow as fast.
            slowest * (fastest / slowest).powf(random.random_range(0.0..=1.0))
        } else {
            random.random_range(skew.usual.0..=skew.usual.1)
        };
        stretches.push(at);
        if at.begin >= begin + until {
            return Clock::skewed(stretches).expect("there is a stretch");
        }
        let time = Duration::from_millis(random.random_range(300..6000));
        at.shown += time.mul_f64(at.rate);
        at.begin += time;
        if jumps && random.random_bool(0.2) {
            let jump = Duration::from_millis(random.random_range(1..4000));
            // From then on none does, or what is asked in time would seem late.
            if at.begin < begin + until {
                at.shown += jump;
            }
        }
    }
}
