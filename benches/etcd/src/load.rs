//! Clients that each wait for an answer before they ask again, several to a connection.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
pub use rk_benches_common::load::Outcome;
use rk_benches_common::load::Span;
use tokio::task::JoinSet;

use crate::http2::{Connection, Event};

/// What clients ask.
pub trait Work {
    /// The method called.
    const PATH: &'static str;

    /// Writes a client's next request, framed; false if there is no more.
    fn request(&mut self, client: usize, body: &mut Vec<u8>) -> bool;

    /// Takes an answer.
    fn answer(&mut self, client: usize, message: &Bytes) -> io::Result<()> {
        let _ = (client, message);
        Ok(())
    }

    /// Takes an answer of so many bytes that it was not kept.
    fn large_answer(&mut self, bytes: usize) -> io::Result<()> {
        Err(io::Error::other(format!("an answer of {bytes} bytes")))
    }
}

/// How much.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Clients.
    pub clients: usize,
    /// Clients that share a connection.
    pub clients_per_connection: usize,
    /// Time before answers count.
    pub warm_up: Duration,
    /// Time in which they count. With no end the work has one.
    pub time: Option<Duration>,
}

struct Shared<W> {
    work: W,
    latencies: Vec<u32>,
    span: Span,
}

/// Runs the work against these servers, its connections spread over them. `measured` is called when answers begin to count and
/// when they cease to.
pub async fn run<W: Work + 'static>(
    addresses: &[SocketAddr],
    load: Load,
    work: W,
    measured: impl FnMut() -> io::Result<()>,
) -> io::Result<(Outcome, W)> {
    let local = tokio::task::LocalSet::new();
    let span = Span::new(load.warm_up, load.time);
    let shared = Rc::new(RefCell::new(Shared { work, latencies: Vec::new(), span }));
    let clients: Vec<_> = (0..load.clients).collect();
    let mut running = JoinSet::new();
    for (at, clients) in clients.chunks(load.clients_per_connection).enumerate() {
        let (address, clients, shared) = (addresses[at % addresses.len()], clients.to_vec(), shared.clone());
        running.spawn_local_on(async move { connection(address, &clients, &shared).await }, &local);
    }
    let elapsed = local.run_until(span.pass(&mut running, measured)).await?;
    drop(running);
    let shared = Rc::into_inner(shared).expect("all connections have ended").into_inner();
    Ok((Outcome { latencies: shared.latencies, elapsed }, shared.work))
}

async fn connection<W: Work>(address: SocketAddr, clients: &[usize], shared: &RefCell<Shared<W>>) -> io::Result<()> {
    let mut connection = Connection::open(address).await?;
    let mut body = Vec::new();
    let mut under_way = 0;
    let mut begun = vec![Instant::now(); clients.len()];
    let mut ask = |at: usize, now: Instant, shared: &mut Shared<W>, connection: &mut Connection| {
        body.clear();
        if shared.span.is_over(now) || !shared.work.request(clients[at], &mut body) {
            return 0;
        }
        connection.call(at, W::PATH, &body, true);
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
                Event::Message(at, message) => shared.work.answer(clients[at], &message)?,
                Event::Large(_, bytes) => shared.work.large_answer(bytes)?,
                Event::End(at, answered) => {
                    under_way -= 1;
                    if !answered {
                        return Err(io::Error::other(format!("{} was refused", W::PATH)));
                    }
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
