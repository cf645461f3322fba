//! Broker amnesia: JetStream acknowledges before it has flushed to disk, so a power cut can take back messages it has
//! acknowledged. After every (re)connection the latest acknowledged rows are compared with what the stream holds at
//! their places; those that are not there are published again.

use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use futures::stream::{StreamExt, TryStreamExt};

use super::Acknowledged;
use crate::connection::Connection;
use crate::store::Database;

/// Rows compared at once. The lost ones are the latest, so the first page without a loss is the last one looked at.
const PAGE: i64 = 256;
/// Requests to the broker on their way at once.
const IN_FLIGHT: usize = 64;

/// Ids of rows that the broker acknowledged before `before_ms` (Unix milliseconds) and does not have any more. Rows that
/// were acknowledged since the connection came back are not looked at: they can stand at the places of lost ones.
pub(super) async fn lost_rows(
    connection: &Connection,
    database: &Database,
    before_ms: i64,
) -> Result<Vec<i64>, String> {
    let mut lost = Vec::new();
    for name in database.streams(before_ms).await.map_err(|e| e.to_string())? {
        let stream = connection.jetstream().get_stream_no_info(&name).await.map_err(|e| e.to_string())?;
        let mut below_seq = i64::MAX;
        loop {
            let page = database.acknowledged(&name, before_ms, below_seq, PAGE).await.map_err(|e| e.to_string())?;
            let Some(lowest) = page.last().map(|row| row.stream_seq as i64) else { break };
            below_seq = lowest;
            let missing = missing(&stream, page).await?;
            let all_there = missing.is_empty();
            lost.extend(missing);
            if all_there {
                break;
            }
        }
    }
    Ok(lost)
}

async fn missing(stream: &Stream<()>, rows: Vec<Acknowledged>) -> Result<Vec<i64>, String> {
    let checked = futures::stream::iter(rows).map(|row| async move {
        let there = match stream.get_raw_message(row.stream_seq).await {
            Ok(message) => message.headers.get("Nats-Msg-Id").is_some_and(|id| id.as_str() == row.message_id),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => false,
            Err(error) => return Err(error.to_string()),
        };
        Ok((!there).then_some(row.row_id))
    });
    let found: Vec<Option<i64>> = checked.buffer_unordered(IN_FLIGHT).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}
