//! The mails over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::Sink;
use super::mailbox::Mail;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Filter {
    /// Only mails to this address.
    to: Option<String>,
    /// Only so many of the newest.
    limit: Option<usize>,
}

/// The answer of `GET /messages`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Messages {
    /// Newest first.
    pub messages: Vec<Mail>,
    /// All mails since the start.
    pub received: u64,
    /// How many of them are no longer kept.
    pub dropped: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Frequency {
    /// Only Message-IDs that came in at least this often; 2 shows the duplicates.
    at_least: u64,
}

/// The answer of `GET /counts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// How often each Message-ID came in.
    pub counts: BTreeMap<String, u64>,
    /// How many Message-IDs are no longer counted.
    pub dropped: u64,
}

pub(super) fn routes(sink: Arc<Sink>) -> Router {
    Router::new().route("/messages", get(messages)).route("/counts", get(counts)).with_state(sink)
}

async fn messages(State(sink): State<Arc<Sink>>, Query(filter): Query<Filter>) -> Json<Messages> {
    let wanted = |mail: &&Mail| filter.to.as_deref().is_none_or(|address| mail.is_to(address));
    let limit = filter.limit.unwrap_or(usize::MAX);
    Json(sink.with_mailbox(|mailbox| Messages {
        messages: mailbox.newest_first().filter(wanted).take(limit).cloned().collect(),
        received: mailbox.received(),
        dropped: mailbox.mails_dropped(),
    }))
}

async fn counts(State(sink): State<Arc<Sink>>, Query(frequency): Query<Frequency>) -> Json<Counts> {
    Json(sink.with_mailbox(|mailbox| {
        Counts {
            counts: mailbox
                .counts()
                .filter(|(_, count)| *count >= frequency.at_least)
                .map(|(id, count)| (id.to_owned(), count))
                .collect(),
            dropped: mailbox.message_ids_dropped(),
        }
    }))
}
