//! Answers that hold their request's seat until they are sent.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::body::Body;
use crate::server::flow::Admitted;

/// Keeps the seat of a request until its answer is put together, which a list is as it is sent, and a watch once what is there is sent
/// and it waits for more; at most until its time is over, for who does not read must not keep others waiting. A write keeps it as long as
/// those who watch are told.
pub(super) fn response(admitted: Admitted, response: Response<Body>, until: Instant, lasts: bool) -> Response<Body> {
    if admitted.has_seat() && !admitted.after.is_zero() && response.status().is_success() {
        tokio::spawn(async move {
            tokio::time::sleep(admitted.after).await;
            drop(admitted);
        });
        return response;
    }
    if !admitted.has_seat() || http_body::Body::size_hint(response.body()).exact().is_some() {
        return response;
    }
    let seat = AbortOnDropHandle::new(tokio::spawn(async move {
        let _admitted = admitted;
        tokio::time::sleep_until(until).await;
    }));
    response.map(|body| Seated { body, seat: Some(seat), lasts }.boxed_unsync())
}

struct Seated {
    body: Body,
    seat: Option<AbortOnDropHandle<()>>,
    /// It goes on without its seat.
    lasts: bool,
}

impl http_body::Body for Seated {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let done = match &polled {
            Poll::Ready(frame) => frame.is_none(),
            Poll::Pending => self.lasts,
        };
        if done {
            self.seat = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::server::{
        Attributes, FlowControl,
        fixture::Objects,
        flow::{Cost, Gate},
        http::body,
    };

    #[tokio::test(start_paused = true)]
    async fn a_write_keeps_its_seats_while_those_who_watch_are_told() {
        let (gate, none, asked) = (Gate::new(FlowControl::Fair { total: 1 }), Objects::new([]), Attributes::default());
        let enter = async || gate.enter(&asked, || Cost::write(10), &*none).await;
        let until = Instant::now() + Duration::from_secs(60);
        let answered = |code: u16| Response::builder().status(code).body(body::full("")).unwrap();
        // What fails changes nothing.
        response(enter().await.unwrap(), answered(409), until, false);
        response(enter().await.unwrap(), answered(200), until, false);
        assert_eq!(enter().await.err().unwrap().code(), 429);
        tokio::time::sleep(Duration::from_millis(6)).await;
        enter().await.unwrap();
    }
}
