//! What cannot be asked order by order: the streams, the gateway and the outboxes, read once from end to end into a
//! temporary file, and then looked up there. So a comparison of a million orders takes disk and no memory.

use rusqlite::{Connection, OptionalExtension, Result, params};
use tempfile::TempDir;

use super::facts::{Amount, Event, Intent, OutboxRow};

pub struct Scratch {
    db: Connection,
    _folder: TempDir,
}

const TABLES: &str = "
    create table events (order_id text, stream text not null, seq integer not null, subject text not null,
        event_id text not null, message_id text, stored_at integer not null, newest integer not null,
        primary key (stream, seq)) without rowid;
    create index events_order on events (order_id);
    create index events_message on events (message_id);
    create table intents (id text primary key, order_id text not null, status text not null, amount integer not null,
        currency text not null, captured integer not null, refunded integer not null, created_at integer not null)
        without rowid;
    create index intents_order on intents (order_id);
    create table outbox (service text not null, id integer not null, order_id text not null, message_id text not null,
        subject text not null, created_at integer not null, stream text, stream_seq integer,
        primary key (service, id)) without rowid;
    create index outbox_order on outbox (order_id);
    create table letters (consumer text not null, stream text not null, seq integer not null, id integer not null,
        waiting integer not null, primary key (consumer, stream, seq)) without rowid;";

/// A message of a stream, as the scratch keeps it.
pub struct Message {
    pub order_id: Option<String>,
    pub message_id: Option<String>,
    /// False for copies in older versions, and for what names no event.
    pub newest: bool,
    pub event: Event,
}

/// A row of an outbox, and how its message is known at the broker.
pub struct Outgoing {
    pub order_id: String,
    pub message_id: String,
    pub row: OutboxRow,
}

impl Scratch {
    pub fn new() -> std::io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let open = || {
            let db = Connection::open(folder.path().join("scratch.db"))?;
            // Nobody will read it after a crash.
            db.execute_batch("pragma journal_mode = off; pragma synchronous = off;")?;
            db.execute_batch(TABLES)?;
            Ok(db)
        };
        let db = open().map_err(|e: rusqlite::Error| std::io::Error::other(e.to_string()))?;
        Ok(Self { db, _folder: folder })
    }

    /// Many of what follows, as one transaction.
    pub fn begin(&self) -> Result<()> {
        self.db.execute_batch("begin")
    }

    pub fn commit(&self) -> Result<()> {
        self.db.execute_batch("commit")
    }

    pub fn add_message(&self, message: &Message) -> Result<()> {
        let Message { order_id, message_id, newest, event } = message;
        let mut insert = self.db.prepare_cached("insert or replace into events values (?, ?, ?, ?, ?, ?, ?, ?)")?;
        insert.execute(params![
            order_id,
            event.stream,
            event.seq as i64,
            event.subject,
            event.event_id,
            message_id,
            event.stored_at,
            newest
        ])?;
        Ok(())
    }

    pub fn put_intent(&self, order_id: &str, intent: &Intent) -> Result<()> {
        let mut insert = self.db.prepare_cached("insert or replace into intents values (?, ?, ?, ?, ?, ?, ?, ?)")?;
        insert.execute(params![
            intent.id,
            order_id,
            intent.status,
            intent.amount.minor,
            intent.amount.currency,
            intent.captured,
            intent.refunded,
            intent.created_at
        ])?;
        Ok(())
    }

    pub fn forget_outboxes_and_letters(&self) -> Result<()> {
        self.db.execute_batch("delete from outbox; delete from letters;")
    }

    pub fn add_outgoing(&self, outgoing: &Outgoing) -> Result<()> {
        let Outgoing { order_id, message_id, row } = outgoing;
        let (stream, seq) = row.place.as_ref().map(|(stream, seq)| (stream, *seq as i64)).unzip();
        let mut insert = self.db.prepare_cached("insert into outbox values (?, ?, ?, ?, ?, ?, ?, ?)")?;
        insert.execute(params![row.service, row.id, order_id, message_id, row.subject, row.created_at, stream, seq])?;
        Ok(())
    }

    pub fn add_letter(&self, consumer: &str, stream: &str, seq: u64, id: u64, waiting: bool) -> Result<()> {
        let mut insert = self.db.prepare_cached("insert or replace into letters values (?, ?, ?, ?, ?)")?;
        insert.execute(params![consumer, stream, seq as i64, id as i64, waiting])?;
        Ok(())
    }

    /// Orders behind `after` that any of it is about, in order.
    pub fn orders(&self, after: &str, limit: usize) -> Result<Vec<String>> {
        let mut select = self.db.prepare_cached(
            "select order_id from events where order_id > ?1 union select order_id from intents where order_id > ?1
             union select order_id from outbox where order_id > ?1 order by 1 limit ?2",
        )?;
        select.query_map(params![after, limit as i64], |row| row.get(0))?.collect()
    }

    /// The order's events in their newest version.
    pub fn events(&self, order_id: &str) -> Result<Vec<Event>> {
        let mut select = self.db.prepare_cached(
            "select stream, seq, subject, event_id, stored_at from events where order_id = ? and newest
             order by stored_at, seq",
        )?;
        let event = |row: &rusqlite::Row<'_>| {
            Ok(Event {
                stream: row.get(0)?,
                seq: row.get::<_, i64>(1)?.unsigned_abs(),
                subject: row.get(2)?,
                event_id: row.get(3)?,
                stored_at: row.get(4)?,
                handling: Vec::new(),
            })
        };
        let events: Vec<Event> = select.query_map([order_id], event)?.collect::<Result<_>>()?;
        // What was stored twice is one event.
        let mut seen = std::collections::BTreeSet::new();
        Ok(events.into_iter().filter(|event| seen.insert(event.event_id.clone())).collect())
    }

    pub fn intents(&self, order_id: &str) -> Result<Vec<Intent>> {
        let mut select = self.db.prepare_cached(
            "select id, status, amount, currency, captured, refunded, created_at from intents where order_id = ?
             order by created_at, id",
        )?;
        let intent = |row: &rusqlite::Row<'_>| {
            Ok(Intent {
                id: row.get(0)?,
                status: row.get(1)?,
                amount: Amount { minor: row.get(2)?, currency: row.get(3)? },
                captured: row.get(4)?,
                refunded: row.get(5)?,
                created_at: row.get(6)?,
            })
        };
        select.query_map([order_id], intent)?.collect()
    }

    /// The order's rows in all outboxes. `first_of` says where the reading of each stream began: what stands before
    /// that counts as being there.
    pub fn outbox(&self, order_id: &str, first_of: impl Fn(&str) -> u64) -> Result<Vec<OutboxRow>> {
        let mut select = self.db.prepare_cached(
            "select service, id, subject, created_at, stream, stream_seq,
                exists (select 1 from events where events.message_id = outbox.message_id)
             from outbox where order_id = ? order by service, id",
        )?;
        let row = |row: &rusqlite::Row<'_>| {
            let service: String = row.get(0)?;
            let place = row.get::<_, Option<String>>(4)?.zip(row.get::<_, Option<i64>>(5)?.map(i64::unsigned_abs));
            let was_read = place.as_ref().is_some_and(|(stream, seq)| *seq >= first_of(stream));
            Ok(OutboxRow {
                service: crate::stack::SERVICES.into_iter().find(|known| *known == service).unwrap_or("unknown"),
                id: row.get(1)?,
                subject: row.get(2)?,
                created_at: row.get(3)?,
                on_stream: row.get(6)? || (place.is_some() && !was_read),
                place,
            })
        };
        select.query_map([order_id], row)?.collect()
    }

    /// The dead letter that a message became for a consumer, and whether it waits for a decision.
    pub fn letter(&self, consumer: &str, stream: &str, seq: u64) -> Result<Option<(u64, bool)>> {
        let mut select =
            self.db.prepare_cached("select id, waiting from letters where consumer = ? and stream = ? and seq = ?")?;
        let letter = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?));
        select.query_row(params![consumer, stream, seq as i64], letter).optional()
    }
}
