//! gRPC over HTTP, the server's side: messages out of request bodies and into response bodies.
//!
//! Leaner than a general server: a whole answer is one buffer, and a stream's messages are gathered into large
//! frames for as long as there are more.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, stream::BoxStream};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use prost::Message;
use tonic::Status;

use super::proto::{etcdserverpb::RangeResponse, mvccpb::KeyValue};

/// A flag for compression and the length.
const PREFIX: usize = 5;

/// Bytes of a stream that are gathered before they are sent.
const GATHERED: usize = 64 << 10;

/// Room for them and the pair that goes beyond, if it is not large.
const PIECE: usize = GATHERED + (8 << 10);

/// The body of an answer.
#[derive(Debug)]
pub struct Body(Kind);

enum Kind {
    /// What is left of a whole answer.
    Whole { data: Bytes, trailers: Option<HeaderMap> },
    /// An answer that is encoded while it is sent.
    Pieces(Pieces),
    /// Messages as they come.
    Stream(BoxStream<'static, Result<Encoded, Status>>),
    /// A stream whose end is still to be told.
    Ending(Status),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Whole { .. } => "Whole",
            Self::Pieces(_) => "Pieces",
            Self::Stream(_) => "Stream",
            Self::Ending(_) => "Ending",
        })
    }
}

/// A message's bytes: its own, and behind them those it shares with other messages.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) own: Vec<u8>,
    pub(crate) shared: Vec<Bytes>,
}

impl<M: Message> From<M> for Encoded {
    fn from(message: M) -> Self {
        Self { own: message.encode_to_vec(), shared: Vec::new() }
    }
}

impl Encoded {
    fn append(&self, out: &mut BytesMut) {
        let len = self.own.len() + self.shared.iter().map(Bytes::len).sum::<usize>();
        out.reserve(PREFIX + len);
        put_prefix(out, len);
        out.put_slice(&self.own);
        self.shared.iter().for_each(|bytes| out.put_slice(bytes));
    }
}

fn put_prefix(out: &mut BytesMut, len: usize) {
    out.put_u8(0);
    out.put_u32(u32::try_from(len).expect("messages are smaller than 4 GiB"));
}

impl Body {
    /// A body of these bytes, for answers that are not gRPC.
    pub(crate) fn plain(data: impl Into<Bytes>) -> Self {
        Self(Kind::Whole { data: data.into(), trailers: None })
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::plain(Bytes::new())
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    if let Err(error) = status.add_header(&mut trailers) {
        // A text that no header can hold: the code alone must do.
        tracing::debug!(%error, "a status was cut to its code");
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    trailers
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut self.0 {
            Kind::Whole { data, .. } if !data.is_empty() => Poll::Ready(Some(Ok(Frame::data(std::mem::take(data))))),
            Kind::Whole { trailers, .. } => Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            Kind::Pieces(pieces) => {
                let (data, last) = pieces.next_piece();
                if last {
                    self.0 = Kind::Whole { data: Bytes::new(), trailers: Some(succeeded()) };
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Kind::Stream(messages) => {
                let mut out = BytesMut::new();
                let end = loop {
                    match messages.poll_next_unpin(cx) {
                        Poll::Ready(Some(Ok(message))) => message.append(&mut out),
                        Poll::Ready(Some(Err(status))) => break Some(status),
                        Poll::Ready(None) => break Some(Status::ok("")),
                        Poll::Pending if out.is_empty() => return Poll::Pending,
                        Poll::Pending => break None,
                    }
                    if out.len() >= GATHERED {
                        break None;
                    }
                };
                match end {
                    None => {}
                    Some(status) if out.is_empty() => {
                        self.0 = Kind::Whole { data: Bytes::new(), trailers: None };
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))));
                    }
                    Some(status) => self.0 = Kind::Ending(status),
                }
                Poll::Ready(Some(Ok(Frame::data(out.freeze()))))
            }
            Kind::Ending(status) => {
                let trailers = trailers(status);
                self.0 = Kind::Whole { data: Bytes::new(), trailers: None };
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole { data, trailers: None } => SizeHint::with_exact(data.len() as u64),
            _ => SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Kind::Whole { data, trailers: None } if data.is_empty())
    }
}

/// The messages of a request's body.
#[derive(Debug)]
pub(crate) struct Inbox<B> {
    body: B,
    received: Bytes,
    limit: usize,
}

impl<B> Inbox<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// Reads messages of at most `limit` bytes.
    pub(crate) fn new(body: B, limit: usize) -> Self {
        Self { body, received: Bytes::new(), limit }
    }

    /// The next message, `None` at the end. No message is lost if the future is dropped.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Option<Result<M, Status>> {
        loop {
            match self.take() {
                Ok(None) => {}
                Ok(Some(message)) => return Some(M::decode(message).map_err(undecodable)),
                Err(status) => return Some(Err(status)),
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.push(data);
                    }
                }
                Some(Err(error)) => return Some(Err(Status::cancelled(error.to_string()))),
                None if self.received.is_empty() => return None,
                None => return Some(Err(Status::internal("the request ends inside a message"))),
            }
        }
    }

    fn push(&mut self, data: Bytes) {
        if self.received.is_empty() {
            self.received = data;
            return;
        }
        let mut joined = match std::mem::take(&mut self.received).try_into_mut() {
            Ok(joined) => joined,
            Err(shared) => BytesMut::from(&shared[..]),
        };
        joined.extend_from_slice(&data);
        self.received = joined.freeze();
    }

    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(mut prefix) = self.received.get(..PREFIX) else { return Ok(None) };
        if prefix.get_u8() != 0 {
            return Err(Status::unimplemented("grpc: Decompressor is not installed for grpc-encoding"));
        }
        let len = usize::try_from(prefix.get_u32()).unwrap_or(usize::MAX);
        if len > self.limit {
            let limit = self.limit;
            return Err(Status::resource_exhausted(format!(
                "grpc: received message larger than max ({len} vs. {limit})"
            )));
        }
        if self.received.len() < PREFIX + len {
            return Ok(None);
        }
        let mut message = self.received.split_to(PREFIX + len);
        message.advance(PREFIX);
        Ok(Some(message))
    }
}

fn undecodable(error: prost::DecodeError) -> Status {
    Status::internal(format!("grpc: error unmarshalling request: {error}"))
}

fn answer(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// An answer that only tells why there is none.
pub(crate) fn refusal(status: &Status) -> Response<Body> {
    let mut response = answer(Body::default());
    response.headers_mut().extend(trailers(status));
    response
}

/// Answers a request of one message with one message.
pub(crate) async fn unary<B, Q, A>(
    request: Request<B>,
    limit: usize,
    handle: impl AsyncFnOnce(Q) -> Result<A, Status>,
) -> Result<Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
    Q: Message + Default,
    A: Message,
{
    let message = one(request, limit).await?;
    Ok(whole(&handle(message).await?))
}

/// The one message of a request.
pub(crate) async fn one<B, Q>(request: Request<B>, limit: usize) -> Result<Q, Status>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
    Q: Message + Default,
{
    let none = || Err(Status::internal("the request has no message"));
    Inbox::new(request.into_body(), limit).next().await.unwrap_or_else(none)
}

fn whole(message: &impl Message) -> Response<Body> {
    let len = message.encoded_len();
    let mut data = BytesMut::with_capacity(PREFIX + len);
    put_prefix(&mut data, len);
    message.encode(&mut data).expect("the buffer grows");
    answer(Body(Kind::Whole { data: data.freeze(), trailers: Some(succeeded()) }))
}

/// The trailers of an answer.
fn succeeded() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// Answers with pairs: many of them go out while the others are still to be encoded, through memory that stays in the
/// processor's caches.
pub(crate) fn ranged(message: RangeResponse) -> Response<Body> {
    match message.encoded_len() {
        len if len <= GATHERED => whole(&message),
        len => answer(Body(Kind::Pieces(Pieces::new(message, len)))),
    }
}

/// What is left to be encoded of an answer with pairs.
struct Pieces {
    /// Bytes that come next.
    out: BytesMut,
    kvs: std::vec::IntoIter<KeyValue>,
    /// The fields behind the pairs.
    rest: RangeResponse,
}

/// The number of `kvs` in a [`RangeResponse`].
const KVS: u32 = 2;

impl Pieces {
    fn new(mut message: RangeResponse, len: usize) -> Self {
        let mut out = BytesMut::with_capacity(PIECE);
        put_prefix(&mut out, len);
        let kvs = std::mem::take(&mut message.kvs).into_iter();
        let head = RangeResponse { header: message.header.take(), ..RangeResponse::default() };
        head.encode(&mut out).expect("the buffer grows");
        Self { out, kvs, rest: message }
    }

    /// The next bytes, and whether they are the last.
    fn next_piece(&mut self) -> (Bytes, bool) {
        // The memory of the last piece again, if that is sent.
        self.out.reserve(PIECE);
        while self.out.len() < GATHERED {
            let Some(kv) = self.kvs.next() else {
                self.rest.encode(&mut self.out).expect("the buffer grows");
                return (self.out.split().freeze(), true);
            };
            prost::encoding::message::encode(KVS, &kv, &mut self.out);
        }
        (self.out.split().freeze(), false)
    }
}

/// Answers with messages as they come.
pub(crate) fn stream(messages: impl Stream<Item = Result<Encoded, Status>> + Send + 'static) -> Response<Body> {
    answer(Body(Kind::Stream(messages.boxed())))
}
