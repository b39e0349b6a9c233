//! The store in the process of whoever uses it, with no server.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rk_store::{DurableOptions, DurableStore, Store};
use tokio::task::JoinSet;

use crate::{messages, table::Figure};

/// Microseconds that a get must take less than: it is a call and no request.
const MOST_PER_GET: f64 = 2.0;

/// Keys that are read.
const KEYS: u64 = 10_000;

/// Puts and gets through the [`Store`] trait.
pub async fn measure(time: Duration, dir: &Path) -> io::Result<Vec<Figure>> {
    let dir = tempfile::Builder::new().prefix("rk-benches-etcd-").tempdir_in(dir)?;
    let opened = DurableStore::open(dir.path().join("store"), DurableOptions::default()).await;
    let store = Arc::new(opened.map_err(io::Error::other)?);
    let mut figures = Vec::new();
    for (what, writers) in [("puts/s, 1 writer", 1), ("puts/s, 64 writers", 64)] {
        figures.push(Figure::new(what, puts(&store, writers, time).await?));
    }
    for number in 0..KEYS {
        store.put(messages::key(number), messages::value(1)).await.map_err(io::Error::other)?;
    }
    let keys: Vec<_> = (0..KEYS).map(|number| messages::key(number * 7919 % KEYS)).collect();
    let (begun, mut gets) = (Instant::now(), 0_u32);
    while begun.elapsed() < time {
        for key in &keys {
            let found = store.get(key.clone()).await.map_err(io::Error::other)?;
            assert!(found.is_some(), "what was put is there");
            gets += 1;
        }
    }
    figures.push(Figure::below(
        "µs per get, 1 reader",
        begun.elapsed().as_secs_f64() * 1e6 / f64::from(gets),
        MOST_PER_GET,
    ));
    store.close().await;
    Ok(figures)
}

async fn puts(store: &Arc<DurableStore>, writers: u64, time: Duration) -> io::Result<f64> {
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for writer in 0..writers {
        let store = store.clone();
        running.spawn(async move {
            let (value, mut done) = (messages::value(writer), 0_u64);
            while begun.elapsed() < time {
                store.put(messages::key((done * writers + writer) % KEYS), value.clone()).await?;
                done += 1;
            }
            Ok::<_, rk_store::Error>(done)
        });
    }
    let mut done = 0;
    while let Some(ended) = running.join_next().await {
        done += ended.map_err(io::Error::other)?.map_err(io::Error::other)?;
    }
    Ok(done as f64 / begun.elapsed().as_secs_f64())
}
