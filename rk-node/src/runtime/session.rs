//! The streams of a command in a container.

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
};

use super::RuntimeError;

/// A connection: bytes both ways.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TerminalSize {
    /// Columns.
    #[serde(rename = "Width")]
    pub width: u16,
    /// Rows.
    #[serde(rename = "Height")]
    pub height: u16,
}

/// The client's ends of a command's streams. Dropping them all detaches (attach) or ends the command (exec).
pub struct Session {
    /// Bytes for standard input; closing it ends the input. `None` if it was not asked for.
    pub stdin: Option<mpsc::Sender<Bytes>>,
    /// Standard output, until it ends.
    pub stdout: mpsc::Receiver<Bytes>,
    /// Standard error, until it ends; silent with a terminal.
    pub stderr: mpsc::Receiver<Bytes>,
    /// New sizes of the terminal.
    pub resize: mpsc::Sender<TerminalSize>,
    /// The exit code, once both outputs have ended.
    pub exit: oneshot::Receiver<Result<i32, RuntimeError>>,
}

/// The runtime's ends of a command's streams.
pub struct SessionEnds {
    /// What the client writes to standard input; ends when the client closes it.
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    /// Standard output.
    pub stdout: mpsc::Sender<Bytes>,
    /// Standard error.
    pub stderr: mpsc::Sender<Bytes>,
    /// New sizes of the terminal.
    pub resize: mpsc::Receiver<TerminalSize>,
    /// Where the exit code goes.
    pub exit: oneshot::Sender<Result<i32, RuntimeError>>,
}

/// Chunks in flight per stream: enough to keep a pipe busy, little enough to push back on a fast writer.
const DEPTH: usize = 16;

/// Two ends of a new session.
pub fn session(stdin: bool) -> (Session, SessionEnds) {
    let (in_send, in_recv) = mpsc::channel(DEPTH);
    let (out_send, out_recv) = mpsc::channel(DEPTH);
    let (err_send, err_recv) = mpsc::channel(DEPTH);
    let (size_send, size_recv) = mpsc::channel(DEPTH);
    let (exit_send, exit_recv) = oneshot::channel();
    (
        Session {
            stdin: stdin.then_some(in_send),
            stdout: out_recv,
            stderr: err_recv,
            resize: size_send,
            exit: exit_recv,
        },
        SessionEnds {
            stdin: stdin.then_some(in_recv),
            stdout: out_send,
            stderr: err_send,
            resize: size_recv,
            exit: exit_send,
        },
    )
}
