//! An event again for one consumer alone, straight from its stream: for whoever finds that the consumer never handled it,
//! though the broker believes it did. Goes where replays go; leaves no dead letter and no entry about one.

use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::RawMessageErrorKind;

use super::Error;
use super::replays::{self, Place};
use crate::connection::Connection;
use crate::dead_letter::header_pairs;

/// Delivers the message at `seq` of a stream to `durable` again. Harmless where it was handled after all: it bears the
/// id it always had, and the inbox recognises it.
///
/// # Errors
/// [`Error::Gone`] when the stream does not hold it any more, or the broker's.
pub async fn redeliver(connection: &Connection, stream: &str, seq: u64, durable: &str) -> Result<(), Error> {
    connection.connected().await?;
    let context = connection.jetstream();
    let handle =
        context.get_stream_no_info(stream).await.map_err(|e| Error::broker("the stream could not be read", e))?;
    let original = handle.get_raw_message(seq).await.map_err(|error| match error.kind() {
        RawMessageErrorKind::NoMessageFound => Error::Gone { stream: stream.to_owned(), seq },
        _ => Error::broker("the event could not be fetched", error),
    })?;
    let place = Place { stream, seq, published_at: original.time };
    let headers = replays::to_map(replays::recognisable(&header_pairs(Some(&original.headers)), &place))?;
    let message = PublishMessage::build().payload(original.payload).headers(headers);
    let sent = context.send_publish(replays::subject(durable, &original.subject), message).await;
    let failed = |e| Error::broker("the event could not be sent", e);
    sent.map_err(failed)?.await.map_err(failed)?;
    Ok(())
}
