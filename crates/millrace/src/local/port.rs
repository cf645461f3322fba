//! Free ports on the loopback interface.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use super::LocalError;

/// Ports are drawn from below the range systems hand out to outgoing connections (from 32768 on Linux), so that a port
/// stays free for its server while that server is restarted.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;
/// Draws before giving up: with half of the range in use, 64 misses in a row happen once in 10^19.
const DRAWS: usize = 64;

/// Ports this process was given. Many are given long before anybody binds them, or lie idle while their server is restarted;
/// somebody else who is given one meanwhile would take it from them.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// How often a server with a drawn port is started anew when another program takes that port first.
pub(crate) const START_ATTEMPTS: usize = 5;

/// A port on 127.0.0.1 nobody listens on at the moment, and that this process was not given before. It is not held: whoever
/// binds it must be ready for the rare case that another process was faster.
///
/// # Errors
/// [`LocalError::NoFreePort`] when the range is full.
pub fn free_port() -> Result<u16, LocalError> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Whoever starts that many servers in one process has long done with the first of them.
    if given.len() > usize::from(LAST - FIRST) / 2 {
        given.clear();
    }
    let port = (0..DRAWS)
        .map(|_| fastrand::u16(FIRST..=LAST))
        .find(|port| !given.contains(port) && is_free(*port))
        .ok_or(LocalError::NoFreePort { first: FIRST, last: LAST })?;
    given.insert(port);
    Ok(port)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_though_nobody_has_bound_it_yet() {
        let ports: BTreeSet<u16> = (0..1_000).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 1_000);
    }
}
