//! Writing many objects: a few first, then more, so that a quota or a broken template costs few failing requests.

use std::future::Future;

use futures::future::join_all;

/// Runs `count` writes in batches of 1, 2, 4, ... as long as all of a batch go well (client-go's `slowStartBatch`).
/// Answers how many went well, and the first failure.
pub(crate) async fn slow_start<F, E>(count: usize, write: impl Fn(usize) -> F) -> (usize, Result<(), E>)
where
    F: Future<Output = Result<(), E>>,
{
    let (mut done, mut size) = (0, 1);
    while done < count {
        let batch = size.min(count - done);
        let results = join_all((done..done + batch).map(&write)).await;
        let good = results.iter().filter(|result| result.is_ok()).count();
        done += good;
        if let Some(Err(error)) = results.into_iter().find(Result::is_err) {
            return (done, Err(error));
        }
        size *= 2;
    }
    (done, Ok(()))
}

/// Runs all writes at once; answers the first failure.
pub(crate) async fn all<F, E>(writes: impl IntoIterator<Item = F>) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
{
    join_all(writes).await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_failure_stops_the_batches() {
        let tried = Cell::new(0);
        let write = |index: usize| {
            tried.set(tried.get() + 1);
            async move { if index == 4 { Err("no") } else { Ok(()) } }
        };
        let (done, result) = slow_start(100, write).await;
        // 1, then 2, then 4 of which one fails; nothing after.
        assert_eq!((done, tried.get(), result), (6, 7, Err("no")));
        let (done, result) = slow_start(5, |_| async { Ok::<(), ()>(()) }).await;
        assert_eq!((done, result), (5, Ok(())));
    }
}
