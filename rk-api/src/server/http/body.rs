//! Request bodies in, answer bodies out.

use std::{convert::Infallible, io};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};

use crate::{Error, status};

/// Bytes that an answer's pieces are gathered into.
const PIECE: usize = 64 * 1024;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(super) fn empty() -> Body {
    full(Bytes::new())
}

/// A body of pieces as they come.
pub(super) fn streamed(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(pieces.map(|piece| Ok(http_body::Frame::data(piece)))).boxed_unsync()
}

/// A body of many small pieces that are all there already, sent in larger ones: nothing but one piece at a time is
/// copied.
pub(super) fn gathered(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    streamed(stream::unfold(pieces, |mut pieces| async move {
        let mut buffer = BytesMut::new();
        while buffer.len() < PIECE {
            match pieces.next() {
                Some(piece) if buffer.is_empty() && piece.len() >= PIECE => return Some((piece, pieces)),
                Some(piece) => buffer.extend_from_slice(&piece),
                None => break,
            }
        }
        (!buffer.is_empty()).then(|| (buffer.freeze(), pieces))
    }))
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
