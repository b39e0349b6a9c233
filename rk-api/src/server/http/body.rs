//! Request bodies in, answer bodies out.

use std::{
    convert::Infallible,
    io::{self, Write},
};

use bytes::{Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};

use crate::{Error, status};

/// Bytes that an answer's pieces are gathered into.
const PIECE: usize = 64 * 1024;
/// Room for the last of them, which makes the piece longer.
const SLACK: usize = 4 * 1024;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(super) fn empty() -> Body {
    full(Bytes::new())
}

/// What is put together piece by piece.
pub(super) trait Gather: Send + 'static {
    /// Appends the next piece; false if it was the last.
    ///
    /// # Errors
    /// The piece can't be made: the answer breaks off, for its beginning may be under way.
    fn gather(&mut self, into: &mut BytesMut) -> Result<bool, Error>;
}

/// The next bytes of an answer; `None` behind its end, and behind a failure.
fn next_piece(pieces: &mut Option<impl Gather>) -> Option<Result<BytesMut, Error>> {
    let gatherer = pieces.as_mut()?;
    let mut buffer = BytesMut::with_capacity(PIECE + SLACK);
    while buffer.len() < PIECE {
        match gatherer.gather(&mut buffer) {
            Ok(true) => {}
            Ok(false) => {
                *pieces = None;
                break;
            }
            Err(error) => {
                *pieces = None;
                return Some(Err(error));
            }
        }
    }
    Some(Ok(buffer))
}

fn frame(piece: Result<Bytes, Error>) -> io::Result<Frame<Bytes>> {
    piece.map(Frame::data).map_err(io::Error::other)
}

/// A body that is put together as it is sent: no more of it is there than is under way.
pub(super) fn gathered(pieces: impl Gather) -> Body {
    let pieces = stream::unfold(Some(pieces), |mut pieces| async move {
        let piece = next_piece(&mut pieces)?;
        Some((frame(piece.map(BytesMut::freeze)), pieces))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// The same compressed; `start` comes before the pieces, if there are more.
pub(super) fn compressed(start: Bytes, pieces: Option<impl Gather>) -> Body {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let state = (Some(Ok(start)), pieces, Some(encoder));
    let pieces = stream::unfold(state, |(mut start, mut pieces, mut encoder)| async move {
        loop {
            let mut gzip = encoder.take()?;
            let plain = start.take().or_else(|| next_piece(&mut pieces).map(|piece| piece.map(BytesMut::freeze)));
            // Writing into memory does not fail.
            let out = match plain {
                None => gzip.finish().ok()?,
                Some(Err(error)) => return Some((frame(Err(error)), (start, pieces, None))),
                Some(Ok(plain)) => {
                    gzip.write_all(&plain).ok()?;
                    let out = std::mem::take(gzip.get_mut());
                    encoder = Some(gzip);
                    out
                }
            };
            if !out.is_empty() {
                return Some((frame(Ok(out.into())), (start, pieces, encoder)));
            }
        }
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// Reads a request's body.
///
/// # Errors
/// 413 if it is too long, 400 if it breaks off.
pub(super) async fn read<B>(body: B, limit: usize) -> Result<Bytes, Error>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let too_long = || {
        let message = format!("Request entity too large: limit is {limit}");
        Error::from(status::failure(413, "RequestEntityTooLarge", message))
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_long());
    }
    let mut body = std::pin::pin!(body);
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| status::bad_request(format!("unable to read the body: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if read.len() + data.len() > limit {
                return Err(too_long());
            }
            read.extend_from_slice(&data);
        }
    }
    Ok(read.freeze())
}
