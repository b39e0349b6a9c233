//! Frames: a head of 8 bytes and a payload.

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A connection that broke, or a peer that does not speak SPDY/3.1.
#[derive(Debug, thiserror::Error)]
pub enum SpdyError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// What came is not the protocol.
    #[error("SPDY: {0}")]
    Protocol(String),
}

/// Largest payload taken; the length field would allow 16 MiB.
const MAX_PAYLOAD: usize = 1 << 20;

/// No more of this direction of a stream.
pub(super) const FIN: u8 = 1;

/// What came from the peer.
pub(super) enum Frame {
    /// Bytes of a stream.
    Data { stream: u32, fin: bool, payload: Bytes },
    /// A new stream with its packed headers.
    SynStream { stream: u32, fin: bool, headers: Bytes },
    /// The answer to a stream that this side opened; this side opens none, but its headers must be unpacked.
    Headers { headers: Bytes },
    /// A stream is broken off.
    Reset { stream: u32 },
    /// To be sent back.
    Ping { id: u32 },
    /// The peer opens no more streams.
    GoAway,
    /// Settings and window updates, which change nothing here.
    Other,
}

/// Reads a frame; `None` at the end of the connection.
pub(super) async fn read(io: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>, SpdyError> {
    let mut head = [0; 8];
    match io.read_exact(&mut head).await {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let (flags, length) = (head[4], u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize);
    if length > MAX_PAYLOAD {
        return Err(SpdyError::Protocol(format!("a frame of {length} bytes")));
    }
    let mut payload = vec![0; length];
    io.read_exact(&mut payload).await?;
    let payload = Bytes::from(payload);
    let fin = flags & FIN != 0;
    if first >> 31 == 0 {
        return Ok(Some(Frame::Data { stream: first, fin, payload }));
    }
    if first >> 16 & 0x7fff != 3 {
        return Err(SpdyError::Protocol(format!("version {} of a control frame", first >> 16 & 0x7fff)));
    }
    let kind = first & 0xffff;
    let word = |at: usize| {
        let bytes = payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_be_bytes).ok_or_else(|| SpdyError::Protocol(format!("a short frame of type {kind}")))
    };
    let tail = |at: usize| payload.slice(at.min(payload.len())..);
    Ok(Some(match kind {
        1 => {
            word(6)?;
            Frame::SynStream { stream: word(0)? & 0x7fff_ffff, fin, headers: tail(10) }
        }
        2 | 8 => Frame::Headers { headers: tail(4) },
        3 => Frame::Reset { stream: word(0)? & 0x7fff_ffff },
        6 => Frame::Ping { id: word(0)? },
        7 => Frame::GoAway,
        _ => Frame::Other,
    }))
}

/// A data frame.
pub(super) fn data(stream: u32, fin: bool, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + payload.len());
    out.put_u32(stream);
    out.put_u32(u32::from(if fin { FIN } else { 0 }) << 24 | payload.len() as u32);
    out.put_slice(payload);
    out.freeze()
}

/// A control frame of a type.
fn control(kind: u32, payload: &[&[u8]]) -> Bytes {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    let mut out = BytesMut::with_capacity(8 + length);
    out.put_u32(1 << 31 | 3 << 16 | kind);
    out.put_u32(length as u32);
    for part in payload {
        out.put_slice(part);
    }
    out.freeze()
}

/// The answer to a new stream.
pub(super) fn syn_reply(stream: u32, headers: &[u8]) -> Bytes {
    control(2, &[&stream.to_be_bytes(), headers])
}

/// Breaks a stream off, with status CANCEL.
pub(super) fn reset(stream: u32) -> Bytes {
    control(3, &[&stream.to_be_bytes(), &5_u32.to_be_bytes()])
}

/// A ping sent back.
pub(super) fn ping(id: u32) -> Bytes {
    control(6, &[&id.to_be_bytes()])
}

#[cfg(test)]
pub(super) mod client {
    //! What a client sends, for tests.

    /// Opens a stream.
    pub fn syn_stream(stream: u32, headers: &[u8]) -> bytes::Bytes {
        super::control(1, &[&stream.to_be_bytes(), &[0; 6], headers])
    }

    /// Asks for a ping back.
    pub fn ping(id: u32) -> bytes::Bytes {
        super::ping(id)
    }
}
