//! Clients that each wait for an answer before they ask again, several to a connection.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

pub use rk_benches_common::load::Outcome;
use rk_benches_common::load::Span;
use tokio::task::{JoinSet, LocalSet};

use crate::{
    http2::{Connection, Event, Request},
    kubeconfig::Endpoint,
};

/// Clients that share a connection, as those of one client-go do.
const CLIENTS_PER_CONNECTION: usize = 16;
/// What a failure says at most.
const SHOWN: usize = 500;

/// How much.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Clients.
    pub clients: usize,
    /// Time before answers count.
    pub warm_up: Duration,
    /// Time in which they count. With no end the work has one.
    pub time: Option<Duration>,
}

impl Load {
    /// So many clients until the work has ended, all of which counts.
    pub fn all(clients: usize) -> Self {
        Self { clients, warm_up: Duration::ZERO, time: None }
    }
}

struct Shared<W> {
    work: W,
    latencies: Vec<u32>,
    span: Span,
}

/// Asks what `work` says, until it has no more or the time is over. `measured` is called when answers begin to count and when they
/// cease to.
pub async fn run<W: FnMut() -> Option<Request> + 'static>(
    endpoint: &Endpoint,
    load: Load,
    work: W,
    measured: impl FnMut() -> io::Result<()>,
) -> io::Result<Outcome> {
    let local = LocalSet::new();
    let mut connections = Vec::new();
    let mut clients = load.clients;
    while clients > 0 {
        let share = clients.min(CLIENTS_PER_CONNECTION);
        connections.push((Connection::open(endpoint, "application/json", false).await?, share));
        clients -= share;
    }
    let span = Span::new(load.warm_up, load.time);
    let shared = Rc::new(RefCell::new(Shared { work, latencies: Vec::new(), span }));
    let mut running = JoinSet::new();
    for (connection, clients) in connections {
        let shared = shared.clone();
        running.spawn_local_on(async move { ask_on(connection, clients, &shared).await }, &local);
    }
    let elapsed = local.run_until(span.pass(&mut running, measured)).await?;
    drop(running);
    let shared = Rc::into_inner(shared).expect("all connections have ended").into_inner();
    Ok(Outcome { latencies: shared.latencies, elapsed })
}

async fn ask_on<W: FnMut() -> Option<Request>>(
    mut connection: Connection,
    clients: usize,
    shared: &RefCell<Shared<W>>,
) -> io::Result<()> {
    let mut under_way = 0;
    let mut begun = vec![Instant::now(); clients];
    let mut failure: Vec<Vec<u8>> = vec![Vec::new(); clients];
    let ask = |at: usize, now: Instant, shared: &mut Shared<W>, connection: &mut Connection| {
        if shared.span.is_over(now) {
            return 0;
        }
        let Some(request) = (shared.work)() else { return 0 };
        connection.call(at, request);
        1
    };
    for (at, begun) in begun.iter_mut().enumerate() {
        *begun = Instant::now();
        under_way += ask(at, *begun, &mut shared.borrow_mut(), &mut connection);
    }
    while under_way > 0 {
        let mut next = Some(connection.event().await?);
        let mut guard = shared.borrow_mut();
        let shared = &mut *guard;
        while let Some(event) = next {
            match event {
                Event::Begin(at) => failure[at].clear(),
                Event::Data(at, data) => {
                    let room = SHOWN.saturating_sub(failure[at].len()).min(data.len());
                    failure[at].extend_from_slice(&data[..room]);
                }
                Event::End(at, true) => {
                    let answer = String::from_utf8_lossy(&failure[at]);
                    return Err(io::Error::other(format!("a request failed: {answer}")));
                }
                Event::End(at, false) => {
                    under_way -= 1;
                    let now = Instant::now();
                    if shared.span.counts(now) {
                        let latency = now.duration_since(begun[at]).as_micros();
                        shared.latencies.push(u32::try_from(latency).unwrap_or(u32::MAX));
                    }
                    begun[at] = now;
                    under_way += ask(at, now, shared, &mut connection);
                }
            }
            next = connection.ready_event();
        }
    }
    Ok(())
}
