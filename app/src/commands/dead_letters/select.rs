//! Which dead letters a command is about.

use std::time::Duration;

use millrace::config::HumanDuration;
use millrace::dead_letter::Reason;
use millrace::dead_letters::{DeadLetters, Filter, Letter, Wanted};
use time::OffsetDateTime;

use super::failed;
use crate::failure::Failure;

/// Filters that every command has.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Where {
    /// Only of this consumer: payment-orders
    #[arg(long)]
    consumer: Option<String>,
    /// Only of this event; wildcards as in NATS: orders.>
    #[arg(long)]
    subject: Option<String>,
    /// Only those that failed within this time: 90s, 1h, 7d
    #[arg(long)]
    since: Option<HumanDuration>,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub enum InState {
    /// Nobody has decided yet, or a replay was not answered
    #[default]
    Waiting,
    /// Replayed, whatever came of it
    Replayed,
    Discarded,
    All,
}

impl Where {
    pub fn filter(&self, reason: Option<Reason>, state: InState) -> Filter {
        Filter {
            consumer: self.consumer.clone(),
            reason,
            subject: self.subject.clone(),
            since: self.since.map(|since| OffsetDateTime::now_utc() - Duration::from(since)),
            state: match state {
                InState::Waiting => Wanted::Waiting,
                InState::Replayed => Wanted::Replayed,
                InState::Discarded => Wanted::Discarded,
                InState::All => Wanted::All,
            },
        }
    }

    fn is_given(&self) -> bool {
        self.consumer.is_some() || self.subject.is_some() || self.since.is_some()
    }
}

/// Named ones, or all that match.
#[derive(Debug, Clone, clap::Args)]
pub struct Which {
    /// Ids, as `millrace dead-letters list --flat` shows them
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<u64>,
    /// All that wait, or of these all that match the filters
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    place: Where,
}

impl Which {
    /// Oldest first, unless named in another order.
    pub async fn ids(&self, desk: &DeadLetters, reason: Option<Reason>) -> Result<Vec<u64>, Failure> {
        if !self.all {
            if self.place.is_given() || reason.is_some() {
                return Err(Failure::new("filters choose among all dead letters, and here some are named by id")
                    .remedy("give ids, or --all with filters")
                    .usage());
            }
            let mut ids: Vec<u64> = Vec::with_capacity(self.ids.len());
            self.ids.iter().for_each(|id| {
                if !ids.contains(id) {
                    ids.push(*id)
                }
            });
            return Ok(ids);
        }
        let filter = self.place.filter(reason, InState::Waiting);
        let listing = desk.list(&filter).await.map_err(failed)?;
        Ok(listing.letters.iter().map(|letter: &Letter| letter.id).collect())
    }
}
