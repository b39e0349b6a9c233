//! Connections that write when their task has nothing more to do, not whenever they are told to flush.
//!
//! The HTTP/2 library flushes after each frame of data, which has 16 KiB at most: a system call for each, and many more wake-ups
//! of whoever reads. So a [`Corked`] stream gathers what is written, and the connection's task sends it when it has polled the
//! connection, or when much has come together.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are gathered.
const GATHERED: usize = 128 << 10;

/// Room for more than this is given back when all is sent and nothing more comes.
const KEPT: usize = 8 << 10;

/// A stream that gathers what is written. Clones are handles of one stream.
pub struct Corked<S>(Arc<Mutex<Cork<S>>>);

struct Cork<S> {
    stream: S,
    gathered: Vec<u8>,
    /// How much of it is sent.
    sent: usize,
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
        let cork = Cork { stream, gathered: Vec::new(), sent: 0, failed: None, open: false };
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
        if self.gathered.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.gathered.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.gathered[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.gathered.clear();
        self.sent = 0;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn fail(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Makes room for this many bytes, by sending if there is much already.
    fn make_room(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<io::Result<()>> {
        self.fail()?;
        if self.gathered.len() + len > GATHERED {
            ready!(self.send(cx))?;
        }
        if self.gathered.len() + len > KEPT {
            self.gathered.reserve_exact(GATHERED.max(len) - self.gathered.len());
        }
        Poll::Ready(Ok(()))
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
        bufs.iter().for_each(|buf| cork.gathered.extend_from_slice(buf));
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
            return Pin::new(&mut cork.stream).poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut cork = self.0.lock();
        ready!(cork.send(cx))?;
        Pin::new(&mut cork.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

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
}
