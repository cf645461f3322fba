//! SQLite: WAL, every commit on disk before it is answered, statements prepared once.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, ToSql, params};

use super::session::{Prune, Pruned, Session, SessionError};
use super::several::{self, Several};
use super::{SqliteModel, StoreError};
use crate::inbox::Mark;
use crate::outbox::{Acknowledged, Backlog, Confirmation, NewRow, Place, Row, Run, header_text};

/// Long enough for a command-line tool to look into the file while the service runs.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for every statement of a service.
const STATEMENT_CACHE: usize = 64;

/// What is written for every message.
static MARK: LazyLock<Several> = LazyLock::new(|| {
    Several::new("insert into inbox (consumer, event_id, handled_at) values ", "(?, ?, ?)", " on conflict do nothing")
});
static MESSAGE: LazyLock<Several> = LazyLock::new(|| {
    let head = "insert into outbox_message (message_id, subject, lane, headers, body, created_at) values ";
    Several::new(head, "(?, ?, ?, ?, ?, ?)", "")
});
static WAITS: LazyLock<Several> = LazyLock::new(|| Several::new("insert into outbox_waiting (id) values ", "(?)", ""));
static WAITS_NO_MORE: LazyLock<Several> =
    LazyLock::new(|| Several::new("delete from outbox_waiting where id in (", "?", ")"));
static PLACE: LazyLock<Several> = LazyLock::new(|| {
    let head = "insert into outbox_place (id, stream, stream_seq, published_at, broker) values ";
    Several::new(head, "(?, ?, ?, ?, ?)", "")
});
const NEWEST_MARK: &str = "select coalesce(max(id), 0) from inbox";

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
    db.pragma_update(None, "cache_size", -8_192)?;
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

impl SqliteSession {
    fn confirm_all(&self, places: &[(i64, &Place)]) -> rusqlite::Result<()> {
        for portion in several::portions(places) {
            let ids: Vec<i64> = portion.iter().map(|(id, _)| *id).collect();
            if WAITS_NO_MORE.execute(&self.db, portion.len(), &each(&ids))? < portion.len() {
                portion.iter().try_for_each(|(id, place)| self.move_place(*id, place))?;
                continue;
            }
            let seqs: Vec<i64> = portion.iter().map(|(_, place)| place.stream_seq as i64).collect();
            let values: Vec<&dyn ToSql> = portion
                .iter()
                .zip(&seqs)
                .flat_map(|((id, place), seq)| {
                    [id as &dyn ToSql, &place.stream, seq, &place.acknowledged_ms, &place.broker]
                })
                .collect();
            PLACE.execute(&self.db, portion.len(), &values)?;
        }
        Ok(())
    }

    /// A message that was published once more has its place where it is now. One that was removed meanwhile has none.
    fn move_place(&self, row_id: i64, place: &Place) -> rusqlite::Result<()> {
        let mut put = self.db.prepare_cached(
            "insert into outbox_place (id, stream, stream_seq, published_at, broker)
             select ?1, ?2, ?3, ?4, ?5 where exists (select 1 from outbox_message where id = ?1)
             on conflict (id) do update set stream = excluded.stream, stream_seq = excluded.stream_seq,
                 published_at = excluded.published_at, broker = excluded.broker",
        )?;
        let seq = place.stream_seq as i64;
        put.execute(params![row_id, place.stream, seq, place.acknowledged_ms, place.broker]).map(drop)
    }

    /// The broker has lost it.
    fn wait_again(&self, row_id: i64) -> rusqlite::Result<()> {
        if self.db.prepare_cached("delete from outbox_place where id = ?")?.execute([row_id])? > 0 {
            self.db.prepare_cached("insert into outbox_waiting (id) values (?)")?.execute([row_id])?;
        }
        Ok(())
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
        Ok(self.db.prepare_cached("select 1 from outbox_message where message_id = ?")?.exists([message_id])?)
    }

    async fn mark(&mut self, marks: &BTreeSet<&Mark>, now_ms: i64) -> Result<HashSet<Mark>, SessionError> {
        let marks: Vec<&Mark> = marks.iter().copied().collect();
        let newest: i64 = match several::are_several(marks.len()) {
            true => self.db.prepare_cached(NEWEST_MARK)?.query_row([], |row| row.get(0))?,
            false => 0,
        };
        let mut before = HashSet::new();
        for portion in several::portions(&marks) {
            let values: Vec<&dyn ToSql> =
                portion.iter().flat_map(|mark| [&mark.consumer as &dyn ToSql, &mark.event_id, &now_ms]).collect();
            if MARK.execute(&self.db, portion.len(), &values)? == portion.len() {
                continue;
            }
            let mut find = self.db.prepare_cached("select id from inbox where consumer = ? and event_id = ?")?;
            for mark in portion {
                // Numbers are never given out again, so a mark that was just set has one behind the newest of before.
                let is_old = portion.len() == 1
                    || find.query_row([&mark.consumer, &mark.event_id], |row| row.get::<_, i64>(0))? <= newest;
                if is_old {
                    before.insert((*mark).clone());
                }
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
        let mut ids = Vec::with_capacity(rows.len());
        for portion in several::portions(rows) {
            let written = portion.iter().map(|row| Ok((row, header_text::write(&row.headers)?, row.body.as_ref())));
            let written = written.collect::<Result<Vec<_>, SessionError>>()?;
            let values: Vec<&dyn ToSql> = written
                .iter()
                .flat_map(|(row, headers, body)| {
                    [&row.message_id as &dyn ToSql, &row.subject, &row.lane, headers, body, &now_ms]
                })
                .collect();
            MESSAGE.execute(&self.db, portion.len(), &values)?;
            // One statement numbers its rows in their order and without a gap.
            let last = self.db.last_insert_rowid();
            ids.extend(last + 1 - portion.len() as i64..=last);
        }
        for portion in several::portions(&ids) {
            WAITS.execute(&self.db, portion.len(), &each(portion))?;
        }
        Ok(ids)
    }

    async fn confirm(&mut self, confirmations: &[Confirmation]) -> Result<(), SessionError> {
        let places: Option<Vec<(i64, &Place)>> =
            confirmations.iter().map(|one| Some((one.row_id, one.place.as_ref()?))).collect();
        let Some(places) = places else {
            // In their order, should one row be among them twice.
            for one in confirmations {
                match &one.place {
                    Some(place) => self.confirm_all(&[(one.row_id, place)])?,
                    None => self.wait_again(one.row_id)?,
                }
            }
            return Ok(());
        };
        Ok(self.confirm_all(&places)?)
    }

    async fn prune(&mut self, what: Prune) -> Result<Pruned, SessionError> {
        // Ids ascend with time, so the oldest rows are found without an index of their own.
        let (last_id, last_created_ms, rows) = self
            .db
            .prepare_cached(
                "select max(id), max(created_at), count(*)
                 from (select id, created_at from outbox_message where id > ? order by id limit ?)",
            )?
            .query_row(params![what.after_id, what.limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let page = params![what.after_id, last_id, what.published_before_ms];
        self.db
            .prepare_cached(
                "delete from outbox_message where id > ?1 and id <= ?2
                 and id in (select id from outbox_place where id > ?1 and id <= ?2 and published_at < ?3)",
            )?
            .execute(page)?;
        self.db
            .prepare_cached("delete from outbox_place where id > ? and id <= ? and published_at < ?")?
            .execute(page)?;
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

fn each(ids: &[i64]) -> Vec<&dyn ToSql> {
    ids.iter().map(|id| id as &dyn ToSql).collect()
}

pub(super) fn unpublished(
    db: &Connection,
    after_id: i64,
    created_before_ms: i64,
    limit: u32,
) -> Result<Vec<Row>, StoreError> {
    let mut select = db.prepare_cached(
        "select m.id, message_id, subject, lane, headers, body
         from outbox_waiting w cross join outbox_message m on m.id = w.id
         where w.id > ? and created_at <= ? order by w.id limit ?",
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

pub(super) fn runs(db: &Connection) -> Result<Vec<Run>, StoreError> {
    let mut select = db.prepare_cached(
        "select stream, coalesce(broker, ''), min(published_at) from outbox_place
         where stream <> '' group by stream, coalesce(broker, '')",
    )?;
    let runs =
        select.query_map([], |row| Ok(Run { stream: row.get(0)?, broker: row.get(1)?, first_ms: row.get(2)? }))?;
    Ok(runs.collect::<Result<_, _>>()?)
}

pub(super) fn acknowledged(
    db: &Connection,
    stream: &str,
    run: &str,
    (below_seq, below_id): (i64, i64),
    limit: i64,
) -> Result<Vec<Acknowledged>, StoreError> {
    let mut select = db.prepare_cached(
        "select p.id, message_id, stream_seq
         from (select id, stream_seq from outbox_place
               where stream = ? and coalesce(broker, '') = ? and (stream_seq, id) < (?, ?)
               order by stream_seq desc, id desc limit ?) p
             join outbox_message m on m.id = p.id
         order by stream_seq desc, p.id desc",
    )?;
    let rows = select.query_map(params![stream, run, below_seq, below_id, limit], |row| {
        Ok(Acknowledged { row_id: row.get(0)?, message_id: row.get(1)?, stream_seq: row.get::<_, i64>(2)? as u64 })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn backlog(db: &Connection) -> Result<Backlog, StoreError> {
    let mut select = db.prepare_cached(
        "select count(*), min(created_at) from outbox_waiting w cross join outbox_message m on m.id = w.id",
    )?;
    Ok(select
        .query_row([], |row| Ok(Backlog { rows: row.get::<_, i64>(0)? as u64, oldest_created_ms: row.get(1)? }))?)
}
