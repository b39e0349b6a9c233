//! Ports for servers that tests start as processes of their own.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

/// Where the ports begin and how many there are: below those that kernels give to connections (Linux: from 32,768 on), for one of
/// these might be given away between the look at it and the server's.
const PORTS: (u32, u32) = (12_000, 20_000);

/// A port of 127.0.0.1 that nobody listens on. It is told once in a process, and processes begin at different ones.
///
/// # Panics
/// None is free.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(101) % PORTS.1;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let next = || PORTS.0 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS.1;
    let free = (0..PORTS.1).filter_map(|_| u16::try_from(next()).ok()).find(is_free);
    free.expect("a free port")
}
