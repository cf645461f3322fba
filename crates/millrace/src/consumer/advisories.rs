//! Dead letters of what a consumer never answered: a message that kills its process, or hangs in it, is delivered as often
//! as allowed, and then the broker says so once, without the message. That word is kept in a stream; whoever runs the
//! consumer reads it, fetches the message by its place, and buries it like any other.
//!
//! Everything here may happen twice, and by several instances at once: a letter is stored once.

use std::time::Duration;

use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::jetstream::{self, AckKind, message::StreamMessage};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::Restore;
use super::pull::{Pulls, Reply};
use crate::connection::Connection;
use crate::crash;
use crate::dead_letter::{self, DeadLetter, Death, Graveyard, Original, Reason};
use crate::dead_letters::advisories;
use crate::store::Keeper;
use crate::telemetry::metrics::DEAD_LETTERS_MISSING;

/// Advisories asked for at once. They are rare, and handled one after the other.
const BATCH: usize = 16;
/// Pause after any trouble with the broker.
const REST: Duration = Duration::from_secs(1);
/// Longest time to hand something to the client, which takes nothing while it is disconnected for long.
const HANDOVER: Duration = Duration::from_secs(5);
/// A message stored later than the advisory about it is another one under the same number. Clocks of two servers may
/// differ by this much.
const CLOCKS: Duration = Duration::from_secs(60);

/// Listens for one durable consumer.
pub struct Advisories {
    connection: Connection,
    stream: String,
    durable: String,
    restore: Restore,
    keeper: Option<Keeper>,
}

/// What of an advisory is used. The format is that of `io.nats.jetstream.advisory.v1.max_deliver`.
#[derive(Debug, Deserialize)]
struct Advisory {
    #[serde(with = "time::serde::rfc3339")]
    timestamp: OffsetDateTime,
    stream: String,
    consumer: String,
    stream_seq: u64,
    deliveries: u32,
}

impl Advisories {
    /// About the durable consumer `durable` of `stream`; `keeper` as for the [consumer](super::Consumer::new) itself.
    pub fn new(connection: Connection, stream: &str, durable: &str, restore: Restore, keeper: Option<Keeper>) -> Self {
        Self { connection, stream: stream.to_owned(), durable: durable.to_owned(), restore, keeper }
    }

    /// Listens until `stop` is cancelled. What was not finished is delivered again at the next start.
    pub async fn run(self, stop: CancellationToken) {
        let listening = async {
            while self.connection.connected().await.is_ok() {
                self.listen().await;
                tokio::time::sleep(REST.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = listening => {}
        }
    }

    /// Returns when what was asked for may be void.
    async fn listen(&self) {
        let mut reconnects = self.connection.reconnects();
        let catcher = advisories::durable(&self.durable);
        let starting = Pulls::start(self.connection.clone(), advisories::STREAM, &catcher);
        let Ok(Ok(mut pulls)) = tokio::time::timeout(HANDOVER, starting).await else { return };
        loop {
            if pulls.outstanding() == 0 && tokio::time::timeout(HANDOVER, pulls.request(BATCH)).await.is_err() {
                return;
            }
            let silence = pulls.silent_at();
            let reply = tokio::select! {
                _ = reconnects.changed() => return,
                () = async { match silence { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => return,
                reply = pulls.next() => reply,
            };
            match reply {
                Some(Reply::Delivered(message)) => {
                    let context = self.connection.jetstream().clone();
                    self.see_to(jetstream::Message { message, context }).await;
                }
                Some(Reply::Status) => {}
                Some(Reply::Missing(reason)) => {
                    warn!(
                        consumer = catcher,
                        reason, "nobody hears which messages are never answered, putting the consumer back"
                    );
                    return (self.restore)().await;
                }
                Some(Reply::Refused(reason)) => {
                    return debug!(consumer = catcher, reason, "the broker does not serve the consumer now");
                }
                None => return,
            }
        }
    }

    async fn see_to(&self, message: jetstream::Message) {
        match serde_json::from_slice::<Advisory>(&message.payload) {
            Ok(advisory) if advisory.consumer == self.durable && advisory.stream == self.stream => {
                self.bury(&advisory).await;
            }
            Ok(advisory) => error!(
                consumer = self.durable,
                ?advisory,
                "an advisory about another consumer came here and is passed over"
            ),
            Err(reason) => error!(consumer = self.durable, %reason, "an advisory could not be read and is passed over"),
        }
        // One that does not leave is handled once more.
        let _ = tokio::time::timeout(HANDOVER, message.ack_with(AckKind::Ack)).await;
    }

    async fn bury(&self, advisory: &Advisory) {
        let Some(message) = self.fetch(advisory).await else {
            metrics::counter!(DEAD_LETTERS_MISSING, "consumer" => self.durable.clone()).increment(1);
            return error!(
                consumer = self.durable,
                stream = self.stream,
                stream_seq = advisory.stream_seq,
                deliveries = advisory.deliveries,
                "a message that was never answered is no longer in its stream, there is nothing to make a dead letter of"
            );
        };
        let original = Original {
            stream: &self.stream,
            stream_seq: message.sequence,
            subject: &message.subject,
            headers: Some(&message.headers),
            published_at: message.time,
        };
        let error = format!(
            "the message was delivered {} times and never answered: whoever took it crashed, or did not come back",
            advisory.deliveries
        );
        let death = Death {
            reason: Reason::NeverAnswered,
            errors: vec![error],
            attempts: advisory.deliveries,
            first_failed_at: None,
            last_failed_at: advisory.timestamp,
        };
        let letter = DeadLetter::new(&self.durable, &original, death);
        let graveyard =
            Graveyard { connection: &self.connection, keeper: self.keeper.as_ref(), restore: &self.restore };
        dead_letter::bury(&graveyard, &letter, message.payload.clone()).await;
        crash::AFTER_ADVISORY_LETTER.reach();
    }

    /// The message an advisory is about, asked for until the broker answers. `None` when it is gone.
    async fn fetch(&self, advisory: &Advisory) -> Option<StreamMessage> {
        loop {
            let reason = match self.connection.jetstream().get_stream_no_info(&self.stream).await {
                // From the leader: a follower may not have it yet.
                Ok(stream) => match stream.get_raw_message(advisory.stream_seq).await {
                    Ok(message) => return Some(message).filter(|message| message.time <= advisory.timestamp + CLOCKS),
                    Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return None,
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            warn!(
                consumer = self.durable,
                stream_seq = advisory.stream_seq,
                reason,
                "a message that was never answered could not be fetched yet, trying again"
            );
            tokio::time::sleep(REST).await;
        }
    }
}
