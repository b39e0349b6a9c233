//! How long no write is acknowledged after the leader is killed.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet, time::MissedTickBehavior};

use crate::{
    cluster::Cluster,
    http2::{Connection, Event},
    messages::{Template, path},
    table::Figure,
};

/// Each survivor is asked to put something so often, whether it has answered or not.
const PERIOD: Duration = Duration::from_millis(5);
/// How long puts go on before the leader is killed.
const BEFORE: Duration = Duration::from_secs(2);
/// How long the survivors may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn measure(cluster: &mut Cluster) -> io::Result<Vec<Figure>> {
    let leader = cluster.leader().await?;
    let (kill, killed) = watch::channel(None);
    let mut writers = JoinSet::new();
    for (at, address) in cluster.addresses().into_iter().enumerate() {
        if at != leader {
            writers.spawn(write(address, killed.clone()));
        }
    }
    tokio::time::sleep(BEFORE).await;
    cluster.kill(leader);
    let at = Instant::now();
    kill.send_replace(Some(at));
    let first = async {
        while let Some(ended) = writers.join_next().await {
            // One of the survivors may refuse; the other's answer counts.
            if let Ok(acknowledged) = ended.map_err(io::Error::other)? {
                return Ok(acknowledged);
            }
        }
        Err(io::Error::other("no survivor has acknowledged a write"))
    };
    let acknowledged = tokio::time::timeout(PATIENCE, first).await??;
    Ok(vec![Figure::at_most("ms to the next acknowledged put", (acknowledged - at).as_secs_f64() * 1e3, 1.0)])
}

/// When the first put is acknowledged that was sent after the leader was killed.
async fn write(address: SocketAddr, killed: watch::Receiver<Option<Instant>>) -> io::Result<Instant> {
    let mut connection = Connection::open(address).await?;
    let mut template = Template::put();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    let mut body = Vec::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                // The tag tells whether a put was sent after the kill.
                let after = usize::from(killed.borrow().is_some());
                body.clear();
                template.write(number, &mut body);
                connection.call(after, path::PUT, &body, true);
                number += 1;
            }
            event = connection.event() => {
                if let Event::Message(1, _) = event? {
                    return Ok(Instant::now());
                }
            }
        }
    }
}
