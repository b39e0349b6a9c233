//! What puts cost on disk, and what is left after a compaction.

use std::{io, time::Duration};

use super::{kv::load, targets};
use crate::{
    cluster::{Cluster, call},
    load::{self, Load, Work},
    messages::{self, Template, path},
    options::Options,
    table::Figure,
};

/// Puts of all keys in order, one by one.
struct Puts {
    template: Template,
    next: u64,
    to: u64,
}

impl Work for Puts {
    const PATH: &'static str = path::PUT;

    fn request(&mut self, _: usize, body: &mut Vec<u8>) -> bool {
        if self.next == self.to {
            return false;
        }
        self.template.write(self.next, body);
        self.next += 1;
        true
    }
}

const MIB: f64 = (1 << 20) as f64;
/// Time in which what goes to disk late gets there.
const CALM: Duration = Duration::from_secs(5);

pub(super) async fn measure(cluster: &Cluster, options: &Options) -> io::Result<Vec<Figure>> {
    let keys = 200_000 / options.shrink;
    let targets = targets(cluster, options).await?;
    for _ in 0..2 {
        let load = Load { time: None, warm_up: Duration::ZERO, ..load(options, 64) };
        let work = Puts { template: Template::put(), next: 0, to: keys };
        load::run(&targets, load, work, || Ok(())).await?;
    }
    let revision = cluster.status(0).await?.header.map_or(0, |header| header.revision);
    call(targets[0], path::COMPACT, &messages::compact(revision)).await?;
    tokio::time::sleep(CALM).await;
    let written = cluster.usage()?.written as f64 / (2 * keys as usize * messages::VALUE) as f64;
    let size = cluster.disk_size()? as f64 / MIB;
    call(targets[0], path::DEFRAGMENT, &messages::empty()).await?;
    Ok(vec![
        Figure::at_most("KiB written per KiB put", written, 1.0),
        Figure::at_most("MiB after 200,000 puts, 200,000 overwrites, compaction", size, 1.0),
        Figure::at_most("MiB after a defragmentation too", cluster.disk_size()? as f64 / MIB, 1.0),
    ])
}
