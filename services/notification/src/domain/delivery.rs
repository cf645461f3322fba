use std::time::Duration;

use contracts::notifications::{Channel, Notice};

use super::{Policy, millis};

/// Where the delivery of one notice over one channel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// To be sent.
    Due,
    /// The provider took it.
    Sent,
    /// The provider refused it for good, or it could not be delivered for too long.
    Failed,
    /// The channel was not in use when the notice became due.
    Skipped,
}

impl Status {
    const ALL: [Self; 4] = [Self::Due, Self::Sent, Self::Failed, Self::Skipped];

    /// As databases keep it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// The reverse of [`as_str`](Self::as_str).
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// One notice over one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub status: Status,
    /// Attempts that failed and may be repeated.
    pub attempts: u32,
    /// Unix milliseconds.
    pub due_since: i64,
    /// Not to be tried before, Unix milliseconds.
    pub next_attempt_at: i64,
    /// The provider's id of what it took, or why an attempt failed; without addresses.
    pub detail: Option<String>,
}

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub notice: Notice,
    pub channel: Channel,
    pub verdict: Verdict,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Taken; with the provider's id of it, if it has one.
    Sent { provider_id: Option<String> },
    /// Never to be taken. The reason names no address.
    Refused { reason: String },
    /// To be tried again after a while. The reason names no address.
    Later { reason: String, after: Duration },
    /// Not even tried, because the provider is known to be away.
    Postponed { after: Duration },
}

/// What others are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    Sent,
    Failed { reason: String },
}

impl Delivery {
    pub(super) fn new(status: Status, now_ms: i64) -> Self {
        Self { status, attempts: 0, due_since: now_ms, next_attempt_at: now_ms, detail: None }
    }

    pub(super) fn report(&mut self, verdict: &Verdict, policy: &Policy, now_ms: i64) -> Option<Announcement> {
        if self.status != Status::Due {
            return None;
        }
        match verdict {
            Verdict::Sent { provider_id } => {
                self.status = Status::Sent;
                self.detail.clone_from(provider_id);
                Some(Announcement::Sent)
            }
            Verdict::Refused { reason } => Some(self.fail(reason.clone())),
            Verdict::Later { reason, after } => {
                self.attempts = self.attempts.saturating_add(1);
                self.detail = Some(reason.clone());
                self.wait(*after, policy, now_ms)
            }
            Verdict::Postponed { after } => self.wait(*after, policy, now_ms),
        }
    }

    fn wait(&mut self, after: Duration, policy: &Policy, now_ms: i64) -> Option<Announcement> {
        if now_ms.saturating_sub(self.due_since) >= millis(policy.give_up_after) {
            let last = self.detail.as_deref().unwrap_or("the provider was away");
            let reason = format!("not delivered within {} s: {last}", policy.give_up_after.as_secs());
            return Some(self.fail(reason));
        }
        self.next_attempt_at = now_ms.saturating_add(millis(after));
        None
    }

    fn fail(&mut self, reason: String) -> Announcement {
        self.status = Status::Failed;
        self.detail = Some(reason.clone());
        Announcement::Failed { reason }
    }
}
