//! Free ports on the loopback interface.

use std::net::{Ipv4Addr, TcpListener};

use super::LocalError;

/// Ports are drawn from below the range systems hand out to outgoing connections (from 32768 on Linux), so that a port
/// stays free for its server while that server is restarted.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;
/// Draws before giving up: with half of the range in use, 64 misses in a row happen once in 10^19.
const DRAWS: usize = 64;

/// How often a server with a drawn port is started anew when another program takes that port first.
pub(crate) const START_ATTEMPTS: usize = 5;

/// A port on 127.0.0.1 nobody listens on at the moment. It is not held: whoever binds it must be ready for
/// the rare case that somebody else was faster.
///
/// # Errors
/// [`LocalError::NoFreePort`] when the range is full.
pub fn free_port() -> Result<u16, LocalError> {
    (0..DRAWS)
        .map(|_| fastrand::u16(FIRST..=LAST))
        .find(|port| is_free(*port))
        .ok_or(LocalError::NoFreePort { first: FIRST, last: LAST })
}

pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A port for a server: the one asked for if it is free, a free one if 0 was asked for.
pub(crate) fn claim(asked: u16, purpose: &'static str, server: &'static str) -> Result<u16, LocalError> {
    match asked {
        0 => free_port(),
        port if is_free(port) => Ok(port),
        port => Err(LocalError::PortTaken { port, purpose, server }),
    }
}
