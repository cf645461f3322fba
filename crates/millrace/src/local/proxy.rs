//! A TCP proxy that misbehaves on request: it stands on the wire between a client and its server and delays, cuts,
//! swallows, or loses the answers.
//!
//! What it does is what a network can do to a TCP connection: bytes arrive in order and once, or not at all. A
//! connection that has lost bytes never goes on as if nothing had happened; it is closed when the fault is over.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes taken from a connection in one go.
const CHUNK: usize = 64 * 1024;
/// Pause after a failed accept, which means that this process has run out of sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the wire does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: everything passes.
    Pass,
    /// Each piece takes so long, and up to `jitter` longer, in both directions. A slow wire also carries less.
    Delay {
        /// At least so long.
        by: Duration,
        /// At most so much longer.
        jitter: Duration,
    },
    /// Every connection is closed, and every new one right after it was made.
    Cut,
    /// Connections stay open, new ones are taken, and nothing comes through in either direction.
    BlackHole,
    /// What the client sends arrives; what the server answers does not. After `cut_after` connections that lost
    /// something are closed, as a client is told in the end that the other side is gone.
    LoseAnswers {
        /// How long the client waits in vain, unless another fault is set before.
        cut_after: Duration,
    },
}

impl Fault {
    fn swallows(self, direction: Direction) -> bool {
        match self {
            Self::BlackHole => true,
            Self::LoseAnswers { .. } => direction == Direction::Answer,
            Self::Pass | Self::Delay { .. } | Self::Cut => false,
        }
    }

    fn delay(self) -> Duration {
        match self {
            Self::Delay { by, jitter } => by + jitter.mul_f64(fastrand::f64()),
            _ => Duration::ZERO,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Question,
    Answer,
}

/// A fault in force.
#[derive(Debug, Clone, Copy)]
struct InForce {
    fault: Fault,
    /// Counts calls of [`Proxy::set`].
    number: u64,
    /// Counts cuts: one that was over before a connection looked has closed it all the same.
    cuts: u64,
}

/// A proxy on 127.0.0.1 in front of one server. Dropping it closes its port and every connection through it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    in_force: watch::Sender<InForce>,
    _end: DropGuard,
}

impl Proxy {
    /// Listens on a free port and forwards to `upstream`, which need not be there yet: until it is, connections are
    /// closed as soon as they are made.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), upstream).await
    }

    /// As [`start`](Self::start), at an address of the caller's choice: one that was dropped refused connections there,
    /// and this one takes them again.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn start_at(address: SocketAddr, upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (in_force, watching) = watch::channel(InForce { fault: Fault::Pass, number: 0, cuts: 0 });
        let end = CancellationToken::new();
        tokio::spawn(accept(listener, upstream, watching, end.clone()));
        Ok(Self { address, in_force, _end: end.drop_guard() })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the wire does now.
    pub fn fault(&self) -> Fault {
        self.in_force.borrow().fault
    }

    /// Changes what the wire does, to connections that are open as well.
    pub fn set(&self, fault: Fault) {
        self.in_force.send_modify(|now| {
            *now = InForce { fault, number: now.number + 1, cuts: now.cuts + u64::from(fault == Fault::Cut) };
        });
    }
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    watching: watch::Receiver<InForce>,
    end: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = end.cancelled() => return,
        };
        match accepted {
            Ok((client, _)) => {
                let (watching, end) = (watching.clone(), end.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = connection(client, upstream, watching) => {}
                        () = end.cancelled() => {}
                    }
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Sees one connection through to its end. Returning closes both sides.
async fn connection(mut client: TcpStream, upstream: SocketAddr, mut watching: watch::Receiver<InForce>) {
    let begun = *watching.borrow_and_update();
    match begun.fault {
        Fault::Cut => return,
        Fault::BlackHole => {
            tokio::select! {
                () = swallow(&mut client) => {}
                _ = watching.changed() => {}
            }
            return;
        }
        Fault::Pass | Fault::Delay { .. } | Fault::LoseAnswers { .. } => {}
    }
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    // Small questions must not wait for the answers before them: the delay is ours to make.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let lost = Lost::default();
    // Side by side, each with its own place to stand still: two sides that both wait to be read must not block each other.
    tokio::select! {
        () = pump(Direction::Question, &mut from_client, &mut to_server, watching.clone(), &lost) => {}
        () = pump(Direction::Answer, &mut from_server, &mut to_client, watching.clone(), &lost) => {}
        () = ending(begun.cuts, watching, &lost) => {}
    }
}

async fn swallow(from: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = vec![0; CHUNK];
    while matches!(from.read(&mut buffer).await, Ok(1..)) {}
}

/// Under which fault a connection lost bytes; 0 for none.
#[derive(Default)]
struct Lost(AtomicU64);

/// Carries one direction until it ends; half-closed connections are not kept.
async fn pump(
    direction: Direction,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    watching: watch::Receiver<InForce>,
    lost: &Lost,
) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let now = *watching.borrow();
        if now.fault.swallows(direction) {
            lost.0.store(now.number, Ordering::Relaxed);
            continue;
        }
        // Bytes behind lost ones must not arrive; the questions behind a lost answer may.
        if ![0, now.number].contains(&lost.0.load(Ordering::Relaxed)) {
            return;
        }
        let delay = now.fault.delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Resolves when a fault ends the connection.
async fn ending(cuts: u64, mut watching: watch::Receiver<InForce>, lost: &Lost) {
    loop {
        let now = *watching.borrow_and_update();
        let lost_under = lost.0.load(Ordering::Relaxed);
        if now.cuts != cuts || (lost_under != 0 && lost_under != now.number) {
            return;
        }
        let patience = async {
            match now.fault {
                Fault::LoseAnswers { cut_after } => tokio::time::sleep(cut_after).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = watching.changed() => if changed.is_err() { return },
            () = patience => if lost.0.load(Ordering::Relaxed) != 0 { return },
        }
    }
}
