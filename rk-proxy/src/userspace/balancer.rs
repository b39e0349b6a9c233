//! Choosing endpoints: in turn, or the one that the client had before.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The usable endpoints of a port.
#[derive(Default)]
pub(super) struct Balancer {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    targets: Vec<SocketAddr>,
    next: usize,
    affinity: Option<Duration>,
    /// The endpoint of each client, and when it last came.
    clients: HashMap<IpAddr, (SocketAddr, Instant)>,
    /// Clients remembered at which outdated ones are looked for.
    sweep_at: usize,
}

/// The first time that clients are looked through for outdated ones.
const SWEEP: usize = 1024;

impl Balancer {
    /// Takes the new endpoints. Clients keep theirs where it is still there.
    pub(super) fn set(&self, targets: Vec<SocketAddr>, affinity: Option<Duration>) {
        let mut state = self.state.lock();
        if affinity.is_none() {
            state.clients.clear();
        } else {
            state.clients.retain(|_, (target, _)| targets.contains(target));
        }
        (state.targets, state.affinity) = (targets, affinity);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().targets.is_empty()
    }

    /// Whether an endpoint is usable.
    pub(super) fn contains(&self, target: SocketAddr) -> bool {
        self.state.lock().targets.contains(&target)
    }

    /// The endpoints to try for a client, the chosen one first.
    pub(super) fn choose(&self, client: IpAddr) -> Vec<SocketAddr> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.targets.is_empty() {
            return Vec::new();
        }
        let first = state.next % state.targets.len();
        state.next = first + 1;
        let mut order: Vec<SocketAddr> =
            state.targets[first..].iter().chain(&state.targets[..first]).copied().collect();
        let Some(patience) = state.affinity else { return order };
        let now = Instant::now();
        if let Some((target, since)) = state.clients.get(&client)
            && now.duration_since(*since) < patience
            && let Some(at) = order.iter().position(|other| other == target)
        {
            // The turn was not used.
            state.next = first;
            order.rotate_left(at);
        }
        self::State::remember(&mut state.clients, &mut state.sweep_at, patience, client, order[0]);
        order
    }

    /// A client got another endpoint than the chosen one, which did not answer.
    pub(super) fn moved(&self, client: IpAddr, target: SocketAddr) {
        let mut state = self.state.lock();
        if state.affinity.is_some() {
            state.clients.insert(client, (target, Instant::now()));
        }
    }
}

impl State {
    fn remember(
        clients: &mut HashMap<IpAddr, (SocketAddr, Instant)>,
        sweep_at: &mut usize,
        patience: Duration,
        client: IpAddr,
        target: SocketAddr,
    ) {
        let now = Instant::now();
        clients.insert(client, (target, now));
        if clients.len() >= (*sweep_at).max(SWEEP) {
            clients.retain(|_, (_, since)| now.duration_since(*since) < patience);
            *sweep_at = clients.len() * 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn endpoints_take_turns() {
        let balancer = Balancer::default();
        assert!(balancer.choose(CLIENT).is_empty());
        balancer.set(vec![at(1), at(2), at(3)], None);
        let firsts: Vec<u16> = (0..6).map(|_| balancer.choose(CLIENT)[0].port()).collect();
        assert_eq!(firsts, [1, 2, 3, 1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_stays_until_its_time_is_over_or_the_endpoint_goes() {
        let balancer = Balancer::default();
        balancer.set(vec![at(1), at(2)], Some(Duration::from_secs(10)));
        let first = balancer.choose(CLIENT)[0];
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(9)).await;
            assert_eq!(balancer.choose(CLIENT)[0], first);
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        let second = balancer.choose(CLIENT)[0];
        assert_ne!(second, first);
        balancer.set(vec![first], Some(Duration::from_secs(10)));
        assert_eq!(balancer.choose(CLIENT), [first]);
    }
}
