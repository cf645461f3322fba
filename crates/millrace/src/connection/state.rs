//! What others may know about the connection.

use time::OffsetDateTime;

/// Whether a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A server accepted us.
    Connected {
        /// The server's name; its id where it was given none.
        server: String,
        /// The server's version, such as `2.15.1`.
        version: String,
        /// Since when.
        since: OffsetDateTime,
    },
    /// No server accepts us; attempts go on.
    Disconnected {
        /// Since when.
        since: OffsetDateTime,
        /// Why the latest attempt failed, with the server's address; `None` before the first one ended.
        last_error: Option<String>,
    },
    /// Closed on purpose; it does not come back.
    Closed,
}

/// What a server did not permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// What was attempted.
    pub operation: Operation,
    /// On which subject.
    pub subject: String,
}

/// What can be denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Sending a message.
    Publish,
    /// Receiving messages.
    Subscribe,
}

impl Denied {
    /// Reads the server's words, such as `Permissions Violation for Publish to "orders.created"`.
    pub(super) fn parse(error: &str) -> Option<Self> {
        let words = error.strip_prefix("Permissions Violation for ")?;
        let operation = if words.starts_with("Subscription") { Operation::Subscribe } else { Operation::Publish };
        let subject = words.split('"').nth(1)?.to_owned();
        Some(Self { operation, subject })
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_read_from_the_servers_words() {
        let publish = Denied::parse(r#"Permissions Violation for Publish to "orders.created""#).unwrap();
        assert_eq!((publish.operation, publish.subject.as_str()), (Operation::Publish, "orders.created"));
        let subscribe = Denied::parse(r#"Permissions Violation for Subscription to "a.>" using queue "q""#).unwrap();
        assert_eq!((subscribe.operation, subscribe.subject.as_str()), (Operation::Subscribe, "a.>"));
        assert_eq!(Denied::parse("Authorization Violation"), None);
    }
}
