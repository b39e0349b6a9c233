//! Just enough of HTTP/2 (RFC 9113) to load a Kubernetes API from the cores that it runs on.
//!
//! A connection sends all requests that are ready with one system call and reads all answers that are there with another. It
//! never looks into header blocks: whether a request failed is seen by its answer, which is then a `Status`.

use std::{collections::VecDeque, io};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use memchr::memmem;

use crate::{kubeconfig::Endpoint, wire::Wire};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Bytes of a frame's head.
const FRAME_HEAD: usize = 9;
/// The window that a peer has until it says otherwise.
const INITIAL_WINDOW: u32 = 65_535;
/// The largest window.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// The longest frame that a peer takes until it says otherwise.
const FRAME: usize = 16_384;

/// A request's method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Read.
    #[default]
    Get,
    /// Make.
    Post,
    /// Replace.
    Put,
    /// Change; the body is a merge patch.
    Patch,
    /// Delete.
    Delete,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// A request.
#[derive(Debug, Default)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// JSON; empty for none.
    pub body: Vec<u8>,
}

impl Request {
    /// A request that reads.
    pub fn get(path: impl Into<String>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }
}

/// What came over a connection; each with the tag of its request.
#[derive(Debug)]
pub enum Event {
    /// The answer begins.
    Begin(usize),
    /// A piece of the answer.
    Data(usize, Bytes),
    /// The answer has ended; whether the request failed.
    End(usize, bool),
}

#[derive(Debug)]
struct Stream {
    tag: usize,
    begun: bool,
    answered: bool,
    failed: bool,
}

/// A connection to an API.
pub struct Connection {
    wire: Wire,
    /// The fields that are the same for each request, and how each is written once the peer has them in its table.
    fields: Vec<(&'static str, String)>,
    known: bool,
    input: BytesMut,
    output: Vec<u8>,
    /// The streams from the oldest one that is open to the newest.
    streams: VecDeque<Option<Stream>>,
    /// The number of the first of them.
    first_stream: u32,
    /// Bytes that may be sent on the connection.
    window: i64,
    /// Requests that wait for the connection's window.
    waiting: VecDeque<(usize, Request)>,
    /// Bytes received since the peer was last given leave for more.
    received: u32,
    events: VecDeque<Event>,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn frame_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.put_uint(length as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
}

/// An integer of HPACK (RFC 7541, 5.1) behind the bits of `first`.
fn integer(out: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let most = (1 << prefix) - 1;
    if value < most {
        out.push(first | value as u8);
        return;
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    out.push(rest as u8);
}

fn string(out: &mut Vec<u8>, text: &str) {
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// A field that no table takes, its name by its number in the static table.
fn unindexed(out: &mut Vec<u8>, name: usize, value: &str) {
    integer(out, 0, 4, name);
    string(out, value);
}

impl Connection {
    /// Connects and says hello. With `gzip` answers may come compressed.
    pub async fn open(endpoint: &Endpoint, accept: &str, gzip: bool) -> io::Result<Self> {
        let wire = Wire::open(endpoint).await?;
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
        let mut fields = vec![
            (":authority", endpoint.authority.clone()),
            ("accept", accept.to_owned()),
            ("user-agent", "rk-benches/1".to_owned()),
        ];
        if let Some(token) = &endpoint.token {
            fields.push(("authorization", format!("Bearer {token}")));
        }
        if gzip {
            fields.push(("accept-encoding", "gzip".to_owned()));
        }
        Ok(Self {
            wire,
            fields,
            known: false,
            input: BytesMut::new(),
            output,
            streams: VecDeque::new(),
            first_stream: 1,
            window: INITIAL_WINDOW.into(),
            waiting: VecDeque::new(),
            received: 0,
            events: VecDeque::new(),
        })
    }

    /// Begins a request. It is sent with the next [`Connection::event`].
    pub fn call(&mut self, tag: usize, request: Request) {
        if self.waiting.is_empty() && request.body.len() as i64 <= self.window {
            self.write(tag, &request);
        } else {
            self.waiting.push_back((tag, request));
        }
    }

    fn write(&mut self, tag: usize, request: &Request) {
        assert!(request.body.len() < INITIAL_WINDOW as usize, "a body fits a stream's window");
        let stream = self.first_stream + 2 * u32::try_from(self.streams.len()).expect("few streams are open");
        self.window -= request.body.len() as i64;
        let block = self.headers(request);
        let end = if request.body.is_empty() { END_STREAM } else { 0 };
        frame_head(&mut self.output, block.len(), HEADERS, END_HEADERS | end, stream);
        self.output.extend_from_slice(&block);
        let mut chunks = request.body.chunks(FRAME).peekable();
        while let Some(chunk) = chunks.next() {
            let flags = if chunks.peek().is_none() { END_STREAM } else { 0 };
            frame_head(&mut self.output, chunk.len(), DATA, flags, stream);
            self.output.extend_from_slice(chunk);
        }
        self.streams.push_back(Some(Stream { tag, begun: false, answered: false, failed: false }));
    }

    /// The head of a request. What all have in common goes once into the peer's table (RFC 7541) and is one byte from then on.
    fn headers(&mut self, request: &Request) -> Vec<u8> {
        // GET and POST have numbers of their own; https.
        let mut block = Vec::with_capacity(request.path.len() + 64);
        match request.method {
            Method::Get => block.push(0x82),
            Method::Post => block.push(0x83),
            other => unindexed(&mut block, 2, other.name()),
        }
        block.push(0x87);
        unindexed(&mut block, 4, &request.path);
        let count = self.fields.len();
        for (at, (name, value)) in self.fields.iter().enumerate() {
            if self.known {
                // Numbers count from the newest.
                integer(&mut block, 0x80, 7, 62 + (count - 1 - at));
            } else {
                let number = match *name {
                    ":authority" => 1,
                    "accept-encoding" => 16,
                    "accept" => 19,
                    "authorization" => 23,
                    _ => 58,
                };
                integer(&mut block, 0x40, 6, number);
                string(&mut block, value);
            }
        }
        self.known = true;
        match request.method {
            Method::Patch => unindexed(&mut block, 31, "application/merge-patch+json"),
            _ if request.body.is_empty() => {}
            _ => unindexed(&mut block, 31, "application/json"),
        }
        block
    }

    /// What comes next. All that was to be sent is sent meanwhile.
    pub async fn event(&mut self) -> io::Result<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.wire.send(&mut self.output)?;
            self.wire.ready().await?;
            self.wire.receive(&mut self.input)?;
            self.frames()?;
        }
    }

    /// The next of what is already here.
    pub fn ready_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Sends a request and waits for its whole answer.
    pub async fn ask(&mut self, request: Request) -> io::Result<Vec<u8>> {
        let what = format!("{} {}", request.method.name(), request.path);
        self.call(0, request);
        let mut answer = Vec::new();
        loop {
            match self.event().await? {
                Event::Begin(_) => {}
                Event::Data(_, data) => answer.extend_from_slice(&data),
                Event::End(_, false) => return Ok(answer),
                Event::End(_, true) => {
                    return Err(invalid(format!("{what}: {}", String::from_utf8_lossy(&answer))));
                }
            }
        }
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
            let payload = self.input.split_to(length).freeze();
            self.frame(kind, flags, stream, payload)?;
        }
        while self.waiting.front().is_some_and(|(_, next)| next.body.len() as i64 <= self.window) {
            let Some((tag, next)) = self.waiting.pop_front() else { break };
            self.write(tag, &next);
        }
        Ok(())
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, mut payload: Bytes) -> io::Result<()> {
        match kind {
            HEADERS => {
                if let Some(Some(open)) = self.place(stream).and_then(|at| self.streams.get_mut(at))
                    && !std::mem::replace(&mut open.begun, true)
                {
                    self.events.push_back(Event::Begin(open.tag));
                }
            }
            DATA => {
                self.received += u32::try_from(payload.len()).expect("a frame's length has 24 bits");
                if self.received > 1 << 30 {
                    frame_head(&mut self.output, 4, WINDOW_UPDATE, 0, 0);
                    self.output.put_u32(std::mem::take(&mut self.received));
                }
                if flags & PADDED != 0 {
                    return Err(invalid("padding is not understood"));
                }
                if let Some(Some(open)) = self.place(stream).and_then(|at| self.streams.get_mut(at))
                    && !payload.is_empty()
                {
                    if !std::mem::replace(&mut open.answered, true) {
                        open.failed = is_failure(&payload);
                    }
                    self.events.push_back(Event::Data(open.tag, payload));
                }
            }
            RST_STREAM => {
                self.ended(stream, true);
                return Ok(());
            }
            SETTINGS if flags & ACK == 0 => frame_head(&mut self.output, 0, SETTINGS, ACK, 0),
            PING if flags & ACK == 0 => {
                frame_head(&mut self.output, payload.len(), PING, ACK, 0);
                self.output.extend_from_slice(&payload);
            }
            WINDOW_UPDATE if stream == 0 && payload.len() == 4 => {
                self.window += i64::from(payload.get_u32() & LARGEST_WINDOW);
            }
            GOAWAY => return Err(invalid(format!("the server ends the connection: {payload:?}"))),
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            self.ended(stream, false);
        }
        Ok(())
    }

    /// The place of an open stream.
    fn place(&self, stream: u32) -> Option<usize> {
        Some(stream.checked_sub(self.first_stream)? as usize / 2)
    }

    fn ended(&mut self, id: u32, reset: bool) {
        let Some(stream) = self.place(id).and_then(|at| self.streams.get_mut(at)?.take()) else { return };
        self.events.push_back(Event::End(stream.tag, reset || stream.failed || !stream.answered));
        while let Some(None) = self.streams.front() {
            self.streams.pop_front();
            self.first_stream += 2;
        }
    }
}

/// Whether an answer that begins like this is a failure: a `Status` that says so, or no JSON, gzip or protobuf at all.
fn is_failure(data: &[u8]) -> bool {
    let head = &data[..data.len().min(80)];
    match data[0] {
        b'{' => memmem::find(head, b"\"Status\"").is_some() && memmem::find(data, b"\"Failure\"").is_some(),
        0x1f | b'k' => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_hpacks() {
        // The examples of RFC 7541, C.1.
        for (prefix, value, bytes) in
            [(5, 10, vec![0b0000_1010]), (5, 1337, vec![0b0001_1111, 0b1001_1010, 0b0000_1010]), (8, 42, vec![42])]
        {
            let mut out = Vec::new();
            integer(&mut out, 0, prefix, value);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn failures_are_told_from_answers() {
        let failure = br#"{"apiVersion":"v1","kind":"Status","metadata":{},"status":"Failure","code":404}"#;
        assert!(is_failure(failure) && is_failure(b"Too many requests"));
        let deleted = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}"#;
        assert!(!is_failure(deleted) && !is_failure(br#"{"kind":"ConfigMap"}"#));
    }
}
