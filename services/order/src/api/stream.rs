//! An order's events as they happen, as server-sent events: history first, then live, for as long as the client listens.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use contracts::OrderId;
use millrace::problem::{PathParams, Problem};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};
use utoipa::{IntoParams, ToSchema};

use super::view::TimelineEntry;
use super::{Api, OrderPath, RETRY_AFTER, no_such_order, storing};
use crate::changes::Watching;
use crate::model::Entry;

/// Sent by a browser that reconnects.
const LAST_EVENT_ID: &str = "Last-Event-ID";
/// How soon a browser should come back when the connection breaks.
const RECONNECT: Duration = Duration::from_secs(1);

/// One message of a live stream, as the document shows it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "messages are written by axum")]
pub(crate) struct StreamMessage {
    /// The entry's `seq`.
    #[schema(pattern = "^[0-9]+$", example = "2")]
    id: String,
    /// Milliseconds after which to come back when the connection breaks.
    #[schema(example = 1_000)]
    retry: u32,
    /// A `TimelineEntry` in JSON.
    #[schema(content_media_type = "application/json")]
    data: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the header is read where it is needed; this is how the document shows it")]
pub(crate) struct LastEventId {
    /// Only what comes behind this entry.
    #[param(rename = "Last-Event-ID", nullable = false, minimum = 0)]
    last_event_id: Option<i64>,
}

/// Follow an order
///
/// Server-sent events: everything that happened, then what happens, until the client leaves. `Last-Event-ID` resumes
/// behind a message. Comments keep a silent stream open.
#[utoipa::path(
    get,
    path = "/orders/{order_id}/events",
    tag = "orders",
    params(
        ("order_id" = uuid::Uuid, Path, description = "The order"),
        LastEventId,
    ),
    responses(
        (status = 200, description = "A stream; this is one message of it", body = StreamMessage,
            content_type = "text/event-stream"),
        (status = 400, description = "The id or the header is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such order", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many streams are open, or the database is away; try again later", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(crate) async fn stream_events(
    State(api): State<Api>,
    PathParams(OrderPath { order_id }): PathParams<OrderPath>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let last_seq = last_event_id(&headers)?;
    // Before the history is read, so that nothing falls in between.
    let watching = api.changes.watch(order_id);
    if api.reads.order(order_id).await.map_err(|error| storing(&error))?.is_none() {
        return Err(no_such_order(order_id));
    }
    let Ok(permit) = api.streams.clone().try_acquire_owned() else {
        let detail = format!("{} live streams are open already.", api.settings.max_streams);
        return Err(Problem::unavailable(detail, RETRY_AFTER));
    };
    let mut poll = interval(api.settings.stream_poll.get());
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let heartbeat = KeepAlive::new().interval(api.settings.stream_heartbeat.get()).text("nothing new");
    let follow = Follow { api, order_id, last_seq, ready: VecDeque::new(), watching, poll, _permit: permit };
    let events = futures::stream::unfold(follow, |mut follow| async {
        let entry = follow.next().await?;
        Some((Ok::<_, Infallible>(message(entry)), follow))
    });
    Ok(Sse::new(events).keep_alive(heartbeat).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<i64, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(0) };
    let seq = value.to_str().ok().and_then(|text| text.trim().parse().ok()).filter(|seq| *seq >= 0);
    seq.ok_or_else(|| {
        Problem::invalid_parameter(LAST_EVENT_ID, "must be the id of a message of this stream, a whole number")
    })
}

fn message(entry: Entry) -> Event {
    let event = Event::default().id(entry.seq.to_string()).retry(RECONNECT);
    let entry = TimelineEntry::from(entry);
    // One line of JSON, which has neither line breaks nor anything else that could break the framing.
    event.data(serde_json::to_string(&entry).unwrap_or_default())
}

struct Follow {
    api: Api,
    order_id: OrderId,
    last_seq: i64,
    ready: VecDeque<Entry>,
    watching: Watching,
    /// Finds what other instances handled.
    poll: Interval,
    _permit: OwnedSemaphorePermit,
}

impl Follow {
    /// The next entry; `None` when the service stops.
    async fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                self.last_seq = entry.seq;
                return Some(entry);
            }
            tokio::select! {
                biased;
                () = self.api.shutdown.cancelled() => return None,
                () = self.watching.changed() => {}
                // The first tick comes at once and reads the history.
                _ = self.poll.tick() => {}
            }
            match self.api.reads.entries_after(self.order_id, self.last_seq).await {
                Ok(entries) => self.ready = entries.into(),
                // The client keeps the stream, and the next look finds what was missed.
                Err(reason) => tracing::debug!(reason = %reason, "a live stream could not be read on, trying again"),
            }
        }
    }
}
