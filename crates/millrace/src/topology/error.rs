//! What can go wrong, and who can do something about it.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};

use super::plan::Entry;
use super::spec::SpecError;

/// Why a topology could not be read, made or accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// The declaration itself is wrong; the programmer or whoever set the number has to mend it.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Permissions forbid a request. An operator allows it, or applies the topology with another user.
    #[error(
        "NATS denies {operation} on {subject}; allow it to the user of this process, or apply the topology with another \
         user and set topology.auto_apply to false"
    )]
    Denied {
        /// `publish` or `subscribe`.
        operation: String,
        /// The denied subject.
        subject: String,
    },
    /// Nobody answered in time; worth another attempt.
    #[error("JetStream did not answer {request} in time")]
    Unanswered {
        /// The request, such as `STREAM.INFO.ORDERS`.
        request: String,
    },
    /// Nobody answers JetStream requests: it is switched off, or a cluster has no leader at the moment.
    #[error("no server answers {request}; start nats-server with JetStream enabled (-js, or a jetstream block)")]
    NoJetStream {
        /// The request, such as `STREAM.INFO.ORDERS`.
        request: String,
    },
    /// The stream a consumer reads does not exist; the service that owns it has not created it yet.
    #[error("the stream of {request} does not exist; whoever owns the stream creates it")]
    StreamMissing {
        /// The request, such as `CONSUMER.CREATE.ORDERS.payment-orders`.
        request: String,
    },
    /// The server said no.
    #[error("the server refused {request}: {description} (code {code}){}", remedy(*.code))]
    Refused {
        /// The request, such as `STREAM.CREATE.ORDERS`.
        request: String,
        /// JetStream's own error code.
        code: u64,
        /// The server's words.
        description: String,
    },
    /// Somebody else kept changing the same thing; worth another attempt.
    #[error("{what} was changed by others faster than it could be compared")]
    Contended {
        /// Such as `stream ORDERS`.
        what: String,
    },
    /// Nothing of that name is declared, or nothing of that name is there.
    #[error("there is no consumer {durable}; there are {}", known.join(", "))]
    UnknownConsumer {
        /// As it was asked for.
        durable: String,
        /// Those that are declared.
        known: Vec<String>,
    },
    /// What was asked for came with a later server.
    #[error("nats-server {version} cannot {what}; it needs {needs} or newer")]
    ServerTooOld {
        /// The version of the server.
        version: String,
        /// What was asked for.
        what: &'static str,
        /// The first version that can.
        needs: &'static str,
    },
    /// Differences that break the promise and cannot be removed in place. Nothing was changed.
    #[error("the topology cannot be applied, and nothing was changed:\n{}", list(.0))]
    Conflicts(Vec<Entry>),
    /// Differences that break the promise. A service must not run like this.
    #[error("this topology would break the promise to lose nothing:\n{}", list(.0))]
    Broken(Vec<Entry>),
    /// The wait was called off.
    #[error("waiting for the topology was cancelled")]
    Cancelled,
    /// The connection was closed.
    #[error(transparent)]
    Closed(#[from] crate::connection::Closed),
}

impl TopologyError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unanswered { .. }
            | Self::NoJetStream { .. }
            | Self::StreamMissing { .. }
            | Self::Contended { .. } => true,
            // A cluster that is still forming: incomplete, no peers, unassigned, unavailable, not leader.
            Self::Refused { code, .. } => matches!(code, 10_004 | 10_005 | 10_007 | 10_008 | 10_009),
            _ => false,
        }
    }
}

/// What to do about the refusals operators meet.
fn remedy(code: u64) -> &'static str {
    match code {
        10_074 => "; a single server keeps one copy, so declare 1 replica or run a cluster",
        10_002 | 10_023 | 10_047 => "; give JetStream more room (max_file_store), or declare smaller limits",
        10_039 => "; enable JetStream for the account of this user",
        _ => "",
    }
}

fn list(entries: &[Entry]) -> String {
    entries.iter().map(|entry| format!("- {entry}")).collect::<Vec<_>>().join("\n")
}

/// Whether there is no such stream.
pub(crate) fn stream_is_missing(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(reason) if reason.error_code() == ErrorCode::STREAM_NOT_FOUND)
}
