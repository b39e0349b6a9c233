//! Lists of all objects of a namespace.

use std::{
    cell::Cell,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use super::bodies;
use crate::{
    http2::{Connection, Event, Request},
    load::{self, Load},
    options::Options,
    stats::median,
    table::Figure,
    target::Target,
};

const NAMESPACE: &str = "bench-lists";
/// Clients that make the objects.
const WRITERS: usize = 64;
/// Each list is asked at least so often, and until this time is over.
const AT_LEAST: usize = 5;
const MEDIA: [(&str, &str, bool); 3] = [
    ("JSON", "application/json", false),
    ("gzip", "application/json", true),
    ("protobuf", "application/vnd.kubernetes.protobuf", false),
];

/// Makes objects until there are so many, of which `from` are there.
pub(super) async fn fill(target: &Target, namespace: &'static str, from: u64, to: u64) -> io::Result<()> {
    let next = Rc::new(Cell::new(from));
    let work = move || {
        let number = next.get();
        next.set(number + 1);
        (number < to).then(|| bodies::create(namespace, number))
    };
    load::run(&target.endpoint, Load::all(WRITERS), work, || Ok(())).await.map(drop)
}

/// What one list took.
struct Listed {
    first_byte: Duration,
    whole: Duration,
    bytes: usize,
}

async fn list(connection: &mut Connection) -> io::Result<Listed> {
    let begun = Instant::now();
    connection.call(0, Request::get(bodies::collection(NAMESPACE)));
    let mut listed = Listed { first_byte: Duration::ZERO, whole: Duration::ZERO, bytes: 0 };
    loop {
        match connection.event().await? {
            Event::Begin(_) => {}
            Event::Data(_, data) => {
                if listed.bytes == 0 {
                    listed.first_byte = begun.elapsed();
                }
                listed.bytes += data.len();
            }
            Event::End(_, false) => {
                listed.whole = begun.elapsed();
                return Ok(listed);
            }
            Event::End(_, true) => return Err(io::Error::other("the list failed")),
        }
    }
}

/// What kube-apiserver did elsewhere: milliseconds, and MB/s.
fn orientation(count: u64, media: &str) -> (&'static str, &'static str) {
    let took = match (count, media) {
        (1000, "JSON") => "17",
        (30_000, "JSON") => "520 to 600",
        _ => "",
    };
    let rate = match (count, media) {
        (30_000, "JSON") => "80 (per second)",
        (30_000, "gzip") => "32 of JSON (per second)",
        (30_000, "protobuf") => "125 (per second)",
        _ => "",
    };
    (took, rate)
}

pub(super) async fn measure(target: &Target, options: &Options) -> io::Result<Vec<Figure>> {
    target.namespace(NAMESPACE).await?;
    let mut figures = Vec::new();
    let mut made = 0;
    for wanted in [1_000, 30_000, 100_000] {
        let count = options.objects(wanted);
        fill(target, NAMESPACE, made, count).await?;
        made = count;
        let resident = |what: String| {
            let usage = target.usage()?;
            Ok::<_, io::Error>(Figure::new(what, usage.resident as f64 / f64::from(1 << 20)))
        };
        if target.is_measurable() {
            let figure = resident(format!("resident with {count} objects, MiB"))?;
            figures.push(if count == 30_000 { figure.at_most(200.0).beside("748") } else { figure });
        }
        for (media, accept, gzip) in MEDIA {
            let mut connection = Connection::open(&target.endpoint, accept, gzip).await?;
            let name = |what: &str| format!("{count} objects, {media}: {what}");
            // The first one is not like the others: it may find caches cold.
            if list(&mut connection).await.is_err() {
                figures.push(Figure::new(name("refused"), 0.0));
                continue;
            }
            let (begun, before) = (Instant::now(), target.usage()?.cpu);
            let mut lists = Vec::new();
            while lists.len() < AT_LEAST || begun.elapsed() < options.time() / 2 {
                lists.push(list(&mut connection).await?);
            }
            let cpu = target.usage()?.cpu - before;
            let ms = |of: fn(&Listed) -> Duration| {
                median(&lists.iter().map(|l| of(l).as_secs_f64() * 1e3).collect::<Vec<_>>()).unwrap_or_default()
            };
            let megabytes = lists.iter().map(|l| l.bytes).sum::<usize>() as f64 / 1e6;
            let (took, rate) = orientation(count, media);
            figures.push(Figure::new(name("ms"), ms(|l| l.whole)).beside(took));
            let first = Figure::new(name("first byte, ms"), ms(|l| l.first_byte));
            figures.push(if media == "JSON" { first.at_most(1.0) } else { first });
            if target.is_measurable() && cpu > 0.0 {
                let per_core = Figure::new(name("MB sent per CPU second"), megabytes / cpu).beside(rate);
                figures.push(if media == "JSON" && count == 30_000 { per_core.at_least(800.0) } else { per_core });
            }
        }
        if target.is_measurable() {
            figures.push(resident(format!("resident after lists of {count} objects, MiB"))?);
        }
    }
    target.tidy(NAMESPACE).await?;
    Ok(figures)
}
