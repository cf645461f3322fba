use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use millrace::history::{History, Section};
use order::api::view::{OrderList, OrderView, Timeline};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use simulators::gateway::ledger::Ledger;
use simulators::mail::Counts;

use super::reach::Reach;
use crate::commands::verify::evidence::{
    Book, Charge, Entry, Evidence, Id, Listed, OrderRow, OutboxRow, SharedStock, Stock,
};
use crate::commands::verify::gather::broker;
use crate::commands::verify::gather::database::{Row, Source, int, maybe, text};
use crate::stack::SERVICES;

const PATIENCE: Duration = Duration::from_secs(30);
/// Values in one query.
const CHUNK: usize = 200;

/// Looks at the orders of this run, wherever it can.
pub struct Gatherer {
    reach: Reach,
    http: reqwest::Client,
    apis: Vec<String>,
    /// Where each stream ended when the run began.
    began_at: BTreeMap<&'static str, i64>,
    began: Instant,
}

/// Evidence, and why parts of it are not there.
pub struct Gathered {
    pub evidence: Evidence,
    /// By part: `nats`, a service's name for its database, `ledger`, `mailbox`.
    pub missing: BTreeMap<&'static str, String>,
    /// How long the run has taken so far.
    pub age: Duration,
}

impl Gatherer {
    pub async fn new(mut reach: Reach, apis: &[String]) -> Result<Self, String> {
        let http = millrace::http_client::http_client(PATIENCE, PATIENCE).map_err(|e| e.to_string())?;
        let began_at = match &reach.nats {
            Ok(connection) => broker::last_sequences(connection).await,
            Err(reason) => Err(reason.clone()),
        };
        let began_at = began_at.unwrap_or_else(|reason| {
            reach.nats = Err(reason);
            BTreeMap::new()
        });
        Ok(Self { reach, http, apis: apis.to_vec(), began_at, began: Instant::now() })
    }

    /// Whether the gateway is our simulator.
    pub fn is_simulated(&self) -> bool {
        self.reach.ledger.is_ok()
    }

    /// Adds to what was placed what became of it.
    pub async fn gather(&self, placed: Evidence) -> Result<Gathered, String> {
        let mut gathered = Gathered { evidence: placed, missing: BTreeMap::new(), age: Duration::ZERO };
        self.from_api(&mut gathered.evidence).await?;
        let told = gathered.evidence.wishes.iter().flat_map(|wish| &wish.accepted);
        let own: BTreeSet<Id> = gathered.evidence.orders.keys().chain(told).cloned().collect();
        for service in SERVICES {
            let seen = match self.reach.databases.get(service) {
                Some(Ok(source)) => from_database(source, service, &own, &mut gathered.evidence).await,
                Some(Err(why)) => Err(why.clone()),
                None => Err("it has no database".to_owned()),
            };
            gathered.missed(service, seen);
        }
        let streams = self.from_streams(&own, &mut gathered.evidence).await;
        gathered.evidence.without_streams = streams.is_err();
        gathered.missed("nats", streams);
        let ledger = self.from_ledger(&own, &mut gathered.evidence).await;
        gathered.missed("ledger", ledger);
        let mailbox = self.from_mailbox(&own, &mut gathered.evidence).await;
        gathered.missed("mailbox", mailbox);
        self.marks(&mut gathered).await;
        gathered.age = self.began.elapsed();
        Ok(gathered)
    }

    /// What the API shows: the orders of this run's customers and their timelines.
    async fn from_api(&self, evidence: &mut Evidence) -> Result<(), String> {
        let mut views: Vec<OrderView> = Vec::new();
        for (n, wish) in evidence.wishes.iter_mut().enumerate() {
            let api = &self.apis[n % self.apis.len()];
            let list: OrderList = self.get(&format!("{api}/orders?customer_id={}&limit=100", wish.customer)).await?;
            if let Some(order) = list.orders.first() {
                wish.deadline_ms = order.deadline_at.unix_ms() - order.created_at.unix_ms();
            }
            views.extend(list.orders);
        }
        for (n, view) in views.into_iter().enumerate() {
            let (id, reason) = (view.order_id.to_string(), view.reason.map(|reason| reason.as_str().to_owned()));
            let api = &self.apis[n % self.apis.len()];
            let timeline: Timeline = self.get(&format!("{api}/orders/{id}/timeline")).await?;
            let entry =
                |entry: order::api::view::TimelineEntry| Entry { event_id: entry.event_id, event_type: entry.event };
            evidence.timelines.insert(id.clone(), timeline.timeline.into_iter().map(entry).collect());
            evidence.orders.insert(
                id.clone(),
                OrderRow {
                    customer: view.customer_id.to_string(),
                    status: view.status.clone(),
                    reason: reason.clone(),
                    total: view.total.minor,
                    accepted_at: view.created_at.unix_ms(),
                    ended_at: view.ended_at.map(contracts::Timestamp::unix_ms),
                },
            );
            let listed = Listed { status: view.status, reason, payment: view.payment, stock: view.stock };
            evidence.listed.insert(id, listed);
        }
        Ok(())
    }

    /// What the streams say about these orders since the run began.
    async fn from_streams(&self, own: &BTreeSet<Id>, evidence: &mut Evidence) -> Result<(), String> {
        let connection = self.reach.nats.as_ref().map_err(Clone::clone)?;
        let section = |(stream, last): (&&'static str, &i64)| Section {
            stream: (*stream).to_owned(),
            subjects: vec![format!("{}.>", stream.to_ascii_lowercase())],
            after: u64::try_from(*last).unwrap_or(0),
        };
        let sections: Vec<Section> = self.began_at.iter().map(section).collect();
        let mut history = History::open(connection, &sections).await.map_err(|e| e.to_string())?;
        while let Some(recorded) = history.next().await.map_err(|e| e.to_string())? {
            let message = broker::event(&recorded.stream, recorded.sequence, &recorded.message);
            if message.order.as_ref().is_some_and(|order| own.contains(order)) {
                evidence.messages.push(message);
            }
        }
        if evidence.messages.is_empty() && !own.is_empty() {
            return Err("it knows none of these orders, so it is not the NATS of the target (nats.url)".into());
        }
        let letters = broker::dead_letters(connection).await?;
        evidence.dead_letters =
            letters.into_iter().filter(|letter| own.iter().any(|id| letter.body.contains(id))).collect();
        evidence.consumers = broker::consumers(connection).await?;
        // What is left may be somebody else's; that every event of these orders was handled is asked of the inboxes.
        evidence.consumers.iter_mut().for_each(|consumer| consumer.open = 0);
        Ok(())
    }

    async fn from_ledger(&self, own: &BTreeSet<Id>, evidence: &mut Evidence) -> Result<(), String> {
        let ledger_url = self.reach.ledger.as_ref().map_err(Clone::clone)?;
        for id in own {
            let url = format!("{ledger_url}/_control/ledger?requests=0&order_id={id}");
            let ledger: Ledger = self.get(&url).await?;
            if ledger.intents_dropped > 0 {
                return Err(format!("the gateway has forgotten {} payments", ledger.intents_dropped));
            }
            evidence.charges.extend(ledger.intents.into_iter().map(Charge::from));
        }
        if evidence.charges.is_empty() && !own.is_empty() {
            return Err("it knows none of these orders, so it is not the ledger of the target (--ledger)".into());
        }
        Ok(())
    }

    async fn from_mailbox(&self, own: &BTreeSet<Id>, evidence: &mut Evidence) -> Result<(), String> {
        let mailbox = self.reach.mailbox.as_ref().map_err(Clone::clone)?;
        let mails: Counts = self.get(&format!("{mailbox}/counts")).await?;
        if mails.dropped > 0 {
            return Err(format!("the mail server has forgotten {} mails", mails.dropped));
        }
        let is_own = |message_id: &String| message_id.split('.').next().is_some_and(|id| own.contains(id));
        evidence.mails = mails.counts.into_iter().filter(|(message_id, _)| is_own(message_id)).collect();
        if evidence.mails.is_empty() && evidence.wishes.iter().any(|wish| wish.email) {
            return Err("it knows none of these orders, so it is not the mailbox of the target (--mailbox)".into());
        }
        Ok(())
    }

    /// Inbox marks of the events of these orders.
    async fn marks(&self, gathered: &mut Gathered) {
        let events: BTreeSet<String> =
            gathered.evidence.messages.iter().filter_map(|message| message.event_id.clone()).collect();
        for service in SERVICES {
            let Some(Ok(source)) = self.reach.databases.get(service) else { continue };
            match rows_in(source, "select consumer, event_id from inbox", "event_id", &events).await {
                Ok(rows) => {
                    let marks = rows.iter().map(|row| (text(row, 0), text(row, 1))).collect();
                    gathered.evidence.inboxes.insert(service.to_owned(), marks);
                }
                Err(why) => drop(gathered.missing.insert(service, why)),
            }
        }
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let answer = self.http.get(url).send().await.and_then(reqwest::Response::error_for_status);
        answer.map_err(|e| format!("{url}: {e}"))?.json().await.map_err(|e| format!("{url}: {e}"))
    }
}

impl Gathered {
    fn missed(&mut self, part: &'static str, outcome: Result<(), String>) {
        if let Err(why) = outcome {
            self.missing.insert(part, why);
        }
    }
}

/// What a service's database holds of these orders.
async fn from_database(
    source: &Source,
    service: &'static str,
    own: &BTreeSet<Id>,
    evidence: &mut Evidence,
) -> Result<(), String> {
    let table = match service {
        "payment" => "payments",
        "inventory" => "reservations",
        _ => "orders",
    };
    let known = rows_in(source, &format!("select order_id from {table}"), "order_id", own).await?;
    if known.is_empty() && !own.is_empty() {
        return Err("it knows none of these orders, so it is not the target's (database.url)".into());
    }
    match service {
        "order" => {
            let columns =
                "select order_id, customer_id, status, cancel_reason, total_minor, accepted_at, ended_at from orders";
            for row in rows_in(source, columns, "order_id", own).await? {
                let order = OrderRow {
                    customer: text(&row, 1),
                    status: text(&row, 2),
                    reason: maybe(&row, 3),
                    total: int(&row, 4).unwrap_or(0),
                    accepted_at: int(&row, 5).unwrap_or(0),
                    ended_at: int(&row, 6),
                };
                evidence.orders.insert(text(&row, 0), order);
            }
        }
        "payment" => {
            let rows = rows_in(source, "select order_id, state from payments", "order_id", own).await?;
            evidence.payments = rows.iter().map(|row| (text(row, 0), text(row, 1))).collect();
        }
        "inventory" => from_inventory(source, own, evidence).await?,
        _ => {}
    }
    let lanes: BTreeSet<String> = own.iter().flat_map(|id| [id.clone(), format!("{id}/v1")]).collect();
    let rows = rows_in(source, "select message_id, subject, published_at from outbox", "lane", &lanes).await?;
    let row =
        |row: &Row| OutboxRow { message_id: text(row, 0), subject: text(row, 1), published: maybe(row, 2).is_some() };
    evidence.outboxes.insert(service.to_owned(), rows.iter().map(row).collect());
    Ok(())
}

/// One line of a reservation.
#[derive(Deserialize)]
struct Line {
    product_id: String,
    quantity: i64,
}

/// One statement, so that everything is of one moment, whatever others order meanwhile.
const BOOKS: &str = "
    select 'stock', product_id, cast(available as text), cast(reserved as text), cast(committed as text) from stock
    union all
    select 'came in', product_id, cast(sum(delta) as text), '', '' from stock_adjustments group by product_id
    union all
    select 'reservation', cast(order_id as text), status, items, '' from reservations";

async fn from_inventory(source: &Source, own: &BTreeSet<Id>, evidence: &mut Evidence) -> Result<(), String> {
    let (mut shared, mut books) = (SharedStock::default(), BTreeMap::<String, Book>::new());
    for row in source.rows(BOOKS).await? {
        let (name, number) = (text(&row, 1), |at| int(&row, at).unwrap_or(0));
        match text(&row, 0).as_str() {
            "stock" => {
                let stock = Stock { available: number(2), reserved: number(3), committed: number(4) };
                books.entry(name).or_default().stock = stock;
            }
            "came in" => books.entry(name).or_default().came_in = number(2),
            _ => {
                let status = text(&row, 2);
                let lines: Vec<Line> =
                    serde_json::from_str(&text(&row, 3)).map_err(|e| format!("items of {name}: {e}"))?;
                for line in &lines {
                    let book = books.entry(line.product_id.clone()).or_default();
                    match status.as_str() {
                        "held" => book.held += line.quantity,
                        "committed" => book.taken += line.quantity,
                        _ => {}
                    }
                }
                if own.contains(&name) {
                    shared.lines.insert(name.clone(), lines.into_iter().map(|l| (l.product_id, l.quantity)).collect());
                    evidence.reservations.insert(name, status);
                }
            }
        }
    }
    let wanted: BTreeSet<&String> =
        evidence.wishes.iter().flat_map(|wish| wish.items.iter().map(|(product, _)| product)).collect();
    shared.books = books.into_iter().filter(|(product, _)| wanted.contains(product)).collect();
    evidence.shared_stock = Some(shared);
    Ok(())
}

/// Rows whose column has one of these values.
async fn rows_in(source: &Source, select: &str, column: &str, values: &BTreeSet<String>) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let values: Vec<&String> = values.iter().collect();
    for chunk in values.chunks(CHUNK) {
        let list: Vec<String> = chunk.iter().map(|value| format!("'{}'", value.replace('\'', "''"))).collect();
        rows.extend(source.rows(&format!("{select} where {column} in ({})", list.join(", "))).await?);
    }
    Ok(rows)
}
