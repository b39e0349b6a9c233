//! What requests cost as objects grow in number.

use std::{cell::Cell, io, rc::Rc};

use super::{
    bodies::{self, Numbers},
    lists::fill,
    run, watch,
};
use crate::{http2::Method, load::Load, options::Options, table::Figure, target::Target};

const NAMESPACE: &str = "bench-growth";
const CLIENTS: usize = 64;

pub(super) async fn measure(target: &Target, options: &Options) -> io::Result<Vec<Figure>> {
    target.namespace(NAMESPACE).await?;
    let load = Load { clients: CLIENTS, warm_up: options.warm_up() / 2, time: Some(options.time() / 2) };
    let mut figures = Vec::new();
    let mut made = 0;
    for wanted in [1_000, 30_000, 300_000] {
        let count = options.objects(wanted);
        fill(target, NAMESPACE, made, count.max(made)).await?;
        made = count.max(made);
        let mut numbers = Numbers::new();
        let get = run(target, load, move || Some(bodies::one(NAMESPACE, numbers.below(count), Method::Get, 0))).await?;
        let next = Rc::new(Cell::new(made));
        let number = next.clone();
        let create = move || {
            number.set(number.get() + 1);
            Some(bodies::create(NAMESPACE, number.get() - 1))
        };
        let create = run(target, load, create).await?;
        made = next.get();
        let event = watch::cost_of_an_event(target, NAMESPACE, made).await?;
        made += watch::EVENTS;
        let resident = target.usage()?.resident as f64 / f64::from(1 << 20);
        for (what, value) in
            [("get: CPU ms", get.cpu_each()), ("create: CPU ms", create.cpu_each()), ("event: CPU µs", event)]
        {
            figures.push(Figure::new(format!("{count} objects, {what}"), value));
        }
        figures.push(Figure::new(format!("{made} objects, resident MiB"), resident));
    }
    target.tidy(NAMESPACE).await?;
    Ok(figures)
}
