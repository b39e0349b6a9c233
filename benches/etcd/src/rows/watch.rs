//! One change to many watchers.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::LocalSet};

use super::kv::load;
use crate::{
    cluster::Cluster,
    http2::{Connection, Event},
    load::{self, Load, Work},
    messages::{self, Template, path},
    options::Options,
    stats::percentile,
    table::Figure,
};

/// Streams, each on a connection of its own.
const STREAMS: usize = 10;
/// Watchers on each.
const WATCHES: usize = 100;
/// Puts, from as many clients at once as one connection carries.
const PUTS: usize = 1_000;
const WRITERS: usize = 16;

/// When each put was sent.
type Sent = Rc<RefCell<Vec<Instant>>>;

struct Puts {
    template: Template,
    sent: Sent,
}

impl Work for Puts {
    const PATH: &'static str = path::PUT;

    fn request(&mut self, _: usize, body: &mut Vec<u8>) -> bool {
        let mut sent = self.sent.borrow_mut();
        if sent.len() == PUTS {
            return false;
        }
        self.template.write(sent.len() as u64, body);
        sent.push(Instant::now());
        true
    }
}

/// Watches until all events have come; their delivery times in microseconds.
async fn watcher(address: SocketAddr, sent: Sent, ready: mpsc::UnboundedSender<()>) -> io::Result<Vec<u32>> {
    let mut connection = Connection::open(address).await?;
    connection.call(0, path::WATCH, &messages::watch(WATCHES), false);
    let mut created = 0;
    let mut times = Vec::with_capacity(WATCHES * PUTS);
    while times.len() < WATCHES * PUTS {
        let Event::Message(_, message) = connection.event().await? else {
            return Err(io::Error::other("a watch has ended"));
        };
        let (now, sent) = (Instant::now(), sent.borrow());
        let before = times.len();
        for number in messages::watched(&message) {
            let at = sent.get(number? as usize).ok_or_else(|| io::Error::other("an event of no put"))?;
            times.push(u32::try_from(now.duration_since(*at).as_micros()).unwrap_or(u32::MAX));
        }
        if times.len() == before && created < WATCHES {
            created += 1;
            if created == WATCHES {
                // Whoever waits for it has not failed.
                let _ = ready.send(());
            }
        }
    }
    Ok(times)
}

pub(super) async fn measure(cluster: &Cluster, options: &Options) -> io::Result<Vec<Figure>> {
    let addresses = cluster.addresses();
    let sent = Sent::default();
    let local = LocalSet::new();
    let (ready, mut begun) = mpsc::unbounded_channel();
    let watchers: Vec<_> = (0..STREAMS)
        .map(|at| local.spawn_local(watcher(addresses[at % addresses.len()], sent.clone(), ready.clone())))
        .collect();
    drop(ready);
    let writes = Load { warm_up: Duration::ZERO, time: None, ..load(options, WRITERS) };
    let work = Puts { template: Template::put(), sent: sent.clone() };
    let mut times = local
        .run_until(async {
            for _ in 0..STREAMS {
                begun.recv().await;
            }
            load::run(&addresses, writes, work, || Ok(())).await?;
            let mut times = Vec::new();
            for watcher in watchers {
                times.extend(watcher.await.map_err(io::Error::other)??);
            }
            Ok::<_, io::Error>(times)
        })
        .await?;
    let elapsed = sent.borrow().first().map(Instant::elapsed).unwrap_or_default();
    Ok(vec![
        Figure::at_least("events/s", times.len() as f64 / elapsed.as_secs_f64(), 5.0),
        Figure::new("p50 delivery ms", f64::from(percentile(&mut times, 0.5)) / 1e3),
        Figure::at_most("p99 delivery ms", f64::from(percentile(&mut times, 0.99)) / 1e3, 1.0),
    ])
}
