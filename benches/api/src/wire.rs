//! A connection's bytes: TCP, with TLS around them or not. Nothing here waits but [`Wire::ready`], so that many bytes go through
//! few system calls.

use std::io::{self, BufRead, IoSlice, Write};

use bytes::BytesMut;
use rustls::ClientConnection;
use tokio::{io::Interest, net::TcpStream};

use crate::kubeconfig::Endpoint;

/// Bytes read from the socket at a time, at most.
const READ: usize = 1 << 18;

/// See the module's description.
pub struct Wire {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// What is to be sent as it is, without TLS.
    plain: Vec<u8>,
    sent: usize,
    encrypted: Vec<u8>,
}

/// A socket for those who write until it would block.
struct Socket<'a>(&'a TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl Wire {
    /// Connects and shakes hands.
    pub async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let socket = TcpStream::connect(endpoint.address).await?;
        socket.set_nodelay(true)?;
        let tls = match &endpoint.tls {
            None => None,
            Some((config, name)) => {
                let mut tls = ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
                tls.set_buffer_limit(None);
                Some(Box::new(tls))
            }
        };
        let mut wire = Self { socket, tls, plain: Vec::new(), sent: 0, encrypted: vec![0; READ] };
        let mut nothing = BytesMut::new();
        while wire.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            wire.send(&mut Vec::new())?;
            wire.ready().await?;
            wire.receive(&mut nothing)?;
        }
        Ok(wire)
    }

    /// Waits until there is something to read, or to write again.
    pub async fn ready(&self) -> io::Result<()> {
        let waits = match &self.tls {
            Some(tls) => tls.wants_write(),
            None => self.sent < self.plain.len(),
        };
        let interest = if waits { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.socket.ready(interest).await.map(drop)
    }

    /// Takes what is to be sent, and sends what the socket takes.
    pub fn send(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let written = match &mut self.tls {
            Some(tls) => {
                tls.writer().write_all(bytes)?;
                bytes.clear();
                let mut written = Ok(());
                while written.is_ok() && tls.wants_write() {
                    written = tls.write_tls(&mut Socket(&self.socket)).map(drop);
                }
                written
            }
            None => {
                if self.sent == self.plain.len() {
                    self.plain.clear();
                    self.sent = 0;
                }
                self.plain.append(bytes);
                let mut written = Ok(());
                while written.is_ok() && self.sent < self.plain.len() {
                    written = self.socket.try_write(&self.plain[self.sent..]).map(|n| self.sent += n);
                }
                written
            }
        };
        match written {
            Err(error) if !would_block(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Appends what has come.
    pub fn receive(&mut self, input: &mut BytesMut) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            input.reserve(READ);
            return match self.socket.try_read_buf(input) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if !would_block(&error) => Err(error),
                _ => Ok(()),
            };
        };
        let read = match self.socket.try_read(&mut self.encrypted) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if would_block(&error) => return Ok(()),
            other => other?,
        };
        let mut left = &self.encrypted[..read];
        while !left.is_empty() {
            tls.read_tls(&mut left)?;
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let mut plain = state.plaintext_bytes_to_read();
            while plain > 0 {
                let mut reader = tls.reader();
                let chunk = reader.fill_buf()?;
                let length = chunk.len();
                input.extend_from_slice(chunk);
                reader.consume(length);
                plain = plain.saturating_sub(length);
                if length == 0 {
                    break;
                }
            }
        }
        Ok(())
    }
}
