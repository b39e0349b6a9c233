//! How many seats a request takes, by what it is expected to cost (KEP-1040, apiserver's `flowcontrol/request`).

use std::time::Duration;

/// So many bytes of objects are read from one seat, and no read takes more seats (`SizeBasedListCostEstimate`,
/// `MaximumListSeatsLimit`).
const BYTES_PER_SEAT: usize = 100_000;
const MOST_FOR_READS: usize = 100;
/// What is sent from memory is never there as a whole besides: it counts as so many bytes at most.
const STREAMED: usize = 1_000_000;

/// So many watches are told of a change from one seat in so much time. Fewer are not counted, and no write takes more seats
/// (`MaximumMutatingSeatsLimit`).
const WATCHES_PER_SEAT: usize = 10;
const TELLING: Duration = Duration::from_millis(5);
const MOST_FOR_WRITES: usize = 10;

/// What a request is expected to cost besides what every request does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Bytes of objects that it has in memory at once.
    bytes: usize,
    /// Watches that are told of what it changes.
    watches: usize,
}

/// The seats of a request, and how long it keeps them once it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seats {
    pub(super) count: usize,
    pub(super) after: Duration,
}

impl Cost {
    /// Reads so many of the objects of a collection, of which this is the number and size; from memory, or from the store.
    pub(crate) fn read(objects: usize, (all, bytes): (usize, usize), streamed: bool) -> Self {
        let bytes = objects.saturating_mul(bytes / all.max(1));
        Self { bytes: if streamed { bytes.min(STREAMED) } else { bytes }, watches: 0 }
    }

    /// Changes something that so many watch.
    pub(crate) fn write(watches: usize) -> Self {
        Self { bytes: 0, watches }
    }

    /// Its seats, where one request may take this many. What is not to be done from as many seats as it is worth takes longer.
    pub(super) fn seats(self, most: usize) -> Seats {
        let most = most.max(1);
        if self.watches < WATCHES_PER_SEAT {
            let count = self.bytes.div_ceil(BYTES_PER_SEAT).clamp(1, most.min(MOST_FOR_READS));
            return Seats { count, after: Duration::ZERO };
        }
        let worth = self.watches.div_ceil(WATCHES_PER_SEAT);
        let count = worth.min(most.min(MOST_FOR_WRITES));
        Seats { count, after: TELLING.mul_f64(worth as f64 / count as f64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_take_seats_by_bytes() {
        let seats = |objects, streamed| Cost::read(objects, (10_000, 20_000_000), streamed).seats(usize::MAX).count;
        for (objects, of_memory, of_store) in [(0, 1, 1), (50, 1, 1), (51, 2, 2), (500, 10, 10), (9_000, 10, 100)] {
            assert_eq!((seats(objects, true), seats(objects, false)), (of_memory, of_store), "{objects}");
        }
        assert_eq!(Cost::read(9_000, (10_000, 20_000_000), false).seats(7).count, 7);
        assert_eq!(Cost::read(5, (0, 0), true).seats(0).count, 1);
    }

    #[test]
    fn writes_take_seats_by_watches() {
        let seats = |watches, most| {
            let seats = Cost::write(watches).seats(most);
            (seats.count, seats.after.as_micros())
        };
        assert_eq!(seats(9, 10), (1, 0));
        assert_eq!(seats(10, 10), (1, 5_000));
        assert_eq!(seats(31, 10), (4, 5_000));
        assert_eq!(seats(200, usize::MAX), (10, 10_000), "as much work from fewer seats");
        assert_eq!(seats(31, 2), (2, 10_000));
    }
}
