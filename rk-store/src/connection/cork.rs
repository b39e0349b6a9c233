//! Connections that write when their task has nothing more to do, not whenever they are told to flush.
//!
//! The HTTP/2 library flushes after each frame of data, which has 16 KiB at most: a system call for each, and many more wake-ups
//! of whoever reads. So a [`Corked`] stream gathers what is written, and the connection's task sends it when it has polled the
//! connection, or when much has come together. Over TLS what fills records becomes records at once, which a [`Valve`](super::Valve)
//! holds back: so it is copied no more often than TLS does.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::valve::Handle;

/// Bytes that are gathered.
const GATHERED: usize = 128 << 10;

/// The longest plain text of a record of TLS (RFC 8446, 5.1).
const RECORD: usize = 16 << 10;

/// What a write leaves of a record is gathered for the next one, if it is no more than this. An HTTP/2 frame of the usual size is a little
/// longer than a record.
const REST: usize = 2 << 10;

/// Room for more than this is given back when all is sent and nothing more comes.
const KEPT: usize = 8 << 10;

/// A stream that gathers what is written. Clones are handles of one stream.
pub struct Corked<S>(Arc<Mutex<Cork<S>>>);

struct Cork<S> {
    stream: S,
    /// What lies below a stream of TLS. It is shut but while something is to be sent.
    valve: Option<Handle>,
    gathered: Vec<u8>,
    /// How much of it is sent.
    sent: usize,
    /// Bytes of records that the valve holds back.
    held: usize,
    /// Why nothing can be sent any more, for the next who writes.
    failed: Option<io::Error>,
    /// Whether a flush sends.
    open: bool,
}

impl<S> Clone for Corked<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    /// Gathers what is written to this stream.
    pub fn new(stream: S) -> Self {
        Self::over(stream, None)
    }

    /// The same for a stream of TLS over a valve, which has shaken hands. It must take all that is written to it, however much.
    pub fn over_tls(stream: S, valve: Handle) -> Self {
        valve.set(false);
        Self::over(stream, Some(valve))
    }

    fn over(stream: S, valve: Option<Handle>) -> Self {
        let cork = Cork { stream, valve, gathered: Vec::new(), sent: 0, held: 0, failed: None, open: false };
        Self(Arc::new(Mutex::new(cork)))
    }

    /// From now on a flush sends: for a stream that is no HTTP connection any more. It also sends what whoever took it over has
    /// flushed already.
    ///
    /// # Errors
    /// The stream's own.
    pub async fn uncork(&self) -> io::Result<()>
    where
        S: AsyncWrite + Unpin,
    {
        self.0.lock().open = true;
        poll_fn(|cx| self.0.lock().send(cx)).await
    }

    /// Sends what was gathered, as far as the stream takes it now. The task is woken when it takes more.
    pub fn send(&self, cx: &mut Context<'_>) {
        let mut cork = self.0.lock();
        match cork.send(cx) {
            Poll::Ready(Ok(())) if cork.gathered.capacity() > KEPT => cork.gathered = Vec::new(),
            Poll::Ready(Err(error)) => {
                cork.failed = Some(error);
                // The connection hears of it when it writes or flushes.
                cx.waker().wake_by_ref();
            }
            _ => {}
        }
    }
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered.is_empty() && self.held == 0 {
            return Poll::Ready(Ok(()));
        }
        self.opened(|cork| {
            while cork.sent < cork.gathered.len() {
                match ready!(Pin::new(&mut cork.stream).poll_write(cx, &cork.gathered[cork.sent..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    sent => cork.sent += sent,
                }
            }
            // TLS may have taken it and not got rid of it.
            cork.held += cork.gathered.len();
            cork.gathered.clear();
            cork.sent = 0;
            ready!(Pin::new(&mut cork.stream).poll_flush(cx))?;
            cork.held = 0;
            Poll::Ready(Ok(()))
        })
    }

    /// Does something while the valve is open.
    fn opened<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let turn = |cork: &Self, open| cork.valve.iter().for_each(|valve| valve.set(open));
        turn(self, true);
        let done = work(self);
        turn(self, false);
        done
    }

    fn fail(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Makes room for this many bytes, by sending if there is much already.
    fn make_room(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<io::Result<()>> {
        self.fail()?;
        if self.held + self.gathered.len() + len > GATHERED {
            ready!(self.send(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Gathers what is behind `skipped` bytes.
    fn gather(&mut self, bufs: &[io::IoSlice<'_>], mut skipped: usize) {
        let len = bufs.iter().map(|buf| buf.len()).sum::<usize>() - skipped;
        if self.gathered.len() + len > KEPT {
            let most = if self.valve.is_some() { RECORD } else { GATHERED };
            self.gathered.reserve_exact(most.max(self.gathered.len() + len) - self.gathered.len());
        }
        for buf in bufs {
            let skip = skipped.min(buf.len());
            skipped -= skip;
            self.gathered.extend_from_slice(&buf[skip..]);
        }
    }

    /// Makes records of what was gathered and of this; what is left for the next record is gathered.
    fn encrypt(&mut self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>], len: usize) -> io::Result<()> {
        let all = self.gathered.len() + len;
        let rest = if all % RECORD <= REST { all % RECORD } else { 0 };
        let mut wanted = all - rest;
        let mut slices = Vec::with_capacity(bufs.len() + 1);
        for buf in std::iter::once(&self.gathered[..]).chain(bufs.iter().map(|buf| &buf[..])) {
            let (taken, _) = buf.split_at(wanted.min(buf.len()));
            wanted -= taken.len();
            slices.push(io::IoSlice::new(taken));
        }
        let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write_vectored(cx, &slices) else {
            self.gather(bufs, 0);
            return Ok(());
        };
        let written = written?;
        self.held += written;
        let gathered = written.min(self.gathered.len());
        self.gathered.drain(..gathered);
        self.gather(bufs, written - gathered);
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut cork = self.0.lock();
        let len = bufs.iter().map(|buf| buf.len()).sum();
        ready!(cork.make_room(cx, len))?;
        if cork.valve.is_some() && cork.sent == 0 && cork.gathered.len() + len >= RECORD {
            cork.encrypt(cx, bufs, len)?;
        } else {
            cork.gather(bufs, 0);
        }
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Sends nothing: the connection's task does, by [`Corked::send`], until the stream is uncorked.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut cork = self.0.lock();
        cork.fail()?;
        if cork.open {
            ready!(cork.send(cx))?;
            return cork.opened(|cork| Pin::new(&mut cork.stream).poll_flush(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut cork = self.0.lock();
        ready!(cork.send(cx))?;
        cork.opened(|cork| Pin::new(&mut cork.stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::{super::Valve, *};

    async fn send<S: AsyncWrite + Unpin>(corked: &Corked<S>) {
        poll_fn(|cx| {
            corked.send(cx);
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_written_is_sent_when_told_or_when_there_is_much() {
        let (near, mut far) = duplex(4 * GATHERED);
        let mut corked = Corked::new(near);
        corked.write_all(b"one").await.unwrap();
        corked.flush().await.unwrap();
        let mut buf = vec![0; 2 * GATHERED];
        assert!(futures::poll!(std::pin::pin!(far.read(&mut buf))).is_pending());
        corked.write_all(b"two").await.unwrap();
        send(&corked).await;
        assert_eq!(far.read(&mut buf).await.unwrap(), 6);
        assert_eq!(&buf[..6], b"onetwo");
        corked.write_all(&vec![7; GATHERED - 1]).await.unwrap();
        assert!(futures::poll!(std::pin::pin!(far.read(&mut buf))).is_pending());
        corked.write_all(b"more").await.unwrap();
        assert_eq!(far.read(&mut buf).await.unwrap(), GATHERED - 1);
        corked.shutdown().await.unwrap();
        assert_eq!(far.read(&mut buf).await.unwrap(), 4);
        assert_eq!(far.read(&mut buf).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn uncorked_it_is_a_stream_like_others() {
        let (near, mut far) = duplex(1 << 10);
        let mut corked = Corked::new(near);
        corked.write_all(b"one").await.unwrap();
        corked.uncork().await.unwrap();
        let mut buf = [0; 8];
        assert_eq!(far.read(&mut buf).await.unwrap(), 3);
        corked.write_all(b"four").await.unwrap();
        corked.flush().await.unwrap();
        assert_eq!(far.read(&mut buf).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn who_does_not_read_holds_the_writer_back() {
        let (near, mut far) = duplex(1 << 10);
        let mut corked = Corked::new(near);
        let piece = vec![1; GATHERED / 2 + 1];
        corked.write_all(&piece).await.unwrap();
        let mut second = Box::pin(corked.write_all(&piece));
        assert!(futures::poll!(&mut second).is_pending());
        let mut read = vec![0; piece.len()];
        tokio::join!(second, async { far.read_exact(&mut read).await.unwrap() }).0.unwrap();
    }

    #[tokio::test]
    async fn a_failure_to_send_is_told_to_the_next_who_writes() {
        let (near, far) = duplex(1 << 10);
        drop(far);
        let mut corked = Corked::new(near);
        corked.write_all(b"one").await.unwrap();
        send(&corked).await;
        assert!(corked.flush().await.is_err());
    }

    /// Takes all that is written, as TLS does, and lets go of it as far as what lies below takes it.
    struct Records {
        below: Valve<tokio::io::DuplexStream>,
        /// How much was written at a time.
        made: Arc<Mutex<Vec<usize>>>,
        waiting: Vec<u8>,
    }

    impl Records {
        fn let_go(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            while !self.waiting.is_empty() {
                let gone = ready!(Pin::new(&mut self.below).poll_write(cx, &self.waiting))?;
                self.waiting.drain(..gone);
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Records {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let len = bufs.iter().map(|buf| buf.len()).sum();
            self.made.lock().push(len);
            bufs.iter().for_each(|buf| self.waiting.extend_from_slice(buf));
            let _ = self.let_go(cx)?;
            Poll::Ready(Ok(len))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.let_go(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            ready!(self.let_go(cx))?;
            Pin::new(&mut self.below).poll_shutdown(cx)
        }
    }

    /// A corked stream over TLS, what was made of what is written to it, and its other end.
    fn over_tls(room: usize) -> (Corked<Records>, Arc<Mutex<Vec<usize>>>, tokio::io::DuplexStream) {
        let (near, far) = duplex(room);
        let ((below, handle), made) = (Valve::new(near), Arc::default());
        (Corked::over_tls(Records { below, made: Arc::clone(&made), waiting: Vec::new() }, handle), made, far)
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8).collect()
    }

    #[tokio::test]
    async fn over_tls_what_fills_a_record_is_not_gathered() {
        let (mut corked, made, mut far) = over_tls(4 * GATHERED);
        let bytes = bytes(3 * RECORD);
        corked.write_all(&bytes[..100]).await.unwrap();
        assert!(made.lock().is_empty());
        // As long as a frame: what is behind the record is little, and waits for the next.
        corked.write_all(&bytes[100..RECORD + 109]).await.unwrap();
        assert_eq!(*made.lock(), [RECORD]);
        // Of this one all is written.
        corked.write_all(&bytes[RECORD + 109..2 * RECORD + REST + 1]).await.unwrap();
        assert_eq!(*made.lock(), [RECORD, RECORD + REST + 1]);
        corked.write_all(&bytes[2 * RECORD + REST + 1..]).await.unwrap();
        corked.flush().await.unwrap();
        let mut read = vec![0; bytes.len()];
        assert!(futures::poll!(std::pin::pin!(far.read(&mut read))).is_pending(), "the valve is shut");
        send(&corked).await;
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(read, bytes);
    }

    #[tokio::test]
    async fn over_tls_who_does_not_read_holds_the_writer_back() {
        let (mut corked, _, mut far) = over_tls(1 << 10);
        let bytes = bytes(GATHERED + 2 * RECORD);
        corked.write_all(&bytes[..GATHERED]).await.unwrap();
        let mut more = Box::pin(corked.write_all(&bytes[GATHERED..]));
        assert!(futures::poll!(&mut more).is_pending());
        let mut read = vec![0; bytes.len()];
        let (all, _) = read.split_at_mut(GATHERED);
        tokio::join!(&mut more, async { far.read_exact(all).await.unwrap() }).0.unwrap();
        drop(more);
        let (_, rest) = read.split_at_mut(GATHERED);
        tokio::join!(corked.shutdown(), async { far.read_exact(rest).await.unwrap() }).0.unwrap();
        assert_eq!(read, bytes);
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
    }
}
