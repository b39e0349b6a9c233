//! Requests about one object.

use std::{cell::Cell, io, rc::Rc};

use super::{
    Measured,
    bodies::{self, Numbers},
    run,
};
use crate::{http2::Method, load::Load, options::Options, stats::percentile, table::Figure, target::Target};

const NAMESPACE: &str = "bench-verbs";

pub(super) async fn measure(target: &Target, clients: usize, options: &Options) -> io::Result<Vec<Figure>> {
    target.namespace(NAMESPACE).await?;
    let load = Load { clients, warm_up: options.warm_up(), time: Some(options.time()) };
    let made = Rc::new(Cell::new(0));
    let number = made.clone();
    let create = move || {
        number.set(number.get() + 1);
        Some(bodies::create(NAMESPACE, number.get() - 1))
    };
    let mut figures = Vec::new();
    figures.extend(tell("create", clients, target, run(target, load, create).await?));
    let count = made.get();
    let mut change = 0;
    for (what, method) in [("get", Method::Get), ("update", Method::Put), ("patch", Method::Patch)] {
        let mut numbers = Numbers::new();
        let mut next = change;
        let work = move || {
            next += 1;
            Some(bodies::one(NAMESPACE, numbers.below(count), method, next))
        };
        // So that no change is one that was made already.
        change += 1 << 32;
        figures.extend(tell(what, clients, target, run(target, load, work).await?));
    }
    let mut next = 0;
    let delete = move || {
        next += 1;
        (next <= count).then(|| bodies::one(NAMESPACE, next - 1, Method::Delete, 0))
    };
    figures.extend(tell("delete", clients, target, run(target, load, delete).await?));
    target.empty(NAMESPACE).await?;
    Ok(figures)
}

/// What kube-apiserver did elsewhere, per second and in milliseconds of CPU.
fn orientation(what: &str, clients: usize) -> (&'static str, &'static str) {
    match (what, clients) {
        ("create", 1) => ("384", "about 1.0"),
        ("create", 16) => ("917", "about 1.0"),
        ("create", 64) => ("1,430", "about 1.0"),
        ("get", 1) => ("760", "0.44 to 0.96"),
        ("get", 16) => ("1,424", "0.44 to 0.96"),
        ("get", 64) => ("2,296", "0.44 to 0.96"),
        ("patch", 1) => ("325", ""),
        ("patch", 16) => ("470", ""),
        ("patch", 64) => ("622", ""),
        _ => ("", ""),
    }
}

fn tell(what: &str, clients: usize, target: &Target, measured: Measured) -> Vec<Figure> {
    let (rate, cpu) = orientation(what, clients);
    let (each, per_second) = (measured.cpu_each(), measured.outcome.per_second());
    let mut latencies = measured.outcome.latencies;
    let mut figures = vec![
        Figure::new(format!("{what}: per second"), per_second).beside(rate),
        Figure::new(format!("{what}: p50 ms"), f64::from(percentile(&mut latencies, 0.5)) / 1e3),
        Figure::new(format!("{what}: p99 ms"), f64::from(percentile(&mut latencies, 0.99)) / 1e3),
    ];
    if target.is_measurable() {
        let figure = Figure::new(format!("{what}: CPU ms each"), each).beside(cpu);
        let bar = if what == "get" { 0.04 } else { 0.15 };
        figures.push(if clients == 64 { figure.at_most(bar) } else { figure });
    }
    figures
}
