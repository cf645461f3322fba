//! Gathers what a run left behind, and says when there is nothing more to wait for.

pub mod broker;
pub mod database;

use std::collections::BTreeMap;
use std::time::Duration;

use millrace::connection::Connection;
use millrace::sabotage::AGAIN;
use order::api::view::OrderList;
use serde::de::DeserializeOwned;
use simulators::gateway::ledger::Ledger;
use simulators::mail::Counts;

use self::database::{Row, Source, int, maybe, text};
use super::evidence::{Charge, Entry, Evidence, Listed, OrderRow, OutboxRow, Stock};
use super::fleet::Fleet;
use crate::stack::SERVICES;

/// Everything is on this machine, but ledgers are long.
const PATIENCE: Duration = Duration::from_secs(30);
const PAGE: u32 = 100;

/// Whether a consumer has messages left, among what [`Gatherer::unsettled`] says.
pub fn waits_for_messages(unsettled: &[String]) -> bool {
    unsettled.iter().any(|open| open.contains(MESSAGES_OF))
}

const MESSAGES_OF: &str = " messages of ";

/// Looks at everything, from outside.
pub struct Gatherer {
    connection: Connection,
    http: reqwest::Client,
    databases: BTreeMap<&'static str, Source>,
    api: String,
    gateway: String,
    mail: String,
}

impl Gatherer {
    pub fn new(fleet: &Fleet, connection: Connection) -> Result<Self, String> {
        let http = millrace::http_client::http_client(PATIENCE, PATIENCE).map_err(|e| e.to_string())?;
        let mut databases = BTreeMap::new();
        for service in SERVICES {
            databases.insert(service, Source::of(&fleet.database_url, service)?);
        }
        let places = &fleet.places;
        let (api, gateway, mail) = (places.api.to_string(), places.gateway.to_string(), places.mail.to_string());
        Ok(Self { connection, http, databases, api, gateway, mail })
    }

    /// Orders that have ended, and those that have not.
    pub async fn progress(&self) -> Result<(i64, i64), String> {
        let rows = self.rows("order", "select status, count(*) from orders group by status").await?;
        let (ended, open): (Vec<_>, Vec<_>) =
            rows.iter().partition(|row| matches!(text(row, 0).as_str(), "confirmed" | "cancelled"));
        let sum = |rows: Vec<&Row>| rows.into_iter().filter_map(|row| int(row, 1)).sum();
        Ok((sum(ended), sum(open)))
    }

    /// What is still going on; nothing when everything has settled.
    pub async fn unsettled(&self) -> Result<Vec<String>, String> {
        const OPEN: [(&str, &str, &str); 8] = [
            (
                "order",
                "orders without an end",
                "select count(*) from orders where status not in ('confirmed', 'cancelled')",
            ),
            ("payment", "payments with a step due", "select count(*) from payments where due_at is not null"),
            (
                "inventory",
                "reservations that are held",
                "select count(*) from reservations where status in ('held', 'expected')",
            ),
            ("notification", "notices to be sent", "select count(*) from deliveries where status = 'due'"),
            ("order", "rows in the outbox of order", UNPUBLISHED),
            ("payment", "rows in the outbox of payment", UNPUBLISHED),
            ("inventory", "rows in the outbox of inventory", UNPUBLISHED),
            ("notification", "rows in the outbox of notification", UNPUBLISHED),
        ];
        const UNPUBLISHED: &str = "select count(*) from outbox where published_at is null";
        let mut open = Vec::new();
        for (service, what, sql) in OPEN {
            let count = self.database(service)?.count(sql).await?;
            open.extend((count > 0).then(|| format!("{count} {what}")));
        }
        for consumer in broker::consumers(&self.connection).await? {
            open.extend((consumer.open > 0).then(|| format!("{}{MESSAGES_OF}{}", consumer.open, consumer.durable)));
        }
        let stored = broker::last_sequences(&self.connection).await?;
        for service in SERVICES {
            let published = "select stream, max(stream_seq) from outbox where stream is not null group by stream";
            for row in self.rows(service, published).await? {
                let (stream, seq) = (text(&row, 0), int(&row, 1).unwrap_or(0));
                let last = stored.get(stream.as_str()).copied().unwrap_or(0);
                open.extend(
                    (seq > last).then(|| format!("{stream} ends at {last}, and {service} has published up to {seq}")),
                );
            }
        }
        Ok(open)
    }

    /// Adds to the evidence what databases, streams and ledgers hold now.
    pub async fn gather(&self, evidence: &mut Evidence) -> Result<(), String> {
        self.orders(evidence).await?;
        self.others(evidence).await?;
        for service in SERVICES {
            let rows = self.rows(service, "select message_id, subject, published_at from outbox order by id").await?;
            let row = |row: &Row| OutboxRow {
                message_id: text(row, 0),
                subject: text(row, 1),
                published: maybe(row, 2).is_some(),
            };
            evidence.outboxes.insert(service.to_owned(), rows.iter().map(row).collect());
            let marks = self.rows(service, "select consumer, event_id from inbox").await?;
            // What was handled again without the inbox: see `millrace::sabotage`.
            let event = |row: &Row| text(row, 1).split(AGAIN).next().unwrap_or_default().to_owned();
            let marks = marks.iter().map(|row| (text(row, 0), event(row))).collect();
            evidence.inboxes.insert(service.to_owned(), marks);
        }
        evidence.messages = broker::messages(&self.connection).await?;
        evidence.dead_letters = broker::dead_letters(&self.connection).await?;
        evidence.consumers = broker::consumers(&self.connection).await?;
        self.ledgers(evidence).await
    }

    async fn orders(&self, evidence: &mut Evidence) -> Result<(), String> {
        let rows = self
            .rows(
                "order",
                "select order_id, customer_id, status, cancel_reason, total_minor, accepted_at, ended_at from orders",
            )
            .await?;
        let order = |row: &Row| OrderRow {
            customer: text(row, 1),
            status: text(row, 2),
            reason: maybe(row, 3),
            total: int(row, 4).unwrap_or(0),
            accepted_at: int(row, 5).unwrap_or(0),
            ended_at: int(row, 6),
        };
        evidence.orders = rows.iter().map(|row| (text(row, 0), order(row))).collect();
        let entries = self.rows("order", "select order_id, event_id, event_type, at from order_timeline").await?;
        for row in &entries {
            let entry = Entry { event_id: text(row, 1), event_type: text(row, 2), at: int(row, 3) };
            evidence.timelines.entry(text(row, 0)).or_default().push(entry);
        }
        let mut cursor = String::new();
        loop {
            let url = format!("http://{}/orders?limit={PAGE}{cursor}", self.api);
            let page: OrderList = self.get(&url).await?;
            for order in page.orders {
                let listed = Listed {
                    status: order.status,
                    reason: order.reason.map(|reason| reason.as_str().to_owned()),
                    payment: order.payment,
                    stock: order.stock,
                };
                evidence.listed.insert(order.order_id.to_string(), listed);
            }
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(()),
            }
        }
    }

    async fn others(&self, evidence: &mut Evidence) -> Result<(), String> {
        let pairs = |rows: Vec<Row>| rows.iter().map(|row| (text(row, 0), text(row, 1))).collect();
        evidence.payments = pairs(self.rows("payment", "select order_id, state from payments").await?);
        evidence.reservations = pairs(self.rows("inventory", "select order_id, status from reservations").await?);
        let stock = self.rows("inventory", "select product_id, available, reserved, committed from stock").await?;
        let units = |row: &Row, at| int(row, at).unwrap_or(0);
        evidence.stock = stock
            .iter()
            .map(|row| {
                let stock = Stock { available: units(row, 1), reserved: units(row, 2), committed: units(row, 3) };
                (text(row, 0), stock)
            })
            .collect();
        let booked = "select product_id, sum(delta) from stock_adjustments group by product_id";
        let booked = self.rows("inventory", booked).await?;
        evidence.booked_adjustments = booked.iter().map(|row| (text(row, 0), units(row, 1))).collect();
        Ok(())
    }

    async fn ledgers(&self, evidence: &mut Evidence) -> Result<(), String> {
        let ledger: Ledger = self.get(&format!("http://{}/_control/ledger?requests=0", self.gateway)).await?;
        if ledger.intents_dropped > 0 {
            evidence.forgotten.push(format!("the gateway has forgotten {} payments", ledger.intents_dropped));
        }
        evidence.charges = ledger.intents.into_iter().map(Charge::from).collect();
        let mails: Counts = self.get(&format!("http://{}/counts", self.mail)).await?;
        if mails.dropped > 0 {
            evidence.forgotten.push(format!("the mail server has forgotten {} mails", mails.dropped));
        }
        evidence.mails = mails.counts;
        Ok(())
    }

    fn database(&self, service: &str) -> Result<&Source, String> {
        self.databases.get(service).ok_or_else(|| format!("{service} has no database"))
    }

    async fn rows(&self, service: &str, sql: &'static str) -> Result<Vec<Row>, String> {
        self.database(service)?.rows(sql).await.map_err(|reason| format!("database of {service}: {reason}"))
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let answer = self.http.get(url).send().await.and_then(reqwest::Response::error_for_status);
        answer.map_err(|e| format!("{url}: {e}"))?.json().await.map_err(|e| format!("{url}: {e}"))
    }
}

impl From<simulators::gateway::ledger::Summary> for Charge {
    fn from(intent: simulators::gateway::ledger::Summary) -> Self {
        Self {
            id: intent.id,
            order: intent.order_id,
            status: serde_json::to_value(intent.status)
                .ok()
                .and_then(|status| status.as_str().map(str::to_owned))
                .unwrap_or_default(),
            captures: intent.captures,
            captured: intent.captured,
            refunded: intent.refunded,
        }
    }
}
