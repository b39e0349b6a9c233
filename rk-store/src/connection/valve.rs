//! What TLS writes to, so that its records wait where they are until they are wanted.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that takes nothing while it is shut. It is open until somebody shuts it.
///
/// Nobody is woken when it opens: who shuts it, [`Corked`](super::Corked), flushes what lies above when it is open again.
pub struct Valve<S> {
    stream: S,
    handle: Handle,
}

/// Opens and shuts a valve.
#[derive(Clone)]
pub struct Handle(Arc<AtomicBool>);

impl Handle {
    pub(super) fn set(&self, open: bool) {
        // One task reads and writes it, whose moves between threads order this too.
        self.0.store(open, Ordering::Relaxed);
    }
}

impl<S> Valve<S> {
    /// A valve over a stream, and what turns it.
    pub fn new(stream: S) -> (Self, Handle) {
        let handle = Handle(Arc::new(AtomicBool::new(true)));
        (Self { stream, handle: handle.clone() }, handle)
    }

    fn is_open(&self) -> bool {
        self.handle.0.load(Ordering::Relaxed)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Valve<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Valve<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.is_open() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.is_open() {
            return Poll::Pending;
        }
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
