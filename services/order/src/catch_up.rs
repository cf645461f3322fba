//! A database may be older than the streams: restored from a copy, or on a standby that lagged behind a server that was
//! lost. What this service has told meanwhile it is bound by, because others have acted on it: a confirmed order must not
//! be cancelled at its deadline, nor a cancelled one confirmed by facts that come again. So at each start, before
//! anything can end an order and before anything new is published, the service reads what it has told behind the last
//! place its outbox knows. That is nothing after an ordinary end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contracts::orders::{OrderCancelled, OrderConfirmed, OrderCreated};
use contracts::{OrderId, Timestamp};
use millrace::connection::Connection;
use millrace::consumer::{Failure, Router};
use millrace::event::{Cause, Event, Received};
use millrace::history::{self, History, HistoryError, Recorded, Section};
use millrace::store::{StoreError, Writer};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::changes::Changes;
use crate::domain::{End, Recalled};
use crate::model::{Intent, Observed, OrderModel, Outcome, Told, ToldWhat};
use crate::store::ToldUpTo;
use crate::timeline;

/// The stream that holds what this service tells.
pub(crate) const ORDERS: &str = "ORDERS";

/// Events in one transaction, so that new orders are not held up.
const CHUNK: usize = 256;
/// How far the clocks of the broker and of this service's instances may be apart.
const CLOCKS: time::Duration = time::Duration::minutes(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(crate) struct CatchUp {
    pub(crate) connection: Connection,
    pub(crate) writer: Writer<OrderModel>,
    pub(crate) changes: Changes,
    /// Read before anything was published.
    pub(crate) known: ToldUpTo,
    /// Turns true when the database knows what was told.
    pub(crate) done: watch::Sender<bool>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    events: u64,
    placed: u64,
    ended: u64,
    unknown: u64,
    contradicted: u64,
    unreadable: u64,
}

impl CatchUp {
    /// Tries until it is done. To do it again changes nothing.
    pub(crate) async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.read().await {
                Ok(found) => {
                    found.tell();
                    self.done.send_replace(true);
                    return;
                }
                Err(reason) => {
                    warn!(reason = %reason, retry_ms = pause.as_millis() as u64, "what was told before cannot be read yet, no order is ended meanwhile");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn read(&self) -> Result<Found, Error> {
        let after = match self.known {
            ToldUpTo::Sequence(sequence) => sequence,
            ToldUpTo::Time(at) => history::last_before(&self.connection, ORDERS, at.0 - CLOCKS).await?,
            ToldUpTo::Nothing => 0,
        };
        let mut found = Found::default();
        if history::last_sequence(&self.connection, ORDERS).await? <= after {
            return Ok(found);
        }
        let listener = Listener::new();
        let mut history = History::open(&self.connection, &[listener.section(after)]).await?;
        let mut chunk = Vec::new();
        while let Some(message) = history.next().await? {
            found.events += 1;
            match listener.understand(&message).await {
                Ok(told) => chunk.extend(told),
                Err(()) => {
                    warn!(sequence = message.sequence, "an event of this service in the stream cannot be read");
                    found.unreadable += 1;
                }
            }
            if chunk.len() >= CHUNK {
                self.recall(std::mem::take(&mut chunk), &mut found).await?;
            }
        }
        self.recall(chunk, &mut found).await?;
        Ok(found)
    }

    async fn recall(&self, chunk: Vec<Told>, found: &mut Found) -> Result<(), Error> {
        if chunk.is_empty() {
            return Ok(());
        }
        let what: Vec<(OrderId, bool)> =
            chunk.iter().map(|told| (told.order_id, matches!(told.what, ToldWhat::Placed { .. }))).collect();
        let outcome = self.writer.submit_because(Cause::spontaneous(), Intent::Recall(chunk)).await?;
        let Outcome::Recalled(recalled) = outcome else { return Ok(()) };
        for ((order_id, is_placing), recalled) in what.into_iter().zip(recalled) {
            match recalled {
                Recalled::Known => continue,
                Recalled::Now if is_placing => found.placed += 1,
                Recalled::Now => found.ended += 1,
                Recalled::UnknownOrder => {
                    found.unknown += 1;
                    warn!(order.id = %order_id, "an order has ended by the stream, and nothing else is known of it");
                }
                Recalled::Contradicted(here) => {
                    found.contradicted += 1;
                    warn!(order.id = %order_id, here = %here, "an order has ended otherwise by the stream: see `millrace reconcile`");
                }
            }
            self.changes.announce(order_id);
        }
        Ok(())
    }
}

impl Found {
    fn tell(&self) {
        let Self { events, placed, ended, unknown, contradicted, unreadable } = *self;
        if placed + ended + unknown + contradicted + unreadable == 0 {
            debug!(events, "the database knows everything this service has told");
            return;
        }
        warn!(
            events,
            placed,
            ended,
            unknown,
            contradicted,
            unreadable,
            "the database is older than the stream; the orders and ends this service has told since are taken from there"
        );
        info!(
            "set the consumers of this service back as well: see \"A database is restored from an older copy\" in the runbook"
        );
    }
}

/// Understands this service's own events.
struct Listener {
    router: Router,
    heard: Slot,
}

/// Where a handler leaves what it understood.
type Slot = Arc<Mutex<Option<Told>>>;

impl Listener {
    fn new() -> Self {
        let heard = Slot::default();
        macro_rules! to {
            ($told:expr) => {{
                let heard = heard.clone();
                move |event: Received<_>| {
                    // What others publish under these subjects binds nobody.
                    if !event.meta.foreign {
                        let at = Timestamp::from_unix_ms(Timestamp(event.meta.time).unix_ms());
                        let (what, observed) = $told(&event, at);
                        let told = Told { order_id: event.data.order_id, what, observed };
                        *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
                    }
                    std::future::ready(Ok::<(), Failure>(()))
                }
            }};
        }
        let router = Router::new("catch-up")
            .on::<OrderCreated, _, _>(to!(placed))
            .on::<OrderConfirmed, _, _>(to!(|event: &Received<OrderConfirmed>, at| {
                (ToldWhat::Ended(End::Confirmed), timeline::confirmed(&event.meta.id, at, &event.data))
            }))
            .on::<OrderCancelled, _, _>(to!(|event: &Received<OrderCancelled>, at| {
                (
                    ToldWhat::Ended(End::Cancelled(event.data.reason)),
                    timeline::cancelled(&event.meta.id, at, &event.data),
                )
            }));
        Self { router, heard }
    }

    /// Newest versions only: older copies carry less of the order.
    fn section(&self, after: u64) -> Section {
        let subjects = [OrderCreated::SUBJECT, OrderConfirmed::SUBJECT, OrderCancelled::SUBJECT];
        Section { stream: ORDERS.to_owned(), subjects: subjects.map(str::to_owned).to_vec(), after }
    }

    /// `None` for what is not this service's own.
    async fn understand(&self, recorded: &Recorded) -> Result<Option<Told>, ()> {
        let call = self.router.recall(recorded).map_err(|_| ())?;
        call.handling.await.map_err(|_| ())?;
        Ok(self.heard.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

fn placed(event: &Received<OrderCreated>, at: Timestamp) -> (ToldWhat, Observed) {
    // Only another system's order has an event as its cause.
    let foreign = event.meta.causation_id.is_some();
    let what = ToldWhat::Placed { order: Box::new(event.data.clone()), foreign };
    (what, timeline::created(&event.meta.id, at, &event.data, foreign))
}
