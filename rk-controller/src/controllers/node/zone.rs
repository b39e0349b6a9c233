//! How fast nodes of a zone may lose their pods: when many fail at a time it is more likely the network than the nodes.

/// Nodes a second that may be tainted `NoExecute` in a healthy zone, and in a large zone that is partly disrupted
/// (`--node-eviction-rate`, `--secondary-node-eviction-rate`).
const RATE: f64 = 0.1;
const SECONDARY_RATE: f64 = 0.01;
/// From this share of unhealthy nodes on a zone is disrupted (`--unhealthy-zone-threshold`).
const UNHEALTHY: f64 = 0.55;
/// Up to this size a zone that is disrupted loses nothing more (`--large-cluster-size-threshold`).
const SMALL: usize = 50;

/// Health of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Normal,
    Partial,
    Full,
}

/// The state of a zone of so many nodes.
pub(super) fn state(ready: usize, not_ready: usize) -> State {
    let share = not_ready as f64 / (ready + not_ready).max(1) as f64;
    match (ready, not_ready) {
        (0, 1..) => State::Full,
        (_, 3..) if share >= UNHEALTHY => State::Partial,
        _ => State::Normal,
    }
}

/// Nodes a second that may lose their pods; 0 for none. A zone that is wholly down while others are up loses them at
/// the normal rate; when all zones are down it must be the control plane that is cut off, and nothing is evicted.
pub(super) fn rate(state: State, size: usize, all_down: bool) -> f64 {
    match state {
        _ if all_down => 0.0,
        State::Normal | State::Full => RATE,
        State::Partial if size > SMALL => SECONDARY_RATE,
        State::Partial => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_nodes_fail_the_slower_they_lose_their_pods() {
        assert_eq!(state(9, 1), State::Normal);
        assert_eq!(state(1, 2), State::Normal, "two can't be many");
        assert_eq!(state(2, 3), State::Partial);
        assert_eq!(state(0, 1), State::Full);
        assert_eq!(rate(State::Normal, 10, false), 0.1);
        assert_eq!(rate(State::Partial, 10, false), 0.0);
        assert_eq!(rate(State::Partial, 100, false), 0.01);
        assert_eq!((rate(State::Full, 10, false), rate(State::Full, 10, true)), (0.1, 0.0));
    }
}
