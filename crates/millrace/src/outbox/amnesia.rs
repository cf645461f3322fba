//! Broker amnesia: JetStream acknowledges before it has flushed to disk, so a power cut can take back messages it has
//! acknowledged. After every (re)connection acknowledged rows are compared with what the stream holds at their places;
//! those that are not there are published again. The same after a publish found no stream: somebody has deleted it. A
//! stream that is younger than what it acknowledged was deleted too, and made anew.
//!
//! A server loses its latest messages, and only between two of its runs. So each row knows the run that acknowledged it,
//! and of each earlier run the rows that are lost are those with the highest sequences: the first page without a loss
//! ends the search there. Rows of other runs prove nothing about them, since a run that starts with a shorter
//! stream gives the sequences of what was lost to new messages. Nothing is remembered between two searches, so it does not
//! matter how many were cut short.

use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use futures::stream::{StreamExt, TryStreamExt};

use super::doubt::Extent;
use super::{Acknowledged, Run};
use crate::connection::Connection;
use crate::store::Database;
use crate::topology::stream_is_missing;

/// Rows of a run that are compared first; mostly none of them is lost, and that is all.
const FIRST_PAGE: i64 = 256;
/// Where much was lost, pages grow up to this: each costs a look through the whole table.
const LARGEST_PAGE: i64 = 16 * 1024;
/// Requests to the broker on their way at once.
const IN_FLIGHT: usize = 64;
/// How often one is made before the comparison of its stream is given up for now.
const ATTEMPTS: u32 = 3;

/// What a comparison has found.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Rows that the broker does not have.
    pub(super) lost: Vec<i64>,
    /// Why some stream could not be compared; then it has to be done again.
    pub(super) incomplete: Option<String>,
}

/// Ids of rows that earlier runs of the broker acknowledged and the present one does not have; with
/// [`Extent::PresentRunToo`], and for streams that were made anew, also of those that the present run acknowledged, and to
/// the last row: within one run the places of a deleted stream are given away again, so that what is there says nothing
/// about what is not.
pub(super) async fn lost_rows(connection: &Connection, database: &Database, extent: Extent) -> Compared {
    compare(connection, database, extent)
        .await
        .unwrap_or_else(|reason| Compared { lost: Vec::new(), incomplete: Some(reason) })
}

async fn compare(connection: &Connection, database: &Database, extent: Extent) -> Result<Compared, String> {
    let over = connection.number();
    // An answer proves which server is there, so that its run is not taken for an earlier one.
    connection.jetstream().query_account().await.map_err(|e| e.to_string())?;
    let present = connection.server_run();
    let mut compared = Compared::default();
    for run in database.runs().await.map_err(|e| e.to_string())? {
        let is_present = run.broker == present;
        let found = lost_of_run(connection, database, &run, is_present, extent, &mut compared.lost).await;
        // One stream that is not there must not hold up the others.
        if let Err(reason) = found {
            compared.incomplete = Some(format!("{}: {reason}", run.stream));
        }
    }
    if connection.number() != over {
        compared.incomplete = Some("the connection changed meanwhile".into());
    }
    Ok(compared)
}

/// What is found before something goes wrong counts, however long the whole is.
async fn lost_of_run(
    connection: &Connection,
    database: &Database,
    run: &Run,
    is_present: bool,
    extent: Extent,
    lost: &mut Vec<i64>,
) -> Result<(), String> {
    let Run { stream, broker, first_ms } = run;
    // `None` when there is no such stream any more: then all that was on it is lost.
    let stored = match connection.jetstream().get_stream(stream).await {
        Ok(stored) => Some(stored),
        Err(error) if stream_is_missing(&error) => None,
        Err(error) => return Err(error.to_string()),
    };
    // By the clocks of two machines; but all this decides is how much is compared.
    let made_anew = stored.as_ref().is_none_or(|stored| first_ms < &created_ms(stored));
    let to_the_end = made_anew || extent == Extent::PresentRunToo;
    if is_present && !to_the_end {
        return Ok(());
    }
    let (mut below, mut size) = ((i64::MAX, i64::MAX), FIRST_PAGE);
    loop {
        let page = database.acknowledged(stream, broker, below, size).await.map_err(|e| e.to_string())?;
        let Some(last) = page.last() else { return Ok(()) };
        (below, size) = ((last.stream_seq as i64, last.row_id), (size * 4).min(LARGEST_PAGE));
        let missing = match &stored {
            Some(stored) => missing(stored, page).await?,
            None => page.into_iter().map(|row| row.row_id).collect(),
        };
        if missing.is_empty() && !to_the_end {
            return Ok(());
        }
        lost.extend(missing);
    }
}

fn created_ms(stream: &Stream) -> i64 {
    (stream.cached_info().created.unix_timestamp_nanos() / 1_000_000) as i64
}

async fn missing(stream: &Stream, rows: Vec<Acknowledged>) -> Result<Vec<i64>, String> {
    let checked = futures::stream::iter(rows).map(|row| async move {
        let there = has(stream, &row).await?;
        Ok::<_, String>((!there).then_some(row.row_id))
    });
    let found: Vec<Option<i64>> = checked.buffer_unordered(IN_FLIGHT).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// Whether the stream has the row's message at the row's place.
async fn has(stream: &Stream, row: &Acknowledged) -> Result<bool, String> {
    let mut attempt = 1;
    loop {
        match stream.get_raw_message(row.stream_seq).await {
            Ok(message) => {
                return Ok(message.headers.get("Nats-Msg-Id").is_some_and(|id| id.as_str() == row.message_id));
            }
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => return Ok(false),
            // Of many thousand requests to a busy broker one may well be late.
            Err(_) if attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error.to_string()),
        }
    }
}
