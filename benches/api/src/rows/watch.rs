//! One change to many watchers.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use memchr::memmem::{self, Finder};
use tokio::{sync::mpsc, task::JoinSet};

use super::{bodies, run};
use crate::{
    http2::{Connection, Event, Request},
    load::Load,
    options::Options,
    stats::percentile,
    table::Figure,
    target::Target,
};

const NAMESPACE: &str = "bench-watch";
/// Watchers that share a connection, as those of one process do.
const PER_CONNECTION: usize = 100;
/// Creates, and the clients that make them as fast as they go.
const FREE_CREATES: u64 = 500;
const FREE_WRITERS: usize = 16;
/// How long watchers may take to get what is left once all creates are done.
const PATIENCE: Duration = Duration::from_secs(60);

/// How fast objects are made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// As fast as they go.
    Free,
    /// One after each such time.
    Every(Duration),
}

/// What all watchers saw.
#[derive(Default)]
struct Seen {
    /// The number of the first object, and when each was sent.
    first: u64,
    sent: Vec<Instant>,
    /// From there to each event, in microseconds.
    times: Vec<u32>,
    /// Events by watcher, and the sum of their numbers.
    counts: Vec<(u64, u64)>,
    /// Watches that ended before their time.
    cut: u64,
    last: Option<Instant>,
}

type Shared = Rc<RefCell<Seen>>;

/// One watcher's stream.
struct Stream {
    /// Its place among all.
    place: usize,
    /// What has come of an event that is not complete.
    partial: Vec<u8>,
    /// The last event.
    last: Bytes,
}

struct Watching {
    connection: Connection,
    path: String,
    streams: Vec<Stream>,
    seen: Shared,
    name: Finder<'static>,
}

impl Watching {
    async fn open(
        target: &Target,
        path: &str,
        from: &str,
        places: std::ops::Range<usize>,
        seen: &Shared,
    ) -> io::Result<Self> {
        let mut connection = target.connect().await?;
        let count = places.len();
        for at in 0..count {
            connection.call(at, Request::get(format!("{path}?watch=1&resourceVersion={from}")));
        }
        let streams = places.map(|place| Stream { place, partial: Vec::new(), last: Bytes::new() }).collect();
        let name = Finder::new("\"name\":\"load-");
        let mut watching = Self { connection, path: path.to_owned(), streams, seen: seen.clone(), name };
        let mut begun = 0;
        while begun < count {
            match watching.connection.event().await? {
                Event::Begin(_) => begun += 1,
                other => watching.take(other)?,
            }
        }
        Ok(watching)
    }

    /// Watches until each watcher has had all events.
    async fn run(mut self, wanted: u64) -> io::Result<()> {
        let places: Vec<_> = self.streams.iter().map(|stream| stream.place).collect();
        let lacks = |seen: &Shared| {
            let seen = seen.borrow();
            places.iter().any(|place| seen.counts[*place].0 < wanted)
        };
        while lacks(&self.seen) {
            let mut next = Some(self.connection.event().await?);
            while let Some(event) = next {
                self.take(event)?;
                next = self.connection.ready_event();
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Begin(_) => {}
            Event::Data(at, data) => self.data(at, &data),
            Event::End(at, _) => {
                self.seen.borrow_mut().cut += 1;
                let stream = &mut self.streams[at];
                stream.partial.clear();
                let from =
                    version(&stream.last).ok_or_else(|| io::Error::other("a watch ended before its first event"))?;
                self.connection.call(at, Request::get(format!("{}?watch=1&resourceVersion={from}", self.path)));
            }
        }
        Ok(())
    }

    fn data(&mut self, at: usize, data: &Bytes) {
        let (stream, mut seen, now) = (&mut self.streams[at], self.seen.borrow_mut(), Instant::now());
        let mut rest = data.clone();
        while let Some(end) = memchr::memchr(b'\n', &rest) {
            let piece = rest.split_to(end + 1);
            let line = if stream.partial.is_empty() {
                piece
            } else {
                stream.partial.extend_from_slice(&piece);
                std::mem::take(&mut stream.partial).into()
            };
            let Some(found) = self.name.find(&line) else { continue };
            let digits = line.get(found + 13..found + 22).and_then(|digits| std::str::from_utf8(digits).ok());
            let Some(number) = digits.and_then(|digits| digits.parse::<u64>().ok()) else { continue };
            let Some(sent) = number.checked_sub(seen.first).and_then(|at| seen.sent.get(at as usize).copied()) else {
                continue;
            };
            seen.times.push(u32::try_from(now.duration_since(sent).as_micros()).unwrap_or(u32::MAX));
            let count = &mut seen.counts[stream.place];
            *count = (count.0 + 1, count.1 + number);
            stream.last = line;
        }
        stream.partial.extend_from_slice(&rest);
        seen.last = Some(now);
    }
}

/// The `resourceVersion` in an object or list.
fn version(json: &[u8]) -> Option<String> {
    let label = b"\"resourceVersion\":\"";
    let from = memmem::find(json, label)? + label.len();
    let to = from + memchr::memchr(b'"', &json[from..])?;
    String::from_utf8(json[from..to].to_vec()).ok()
}

/// Watches a namespace from now on with so many watchers, while so many objects are made there.
async fn watch(
    target: &Target,
    namespace: &'static str,
    watchers: usize,
    first: u64,
    creates: u64,
    pace: Pace,
) -> io::Result<(Seen, f64)> {
    let path = bodies::collection(namespace);
    let now = target.connect().await?.ask(Request::get(format!("{path}?limit=1"))).await?;
    let from = version(&now).ok_or_else(|| io::Error::other("a list has no version"))?;
    let seen = Shared::new(RefCell::new(Seen { first, counts: vec![(0, 0); watchers], ..Seen::default() }));
    let mut running = JoinSet::new();
    let mut place = 0;
    while place < watchers {
        let places = place..(place + PER_CONNECTION).min(watchers);
        place = places.end;
        let watching = Watching::open(target, &path, &from, places, &seen).await?;
        running.spawn_local(watching.run(creates));
    }
    let before = target.usage()?.cpu;
    match pace {
        Pace::Free => {
            let sent = seen.clone();
            let work = move || {
                let mut seen = sent.borrow_mut();
                let number = seen.sent.len() as u64;
                seen.sent.push(Instant::now());
                (number < creates).then(|| bodies::create(namespace, first + number))
            };
            run(target, Load::all(FREE_WRITERS), work).await?;
        }
        Pace::Every(pause) => {
            let (asks, mut asked) = mpsc::unbounded_channel();
            let mut connection = target.connect().await?;
            let writer = tokio::task::spawn_local(async move {
                while let Some(request) = asked.recv().await {
                    connection.ask(request).await?;
                }
                Ok::<_, io::Error>(())
            });
            let mut ticks = tokio::time::interval(pause);
            for number in 0..creates {
                ticks.tick().await;
                seen.borrow_mut().sent.push(Instant::now());
                // It fails when the writer has: that is told below.
                let _gone = asks.send(bodies::create(namespace, first + number));
            }
            drop(asks);
            writer.await.map_err(io::Error::other)??;
        }
    }
    let all = async {
        while let Some(ended) = running.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        Ok::<_, io::Error>(())
    };
    if let Ok(ended) = tokio::time::timeout(PATIENCE, all).await {
        ended?;
    }
    running.shutdown().await;
    let cpu = target.usage()?.cpu - before;
    Ok((seen.take(), cpu))
}

pub(super) async fn measure(target: &Target, pace: Pace, options: &Options) -> io::Result<Vec<Figure>> {
    target.namespace(NAMESPACE).await?;
    let creates = match pace {
        Pace::Free => options.objects(FREE_CREATES),
        Pace::Every(pause) => (options.time().as_secs_f64() / pause.as_secs_f64()) as u64,
    };
    let watchers = options.watchers;
    let (mut seen, cpu) = watch(target, NAMESPACE, watchers, 0, creates, pace).await?;
    target.empty(NAMESPACE).await?;
    let events = seen.times.len() as f64;
    let begun = seen.sent.first().copied().unwrap_or_else(Instant::now);
    let elapsed = seen.last.unwrap_or(begun).duration_since(begun).as_secs_f64();
    let all = (creates, creates * creates.saturating_sub(1) / 2);
    let missed: u64 = seen.counts.iter().map(|count| creates.saturating_sub(count.0)).sum();
    let wrong = seen.counts.iter().filter(|count| **count != all).count();
    let (p50, p99) =
        (f64::from(percentile(&mut seen.times, 0.5)) / 1e3, f64::from(percentile(&mut seen.times, 0.99)) / 1e3);
    let free = matches!(pace, Pace::Free);
    let mut figures = vec![
        if free {
            Figure::new("events per second", events / elapsed).at_least(270_000.0).beside("54,000")
        } else {
            Figure::new("events per second", events / elapsed)
        },
        if free {
            Figure::new("p50 from request to event, ms", p50)
        } else {
            Figure::new("p50 from request to event, ms", p50).at_most(3.0).beside("17 to 23")
        },
        if free {
            Figure::new("p99 from request to event, ms", p99).at_most(200.0).beside("900 to 4,400")
        } else {
            Figure::new("p99 from request to event, ms", p99).at_most(20.0).beside("172")
        },
        Figure::new("events missed, %", missed as f64 * 100.0 / (creates as f64 * watchers as f64))
            .at_most(0.0)
            .beside(if free { "29 to 46" } else { "" }),
        Figure::new("watchers with other events than those made", wrong as f64).at_most(0.0),
        Figure::new("watches cut off and resumed", seen.cut as f64),
    ];
    if target.is_measurable() {
        let cores = Figure::new("cores busy with it", cpu / elapsed);
        figures.push(if free { cores } else { cores.at_most(0.13).beside("0.65") });
        figures.push(Figure::new("CPU µs per event", cpu * 1e6 / events));
    }
    Ok(figures)
}

/// Objects that [`cost_of_an_event`] makes.
pub(super) const EVENTS: u64 = 1000;

/// CPU microseconds of the server for one event of one watcher: what creates cost with 100 watchers, less what they cost without.
pub(super) async fn cost_of_an_event(target: &Target, namespace: &'static str, first: u64) -> io::Result<f64> {
    let half = EVENTS / 2;
    let (_, without) = watch(target, namespace, 0, first, half, Pace::Free).await?;
    let (seen, with) = watch(target, namespace, PER_CONNECTION, first + half, half, Pace::Free).await?;
    Ok((with - without) * 1e6 / seen.times.len().max(1) as f64)
}
