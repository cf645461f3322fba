//! SQLite: WAL, every commit on disk before it is answered, statements prepared once.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use super::session::{Prune, Pruned, Session, SessionError};
use super::{SqliteModel, StoreError};
use crate::inbox::Mark;
use crate::outbox::{Acknowledged, Backlog, Confirmation, NewRow, Row, header_text};

/// Long enough for a command-line tool to look into the file while the service runs.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for every statement of a service.
const STATEMENT_CACHE: usize = 64;

/// A connection that may write: creates the file and its folder.
pub(super) fn open_to_write(path: &Path) -> Result<Connection, StoreError> {
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|e| StoreError::Failed(format!("cannot create the folder {}: {e}", folder.display())))?;
    }
    let db = Connection::open(path)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.pragma_update(None, "journal_mode", "wal")?;
    // FULL: a commit that was answered survives a power cut.
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "cache_size", -16_384)?;
    db.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    Ok(db)
}

/// A connection that only reads, beside the writer.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    Ok(db)
}

pub(super) struct SqliteSession {
    db: Connection,
}

impl SqliteSession {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { db: open_to_write(path)? })
    }
}

impl From<rusqlite::Error> for SessionError {
    fn from(error: rusqlite::Error) -> Self {
        match StoreError::from(error) {
            StoreError::Unavailable(reason) => Self::Lost(reason),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl<M: SqliteModel> Session<M> for SqliteSession {
    async fn begin(&mut self) -> Result<(), SessionError> {
        Ok(self.db.prepare_cached("begin immediate")?.execute([]).map(|_| ())?)
    }

    async fn has_message(&mut self, message_id: &str) -> Result<bool, SessionError> {
        Ok(self.db.prepare_cached("select 1 from outbox where message_id = ?")?.exists([message_id])?)
    }

    async fn mark(&mut self, marks: &BTreeSet<&Mark>, now_ms: i64) -> Result<HashSet<Mark>, SessionError> {
        let mut insert = self.db.prepare_cached(
            "insert into inbox (consumer, event_id, handled_at) values (?, ?, ?) on conflict do nothing",
        )?;
        let mut before = HashSet::new();
        for mark in marks {
            if insert.execute(params![mark.consumer, mark.event_id, now_ms])? == 0 {
                before.insert((*mark).clone());
            }
        }
        Ok(before)
    }

    async fn load(&mut self, model: &M, intents: &[&M::Intent]) -> Result<M::Rows, SessionError> {
        Ok(model.load(&self.db, intents)?)
    }

    async fn save(&mut self, model: &M, rows: &M::Rows) -> Result<(), SessionError> {
        Ok(model.save(&self.db, rows)?)
    }

    async fn insert_outbox(&mut self, rows: &[NewRow], now_ms: i64) -> Result<Vec<i64>, SessionError> {
        let mut insert = self.db.prepare_cached(
            "insert into outbox (message_id, subject, lane, headers, body, created_at) values (?, ?, ?, ?, ?, ?)",
        )?;
        rows.iter()
            .map(|row| {
                let headers = header_text::write(&row.headers)?;
                Ok(insert.insert(params![row.message_id, row.subject, row.lane, headers, row.body.as_ref(), now_ms])?)
            })
            .collect()
    }

    async fn confirm(&mut self, confirmations: &[Confirmation]) -> Result<(), SessionError> {
        let mut update = self.db.prepare_cached(
            "update outbox set stream = ?, stream_seq = ?, published_at = ?, broker = ? where id = ?",
        )?;
        for one in confirmations {
            let place = one.place.as_ref();
            let (stream, seq) = (place.map(|p| &p.stream), place.map(|p| p.stream_seq as i64));
            let broker = place.map(|p| &p.broker);
            update.execute(params![stream, seq, place.map(|p| p.acknowledged_ms), broker, one.row_id])?;
        }
        Ok(())
    }

    async fn prune(&mut self, what: Prune) -> Result<Pruned, SessionError> {
        // Ids ascend with time, so the oldest rows are found without an index of their own.
        let (last_id, last_created_ms, rows) = self
            .db
            .prepare_cached(
                "select max(id), max(created_at), count(*)
                 from (select id, created_at from outbox where id > ? order by id limit ?)",
            )?
            .query_row(params![what.after_id, what.limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        self.db
            .prepare_cached("delete from outbox where id > ? and id <= ? and published_at < ?")?
            .execute(params![what.after_id, last_id, what.published_before_ms])?;
        let forgotten = self
            .db
            .prepare_cached(
                "delete from inbox where id in (select id from inbox order by id limit ?) and handled_at < ?",
            )?
            .execute(params![what.limit, what.handled_before_ms])?;
        Ok(Pruned {
            outbox_at: what.after_page(last_id, last_created_ms, rows),
            more_in_inbox: forgotten as i64 >= what.limit,
        })
    }

    async fn commit(&mut self) -> Result<(), SessionError> {
        Ok(self.db.prepare_cached("commit")?.execute([]).map(|_| ())?)
    }

    async fn rollback(&mut self) {
        <Self as Session<M>>::abandon(self);
    }

    fn abandon(&mut self) {
        if !self.db.is_autocommit() {
            let _ = self.db.execute_batch("rollback");
        }
    }
}

pub(super) fn unpublished(
    db: &Connection,
    after_id: i64,
    created_before_ms: i64,
    limit: u32,
) -> Result<Vec<Row>, StoreError> {
    let mut select = db.prepare_cached(
        "select id, message_id, subject, lane, headers, body from outbox
         where published_at is null and id > ? and created_at <= ? order by id limit ?",
    )?;
    let mut rows = select.query(params![after_id, created_before_ms, limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let headers: String = row.get(4)?;
        let body: Vec<u8> = row.get(5)?;
        found.push(Row {
            id: row.get(0)?,
            message: NewRow {
                message_id: row.get(1)?,
                subject: row.get(2)?,
                lane: row.get(3)?,
                headers: header_text::read(&headers)?,
                body: body.into(),
            },
        });
    }
    Ok(found)
}

/// Streams and the servers' runs that acknowledged rows of them, other than the present run.
pub(super) fn earlier_runs(db: &Connection, present: &str) -> Result<Vec<(String, String)>, StoreError> {
    let mut select = db.prepare_cached(
        "select distinct stream, coalesce(broker, '') from outbox
         where published_at is not null and coalesce(broker, '') <> ?",
    )?;
    let runs = select.query_map([present], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    Ok(runs)
}

/// Rows of one stream that one run acknowledged, the highest sequences below `below_seq` first.
pub(super) fn acknowledged(
    db: &Connection,
    stream: &str,
    run: &str,
    below_seq: i64,
    limit: i64,
) -> Result<Vec<Acknowledged>, StoreError> {
    let mut select = db.prepare_cached(
        "select id, message_id, stream_seq from outbox
         where stream = ? and coalesce(broker, '') = ? and stream_seq < ? order by stream_seq desc limit ?",
    )?;
    let rows = select.query_map(params![stream, run, below_seq, limit], |row| {
        Ok(Acknowledged { row_id: row.get(0)?, message_id: row.get(1)?, stream_seq: row.get::<_, i64>(2)? as u64 })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn backlog(db: &Connection) -> Result<Backlog, StoreError> {
    let mut select = db.prepare_cached("select count(*), min(created_at) from outbox where published_at is null")?;
    Ok(select
        .query_row([], |row| Ok(Backlog { rows: row.get::<_, i64>(0)? as u64, oldest_created_ms: row.get(1)? }))?)
}
