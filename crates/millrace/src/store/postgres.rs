//! PostgreSQL: set-based statements, prepared once per connection; instances of a service share the database.

use std::collections::{BTreeSet, HashMap, HashSet};

use deadpool_postgres::{Client, Pool};
use tokio_postgres::error::SqlState;

use super::session::{Prune, Pruned, Session, SessionError};
use super::{PostgresModel, StoreError};
use crate::inbox::Mark;
use crate::outbox::{Acknowledged, Backlog, Confirmation, NewRow, Row, Run, header_text};

/// The whole chain: `Display` of a driver's error says only "db error".
pub(super) fn full_text(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// Whether the connection or the server is gone, or refuses everybody alike, as opposed to a statement that was refused.
pub(super) fn is_connection_loss(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        // Class 08: connection; 53: out of resources; 57: shutting down, starting up, or a statement that took too long;
        // 58: system error; 25006: a standby; 25P03: the session idled in a transaction; 42501, 42P01, 42703: no right, no
        // table, no column, which no message is to blame for.
        Some(code) => ["08", "53", "57", "58", "25006", "25P03", "42501", "42P01", "42703"]
            .iter()
            .any(|class| code.code().starts_with(class)),
        // Without a code it is the driver's. One that could not read a value has a connection all the same, and trying
        // that again for ever would hold up everybody else.
        None => error.is_closed() || is_io(error),
    }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    let mut source = std::error::Error::source(error);
    // Neither a time-out of the driver nor a failed attempt to connect always has a source.
    let mut found = matches!(error.to_string().as_str(), "timeout waiting for server" | "error connecting to server");
    while let Some(inner) = source {
        found |= inner.is::<std::io::Error>();
        source = inner.source();
    }
    found
}

impl From<tokio_postgres::Error> for SessionError {
    fn from(error: tokio_postgres::Error) -> Self {
        let text = full_text(&error);
        match error.code() {
            // Two events under one message id: deciding again would only find the same clash.
            Some(code)
                if *code == SqlState::UNIQUE_VIOLATION
                    && error.as_db_error().and_then(|e| e.table()) == Some("outbox") =>
            {
                Self::Refused(text)
            }
            Some(code)
                if *code == SqlState::UNIQUE_VIOLATION
                    || *code == SqlState::T_R_SERIALIZATION_FAILURE
                    || *code == SqlState::T_R_DEADLOCK_DETECTED =>
            {
                Self::Conflict(text)
            }
            _ if is_connection_loss(&error) => Self::Lost(text),
            _ => Self::Refused(text),
        }
    }
}

pub(super) struct PostgresSession {
    pool: Pool,
    client: Option<Client>,
    reconnected: bool,
}

impl PostgresSession {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool, client: None, reconnected: false }
    }

    fn client(&self) -> Result<&Client, SessionError> {
        self.client.as_ref().ok_or_else(|| SessionError::Lost("no connection".into()))
    }
}

impl<M: PostgresModel> Session<M> for PostgresSession {
    async fn begin(&mut self) -> Result<(), SessionError> {
        if self.client.as_ref().is_none_or(|client| client.is_closed()) {
            self.client = None;
            self.reconnected = true;
            self.client = Some(self.pool.get().await.map_err(|e| SessionError::Lost(StoreError::from(e).to_string()))?);
        }
        Ok(self.client()?.batch_execute("begin").await?)
    }

    fn reconnected(&mut self) -> bool {
        std::mem::take(&mut self.reconnected)
    }

    async fn has_message(&mut self, message_id: &str) -> Result<bool, SessionError> {
        let client = self.client()?;
        let find = client.prepare_cached("select 1 from outbox where message_id = $1").await?;
        Ok(client.query_opt(&find, &[&message_id]).await?.is_some())
    }

    async fn mark(&mut self, marks: &BTreeSet<&Mark>, now_ms: i64) -> Result<HashSet<Mark>, SessionError> {
        let client = self.client()?;
        let statement = client
            .prepare_cached(
                "insert into inbox (consumer, event_id, handled_at)
                 select c, e, $3 from unnest($1::text[], $2::text[]) with ordinality as t (c, e, n) order by n
                 on conflict do nothing returning consumer, event_id",
            )
            .await?;
        let consumers: Vec<&str> = marks.iter().map(|m| m.consumer.as_str()).collect();
        let events: Vec<&str> = marks.iter().map(|m| m.event_id.as_str()).collect();
        let set = client.query(&statement, &[&consumers, &events, &now_ms]).await?;
        let set = set.iter().map(|row| Ok(Mark { consumer: row.try_get(0)?, event_id: row.try_get(1)? }));
        let set = set.collect::<Result<HashSet<Mark>, tokio_postgres::Error>>()?;
        Ok(marks.iter().filter(|mark| !set.contains(**mark)).map(|mark| (*mark).clone()).collect())
    }

    async fn load(&mut self, model: &M, intents: &[&M::Intent]) -> Result<M::Rows, SessionError> {
        Ok(model.load(self.client()?, intents).await?)
    }

    async fn save(&mut self, model: &M, rows: &M::Rows) -> Result<(), SessionError> {
        Ok(model.save(self.client()?, rows).await?)
    }

    async fn insert_outbox(&mut self, rows: &[NewRow], now_ms: i64) -> Result<Vec<i64>, SessionError> {
        let client = self.client()?;
        let statement = client
            .prepare_cached(
                "insert into outbox (message_id, subject, lane, headers, body, created_at)
                 select m, s, l, h, b, $6 from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[])
                     with ordinality as t (m, s, l, h, b, n) order by n
                 returning id, message_id",
            )
            .await?;
        let message_ids: Vec<&str> = rows.iter().map(|r| r.message_id.as_str()).collect();
        let subjects: Vec<&str> = rows.iter().map(|r| r.subject.as_str()).collect();
        let lanes: Vec<&str> = rows.iter().map(|r| r.lane.as_str()).collect();
        let headers: Vec<String> = rows.iter().map(|r| header_text::write(&r.headers)).collect::<Result<_, _>>()?;
        let bodies: Vec<&[u8]> = rows.iter().map(|r| r.body.as_ref()).collect();
        let stored = client.query(&statement, &[&message_ids, &subjects, &lanes, &headers, &bodies, &now_ms]).await?;
        let mut by_message = HashMap::with_capacity(stored.len());
        for row in &stored {
            by_message.insert(row.try_get::<_, String>(1)?, row.try_get::<_, i64>(0)?);
        }
        rows.iter()
            .map(|row| {
                let id = by_message.get(&row.message_id).copied();
                id.ok_or_else(|| SessionError::Refused(format!("the outbox did not take {}", row.message_id)))
            })
            .collect()
    }

    async fn confirm(&mut self, confirmations: &[Confirmation]) -> Result<(), SessionError> {
        let client = self.client()?;
        let statement = client
            .prepare_cached(
                "update outbox set stream = t.stream, stream_seq = t.seq, published_at = t.at, broker = t.broker
                 from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::text[])
                     as t (id, stream, seq, at, broker)
                 where outbox.id = t.id",
            )
            .await?;
        let ids: Vec<i64> = confirmations.iter().map(|c| c.row_id).collect();
        let places = || confirmations.iter().map(|c| c.place.as_ref());
        let streams: Vec<Option<&str>> = places().map(|p| p.map(|p| p.stream.as_str())).collect();
        let seqs: Vec<Option<i64>> = places().map(|p| p.map(|p| p.stream_seq as i64)).collect();
        let at: Vec<Option<i64>> = places().map(|p| p.map(|p| p.acknowledged_ms)).collect();
        let brokers: Vec<Option<&str>> = places().map(|p| p.map(|p| p.broker.as_str())).collect();
        client.execute(&statement, &[&ids, &streams, &seqs, &at, &brokers]).await?;
        Ok(())
    }

    async fn prune(&mut self, what: Prune) -> Result<Pruned, SessionError> {
        let client = self.client()?;
        let page = client
            .prepare_cached(
                "select max(id), max(created_at), count(*)
                 from (select id, created_at from outbox where id > $1 order by id limit $2) as page",
            )
            .await?;
        let page = client.query_one(&page, &[&what.after_id, &what.limit]).await?;
        let (last_id, last_created_ms, rows): (Option<i64>, Option<i64>, i64) =
            (page.try_get(0)?, page.try_get(1)?, page.try_get(2)?);
        let outbox =
            client.prepare_cached("delete from outbox where id > $1 and id <= $2 and published_at < $3").await?;
        client.execute(&outbox, &[&what.after_id, &last_id, &what.published_before_ms]).await?;
        let inbox = client
            .prepare_cached(
                "delete from inbox where id in (select id from inbox order by id limit $1) and handled_at < $2",
            )
            .await?;
        let forgotten = client.execute(&inbox, &[&what.limit, &what.handled_before_ms]).await?;
        Ok(Pruned {
            outbox_at: what.after_page(last_id, last_created_ms, rows),
            more_in_inbox: forgotten as i64 >= what.limit,
        })
    }

    async fn commit(&mut self) -> Result<(), SessionError> {
        Ok(self.client()?.batch_execute("commit").await?)
    }

    async fn rollback(&mut self) {
        if let Some(client) = self.client.take()
            && client.batch_execute("rollback").await.is_ok()
        {
            self.client = Some(client);
        }
    }

    fn abandon(&mut self) {
        // Not back into the pool: it may be half open, or lead to a server that has become a standby.
        if let Some(client) = self.client.take() {
            drop(Client::take(client));
        }
    }
}

pub(super) async fn unpublished(
    client: &Client,
    after_id: i64,
    created_before_ms: i64,
    limit: i64,
) -> Result<Vec<Row>, StoreError> {
    let statement = client
        .prepare_cached(
            "select id, message_id, subject, lane, headers, body from outbox
             where published_at is null and id > $1 and created_at <= $2 order by id limit $3",
        )
        .await?;
    let rows = client.query(&statement, &[&after_id, &created_before_ms, &limit]).await?;
    rows.iter()
        .map(|row| {
            let body: Vec<u8> = row.try_get(5)?;
            Ok(Row {
                id: row.try_get(0)?,
                message: NewRow {
                    message_id: row.try_get(1)?,
                    subject: row.try_get(2)?,
                    lane: row.try_get(3)?,
                    headers: header_text::read(row.try_get(4)?)?,
                    body: body.into(),
                },
            })
        })
        .collect()
}

pub(super) async fn backlog(client: &Client) -> Result<Backlog, StoreError> {
    let statement =
        client.prepare_cached("select count(*), min(created_at) from outbox where published_at is null").await?;
    let row = client.query_one(&statement, &[]).await?;
    Ok(Backlog { rows: row.try_get::<_, i64>(0)? as u64, oldest_created_ms: row.try_get(1)? })
}

pub(super) async fn runs(client: &Client) -> Result<Vec<Run>, StoreError> {
    let statement = client
        .prepare_cached(
            "select stream, coalesce(broker, ''), min(published_at) from outbox
             where published_at is not null and stream <> '' group by stream, coalesce(broker, '')",
        )
        .await?;
    let rows = client.query(&statement, &[]).await?;
    let runs =
        rows.iter().map(|row| Ok(Run { stream: row.try_get(0)?, broker: row.try_get(1)?, first_ms: row.try_get(2)? }));
    Ok(runs.collect::<Result<_, tokio_postgres::Error>>()?)
}

pub(super) async fn acknowledged(
    client: &Client,
    stream: &str,
    run: &str,
    (below_seq, below_id): (i64, i64),
    limit: i64,
) -> Result<Vec<Acknowledged>, StoreError> {
    let statement = client
        .prepare_cached(
            "select id, message_id, stream_seq from outbox
             where stream = $1 and coalesce(broker, '') = $2 and (stream_seq, id) < ($3, $4)
             order by stream_seq desc, id desc limit $5",
        )
        .await?;
    let rows = client.query(&statement, &[&stream, &run, &below_seq, &below_id, &limit]).await?;
    rows.iter()
        .map(|row| {
            let stream_seq = row.try_get::<_, i64>(2)? as u64;
            Ok(Acknowledged { row_id: row.try_get(0)?, message_id: row.try_get(1)?, stream_seq })
        })
        .collect()
}
