//! Goes through all orders that anybody knows, a page at a time, and has each judged.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use millrace::connection::Connection;
use millrace::topology::Topology;
use payment::gateway::Gateway;
use time::OffsetDateTime;

use super::database::{Database, Row, flag, int, list, maybe, quoted, text};
use super::facts::{Amount, Delivery, Event, Facts, Handled, Handling, Notices, Order, Payment, Reservation};
use super::judge::{Disagreement, Judgement, Kind, Moment, Says, judge};
use super::scratch::Scratch;
use super::sources::{self, Consumer, Read, scratch_failed};
use crate::failure::Failure;
use crate::stack::SERVICES;

/// Orders whose rows are in memory at once.
const PAGE: usize = 200;
/// Event ids in one question to an inbox.
const IDS: usize = 500;

/// Everything that is compared.
pub struct Sides {
    pub databases: BTreeMap<&'static str, Database>,
    pub connection: Connection,
    /// `None` when it is not to be asked.
    pub gateway: Option<Gateway>,
    pub declared: Topology,
    pub scratch: Scratch,
    pub scope: Scope,
    read: Read,
    consumers: Vec<Consumer>,
}

/// Which orders.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    pub order: Option<String>,
    pub since: Option<OffsetDateTime>,
    /// When the comparison began, Unix milliseconds: it does not run after orders that keep coming in.
    pub began_ms: i64,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Compared {
    pub orders: u64,
    /// Orders that were left alone because something happened to them just now.
    pub under_way: u64,
    pub found: Vec<Disagreement>,
}

impl Sides {
    pub async fn open(
        settings: &crate::settings::Settings,
        connection: Connection,
        gateway: Option<Gateway>,
        scope: Scope,
    ) -> Result<Self, Failure> {
        let mut databases = BTreeMap::new();
        for service in SERVICES {
            databases.insert(service, Database::open(&settings.database.url, service).await?);
        }
        Ok(Self {
            databases,
            connection,
            gateway,
            declared: settings.declared_topology(),
            scratch: Scratch::new().map_err(scratch_failed)?,
            scope,
            read: Read::default(),
            consumers: Vec::new(),
        })
    }

    /// Reads what is read from end to end; called again, what came since.
    pub async fn refresh(&mut self, mut progress: impl FnMut(&str)) -> Result<(), Failure> {
        let first = self.consumers.is_empty();
        self.scratch.forget_outboxes_and_letters().map_err(scratch_failed)?;
        sources::outboxes(&self.scratch, &self.databases).await?;
        if let (Some(gateway), true) = (&self.gateway, first) {
            match &self.scope.order {
                Some(order) => self.look_up(gateway, order).await?,
                None => {
                    let since_ms = self.scope.since.map(|since| since.unix_timestamp() * 1_000);
                    sources::payments(&self.scratch, gateway, since_ms, |read| {
                        progress(&format!("{read} payments of the gateway"));
                    })
                    .await?;
                }
            }
        }
        let (since, order) = (self.scope.since, self.scope.order.as_deref());
        sources::streams(&self.scratch, &self.connection, &mut self.read, since, order, |read| {
            progress(&format!("{read} messages of the streams"));
        })
        .await?;
        // What a consumer is past is handled or a dead letter by now, so letters and inboxes are read after this.
        self.consumers = sources::consumers(&self.connection, &self.declared).await?;
        sources::dead_letters(&self.scratch, &self.connection).await?;
        Ok(())
    }

    /// All orders in scope.
    pub async fn all(&self, moment: Moment, mut progress: impl FnMut(u64, usize)) -> Result<Compared, Failure> {
        let mut compared = Compared::default();
        if let Some(order) = self.scope.order.clone() {
            self.some(&[order], moment, &mut compared).await?;
            return Ok(compared);
        }
        let mut after = String::new();
        loop {
            let page = self.orders_behind(&after).await?;
            let Some(last) = page.last().cloned() else { break };
            self.some(&page, moment, &mut compared).await?;
            progress(compared.orders, compared.found.len());
            after = last;
        }
        compared.found.extend(self.stock().await?);
        Ok(compared)
    }

    /// These orders, and whatever the gateway says of them now.
    pub async fn again(&self, orders: &BTreeSet<String>, moment: Moment) -> Result<Compared, Failure> {
        let mut compared = Compared::default();
        let orders: Vec<String> = orders.iter().cloned().collect();
        if let Some(gateway) = &self.gateway {
            for order in &orders {
                for known in self.scratch.intents(order).map_err(scratch_failed)? {
                    self.take(gateway, order, &known.id).await?;
                }
            }
        }
        for page in orders.chunks(PAGE) {
            self.some(page, moment, &mut compared).await?;
        }
        Ok(compared)
    }

    /// The ids behind `after` of orders that anybody knows, in order.
    async fn orders_behind(&self, after: &str) -> Result<Vec<String>, Failure> {
        let began = self.scope.began_ms;
        let since_ms = self.scope.since.map_or(0, |since| since.unix_timestamp() * 1_000);
        let behind = match after {
            "" => "order_id is not null".to_owned(),
            after => format!("order_id > {}", quoted(after)),
        };
        let tables = [
            ("order", "orders", format!("accepted_at >= {since_ms} and accepted_at <= {began}")),
            ("payment", "payments", format!("updated_at >= {since_ms} and created_at <= {began}")),
            ("inventory", "reservations", format!("changed_at >= {since_ms} and changed_at <= {began}")),
        ];
        let mut ids: BTreeSet<String> = self.scratch.orders(after, PAGE).map_err(scratch_failed)?.into_iter().collect();
        for (service, table, recent) in tables {
            let sql =
                format!("select order_id from {table} where {behind} and {recent} order by order_id limit {PAGE}");
            ids.extend(self.rows(service, sql).await?.iter().map(|row| text(row, 0)));
        }
        Ok(ids.into_iter().take(PAGE).collect())
    }

    async fn some(&self, orders: &[String], moment: Moment, compared: &mut Compared) -> Result<(), Failure> {
        for facts in self.facts(orders, moment).await? {
            compared.orders += 1;
            match judge(&facts, moment) {
                Judgement::UnderWay => compared.under_way += 1,
                Judgement::Settled(found) => compared.found.extend(found),
            }
        }
        Ok(())
    }

    async fn facts(&self, orders: &[String], moment: Moment) -> Result<Vec<Facts>, Failure> {
        let mut all: BTreeMap<String, Facts> = BTreeMap::new();
        for order_id in orders {
            let scratch = |e| scratch_failed(e);
            let facts = Facts {
                order_id: order_id.clone(),
                events: self.scratch.events(order_id).map_err(scratch)?,
                outbox: self
                    .scratch
                    .outbox(order_id, |stream| self.read.first.get(stream).copied().unwrap_or(u64::MAX))
                    .map_err(scratch)?,
                gateway: match self.gateway {
                    Some(_) => Some(self.scratch.intents(order_id).map_err(scratch)?),
                    None => None,
                },
                ..Facts::default()
            };
            all.insert(order_id.clone(), facts);
        }
        self.handled(&mut all).await?;
        self.add_rows(&list(orders.iter().map(String::as_str)), &mut all).await?;
        if let Some(gateway) = &self.gateway {
            for facts in all.values_mut().filter(|facts| facts.latest() <= moment.settled_before) {
                self.complete(gateway, facts).await?;
            }
        }
        Ok(all.into_values().collect())
    }

    /// What became of each event at each consumer.
    async fn handled(&self, all: &mut BTreeMap<String, Facts>) -> Result<(), Failure> {
        let concerns = |consumer: &&Consumer, event: &Event| {
            consumer.stream == event.stream && consumer.subjects.contains(&event.subject)
        };
        let mut asked: HashMap<&'static str, BTreeSet<&str>> = HashMap::new();
        for event in all.values().flat_map(|facts| &facts.events) {
            for consumer in self.consumers.iter().filter(|consumer| concerns(consumer, event)) {
                asked.entry(consumer.service).or_default().insert(&event.event_id);
            }
        }
        let mut marks: HashSet<(String, String)> = HashSet::new();
        for (service, ids) in asked {
            let ids: Vec<&str> = ids.into_iter().collect();
            let theirs = self.consumers.iter().filter(|consumer| consumer.service == service);
            let durables = list(theirs.map(|consumer| consumer.durable.as_str()));
            for ids in ids.chunks(IDS) {
                let ids = list(ids.iter().copied());
                let sql = format!(
                    "select consumer, event_id from inbox where consumer in ({durables}) and event_id in ({ids})"
                );
                marks.extend(self.rows(service, sql).await?.iter().map(|row| (text(row, 0), text(row, 1))));
            }
        }
        for event in all.values_mut().flat_map(|facts| &mut facts.events) {
            let consumers = self.consumers.iter().filter(|consumer| concerns(consumer, event));
            let mut handling = Vec::new();
            for consumer in consumers {
                let Consumer { durable, service, floor, .. } = consumer;
                let letter = || self.scratch.letter(durable, &event.stream, event.seq).map_err(scratch_failed);
                let state = if marks.contains(&(durable.clone(), event.event_id.clone())) {
                    Handled::Yes
                } else if event.seq > *floor {
                    Handled::NotYet
                } else {
                    match letter()? {
                        Some((id, true)) => Handled::DeadLetter(id),
                        Some((_, false)) => Handled::GivenUp,
                        None => Handled::Never,
                    }
                };
                handling.push(Handling { durable: durable.clone(), service, state });
            }
            event.handling = handling;
        }
        Ok(())
    }

    async fn add_rows(&self, ids: &str, all: &mut BTreeMap<String, Facts>) -> Result<(), Failure> {
        let sql = format!(
            "select order_id, status, total_minor, currency, email, phone, accepted_at, deadline_at, ended_at \
             from orders where order_id in ({ids}) and status <> 'unknown'"
        );
        for row in self.rows("order", sql).await? {
            let Some(facts) = all.get_mut(&text(&row, 0)) else { continue };
            let has = |at| maybe(&row, at).is_some_and(|address| !address.is_empty());
            facts.order = Some(Order {
                status: text(&row, 1),
                total: Amount { minor: int(&row, 2).unwrap_or(0), currency: text(&row, 3) },
                email: has(4),
                phone: has(5),
                accepted_at: int(&row, 6).unwrap_or(0),
                deadline_at: int(&row, 7).unwrap_or(i64::MAX),
                ended_at: int(&row, 8),
            });
        }
        let sql = format!("select order_id, event_id from order_timeline where order_id in ({ids})");
        for row in self.rows("order", sql).await? {
            if let Some(facts) = all.get_mut(&text(&row, 0)) {
                facts.timeline.insert(text(&row, 1));
            }
        }
        let sql = format!(
            "select order_id, state, cancelled, amount_minor, currency, payment_id, due_at, updated_at, \
             coalesce(last_problem, refusal_message) from payments where order_id in ({ids})"
        );
        for row in self.rows("payment", sql).await? {
            let Some(facts) = all.get_mut(&text(&row, 0)) else { continue };
            facts.payment = Some(Payment {
                state: text(&row, 1),
                cancelled: flag(&row, 2),
                amount: int(&row, 3).map(|minor| Amount { minor, currency: text(&row, 4) }),
                payment_id: maybe(&row, 5),
                due_at: int(&row, 6),
                updated_at: int(&row, 7).unwrap_or(0),
                problem: maybe(&row, 8),
            });
        }
        let sql = format!("select order_id, status, changed_at from reservations where order_id in ({ids})");
        for row in self.rows("inventory", sql).await? {
            let Some(facts) = all.get_mut(&text(&row, 0)) else { continue };
            facts.reservation = Some(Reservation { status: text(&row, 1), changed_at: int(&row, 2).unwrap_or(0) });
        }
        let sql = format!(
            "select order_id, notice, channel, status, next_attempt_at from deliveries where order_id in ({ids})"
        );
        for row in self.rows("notification", sql).await? {
            let Some(facts) = all.get_mut(&text(&row, 0)) else { continue };
            facts.notices.get_or_insert_with(Notices::default).deliveries.push(Delivery {
                notice: text(&row, 1),
                channel: text(&row, 2),
                status: text(&row, 3),
                next_attempt_at: int(&row, 4).unwrap_or(0),
            });
        }
        Ok(())
    }

    /// A payment on record that the list did not name is asked for by its name, before anybody calls it unknown.
    async fn complete(&self, gateway: &Gateway, facts: &mut Facts) -> Result<(), Failure> {
        let Some(intents) = &facts.gateway else { return Ok(()) };
        let on_record = facts.payment.as_ref().and_then(|payment| payment.payment_id.clone());
        let Some(id) = on_record.filter(|id| intents.iter().all(|intent| intent.id != *id)) else { return Ok(()) };
        self.take(gateway, &facts.order_id, &id).await?;
        facts.gateway = Some(self.scratch.intents(&facts.order_id).map_err(scratch_failed)?);
        Ok(())
    }

    async fn take(&self, gateway: &Gateway, order_id: &str, payment_id: &str) -> Result<(), Failure> {
        if let Some(payment) = gateway.payment(payment_id).await.map_err(sources::gateway_failed)? {
            self.scratch.put_intent(order_id, &sources::intent(&payment)).map_err(scratch_failed)?;
        }
        Ok(())
    }

    async fn look_up(&self, gateway: &Gateway, order_id: &str) -> Result<(), Failure> {
        let Ok(order) = order_id.parse() else { return Ok(()) };
        for payment in gateway.payments_of(order).await.map_err(sources::gateway_failed)? {
            self.scratch.put_intent(order_id, &sources::intent(&payment)).map_err(scratch_failed)?;
        }
        Ok(())
    }

    /// Whether each product's units add up. One statement sees one moment, so this needs nobody to stand still.
    async fn stock(&self) -> Result<Vec<Disagreement>, Failure> {
        let sql = "select product_id, available, reserved, committed, \
                   (select coalesce(sum(delta), 0) from stock_adjustments a where a.product_id = stock.product_id), null \
                   from stock union all \
                   select '', 0, 0, 0, 0, items from reservations where status = 'held'";
        let rows = self.rows("inventory", sql.to_owned()).await?;
        let mut held: HashMap<String, i64> = HashMap::new();
        for row in &rows {
            let items: Vec<contracts::orders::Item> =
                maybe(row, 5).and_then(|items| serde_json::from_str(&items).ok()).unwrap_or_default();
            for item in items {
                *held.entry(item.product_id.to_string()).or_default() += i64::from(item.quantity);
            }
        }
        let units = |row: &Row, at| int(row, at).unwrap_or(0);
        let mut found = Vec::new();
        for row in rows.iter().filter(|row| maybe(row, 5).is_none()) {
            let (product, available, reserved, committed) = (text(row, 0), units(row, 1), units(row, 2), units(row, 3));
            let (came_in, held) = (units(row, 4), held.get(&product).copied().unwrap_or(0));
            if available + reserved + committed == came_in && reserved == held {
                continue;
            }
            let says = |who: &str, what: String| Says { who: who.to_owned(), what };
            found.push(Disagreement {
                kind: Kind::StockSumWrong,
                order_id: None,
                says: vec![
                    says("stock", format!("{product}: {available} available, {reserved} held, {committed} sold")),
                    says("adjustments", format!("{came_in} came in")),
                    says("reservations", format!("{held} held")),
                ],
                remedy: format!("count {product}, and correct it with millrace stock adjust {product} UNITS"),
                fixes: Vec::new(),
            });
        }
        Ok(found)
    }

    async fn rows(&self, service: &str, sql: String) -> Result<Vec<Row>, Failure> {
        match self.databases.get(service) {
            Some(database) => database.rows(sql).await,
            None => Err(Failure::new(format!("{service} has no database"))),
        }
    }
}
