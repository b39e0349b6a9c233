//! Connections of HTTP servers that do their own requests (feature `connection`), as those of the etcd API and of the API server do.
//!
//! An HTTP/2 library gives each request to an executor and writes whenever there is a frame. Here a connection is one task: it takes
//! its requests into itself and sends when nothing more is to be done. So answers that become ready together, as those of writes that
//! shared a sync or the events of many watches, go out with one system call, and a request needs no task of its own.

mod cork;
mod valve;

use std::{
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, poll_fn},
    stream::FuturesUnordered,
};
use parking_lot::Mutex;
use tokio::{io::AsyncWrite, task::unconstrained};

pub use cork::Corked;
pub use valve::{Handle as ValveHandle, Valve};

/// The executor of a connection, to which the HTTP library gives requests. Clones are handles of one.
#[derive(Clone, Default)]
pub struct Requests {
    new: Arc<Mutex<Vec<BoxFuture<'static, ()>>>>,
}

impl<F> hyper::rt::Executor<F> for Requests
where
    F: Future<Output = ()> + Send + 'static,
{
    /// A request that panics ends alone, as in a task of its own.
    fn execute(&self, request: F) {
        self.new.lock().push(AssertUnwindSafe(request).catch_unwind().map(drop).boxed());
    }
}

/// What drives a connection and its requests. They end when it is dropped.
#[derive(Default)]
pub struct Driver {
    requests: Requests,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Driver {
    /// No requests yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The executor for the connection's builder.
    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// Polls the connection that lies over `stream`, and its requests, until it ends. Dropped in between it can be called again.
    pub async fn drive<S, C>(&mut self, stream: &Corked<S>, mut connection: Pin<&mut C>) -> C::Output
    where
        S: AsyncWrite + Unpin,
        C: Future,
    {
        poll_fn(|cx| {
            // Answers first, then what the connection sends and receives, then what it has received.
            self.work(cx);
            let ended = connection.as_mut().poll(cx);
            stream.send(cx);
            if ended.is_pending() {
                let before = self.running.len();
                self.running.extend(self.requests.new.lock().drain(..));
                if self.running.len() > before {
                    self.work(cx);
                }
            }
            ended
        })
        .await
    }

    fn work(&mut self, cx: &mut Context<'_>) {
        // Out of tokio's budget, which is one task's: with a hundred requests here it would be used up at once, and each of the others
        // be polled for nothing. How long this takes is bounded by what the connection takes up.
        while let Poll::Ready(Some(())) = pin!(unconstrained(self.running.next())).poll(cx) {}
    }
}

impl Drop for Driver {
    /// A connection may end as soon as it has given away requests. They hold the executor, so in its list they would stay for ever.
    fn drop(&mut self) {
        let left = std::mem::take(&mut *self.requests.new.lock());
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Executor;

    use super::*;

    #[tokio::test]
    async fn a_request_that_panics_ends_alone() {
        let (near, _far) = tokio::io::duplex(64);
        let mut driver = Driver::new();
        let (tell, told) = tokio::sync::oneshot::channel();
        driver.requests().execute(async { panic!("as a bug would") });
        driver.requests().execute(async move { tell.send(()).unwrap() });
        driver.drive(&Corked::new(near), pin!(told)).await.unwrap();
    }

    #[test]
    fn requests_that_were_not_begun_end_with_the_connection() {
        let (driver, held) = (Driver::new(), Arc::new(()));
        let (requests, own) = (driver.requests(), held.clone());
        driver.requests().execute(async move { drop((requests, own)) });
        assert_eq!(Arc::strong_count(&held), 2);
        drop(driver);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
