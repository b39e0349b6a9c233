//! Rates of puts, txns and reads.

use std::io;

use bytes::Bytes;

use super::targets;
use crate::{
    cluster::Cluster,
    load::{self, Load, Outcome, Work},
    messages::{self, Template, path},
    options::Options,
    process::Usage,
    stats::percentile,
    table::Figure,
};

/// Keys that puts and reads choose from.
const KEYS: u64 = 10_000;
/// Clients of the rows that name no other number.
const CLIENTS: usize = 64;
/// Pairs of one txn where many keys are put: what fits HTTP/2's first window.
const BATCH: u64 = 40;

/// Puts keys with numbers from `from` to `to`, several at once.
pub(super) struct Fill {
    next: u64,
    to: u64,
}

impl Work for Fill {
    const PATH: &'static str = path::TXN;

    fn request(&mut self, _: usize, body: &mut Vec<u8>) -> bool {
        let end = (self.next + BATCH).min(self.to);
        let pairs = self.next..end;
        self.next = end;
        if !pairs.is_empty() {
            body.extend(messages::put_many(pairs.map(|number| (messages::key(number), messages::value(number)))));
        }
        !body.is_empty()
    }
}

/// Puts keys with numbers from `from` to `to`.
pub(super) async fn fill(cluster: &Cluster, options: &Options, from: u64, to: u64) -> io::Result<()> {
    let load = Load { clients: CLIENTS / 4, time: None, ..load(options, CLIENTS) };
    load::run(&targets(cluster, options).await?, load, Fill { next: from, to }, || Ok(())).await?;
    Ok(())
}

pub(super) fn load(options: &Options, clients: usize) -> Load {
    Load {
        clients,
        clients_per_connection: options.clients_per_connection.max(1),
        warm_up: options.warm_up(),
        time: Some(options.time()),
    }
}

/// A request for one of the keys, chosen without a pattern.
struct Random<const PUT: bool> {
    template: Template,
    state: u64,
}

impl<const PUT: bool> Random<PUT> {
    fn new(template: Template) -> Self {
        Self { template, state: 88_172_645_463_325_252 }
    }
}

impl<const PUT: bool> Work for Random<PUT> {
    const PATH: &'static str = if PUT { path::PUT } else { path::RANGE };

    fn request(&mut self, _: usize, body: &mut Vec<u8>) -> bool {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.template.write(self.state % KEYS, body);
        true
    }
}

/// Runs the work and tells what the servers used meanwhile.
async fn measured<W: Work + 'static>(
    cluster: &Cluster,
    options: &Options,
    clients: usize,
    work: W,
) -> io::Result<(Outcome, Usage)> {
    let mut usage = Vec::new();
    let targets = targets(cluster, options).await?;
    let load = load(options, clients);
    let sample = || {
        usage.push(cluster.usage()?);
        Ok(())
    };
    let (outcome, _) = load::run(&targets, load, work, sample).await?;
    let [before, after] = usage[..] else { unreachable!("a run calls twice") };
    let used = Usage { cpu: after.cpu - before.cpu, written: after.written - before.written, ..after };
    Ok((outcome, used))
}

fn latency(outcome: &mut Outcome, share: f64) -> f64 {
    f64::from(percentile(&mut outcome.latencies, share)) / 1e3
}

fn cpu_each(outcome: &Outcome, used: Usage) -> f64 {
    used.cpu * 1e6 / outcome.latencies.len().max(1) as f64
}

pub(super) async fn puts(cluster: &Cluster, clients: usize, options: &Options) -> io::Result<Vec<Figure>> {
    let work = Random::<true>::new(Template::put());
    let (mut outcome, used) = measured(cluster, options, clients, work).await?;
    let acknowledged = (outcome.latencies.len() * messages::VALUE).max(1) as f64;
    let p99 = latency(&mut outcome, 0.99);
    Ok(vec![
        Figure::at_least("puts/s", outcome.per_second(), if clients == 1 { 1.3 } else { 3.0 }),
        Figure::new("p50 ms", latency(&mut outcome, 0.5)),
        if clients == 1 { Figure::new("p99 ms", p99) } else { Figure::at_most("p99 ms", p99, 1.0) },
        Figure::at_most("CPU µs per put", cpu_each(&outcome, used), 0.5),
        Figure::new("KiB written per KiB put", used.written as f64 / acknowledged),
    ])
}

/// One object for each client, which it updates over and over.
struct Update {
    revisions: Vec<i64>,
    value: Bytes,
}

impl Work for Update {
    const PATH: &'static str = path::TXN;

    fn request(&mut self, client: usize, body: &mut Vec<u8>) -> bool {
        let key = messages::key(client as u64);
        body.extend(messages::update(key, self.value.clone(), self.revisions[client]));
        true
    }

    fn answer(&mut self, client: usize, message: &Bytes) -> io::Result<()> {
        self.revisions[client] = messages::updated(message)?;
        Ok(())
    }
}

pub(super) async fn txns(cluster: &Cluster, options: &Options) -> io::Result<Vec<Figure>> {
    let work = Update { revisions: vec![0; CLIENTS], value: messages::value(1) };
    let (mut outcome, used) = measured(cluster, options, CLIENTS, work).await?;
    let p99 = latency(&mut outcome, 0.99);
    Ok(vec![
        Figure::at_least("txns/s", outcome.per_second(), 3.0),
        Figure::new("p50 ms", latency(&mut outcome, 0.5)),
        Figure::at_most("p99 ms", p99, 1.0),
        Figure::new("CPU µs per txn", cpu_each(&outcome, used)),
    ])
}

pub(super) async fn gets(cluster: &Cluster, serializable: bool, options: &Options) -> io::Result<Vec<Figure>> {
    fill(cluster, options, 0, KEYS).await?;
    let work = Random::<false>::new(Template::get(serializable));
    let (mut outcome, used) = measured(cluster, options, CLIENTS, work).await?;
    let p99 = latency(&mut outcome, 0.99);
    Ok(vec![
        Figure::at_least("reads/s", outcome.per_second(), 3.0),
        Figure::new("p50 ms", latency(&mut outcome, 0.5)),
        Figure::new("p99 ms", p99),
        Figure::new("CPU µs per read", cpu_each(&outcome, used)),
    ])
}

/// Reads of all keys.
struct List {
    request: Vec<u8>,
    bytes: usize,
}

impl Work for List {
    const PATH: &'static str = path::RANGE;

    fn request(&mut self, _: usize, body: &mut Vec<u8>) -> bool {
        body.extend_from_slice(&self.request);
        true
    }

    fn large_answer(&mut self, bytes: usize) -> io::Result<()> {
        if bytes < self.bytes {
            return Err(io::Error::other(format!("a range of {bytes} bytes, where there are {}", self.bytes)));
        }
        Ok(())
    }
}

pub(super) async fn lists(cluster: &Cluster, options: &Options) -> io::Result<Vec<Figure>> {
    fill(cluster, options, 0, KEYS).await?;
    let bytes = KEYS as usize * messages::VALUE;
    let work = List { request: messages::list(messages::key(0), KEYS as i64), bytes };
    let (outcome, _) = measured(cluster, options, 1, work).await?;
    Ok(vec![Figure::at_least("MB/s", outcome.per_second() * bytes as f64 / 1e6, 5.0)])
}
