//! Memory at rest with no, many and very many keys, and how long a start takes with them.

use std::{io, time::Duration};

use super::kv::fill;
use crate::{cluster::Cluster, options::Options, table::Figure};

/// Time in which a server comes to rest.
const CALM: Duration = Duration::from_secs(5);

async fn resident(cluster: &Cluster) -> io::Result<f64> {
    tokio::time::sleep(CALM).await;
    Ok(cluster.usage()?.resident as f64 / f64::from(1 << 20))
}

pub(super) async fn measure(cluster: &mut Cluster, options: &Options) -> io::Result<Vec<Figure>> {
    let (many, very_many) = (100_000 / options.shrink, 1_000_000 / options.shrink);
    let idle = resident(cluster).await?;
    fill(cluster, options, 0, many).await?;
    let with_many = resident(cluster).await?;
    fill(cluster, options, many, very_many).await?;
    let with_very_many = resident(cluster).await?;
    let start = cluster.restart(0).await?;
    let started = resident(cluster).await?;
    Ok(vec![
        Figure::at_most("resident MiB, idle", idle, 0.5),
        Figure::at_most("resident MiB, 100,000 keys", with_many, 0.5),
        Figure::at_most("resident MiB, 1 million keys", with_very_many, 0.5),
        Figure::at_most("start with 1 million keys, s", start.as_secs_f64(), 0.5),
        Figure::at_most("resident MiB, 1 million keys, after the start", started, 0.5),
        Figure::new("of it of no file, MiB", cluster.usage()?.anonymous as f64 / f64::from(1 << 20)),
    ])
}
