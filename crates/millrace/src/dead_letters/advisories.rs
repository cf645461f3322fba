//! Names around the broker's word that a message was delivered as often as allowed and never answered. Who listens is
//! `consumer/advisories.rs`.

/// The stream that captures advisories, which the broker itself says once and forgets.
pub const STREAM: &str = "ADVISORIES";
/// Followed by stream and consumer.
pub const MAX_DELIVERIES: &str = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES";
/// So often that an advisory is never given up: it is only left unanswered by a process that dies over it.
pub const MAX_DELIVER: u32 = 1_000_000;

/// The durable consumer of the advisories about the durable consumer `about`.
pub fn durable(about: &str) -> String {
    format!("advisories-{about}")
}
