//! The way of a message into the dead letters: the copy is confirmed by the broker, then kept in the service's outbox, and only
//! then may the original end. Kept, because an acknowledged letter can be lost in a power cut like any other message, and
//! its original does not come again.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use tracing::{error, warn};

use super::{DeadLetter, ERROR_BYTES, HEADER, shorten};
use crate::connection::Connection;
use crate::consumer::Restore;
use crate::crash;
use crate::dead_letters::audit::{self, Ending};
use crate::event::HeaderPairs;
use crate::outbox::{self, NewRow, Place, Refused};
use crate::store::{Keeper, StoreError};

/// Pauses between attempts while broker or database are away.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Refusals by a database that is there, after which a letter stays with the broker alone.
const REFUSALS: u32 = 3;

/// Where dead letters go.
pub(crate) struct Graveyard<'a> {
    pub(crate) connection: &'a Connection,
    /// Where they are kept besides the broker.
    pub(crate) keeper: Option<&'a Keeper>,
    /// Puts back their stream.
    pub(crate) restore: &'a Restore,
}

/// Tries until the broker has confirmed the copy and the outbox has it too, counts it, and tells whoever replayed the
/// message. The caller keeps the original alive meanwhile. Burying a message again changes nothing.
pub(crate) async fn bury(graveyard: &Graveyard<'_>, letter: &DeadLetter, body: Bytes) {
    let connection = graveyard.connection;
    // What is too large today would be for ever, and hold up its worker as long.
    let (fitting, body) = fitting(letter, body, connection.client().max_payload());
    let message = as_message(&fitting, body);
    let mut stream_was_missing = false;
    let id = loop {
        let over = connection.number();
        let place = publish_until_confirmed(graveyard, letter, &message, &mut stream_was_missing).await;
        crash::AFTER_DEAD_LETTER_COPY.reach();
        let id = place.stream_seq;
        if let Some(keeper) = graveyard.keeper {
            keep_until_stored(keeper, letter, &message, place, stream_was_missing).await;
        }
        // Another run of the broker, which has lost it, may have been compared with the outbox before it stood there.
        if connection.number() == over {
            break id;
        }
    };
    if let Some(replay) = &letter.replay_of {
        audit::ended(connection, &letter.consumer, replay, Ending::FailedAgain(id)).await;
    }
}

/// Where the letter is. Its sequence in the stream of dead letters is its id.
async fn publish_until_confirmed(
    graveyard: &Graveyard<'_>,
    letter: &DeadLetter,
    message: &NewRow,
    stream_was_missing: &mut bool,
) -> Place {
    let mut pause = FIRST_PAUSE;
    loop {
        let reason = match publish(graveyard.connection, message).await {
            Ok((place, true)) => return place,
            Ok((place, false)) => {
                told(letter, place.stream_seq);
                return place;
            }
            Err(reason) => reason,
        };
        if reason.is_no_stream() {
            *stream_was_missing = true;
            (graveyard.restore)().await;
        }
        not_yet(letter, "stored", &reason.to_string(), &mut pause).await;
    }
}

fn told(letter: &DeadLetter, id: u64) {
    metrics::counter!("millrace_dead_letters_total", "consumer" => letter.consumer.clone(), "reason" => letter.reason.as_str())
        .increment(1);
    error!(
        consumer = letter.consumer,
        subject = letter.subject,
        stream_seq = letter.stream_seq,
        attempts = letter.attempts,
        reason = letter.reason.as_str(),
        error = letter.errors.join(": "),
        dead_letter = id,
        "the message is a dead letter now"
    );
}

/// Ends when the letter is kept, or the database will never take it.
async fn keep_until_stored(
    keeper: &Keeper,
    letter: &DeadLetter,
    message: &NewRow,
    place: Place,
    stream_was_missing: bool,
) {
    let (mut pause, mut refusals) = (FIRST_PAUSE, 0);
    loop {
        let reason = match keeper.keep(message.clone(), place.clone(), stream_was_missing).await {
            Ok(()) => return,
            // The original stays at the broker; whoever is delivered it next buries it again.
            Err(StoreError::Stopped) => std::future::pending().await,
            Err(StoreError::Unavailable(reason)) => reason,
            Err(StoreError::Failed(reason)) => {
                refusals += 1;
                if refusals == REFUSALS {
                    return error!(
                        consumer = letter.consumer,
                        dead_letter = place.stream_seq,
                        reason,
                        "the database does not take a dead letter: it is at the broker alone, which can lose it in a power cut"
                    );
                }
                reason
            }
        };
        not_yet(letter, "kept in the outbox", &reason, &mut pause).await;
    }
}

/// Says why, and waits before it is tried again.
async fn not_yet(letter: &DeadLetter, what: &str, reason: &str, pause: &mut Duration) {
    let (consumer, stream_seq) = (&letter.consumer, letter.stream_seq);
    warn!(consumer, stream_seq, reason, "a dead letter could not be {what} yet, trying again");
    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    *pause = (*pause * 2).min(LONGEST_PAUSE);
}

/// A message that the broker takes once, however late it comes again: there is one to a subject.
fn as_message(letter: &DeadLetter, body: Bytes) -> NewRow {
    let message_id = letter.message_id();
    let subject = letter.subject_of_copy();
    let headers = vec![
        (HEADER.to_owned(), as_header(letter)),
        ("Nats-Msg-Id".to_owned(), message_id.clone()),
        ("Nats-Expected-Last-Subject-Sequence".to_owned(), "0".to_owned()),
    ];
    // Letters need no order among each other.
    NewRow { message_id, lane: subject.clone(), subject, headers, body }
}

/// Where the letter is, and whether it was there before.
async fn publish(connection: &Connection, message: &NewRow) -> Result<(Place, bool), Refused> {
    let over = connection.number();
    let stored = outbox::publish(connection.jetstream(), message).await?;
    if connection.number() != over {
        return Err(Refused::Reconnected);
    }
    let before = stored.before;
    Ok((Place::given_now(stored, connection.server_run()), before))
}

/// Room in a message for what the client adds to the headers.
const MARGIN: usize = 4 * 1024;
/// JetStream takes no more than 64 KiB of headers, and the letter is one of them.
const MOST_HEADER: usize = 64 * 1024 - MARGIN;
/// Bytes that are left of an error where even those have no room; as JSON they may become six times as many.
const SHORT_ERROR_BYTES: usize = 512;

/// The letter and its body if they fit into one message. Otherwise without what can be spared best, and saying so: headers
/// that are not the event's, then all headers and most of the errors, then the end of the body.
fn fitting(letter: &DeadLetter, body: Bytes, max_payload: usize) -> (Cow<'_, DeadLetter>, Bytes) {
    let room = max_payload.saturating_sub(MARGIN);
    let size = |letter: &DeadLetter| as_header(letter).len();
    let fits = |letter: &DeadLetter| size(letter) <= MOST_HEADER && size(letter) + body.len() <= room;
    if fits(letter) {
        return (Cow::Borrowed(letter), body);
    }
    let without = |what: &str, headers: HeaderPairs, error_bytes: usize| {
        let mut smaller = DeadLetter { headers, ..letter.clone() };
        smaller.errors.iter_mut().for_each(|error| shorten(error, error_bytes));
        let (seq, stream) = (letter.stream_seq, &letter.stream);
        smaller.errors.push(format!("the letter has no room for {what}; the whole is message {seq} of {stream}"));
        smaller
    };
    let of_event: HeaderPairs = letter.headers.iter().filter(|(name, _)| name.starts_with("ce-")).cloned().collect();
    let spared = [
        without("headers that do not begin with ce-", of_event, ERROR_BYTES),
        without("the headers", Vec::new(), SHORT_ERROR_BYTES),
    ];
    if let Some(smaller) = spared.into_iter().find(fits) {
        return (Cow::Owned(smaller), body);
    }
    let smaller = without("the headers and the end of the body", Vec::new(), SHORT_ERROR_BYTES);
    let kept = room.saturating_sub(size(&smaller)).min(body.len());
    (Cow::Owned(smaller), body.slice(..kept))
}

fn as_header(letter: &DeadLetter) -> String {
    // Texts, numbers and times only: there is nothing in it that JSON could not say.
    serde_json::to_string(letter).unwrap_or_default()
}
