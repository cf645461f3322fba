use std::time::Duration;

use millrace::store::DatabaseUrl;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// A service's database, looked at and changed behind its back.
pub(crate) struct Sql(DatabaseUrl);

/// Writers of a SQLite file take turns.
const TURN: Duration = Duration::from_secs(30);

impl Sql {
    pub(crate) fn new(url: DatabaseUrl) -> Self {
        Self(url)
    }

    /// Runs statements that read the same on both databases.
    pub(crate) async fn run(&self, statements: &str) {
        match &self.0 {
            DatabaseUrl::Sqlite(_) => self.sqlite().execute_batch(statements).unwrap(),
            DatabaseUrl::Postgres(_) => self.postgres().await.batch_execute(statements).await.unwrap(),
        }
    }

    /// The first column of every row, which is text.
    pub(crate) async fn column(&self, query: &str) -> Vec<String> {
        match &self.0 {
            DatabaseUrl::Sqlite(_) => {
                let db = self.sqlite();
                let mut select = db.prepare(query).unwrap();
                let rows = select.query_map([], |row| row.get(0)).unwrap();
                rows.map(Result::unwrap).collect()
            }
            DatabaseUrl::Postgres(_) => {
                let messages = self.postgres().await.simple_query(query).await.unwrap();
                let row = |message| match message {
                    SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                };
                messages.into_iter().filter_map(row).collect()
            }
        }
    }

    /// Keeps everybody else from writing to this table until the guard is dropped. They can read.
    pub(crate) async fn hold(&self, table: &str) -> Held {
        match &self.0 {
            DatabaseUrl::Sqlite(_) => {
                let db = self.sqlite();
                db.execute_batch("begin immediate").unwrap();
                Held { _sqlite: Some(db), _postgres: None }
            }
            DatabaseUrl::Postgres(_) => {
                let client = self.postgres().await;
                client.batch_execute(&format!("begin; lock table {table} in exclusive mode")).await.unwrap();
                Held { _sqlite: None, _postgres: Some(client) }
            }
        }
    }

    fn sqlite(&self) -> rusqlite::Connection {
        let DatabaseUrl::Sqlite(path) = &self.0 else { panic!("not SQLite") };
        let db = rusqlite::Connection::open(path).unwrap();
        db.busy_timeout(TURN).unwrap();
        db
    }

    async fn postgres(&self) -> tokio_postgres::Client {
        let DatabaseUrl::Postgres(url) = &self.0 else { panic!("not PostgreSQL") };
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

/// A transaction that is open.
pub(crate) struct Held {
    _sqlite: Option<rusqlite::Connection>,
    _postgres: Option<tokio_postgres::Client>,
}
