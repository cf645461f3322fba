use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use millrace::history::{History, Section};
use order::api::view::{OrderList, OrderView, Timeline};
use serde::de::DeserializeOwned;
use simulators::gateway::ledger::Ledger;
use simulators::mail::Counts;

use super::books;
use super::reach::Reach;
use crate::commands::verify::evidence::{Charge, Entry, Evidence, Id, Listed, OrderRow};
use crate::commands::verify::gather::broker;
use crate::commands::verify::gather::database::text;
use crate::stack::SERVICES;

const PATIENCE: Duration = Duration::from_secs(30);

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
        self.read_api(&mut gathered.evidence).await?;
        let told = gathered.evidence.wishes.iter().flat_map(|wish| &wish.accepted);
        let own: BTreeSet<Id> = gathered.evidence.orders.keys().chain(told).cloned().collect();
        for service in SERVICES {
            let seen = match self.reach.databases.get(service) {
                Some(Ok(source)) => books::of_service(source, service, &own, &mut gathered.evidence).await,
                Some(Err(why)) => Err(why.clone()),
                None => Err("it has no database".to_owned()),
            };
            gathered.missed(service, seen);
        }
        let streams = self.read_streams(&own, &mut gathered.evidence).await;
        gathered.evidence.without_streams = streams.is_err();
        gathered.missed("nats", streams);
        let ledger = self.read_ledger(&own, &mut gathered.evidence).await;
        gathered.missed("ledger", ledger);
        let mailbox = self.read_mailbox(&own, &mut gathered.evidence).await;
        gathered.missed("mailbox", mailbox);
        self.marks(&mut gathered).await;
        gathered.age = self.began.elapsed();
        Ok(gathered)
    }

    /// What the API shows: the orders of this run's customers and their timelines.
    async fn read_api(&self, evidence: &mut Evidence) -> Result<(), String> {
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
            let entry = |entry: order::api::view::TimelineEntry| Entry {
                event_id: entry.event_id,
                event_type: entry.event,
                at: Some(entry.at.unix_ms()),
            };
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
    async fn read_streams(&self, own: &BTreeSet<Id>, evidence: &mut Evidence) -> Result<(), String> {
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

    async fn read_ledger(&self, own: &BTreeSet<Id>, evidence: &mut Evidence) -> Result<(), String> {
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

    async fn read_mailbox(&self, own: &BTreeSet<Id>, evidence: &mut Evidence) -> Result<(), String> {
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
            match books::rows_in(source, "select consumer, event_id from inbox", "event_id", &events).await {
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
