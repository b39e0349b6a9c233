//! Streams of commands and containers: pipes and terminals to a [`Session`].

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    pty::openpty,
    sys::signal::Signal,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::unix::pipe,
    sync::{broadcast::error::RecvError, mpsc},
};

use super::{
    container::{Process, Stream},
    launch::{Launch, signal_group},
};
use crate::runtime::{RuntimeError, Session, SessionEnds, TerminalSize, session, types::StreamRequest};

/// A pseudo terminal: the agent's side for reading, writing and resizing, and the process's side.
pub(super) struct Terminal {
    pub(super) reader: pipe::Receiver,
    pub(super) writer: pipe::Sender,
    pub(super) control: OwnedFd,
    /// Taken by the process, so that the agent sees the end when the process has gone.
    pub(super) process: Option<OwnedFd>,
}

impl Terminal {
    pub(super) fn open() -> io::Result<Self> {
        let pty = openpty(None, None)?;
        // Tokio's pipes are edge triggered readers of any descriptor that can be polled and does not block.
        fcntl(&pty.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self {
            reader: pipe::Receiver::from_owned_fd_unchecked(pty.master.try_clone()?)?,
            writer: pipe::Sender::from_owned_fd_unchecked(pty.master.try_clone()?)?,
            control: pty.master,
            process: Some(pty.slave),
        })
    }
}

/// Sets a terminal's size.
pub(super) fn resize(terminal: impl AsFd, size: TerminalSize) {
    let size = rustix::termios::Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
    if let Err(error) = rustix::termios::tcsetwinsize(terminal, size) {
        tracing::debug!(%error, "terminal not resized");
    }
}

/// The exit code as containers report it.
pub(super) fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Copies from a process to a client; answers whether the client went first.
async fn copy_out(mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Bytes>) -> bool {
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    loop {
        tokio::select! {
            () = to.closed() => return true,
            read = from.read_buf(&mut buffer) => {
                if !matches!(read, Ok(1..)) {
                    return false;
                }
            }
        }
        if to.send(buffer.split().freeze()).await.is_err() {
            return true;
        }
        buffer.reserve(16 * 1024);
    }
}

/// Copies from a client to a process until either goes.
pub(super) async fn copy_in(mut from: mpsc::Receiver<Bytes>, mut to: impl AsyncWrite + Unpin) {
    while let Some(piece) = from.recv().await {
        if to.write_all(&piece).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

/// How long output is awaited from processes that a finished command left behind.
const LINGER: Duration = Duration::from_secs(1);

/// Starts a command in a container and connects its streams.
pub(super) async fn exec(
    container: Arc<Process>,
    mut launch: Launch,
    request: &StreamRequest,
) -> Result<Session, RuntimeError> {
    let mut terminal =
        request.tty.then(Terminal::open).transpose().map_err(|e| RuntimeError::io("open a terminal", &e))?;
    launch.tty = terminal.as_mut().and_then(|terminal| terminal.process.take());
    launch.stdin = request.stdin;
    let mut child = launch.spawn().await.map_err(|error| RuntimeError::Failed(error.to_string()))?;
    let pid = child.id().unwrap_or_default().cast_signed();
    container.execs.lock().insert(pid);
    let (client, ends) = session(request.stdin);
    let SessionEnds { stdin, stdout, stderr, resize: mut sizes, exit } = ends;
    let mut control = None;
    let mut input: Option<Box<dyn AsyncWrite + Send + Unpin>> = None;
    let mut output: Box<dyn AsyncRead + Send + Unpin> = Box::new(tokio::io::empty());
    let mut errors: Box<dyn AsyncRead + Send + Unpin> = Box::new(tokio::io::empty());
    if let Some(terminal) = terminal {
        input = Some(Box::new(terminal.writer));
        output = Box::new(terminal.reader);
        control = Some(terminal.control);
    } else {
        input = child.stdin.take().map_or(input, |pipe| Some(Box::new(pipe)));
        if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
            (output, errors) = (Box::new(out), Box::new(err));
        }
    }
    tokio::spawn(async move {
        let feeding = stdin.zip(input).map(|(from, to)| tokio::spawn(copy_in(from, to)));
        let resizing = tokio::spawn(async move {
            while let (Some(size), Some(terminal)) = (sizes.recv().await, &control) {
                resize(terminal, size);
            }
        });
        let outputs = async { tokio::join!(copy_out(output, stdout), copy_out(errors, stderr)) };
        tokio::pin!(outputs);
        let mut flowing = true;
        let ended = loop {
            tokio::select! {
                status = child.wait() => break status,
                left = &mut outputs, if flowing => {
                    flowing = false;
                    // The client's going ends the command: nobody is left to read it.
                    if left.0 {
                        signal_group(pid, Signal::SIGKILL);
                    }
                }
            }
        };
        if flowing {
            // What still holds the outputs open was left behind by the command; it lives on without them.
            let _ = tokio::time::timeout(LINGER, &mut outputs).await;
        }
        if let Some(feeding) = feeding {
            feeding.abort();
        }
        resizing.abort();
        let code = ended.map(exit_code).map_err(|error| RuntimeError::io("wait for the command", &error));
        // The client may be gone.
        let _ = exit.send(code);
    });
    Ok(client)
}

/// Connects a client to the main process's streams.
pub(super) fn attach(container: &Arc<Process>, request: &StreamRequest) -> Session {
    let (client, ends) = session(request.stdin);
    let SessionEnds { stdin, stdout, stderr, resize: mut sizes, exit } = ends;
    let container = Arc::clone(container);
    let mut output = container.output.subscribe();
    let mut ended = container.ended.subscribe();
    tokio::spawn(async move {
        let to_process = container.stdin.lock().clone();
        let feeding = stdin.map(|mut from| {
            let once = container.record.lock().config.stdin_once;
            let container = Arc::clone(&container);
            tokio::spawn(async move {
                if let Some(to) = to_process {
                    while let Some(piece) = from.recv().await {
                        if to.send(piece).await.is_err() {
                            break;
                        }
                    }
                }
                if once {
                    *container.stdin.lock() = None;
                }
            })
        });
        let over = async move {
            // The sender lives as long as the container.
            let _ = ended.wait_for(|ended| *ended).await;
        };
        tokio::pin!(over);
        loop {
            tokio::select! {
                biased;
                piece = output.recv() => match piece {
                    Ok((Stream::Out, piece)) => if stdout.send(piece).await.is_err() { break },
                    Ok((Stream::Err, piece)) => if stderr.send(piece).await.is_err() { break },
                    // A client that reads too slowly loses output; the log has all of it.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => break,
                },
                Some(size) = sizes.recv() => {
                    if let Some(terminal) = &*container.terminal.lock() {
                        resize(terminal, size);
                    }
                }
                () = stdout.closed() => break,
                () = &mut over => break,
            }
        }
        if *container.ended.borrow() {
            // What was attached to has ended, and that is no failure, whatever its exit code: that is in the pod's
            // status. The client may be gone.
            let _ = exit.send(Ok(0));
        }
        if let Some(feeding) = feeding {
            feeding.abort();
        }
    });
    client
}
