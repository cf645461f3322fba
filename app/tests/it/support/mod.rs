//! A whole installation as an operator runs it: one process per service, a broker, a database, simulators, and a customer
//! who keeps the receipts.

mod books;
pub(crate) mod cli;
mod events;
mod installation;
mod shop;
mod sql;
mod wire;

pub(crate) use books::Books;
pub(crate) use installation::{Installation, SERVICES, free_port, sample};
pub(crate) use shop::{Accepted, Shop, good_order, order};
pub(crate) use sql::Sql;
pub(crate) use wire::Wire;

use std::time::Duration;

/// Far longer than anything takes on a machine that does other things as well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where services keep their data in a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    /// Where an [`Installation`] finds an empty database; `None` is a folder of its own.
    pub(crate) async fn fresh(self) -> Option<String> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(testkit::fresh_database().await),
        }
    }
}
