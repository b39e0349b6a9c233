//! Just enough of HTTP/2 (RFC 9113) to load a gRPC server from the cores that it runs on.
//!
//! A connection writes all requests that are ready with one system call and reads all answers that are there with
//! another. It never looks into header blocks: gRPC servers send a message where a call succeeds and none where
//! it fails.

use std::{collections::VecDeque, io, net::SocketAddr};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{io::Interest, net::TcpStream};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Bytes of a frame's head.
const FRAME_HEAD: usize = 9;
/// Bytes before a gRPC message: whether it is compressed, and its length.
const MESSAGE_HEAD: usize = 5;
/// Messages with more bytes than this are only measured, so that their reader costs little.
const LARGE: usize = 1 << 20;
/// Bytes read at a time, at most.
const READ: usize = 1 << 18;
/// The window that a peer has until it says otherwise.
const INITIAL_WINDOW: u32 = 65_535;
/// The largest window.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// The longest frame that a peer takes until it says otherwise.
const FRAME: usize = 16_384;

/// What came over a connection; each with the tag of its call.
#[derive(Debug)]
pub enum Event {
    /// A message.
    Message(usize, Bytes),
    /// A message of so many bytes, which is too long to be kept.
    Large(usize, usize),
    /// The call has ended; whether it succeeded, which is to say: whether there was a message.
    End(usize, bool),
}

#[derive(Debug)]
struct Stream {
    tag: usize,
    /// What has come of a message that is not complete.
    partial: BytesMut,
    /// Bytes that have come of a large one.
    skipped: usize,
    answered: bool,
}

#[derive(Debug)]
struct Waiting {
    tag: usize,
    path: &'static str,
    body: Vec<u8>,
    end: bool,
}

/// A connection to a gRPC server, without TLS.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    authority: String,
    input: BytesMut,
    output: Vec<u8>,
    /// How much of `output` is sent.
    sent: usize,
    /// The streams from the oldest one that is open to the newest.
    streams: VecDeque<Option<Stream>>,
    /// The number of the first of them.
    first_stream: u32,
    /// The fields in the peer's table of headers, in the order in which they came there.
    table: Vec<&'static str>,
    /// The head of calls of this method, once all of it is in the table.
    known: Option<(&'static str, Vec<u8>)>,
    /// Bytes that may be sent on the connection.
    window: i64,
    /// Bytes that may be sent on a new stream.
    stream_window: i64,
    /// Calls that wait for the connection's window.
    waiting: VecDeque<Waiting>,
    /// Bytes received since the peer was last given leave for more.
    received: u32,
    /// Messages and ends that were read and not taken.
    events: VecDeque<Event>,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Appends a gRPC message to a body.
pub fn frame_message(body: &mut Vec<u8>, message: &impl prost::Message) {
    body.put_u8(0);
    body.put_u32(u32::try_from(message.encoded_len()).expect("messages are small"));
    message.encode(body).expect("a vector grows");
}

impl Connection {
    /// Connects and says hello.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut output = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame_head(&mut output, 12, SETTINGS, 0, 0);
        // No pushes.
        output.put_u16(2);
        output.put_u32(0);
        // The server need never wait for leave to answer.
        output.put_u16(4);
        output.put_u32(LARGEST_WINDOW);
        frame_head(&mut output, 4, WINDOW_UPDATE, 0, 0);
        output.put_u32(LARGEST_WINDOW - INITIAL_WINDOW);
        Ok(Self {
            socket,
            authority: address.to_string(),
            input: BytesMut::with_capacity(READ),
            output,
            sent: 0,
            streams: VecDeque::new(),
            first_stream: 1,
            table: Vec::new(),
            known: None,
            window: INITIAL_WINDOW.into(),
            stream_window: INITIAL_WINDOW.into(),
            waiting: VecDeque::new(),
            received: 0,
            events: VecDeque::new(),
        })
    }

    /// Begins a call with a body of one or more framed messages (see [`frame_message`]); `end` if no more follow.
    /// It is sent with the next [`Connection::event`].
    pub fn call(&mut self, tag: usize, path: &'static str, body: &[u8], end: bool) {
        if self.waiting.is_empty() && body.len() as i64 <= self.window {
            self.send(tag, path, body, end);
        } else {
            self.waiting.push_back(Waiting { tag, path, body: body.to_vec(), end });
        }
    }

    fn send(&mut self, tag: usize, path: &'static str, body: &[u8], end: bool) {
        assert!(body.len() as i64 <= self.stream_window, "a body fits a stream's window");
        let stream = self.first_stream + 2 * u32::try_from(self.streams.len()).expect("few streams are open");
        self.window -= body.len() as i64;
        self.headers(stream, path);
        let mut chunks = body.chunks(FRAME).peekable();
        while let Some(chunk) = chunks.next() {
            let flags = if end && chunks.peek().is_none() { END_STREAM } else { 0 };
            frame_head(&mut self.output, chunk.len(), DATA, flags, stream);
            self.output.extend_from_slice(chunk);
        }
        self.streams.push_back(Some(Stream { tag, partial: BytesMut::new(), skipped: 0, answered: false }));
    }

    /// The place of an open stream.
    fn place(&self, stream: u32) -> Option<usize> {
        Some(stream.checked_sub(self.first_stream)? as usize / 2)
    }

    /// The head of a call. Each field goes once into the peer's table (RFC 7541) and is one byte from then on.
    fn headers(&mut self, stream: u32, path: &'static str) {
        if let Some((known, block)) = &self.known
            && *known == path
        {
            frame_head(&mut self.output, block.len(), HEADERS, END_HEADERS, stream);
            self.output.extend_from_slice(block);
            return;
        }
        let before = self.table.len();
        // POST and http.
        let mut block = vec![0x83, 0x86];
        self.field(&mut block, path, 0x44, &[path]);
        let authority = self.authority.clone();
        self.field(&mut block, ":authority", 0x41, &[&authority]);
        self.field(&mut block, "content-type", 0x5f, &["application/grpc"]);
        self.field(&mut block, "te", 0x40, &["te", "trailers"]);
        frame_head(&mut self.output, block.len(), HEADERS, END_HEADERS, stream);
        self.output.extend_from_slice(&block);
        // A further method's path would give these other numbers.
        self.known = (self.table.len() == before).then_some((path, block));
    }

    /// One field: its number in the peer's table, which counts from the newest, or how it gets there.
    fn field(&mut self, block: &mut Vec<u8>, id: &'static str, first: u8, strings: &[&str]) {
        match self.table.iter().rev().position(|known| *known == id) {
            Some(at) => block.push(0x80 | (62 + u8::try_from(at).expect("few fields"))),
            None => {
                block.push(first);
                for string in strings {
                    block.push(u8::try_from(string.len()).ok().filter(|n| *n < 127).expect("fields are short"));
                    block.extend_from_slice(string.as_bytes());
                }
                self.table.push(id);
            }
        }
    }

    /// What comes next. All that was to be sent is sent meanwhile.
    pub async fn event(&mut self) -> io::Result<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.turn().await?;
        }
    }

    /// The next of what is already here.
    pub fn ready_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Writes what it can, then reads once and takes apart what has come.
    async fn turn(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            match self.socket.try_write(&self.output[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let mut wanted = Interest::READABLE;
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        } else {
            wanted |= Interest::WRITABLE;
        }
        let ready = self.socket.ready(wanted).await?;
        if ready.is_readable() {
            self.input.reserve(READ);
            match self.socket.try_read_buf(&mut self.input) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => self.frames()?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn frames(&mut self) -> io::Result<()> {
        while self.input.len() >= FRAME_HEAD {
            let length =
                usize::from(self.input[0]) << 16 | usize::from(self.input[1]) << 8 | usize::from(self.input[2]);
            if self.input.len() < FRAME_HEAD + length {
                break;
            }
            let (kind, flags) = (self.input[3], self.input[4]);
            let stream = (&self.input[5..]).get_u32() & LARGEST_WINDOW;
            self.input.advance(FRAME_HEAD);
            if kind == HEADERS {
                // Nobody looks into it.
                self.input.advance(length);
                if flags & END_STREAM != 0 {
                    self.ended(stream);
                }
                continue;
            }
            let payload = self.input.split_to(length).freeze();
            self.frame(kind, flags, stream, payload)?;
        }
        while let Some(next) = self.waiting.front()
            && next.body.len() as i64 <= self.window
        {
            let Some(next) = self.waiting.pop_front() else { break };
            self.send(next.tag, next.path, &next.body, next.end);
        }
        Ok(())
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, mut payload: Bytes) -> io::Result<()> {
        match kind {
            DATA => {
                self.received += u32::try_from(payload.len()).expect("a frame's length has 24 bits");
                if self.received > 1 << 30 {
                    frame_head(&mut self.output, 4, WINDOW_UPDATE, 0, 0);
                    self.output.put_u32(std::mem::take(&mut self.received));
                }
                if flags & PADDED != 0 {
                    return Err(invalid("padding is not understood"));
                }
                self.messages(stream, payload);
                if flags & END_STREAM != 0 {
                    self.ended(stream);
                }
            }
            RST_STREAM => self.ended(stream),
            SETTINGS if flags & ACK == 0 => {
                while payload.remaining() >= 6 {
                    // The window of new streams.
                    if let (4, window) = (payload.get_u16(), payload.get_u32()) {
                        self.stream_window = window.into();
                    }
                }
                frame_head(&mut self.output, 0, SETTINGS, ACK, 0);
            }
            PING if flags & ACK == 0 => {
                frame_head(&mut self.output, payload.len(), PING, ACK, 0);
                self.output.extend_from_slice(&payload);
            }
            WINDOW_UPDATE if stream == 0 && payload.len() == 4 => {
                self.window += i64::from(payload.get_u32() & LARGEST_WINDOW);
            }
            GOAWAY => return Err(invalid(format!("the server ends the connection: {payload:?}"))),
            SETTINGS | PING | WINDOW_UPDATE | CONTINUATION => {}
            kind => return Err(invalid(format!("a frame of kind {kind}"))),
        }
        Ok(())
    }

    fn messages(&mut self, id: u32, mut data: Bytes) {
        let Some(Some(stream)) = self.place(id).and_then(|at| self.streams.get_mut(at)) else { return };
        while !data.is_empty() {
            let message = if stream.partial.is_empty() && message_length(&data).is_some_and(|n| n <= data.len()) {
                // As nearly always: it is all here.
                let length = message_length(&data).unwrap_or_default();
                data.split_to(length)
            } else {
                let head = MESSAGE_HEAD.saturating_sub(stream.partial.len()).min(data.len());
                stream.partial.extend_from_slice(&data.split_to(head));
                let Some(length) = message_length(&stream.partial) else { return };
                if length > LARGE {
                    let rest = (length - MESSAGE_HEAD - stream.skipped).min(data.len());
                    stream.skipped += rest;
                    data.advance(rest);
                    if stream.skipped + MESSAGE_HEAD == length {
                        self.events.push_back(Event::Large(stream.tag, std::mem::take(&mut stream.skipped)));
                        stream.partial.clear();
                        stream.answered = true;
                    }
                    continue;
                }
                stream.partial.reserve(length - stream.partial.len());
                let rest = (length - stream.partial.len()).min(data.len());
                stream.partial.extend_from_slice(&data.split_to(rest));
                if stream.partial.len() < length {
                    return;
                }
                std::mem::take(&mut stream.partial).freeze()
            };
            stream.answered = true;
            self.events.push_back(Event::Message(stream.tag, message.slice(MESSAGE_HEAD..)));
        }
    }

    fn ended(&mut self, id: u32) {
        let Some(stream) = self.place(id).and_then(|at| self.streams.get_mut(at)?.take()) else { return };
        self.events.push_back(Event::End(stream.tag, stream.answered));
        while let Some(None) = self.streams.front() {
            self.streams.pop_front();
            self.first_stream += 2;
        }
    }
}

/// The length of the framed message that begins here.
fn message_length(data: &[u8]) -> Option<usize> {
    let mut length = data.get(1..MESSAGE_HEAD)?;
    Some(MESSAGE_HEAD + length.get_u32() as usize)
}

fn frame_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.put_uint(length as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn data(stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame_head(&mut out, payload.len(), DATA, 0, stream);
        out.extend_from_slice(payload);
        out
    }

    /// A server that answers whatever it is asked with these bytes, a few at a time.
    async fn server(answer: Vec<u8>, piece: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut hello = [0; 24];
            socket.read_exact(&mut hello).await.unwrap();
            for piece in answer.chunks(piece) {
                socket.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut rest = Vec::new();
            let _ = socket.read_to_end(&mut rest).await;
        });
        address
    }

    #[tokio::test]
    async fn messages_are_put_together_from_frames_however_they_are_cut() {
        let mut answer = Vec::new();
        frame_head(&mut answer, 0, SETTINGS, 0, 0);
        answer.extend(data(1, &[0, 0, 0, 0, 2, 7, 8, 0, 0]));
        answer.extend(data(1, &[0, 0, 1]));
        answer.extend(data(1, &[9]));
        let length = u32::try_from(2 * LARGE).unwrap();
        answer.extend(data(1, &[&[0][..], &length.to_be_bytes()].concat()));
        for part in vec![0; 2 * LARGE].chunks(FRAME) {
            answer.extend(data(1, part));
        }
        frame_head(&mut answer, 1, HEADERS, END_STREAM | END_HEADERS, 1);
        answer.push(0x88);
        frame_head(&mut answer, 1, HEADERS, END_STREAM | END_HEADERS, 3);
        answer.push(0x88);
        for piece in [7, 1000, 100_000] {
            let mut connection = Connection::open(server(answer.clone(), piece).await).await.unwrap();
            connection.call(5, "/a", b"", true);
            connection.call(6, "/a", b"", true);
            let Event::Message(5, message) = connection.event().await.unwrap() else { panic!() };
            assert_eq!(&message[..], [7, 8]);
            let Event::Message(5, message) = connection.event().await.unwrap() else { panic!() };
            assert_eq!(&message[..], [9]);
            let Event::Large(5, length) = connection.event().await.unwrap() else { panic!() };
            assert_eq!(length, 2 * LARGE);
            assert!(matches!(connection.event().await.unwrap(), Event::End(5, true)));
            assert!(matches!(connection.event().await.unwrap(), Event::End(6, false)));
        }
    }
}
