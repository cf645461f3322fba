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
pub(super) const TOOLKIT: &[Migration] = &[
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
];

/// Held while migrating, so that instances that start together take turns.
const ADVISORY_LOCK: i64 = 0x4d69_6c6c_7261_6365;

fn runner(
    history_table: &str,
    steps: &[Migration],
    dialect: fn(&Migration) -> &'static str,
) -> Result<Runner, StoreError> {
    let steps: Vec<_> = steps
        .iter()
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
