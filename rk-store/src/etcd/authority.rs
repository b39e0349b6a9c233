//! Connections of clients that name the server in a way that HTTP/2 does not allow.
//!
//! Go clients of etcd send the endpoint as they were given it as `:authority` (etcdctl 3.4 `http://host:port`, the client of
//! 3.5.0 `#initially=[...]`), which etcd does not mind and the HTTP/2 library here refuses. Nothing here reads that
//! header. So in the first request of a connection, which is where these clients spell it out for the header table of the
//! connection, it is replaced by a name of the same length; the table's sizes stay what the client thinks. From then
//! on the connection is passed through.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a client of HTTP/2 sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame before its payload.
const FRAME_HEAD: usize = 9;

/// Frames of header fields; those without all fields, padded ones and those with a priority have other flags.
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The place of `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;

/// How many symbols of HPACK's Huffman code have so many bits (RFC 7541, Appendix B). The code is canonical, so this is
/// all it takes to count symbols.
const SYMBOLS_OF_BITS: [u32; 31] =
    [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];

/// A connection whose first request may have any `:authority`.
pub(crate) struct AnyAuthority<S> {
    stream: S,
    /// `None` once the first request is through.
    beginning: Option<Beginning>,
}

#[derive(Default)]
struct Beginning {
    received: BytesMut,
    ready: BytesMut,
    preface_seen: bool,
    done: bool,
}

impl<S> AnyAuthority<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, beginning: Some(Beginning::default()) }
    }
}

impl Beginning {
    /// Moves what is complete from received to ready.
    fn advance(&mut self) {
        if !self.preface_seen {
            let len = self.received.len().min(PREFACE.len());
            if self.received[..len] != PREFACE[..len] {
                return self.finish();
            }
            if len < PREFACE.len() {
                return;
            }
            self.preface_seen = true;
            self.ready.unsplit(self.received.split_to(len));
        }
        while let Some(head) = self.received.first_chunk::<FRAME_HEAD>() {
            let len = FRAME_HEAD + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if self.received.len() < len {
                self.received.reserve(len - self.received.len());
                return;
            }
            let is_first_request = head[3] == HEADERS;
            let frame = self.received.split_to(len);
            if is_first_request {
                self.ready.extend_from_slice(&rewritten(&frame).unwrap_or_else(|| frame.to_vec()));
                return self.finish();
            }
            self.ready.unsplit(frame);
        }
    }

    fn finish(&mut self) {
        self.done = true;
        self.ready.unsplit(self.received.split());
    }
}

/// A frame of header fields with another authority; `None` if it has none that is spelled out.
fn rewritten(frame: &[u8]) -> Option<Vec<u8>> {
    let (head, payload) = frame.split_at_checked(FRAME_HEAD)?;
    let flags = head[4];
    if flags & END_HEADERS == 0 {
        return None;
    }
    let padding = if flags & PADDED != 0 { usize::from(*payload.first()?) } else { 0 };
    let before = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
    let fields = payload.get(before..payload.len().checked_sub(padding)?)?;
    let (start, end) = authority(fields)?;
    let len = text_len(fields.get(start..end)?)?;
    let start = FRAME_HEAD + before + start;
    let end = FRAME_HEAD + before + end;
    let mut out = frame[..start].to_vec();
    put_number(&mut out, len);
    out.resize(out.len() + len, b'a');
    out.extend_from_slice(&frame[end..]);
    let payload_len = u32::try_from(out.len() - FRAME_HEAD).ok()?.to_be_bytes();
    out[..3].copy_from_slice(&payload_len[1..]);
    Some(out)
}

/// Where the value of the authority is among header fields, from its length on.
fn authority(fields: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    loop {
        let first = *fields.get(at)?;
        // Indexed fields and changes of the table's size have a number and nothing else.
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (name, behind) = number(fields, at, prefix)?;
        at = behind;
        if !literal {
            continue;
        }
        if name == 0 {
            at = behind_text(fields, at)?;
        }
        let behind = behind_text(fields, at)?;
        if name == AUTHORITY {
            return Some((at, behind));
        }
        at = behind;
    }
}

/// HPACK's integers: the number and where it ends.
fn number(fields: &[u8], at: usize, prefix: u32) -> Option<(usize, usize)> {
    let most = (1 << prefix) - 1;
    let mut number = usize::from(*fields.get(at)?) & most;
    let mut at = at + 1;
    if number < most {
        return Some((number, at));
    }
    for shift in [0, 7, 14] {
        let byte = usize::from(*fields.get(at)?);
        at += 1;
        number += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((number, at));
        }
    }
    None
}

/// The length of a text that is not Huffman-coded.
fn put_number(out: &mut Vec<u8>, number: usize) {
    const MOST: usize = 0x7f;
    if number < MOST {
        out.push(number as u8);
        return;
    }
    out.push(MOST as u8);
    let mut rest = number - MOST;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn behind_text(fields: &[u8], at: usize) -> Option<usize> {
    let (len, at) = number(fields, at, 7)?;
    at.checked_add(len).filter(|end| *end <= fields.len())
}

/// How many bytes a text has once decoded.
fn text_len(text: &[u8]) -> Option<usize> {
    let (len, at) = number(text, 0, 7)?;
    if text[0] & 0x80 == 0 {
        return Some(len);
    }
    let (mut symbols, mut code, mut first, mut bits) = (0, 0_u32, 0_u32, 0);
    for byte in text.get(at..)? {
        for bit in (0..8).rev() {
            bits += 1;
            code = (code << 1) | u32::from((byte >> bit) & 1);
            first <<= 1;
            let of_bits = *SYMBOLS_OF_BITS.get(bits)?;
            if code.wrapping_sub(first) < of_bits {
                (symbols, code, first, bits) = (symbols + 1, 0, 0, 0);
            } else {
                first += of_bits;
            }
        }
    }
    Some(symbols)
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyAuthority<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while let Some(beginning) = &mut this.beginning {
            if !beginning.ready.is_empty() {
                let len = beginning.ready.len().min(buf.remaining());
                buf.put_slice(&beginning.ready[..len]);
                beginning.ready.advance(len);
                return Poll::Ready(Ok(()));
            }
            if beginning.done {
                this.beginning = None;
                break;
            }
            let mut space = [0; 4096];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                beginning.finish();
            } else {
                beginning.received.extend_from_slice(read.filled());
                beginning.advance();
            }
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// RFC 7541, C.4.1: `www.example.com`, Huffman-coded.
    const EXAMPLE: &[u8] = &[0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn texts_are_counted() {
        assert_eq!(text_len(EXAMPLE), Some(15));
        assert_eq!(text_len(b"\x03abc"), Some(3));
        assert_eq!(SYMBOLS_OF_BITS.iter().sum::<u32>(), 257);
    }

    #[test]
    fn the_authority_is_replaced_by_one_of_its_length() {
        // C.4.1: GET, http, /, then the authority.
        let fields = [&[0x82, 0x86, 0x84, 0x41], EXAMPLE, &[0x88]].concat();
        let wanted = [&[0x82, 0x86, 0x84, 0x41, 15], &b"aaaaaaaaaaaaaaa"[..], &[0x88]].concat();
        assert_eq!(rewritten(&frame(HEADERS, END_HEADERS, &fields)), Some(frame(HEADERS, END_HEADERS, &wanted)));
        let long = [&[0x41, 0x7f, 0x81, 0x01], &[b'/'; 256][..]].concat();
        let replaced = rewritten(&frame(HEADERS, END_HEADERS, &long)).unwrap();
        assert_eq!(&replaced[FRAME_HEAD..], [&[0x41, 0x7f, 0x81, 0x01], &[b'a'; 256][..]].concat());
        assert_eq!(rewritten(&frame(HEADERS, END_HEADERS, &[0x82, 0x86])), None);
    }

    #[tokio::test]
    async fn everything_else_passes() {
        let settings = frame(4, 0, &[0, 1, 0, 0, 0, 0]);
        let request = frame(HEADERS, END_HEADERS, b"\x41\x03a/b");
        let rest = frame(HEADERS, END_HEADERS, b"\x41\x03c/d");
        let sent = [PREFACE, &settings, &request, &rest].concat();
        let wanted = [PREFACE, &settings, &frame(HEADERS, END_HEADERS, b"\x41\x03aaa"), &rest].concat();
        for (sent, wanted) in [(sent, wanted), (b"GET / HTTP/1.1\r\n\r\n".to_vec(), b"GET / HTTP/1.1\r\n\r\n".to_vec())]
        {
            for piece in [1, 7, 1000] {
                let (mut client, server) = tokio::io::duplex(16);
                let mut read = Vec::new();
                let mut server = AnyAuthority::new(server);
                let send = async {
                    for piece in sent.chunks(piece) {
                        client.write_all(piece).await.unwrap();
                    }
                    drop(client);
                };
                let (_, received) = tokio::join!(send, server.read_to_end(&mut read));
                received.unwrap();
                assert_eq!(read, wanted, "in pieces of {piece}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_fields_are_rewritten_or_left(fields in prop::collection::vec(any::<u8>(), 0..200), flags in any::<u8>()) {
            drop(rewritten(&frame(HEADERS, flags, &fields)));
        }
    }
}
