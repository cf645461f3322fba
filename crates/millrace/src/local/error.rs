//! What can go wrong while a server is started or stopped on this machine, worded for the person who has to mend it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::provision::ProvisionError;

/// Why a local server could not be started, stopped or signalled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// The server's program could not be found or installed.
    #[error(transparent)]
    Provision(#[from] ProvisionError),

    /// Somebody else listens on a port that was asked for by number. `purpose` tells which of the server's ports it is
    /// ("client" or "monitoring"), so that the caller can name the option that moves it.
    #[error(
        "port {port}, wanted as the {purpose} port of {server}, is in use by another program: stop that program or choose another port"
    )]
    PortTaken {
        /// The port that is in use.
        port: u16,
        /// Which of the server's ports it was to become.
        purpose: &'static str,
        /// The server that wanted it.
        server: &'static str,
    },

    /// No free port was found although many were tried.
    #[error("no free port found between {first} and {last} on 127.0.0.1")]
    NoFreePort {
        /// Lowest port that is tried.
        first: u16,
        /// Highest port that is tried.
        last: u16,
    },

    /// A file operation or the start of a program failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, as the words between "cannot" and the path.
        action: &'static str,
        /// What it was attempted on.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },

    /// The server ended by itself before it was ready.
    #[error("{server} ended with {status} instead of starting; its log {} ends:\n{tail}", log.display())]
    Exited {
        /// Which server.
        server: String,
        /// Its exit code, in words.
        status: String,
        /// Where the whole log is.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// The server runs but does not answer.
    #[error("{server} did not answer within {waited:?}; its log {} ends:\n{tail}", log.display())]
    NotReady {
        /// Which server.
        server: String,
        /// How long was waited.
        waited: Duration,
        /// Where the whole log is.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// The operation needs a running server, and this one has ended.
    #[error("{server} is not running")]
    NotRunning {
        /// Which server.
        server: String,
    },

    /// PostgreSQL refuses to run as root, and the account it is run as instead cannot get to this folder.
    #[error(
        "{} cannot be reached by the unprivileged account (uid {uid}) that PostgreSQL runs as when started by root, because {} is \
         closed to it: choose a folder every account can enter (below /var/lib or /tmp, say), or do not run as root",
        path.display(), closed.display()
    )]
    Unreachable {
        /// The folder that is needed.
        path: PathBuf,
        /// The folder on the way to it that is closed.
        closed: PathBuf,
        /// The account.
        uid: u32,
    },

    /// A value given to a builder cannot be used.
    #[error("{field} is {value:?}: {problem}")]
    BadSetting {
        /// The builder's field.
        field: &'static str,
        /// The value it was given.
        value: String,
        /// What is wrong with it and what would be right.
        problem: &'static str,
    },
}

impl LocalError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> LocalError {
        let path = path.into();
        move |source| LocalError::Io { action, path, source }
    }
}
