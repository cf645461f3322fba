use crate::connection::Closed;

/// Why a question about dead letters has no answer, or a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The topology was not applied.
    #[error("there is no stream {0}; `millrace topology apply`, or any service's start, makes it")]
    NoStream(&'static str),
    /// No such letter, or it is older than the stream keeps letters.
    #[error("there is no dead letter {0}")]
    NotFound(u64),
    /// An event that is no longer in its stream.
    #[error("{stream} does not hold message {seq} any more")]
    Gone { stream: String, seq: u64 },
    /// A message among the dead letters that is none.
    #[error("message {0} of the stream of dead letters does not describe itself as one")]
    Unreadable(u64),
    #[error("header {name} cannot be sent: {problem}")]
    Header { name: String, problem: String },
    /// A correction is made for one message.
    #[error("one body or header cannot be right for {0} dead letters; correct them one at a time")]
    OneAtATime(usize),
    /// The broker did not answer, or refused.
    #[error("{doing}: {reason}")]
    Broker { doing: &'static str, reason: String },
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl Error {
    pub(super) fn broker(doing: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Broker { doing, reason: reason.to_string() }
    }
}
