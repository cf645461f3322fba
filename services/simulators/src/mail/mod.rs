//! A mail server that keeps what it receives and delivers nothing.
//!
//! It speaks enough SMTP (RFC 5321) for any sensible client: EHLO, HELO, MAIL, RCPT, DATA, RSET, NOOP, VRFY, HELP,
//! QUIT, with PIPELINING, 8BITMIME, SMTPUTF8 and SIZE; no TLS and no AUTH. A recipient whose local part is `bounce` is
//! refused with 550, as an unknown mailbox would be. On a port of its own it shows over HTTP what came in, newest
//! first:
//!
//! | request | answers |
//! | --- | --- |
//! | `GET /messages?to=&limit=` | the mails kept: from, to, subject, message_id, text, received_at |
//! | `GET /counts?at_least=` | how often each Message-ID came in; more than once is a duplicate |
//!
//! The modes of [`control`](crate::control) act on mail transactions: `errors` answers MAIL with 451 (or `status`),
//! `down` also drops new connections, `lose_answers` keeps the mail and drops the connection in place of the final 250.

mod command;
mod content;
mod mailbox;
mod session;
mod view;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::control::{Behaviour, ModeSwitch};
use mailbox::Mailbox;
use session::Session;

pub use mailbox::{Envelope, Mail};
pub use view::{Counts, Messages};

/// How long to wait before accepting again when the process has run out of sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Settings of the mail sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many mails are kept for `GET /messages`; older ones are dropped and counted. Ours are about 1 KB each; the
    /// worst case is this times `max_mail_bytes`.
    pub keep_mails: usize,
    /// How many Message-IDs are counted; the oldest are dropped and counted. One takes about 200 bytes.
    pub keep_message_ids: usize,
    /// The largest mail taken, in bytes; announced as SIZE. Guards the memory, see `keep_mails`.
    pub max_mail_bytes: usize,
    /// Recipients of one mail. 100 is what RFC 5321 asks of every server.
    pub max_recipients: usize,
    /// Connections at once; more are told 421. Guards against a client that leaks them.
    pub max_connections: usize,
    /// How long a client may be silent, in milliseconds. Five minutes is what RFC 5321 asks for.
    pub idle_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keep_mails: 1_000,
            keep_message_ids: 100_000,
            max_mail_bytes: 256 * 1024,
            max_recipients: 100,
            max_connections: 256,
            idle_timeout_ms: 300_000,
        }
    }
}

/// Serves SMTP and the HTTP view on the listeners given until the token is cancelled. A mail whose content is not
/// complete by then is not taken.
///
/// # Errors
/// When the HTTP listener cannot be served.
pub async fn run(
    smtp: TcpListener,
    http: TcpListener,
    settings: Settings,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let sink = Arc::new(Sink {
        mailbox: Mutex::new(Mailbox::new(settings.keep_mails, settings.keep_message_ids)),
        settings,
        switch: ModeSwitch::new(shutdown.clone()),
        shutdown: shutdown.clone(),
    });
    let view = crate::http::serve(http, view::routes(Arc::clone(&sink)), Arc::clone(&sink.switch), shutdown);
    let ((), served) = tokio::join!(accept(smtp, sink), view);
    served
}

/// What all connections share.
struct Sink {
    mailbox: Mutex<Mailbox>,
    settings: Settings,
    switch: Arc<ModeSwitch>,
    shutdown: CancellationToken,
}

impl Sink {
    fn with_mailbox<T>(&self, work: impl FnOnce(&mut Mailbox) -> T) -> T {
        work(&mut self.mailbox.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn accept(listener: TcpListener, sink: Arc<Sink>) {
    let sessions = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(sink.settings.max_connections));
    loop {
        let accepted = tokio::select! {
            () = sink.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let slot = Arc::clone(&slots).try_acquire_owned().ok();
                sessions.spawn(converse(stream, slot, Arc::clone(&sink)));
            }
            Err(error) => {
                tracing::warn!(%error, "the mail sink could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    sessions.close();
    sessions.wait().await;
}

async fn converse(mut stream: TcpStream, slot: Option<OwnedSemaphorePermit>, sink: Arc<Sink>) {
    if sink.switch.get().mode == Behaviour::Down {
        sink.switch.judge();
        return;
    }
    let served = match slot {
        Some(_slot) => Session::new(stream, &sink).run().await,
        None => stream.write_all(b"421 Too many connections, try again later\r\n").await,
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a mail client went away in the middle of its session");
    }
}
