//! A connection and its streams.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf},
    sync::mpsc,
    task::JoinSet,
};

use super::{
    frame::{self, Frame, SpdyError},
    headers::{Headers, Packer, Unpacker},
};

/// Bytes that a stream buffers in each direction, and the largest data frame sent.
const BUFFER: usize = 32 << 10;
/// Frames that wait to be sent.
const QUEUE: usize = 64;

/// A stream that the client opened. What is read is what the client sent, to its half-close; shutting the writing side
/// down closes the other half. Dropping it ends both.
pub struct Stream {
    /// What the client says of it, by lower-case name: `streamtype`, `port`, `requestid`.
    pub headers: Headers,
    io: DuplexStream,
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A connection that speaks SPDY; dropping it ends all its streams.
pub struct Session {
    streams: mpsc::Receiver<Stream>,
    tasks: JoinSet<Result<(), SpdyError>>,
}

/// Speaks SPDY on a connection as its server. Must be called in a tokio runtime.
pub fn serve<T: AsyncRead + AsyncWrite + Send + 'static>(io: T) -> Session {
    let (reader, writer) = tokio::io::split(io);
    let (offer, streams) = mpsc::channel(QUEUE);
    let (out, frames) = mpsc::channel(QUEUE);
    let mut tasks = JoinSet::new();
    tasks.spawn(write(writer, frames));
    tasks.spawn(Reader { out, offer, open: HashMap::new(), pumps: JoinSet::new() }.run(reader));
    Session { streams, tasks }
}

impl Session {
    /// The next stream that the client opens; `None` when the connection has ended.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Waits until everything that was written is sent, or the connection breaks.
    ///
    /// # Errors
    /// The connection broke, or the client does not speak the protocol.
    pub async fn finish(mut self) -> Result<(), SpdyError> {
        drop(self.streams);
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|e| SpdyError::Protocol(e.to_string()))??;
        }
        Ok(())
    }
}

async fn write<T: AsyncWrite>(mut io: WriteHalf<T>, mut frames: mpsc::Receiver<Bytes>) -> Result<(), SpdyError> {
    while let Some(frame) = frames.recv().await {
        io.write_all(&frame).await?;
        // What waits is sent with it before the flush.
        while let Ok(frame) = frames.try_recv() {
            io.write_all(&frame).await?;
        }
        io.flush().await?;
    }
    io.shutdown().await?;
    Ok(())
}

/// Takes frames in and gives them to the streams.
struct Reader {
    out: mpsc::Sender<Bytes>,
    offer: mpsc::Sender<Stream>,
    open: HashMap<u32, WriteHalf<DuplexStream>>,
    pumps: JoinSet<()>,
}

impl Reader {
    async fn run<T: AsyncRead>(mut self, mut io: ReadHalf<T>) -> Result<(), SpdyError> {
        let (mut unpacker, mut packer) = (Unpacker::new(), Packer::new());
        while let Some(frame) = frame::read(&mut io).await? {
            match frame {
                Frame::SynStream { stream, fin, headers } => {
                    let headers = unpacker.unpack(&headers)?;
                    if !self.open_stream(stream, fin, headers, &mut packer).await {
                        break;
                    }
                }
                Frame::Headers { headers } => drop(unpacker.unpack(&headers)?),
                Frame::Data { stream, fin, payload } => self.data(stream, fin, &payload).await,
                Frame::Reset { stream } => drop(self.open.remove(&stream)),
                Frame::Ping { id } => self.send(frame::ping(id)).await,
                Frame::GoAway | Frame::Other => {}
            }
        }
        // Streams see the end of input; what they still write is sent.
        self.open.clear();
        self.pumps.join_all().await;
        Ok(())
    }

    async fn send(&self, frame: Bytes) {
        // The writer is gone only when the connection broke, which reading will tell.
        let _ = self.out.send(frame).await;
    }

    /// Answers a new stream and offers it; false if nobody takes streams any more.
    async fn open_stream(&mut self, id: u32, fin: bool, headers: Headers, packer: &mut Packer) -> bool {
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let (reader, writer) = tokio::io::split(ours);
        self.send(frame::syn_reply(id, &packer.pack(&Headers::new()))).await;
        if self.offer.send(Stream { headers, io: theirs }).await.is_err() {
            self.send(frame::reset(id)).await;
            return false;
        }
        self.pumps.spawn(pump(id, reader, self.out.clone()));
        self.open.insert(id, writer);
        if fin {
            self.data(id, true, &[]).await;
        }
        true
    }

    async fn data(&mut self, stream: u32, fin: bool, payload: &[u8]) {
        let Some(writer) = self.open.get_mut(&stream) else { return };
        // A stream that nobody reads any more takes nothing; the rest of the connection goes on.
        let taken = writer.write_all(payload).await.is_ok();
        if (fin || !taken)
            && let Some(mut writer) = self.open.remove(&stream)
        {
            let _ = writer.shutdown().await;
        }
    }
}

/// Sends what a stream writes, and its end.
async fn pump(id: u32, mut from: ReadHalf<DuplexStream>, out: mpsc::Sender<Bytes>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await.unwrap_or(0);
        let frame = frame::data(id, count == 0, &buffer[..count]);
        if out.send(frame).await.is_err() || count == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_run_both_ways_and_close_by_halves() {
        let (client, server) = tokio::io::duplex(1 << 16);
        let mut session = serve(server);
        let (mut from, mut to) = tokio::io::split(client);
        let mut packer = Packer::new();
        for (id, kind) in [(1, "error"), (3, "data")] {
            let headers =
                Headers::from([("streamtype".to_owned(), kind.to_owned()), ("port".to_owned(), "80".to_owned())]);
            to.write_all(&frame::client::syn_stream(id, &packer.pack(&headers))).await.unwrap();
        }
        to.write_all(&frame::data(3, false, b"ping")).await.unwrap();
        to.write_all(&frame::data(3, true, b"!")).await.unwrap();
        to.write_all(&frame::client::ping(7)).await.unwrap();

        let error = session.accept().await.unwrap();
        assert_eq!(error.headers["streamtype"], "error");
        let mut data = session.accept().await.unwrap();
        assert_eq!((data.headers["streamtype"].as_str(), data.headers["port"].as_str()), ("data", "80"));
        let mut asked = String::new();
        data.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "ping!");
        data.write_all(b"pong").await.unwrap();
        data.shutdown().await.unwrap();
        drop(error);

        let (mut pong, mut ended, mut pinged) = (Vec::new(), Vec::new(), false);
        while pong != b"pong" || ended.len() < 2 || !pinged {
            match frame::read(&mut from).await.unwrap().unwrap() {
                Frame::Data { stream, fin, payload } => {
                    if stream == 3 {
                        pong.extend_from_slice(&payload);
                    }
                    if fin {
                        ended.push(stream);
                    }
                }
                Frame::Ping { id } => pinged = id == 7,
                _ => {}
            }
        }
        ended.sort_unstable();
        assert_eq!(ended, [1, 3]);
        drop((from, to));
        assert!(session.accept().await.is_none());
    }

    #[tokio::test]
    async fn garbage_ends_the_session_with_an_error() {
        let (mut client, server) = tokio::io::duplex(1 << 10);
        let mut session = serve(server);
        client.write_all(&[0x80, 2, 0, 1, 0, 0, 0, 0]).await.unwrap();
        assert!(session.accept().await.is_none());
        assert!(matches!(session.finish().await, Err(SpdyError::Protocol(_))));
    }
}
