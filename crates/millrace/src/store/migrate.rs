use refinery::Runner;

use super::StoreError;
use crate::crash;

/// One step of a schema, in both dialects. Steps are applied once, in order, and never edited afterwards.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// `V1__orders`
    pub name: &'static str,
    pub sqlite: &'static str,
    pub postgres: &'static str,
}

/// The toolkit's own tables, in every service's database.
const TOOLKIT: &[Migration] = &[
    Migration {
        name: "V1__outbox_and_inbox",
        sqlite: include_str!("migrations/V1__outbox_and_inbox.sqlite.sql"),
        postgres: include_str!("migrations/V1__outbox_and_inbox.postgres.sql"),
    },
    Migration {
        name: "V2__outbox_broker",
        sqlite: include_str!("migrations/V2__outbox_broker.sqlite.sql"),
        postgres: include_str!("migrations/V2__outbox_broker.postgres.sql"),
    },
    Migration {
        name: "V3__outbox_places",
        sqlite: include_str!("migrations/V3__outbox_places.sqlite.sql"),
        // Instances of two releases share a database during a rolling upgrade. To an older one every message whose place
        // stands somewhere else would look unpublished, and it would publish all of them again at each sweep.
        postgres: NOTHING,
    },
];

/// A step that one of the databases does not have. It leaves no trace there: an older release refuses to start on steps
/// that it does not know.
const NOTHING: &str = "";

/// Held while migrating, so that instances that start together take turns.
const ADVISORY_LOCK: i64 = 0x4d69_6c6c_7261_6365;

fn runner(
    history_table: &str,
    steps: &[Migration],
    dialect: fn(&Migration) -> &'static str,
) -> Result<Runner, StoreError> {
    let steps: Vec<_> = steps
        .iter()
        .filter(|step| dialect(step) != NOTHING)
        .map(|step| refinery::Migration::unapplied(step.name, dialect(step)).map_err(failed))
        .collect::<Result<_, _>>()?;
    // All missing steps and their history in one transaction. Otherwise, on SQLite, a step and the line that says it was
    // applied are two, and a process that dies between them can never start again: its tables are there already.
    // What a newer release has added is no reason not to start: during a change of releases both run on one database.
    let mut runner = Runner::new(&steps).set_grouped(true).set_abort_missing(false);
    runner.set_migration_table_name(history_table);
    Ok(runner)
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(format!("migration: {error}"))
}

pub(super) fn sqlite(db: &mut rusqlite::Connection, service: &[Migration]) -> Result<(), StoreError> {
    runner("millrace_toolkit_history", TOOLKIT, |m| m.sqlite)?.run(db).map_err(failed)?;
    crash::BETWEEN_MIGRATIONS.reach();
    runner("millrace_service_history", service, |m| m.sqlite)?.run(db).map_err(failed)?;
    crash::AFTER_MIGRATION.reach();
    Ok(())
}

pub(super) async fn postgres(db: &mut tokio_postgres::Client, service: &[Migration]) -> Result<(), StoreError> {
    db.execute("select pg_advisory_lock($1)", &[&ADVISORY_LOCK]).await?;
    let toolkit = runner("millrace_toolkit_history", TOOLKIT, |m| m.postgres)?.run_async(db).await;
    let result = match toolkit {
        Ok(_) => {
            crash::BETWEEN_MIGRATIONS.reach();
            runner("millrace_service_history", service, |m| m.postgres)?.run_async(db).await
        }
        failed => failed,
    };
    if let Err(reason) = &result
        && db.is_closed()
    {
        // The server went away in the middle of it; all steps are one transaction, so it can be tried again.
        return Err(StoreError::Unavailable(format!("migration: {reason}")));
    }
    // Still holding the lock, which ends with the connection.
    crash::AFTER_MIGRATION.reach();
    db.execute("select pg_advisory_unlock($1)", &[&ADVISORY_LOCK]).await?;
    result.map(|_| ()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite as tables;

    #[test]
    fn outbox_rows_of_an_earlier_release_are_published_or_not_as_they_were_and_numbers_go_on_behind_them() {
        let mut db = rusqlite::Connection::open_in_memory().unwrap();
        runner("millrace_toolkit_history", &TOOLKIT[..2], |m| m.sqlite).unwrap().run(&mut db).unwrap();
        db.execute_batch(
            "insert into outbox (message_id, subject, lane, headers, body, created_at, stream, stream_seq, published_at, broker)
             values ('a', 's', 'l', 'x:1', x'41', 1, 'T', 7, 10, 'run'), ('b', 's', 'l', '[]', x'42', 2, null, null, null, null),
                    ('c', 's', 'l', '[]', x'43', 3, 'T', 8, 11, null), ('gone', 's', 'l', '[]', x'44', 4, 'T', 9, 12, 'run');
             delete from outbox where message_id = 'gone'",
        )
        .unwrap();
        sqlite(&mut db, &[]).unwrap();

        let waiting = tables::unpublished(&db, 0, i64::MAX, 10).unwrap();
        assert_eq!(waiting.iter().map(|row| (row.id, row.message.message_id.as_str())).collect::<Vec<_>>(), [(2, "b")]);
        assert_eq!(tables::backlog(&db).unwrap().rows, 1);
        assert_eq!(
            tables::runs(&db).unwrap().iter().map(|run| (run.broker.as_str(), run.first_ms)).collect::<Vec<_>>(),
            [("", 11), ("run", 10)]
        );
        for (run, found) in [("run", ("a", 7)), ("", ("c", 8))] {
            let acknowledged = tables::acknowledged(&db, "T", run, (i64::MAX, i64::MAX), 10).unwrap();
            let places: Vec<_> = acknowledged.iter().map(|row| (row.message_id.as_str(), row.stream_seq)).collect();
            assert_eq!(places, [found], "{run}");
        }
        let all = "select group_concat(id || message_id || cast(body as text) || coalesce(stream_seq, '-')) from outbox order by id";
        assert_eq!(db.query_row(all, [], |row| row.get::<_, String>(0)).unwrap(), "1aA7,2bB-,3cC8");
        let next = "insert into outbox_message (message_id, subject, lane, headers, body, created_at)
                    values ('e', '', '', '', '', 5) returning id";
        assert_eq!(db.query_row(next, [], |row| row.get::<_, i64>(0)).unwrap(), 5);
    }
}
