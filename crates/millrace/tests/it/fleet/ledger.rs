//! What a service of the fleet keeps: how often it acted on each task. Nothing in it hides a second time.

use std::marker::PhantomData;

use deadpool_postgres::Client;
use millrace::store::{Migration, Model, Outbound, PostgresModel, SqliteModel, Table};
use time::OffsetDateTime;

use super::Task;

#[derive(Debug, Clone)]
pub(crate) enum Intent {
    /// Acts on a task and publishes it.
    Add { task: String, minutes: i64 },
    /// Acts on a task.
    Act { task: String, minutes: i64 },
}

impl Intent {
    fn task(&self) -> &str {
        match self {
            Self::Add { task, .. } | Self::Act { task, .. } => task,
        }
    }
}

pub(crate) struct Ledger<E>(PhantomData<fn() -> E>);

impl<E> Default for Ledger<E> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Deed {
    times: i64,
    minutes: i64,
    release: i64,
}

pub(crate) const MIGRATIONS: &[Migration] = &[Migration {
    name: "V1__deeds",
    sqlite: "create table deeds (task text primary key, times integer not null, minutes integer not null, release integer not null);",
    postgres: "create table deeds (task text primary key, times bigint not null, minutes bigint not null, release bigint not null);",
}];

impl<E: Task> Model for Ledger<E> {
    type Intent = Intent;
    type Outcome = ();
    type Rows = Table<String, Deed>;

    fn decide(&self, rows: &mut Self::Rows, intent: &Intent, _: OffsetDateTime, out: &mut Outbound) {
        let (Intent::Add { task, minutes } | Intent::Act { task, minutes }) = intent;
        let before = rows.get(task).cloned().unwrap_or_default();
        rows.put(task.clone(), Deed { times: before.times + 1, minutes: *minutes, release: E::RELEASE });
        if let Intent::Add { .. } = intent {
            out.publish(&E::new(task, *minutes));
        }
    }
}

fn tasks(intents: &[&Intent]) -> Vec<String> {
    let mut tasks: Vec<String> = intents.iter().map(|intent| intent.task().to_owned()).collect();
    tasks.sort_unstable();
    tasks.dedup();
    tasks
}

impl<E: Task> SqliteModel for Ledger<E> {
    fn load(&self, db: &rusqlite::Connection, intents: &[&Intent]) -> rusqlite::Result<Self::Rows> {
        let mut rows = Table::default();
        let mut find = db.prepare_cached("select times, minutes, release from deeds where task = ?")?;
        for task in tasks(intents) {
            let found = find.query_map([&task], |row| {
                Ok(Deed { times: row.get(0)?, minutes: row.get(1)?, release: row.get(2)? })
            })?;
            for deed in found {
                rows.loaded(task.clone(), deed?);
            }
        }
        Ok(rows)
    }

    fn save(&self, db: &rusqlite::Connection, rows: &Self::Rows) -> rusqlite::Result<()> {
        for (task, deed) in rows.inserted().chain(rows.updated()) {
            let sql = "insert or replace into deeds values (?, ?, ?, ?)";
            db.execute(sql, rusqlite::params![task, deed.times, deed.minutes, deed.release])?;
        }
        Ok(())
    }
}

impl<E: Task> PostgresModel for Ledger<E> {
    async fn load(&self, db: &Client, intents: &[&Intent]) -> Result<Self::Rows, tokio_postgres::Error> {
        let mut rows = Table::default();
        let sql = "select task, times, minutes, release from deeds where task = any($1) order by task for update";
        for row in db.query(&db.prepare_cached(sql).await?, &[&tasks(intents)]).await? {
            let deed = Deed { times: row.try_get(1)?, minutes: row.try_get(2)?, release: row.try_get(3)? };
            rows.loaded(row.try_get(0)?, deed);
        }
        Ok(rows)
    }

    async fn save(&self, db: &Client, rows: &Self::Rows) -> Result<(), tokio_postgres::Error> {
        let mut new: Vec<_> = rows.inserted().collect();
        new.sort_unstable_by_key(|(task, _)| *task);
        for (task, deed) in new {
            let sql = "insert into deeds values ($1, $2, $3, $4)";
            db.execute(&db.prepare_cached(sql).await?, &[task, &deed.times, &deed.minutes, &deed.release]).await?;
        }
        for (task, deed) in rows.updated() {
            let sql = "update deeds set times = $2, minutes = $3, release = $4 where task = $1";
            db.execute(&db.prepare_cached(sql).await?, &[task, &deed.times, &deed.minutes, &deed.release]).await?;
        }
        Ok(())
    }
}
