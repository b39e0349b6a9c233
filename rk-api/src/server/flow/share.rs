//! What a level's object says of its seats, in seats.

/// What a level says of its seats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    pub(super) shares: usize,
    /// It lends so much of its own.
    pub(super) lendable_percent: f64,
    /// It borrows so much, measured by its own; `None` for any number.
    pub(super) borrowing_percent: Option<f64>,
}

/// The seats that a level has by its share, and the fewest and most that it has with what is lent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) nominal: usize,
    pub(super) least: usize,
    pub(super) most: usize,
}

impl Limits {
    /// Of so many seats and shares of all levels. Its own part is rounded up.
    pub(super) fn of(share: Share, seats: usize, shares: usize) -> Self {
        let nominal = (seats * share.shares).div_ceil(shares.max(1));
        let part = |percent: f64| (nominal as f64 * percent / 100.0).round() as usize;
        let most = nominal + share.borrowing_percent.map_or(seats, part);
        Self { nominal, least: nominal.saturating_sub(part(share.lendable_percent)), most }
    }

    /// What a level begins with, before anything is known of what it needs: half of what it may lend is lent.
    pub(super) fn first(self) -> usize {
        self.nominal - (self.nominal - self.least) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_kubernetes() {
        let share = |shares, lendable_percent, borrowing_percent| Share { shares, lendable_percent, borrowing_percent };
        // Of the 600 seats and 245 shares of a cluster's first objects.
        let of = |share| Limits::of(share, 600, 245);
        let low = of(share(100, 90.0, None));
        assert_eq!(low, Limits { nominal: 245, least: 24, most: 845 });
        assert_eq!(low.first(), 135);
        assert_eq!(of(share(10, 0.0, Some(50.0))), Limits { nominal: 25, least: 25, most: 38 });
        assert_eq!(of(share(0, 0.0, None)), Limits { nominal: 0, least: 0, most: 600 });
    }
}
