//! The start, and what a server that does nothing takes.

use std::{io, time::Duration};

use crate::{http2::Request, table::Figure, target::Target};

/// After this, what a start sets going has calmed down.
const CALM: Duration = Duration::from_secs(3);

pub(super) async fn measure(target: &Target) -> io::Result<Vec<Figure>> {
    target.connect().await?.ask(Request::get("/api/v1/namespaces/default")).await?;
    tokio::time::sleep(CALM).await;
    let resident = target.usage()?.resident as f64 / f64::from(1 << 20);
    Ok(vec![
        Figure::new("exec to ready, s", target.ready_after.as_secs_f64()).at_most(0.3).beside("3.1"),
        Figure::new("resident idle, MiB", resident).at_most(60.0).beside("290"),
    ])
}
