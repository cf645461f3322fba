use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;
use simulators::gateway::Status;
use simulators::gateway::ledger::{Ledger, Summary};
use simulators::mail::Counts;
use testkit::eventually;

use super::{Accepted, Installation, PATIENCE, events};

/// What everybody involved has written down, held against the receipts of the customer.
pub(crate) struct Books {
    ledger: Ledger,
    mails: Counts,
    stock: BTreeMap<String, [i64; 3]>,
    orders: Vec<Value>,
}

impl Books {
    /// Waits until every accepted order has reached its end and everything that follows from it has happened, then checks
    /// that it happened exactly once. `opening` is the opening stock of each product.
    pub(crate) async fn close(installation: &Installation, accepted: &[Accepted], opening: &Value) -> Self {
        let balanced = || async { Self::read(installation).await?.balance(accepted, opening) };
        // A minute's orders may be waiting, and the whole fleet has to see to them.
        eventually(PATIENCE * 4, balanced, "the books to balance").await;
        // Whatever is still under way must not change anything.
        installation.quiet().await;
        let books = Self::read(installation).await.unwrap();
        if let Err(reason) = books.balance(accepted, opening) {
            panic!("the books balanced and then did no longer: {reason}");
        }
        events::check(installation, &books).await;
        books
    }

    async fn read(installation: &Installation) -> Result<Self, String> {
        let shop = &installation.shop;
        // Money first: it follows from what orders say, and must never run ahead of it.
        let (ledger, mails, stock) = (shop.ledger().await?, shop.mails().await?, installation.stock().await?);
        Ok(Self { ledger, mails, stock, orders: shop.orders().await? })
    }

    pub(crate) fn orders(&self) -> &[Value] {
        &self.orders
    }

    /// How many orders have this status and, if given, this reason.
    pub(crate) fn count(&self, status: &str, reason: Option<&str>) -> usize {
        let counts =
            |order: &&Value| order["status"] == status && reason.is_none_or(|reason| order["reason"] == reason);
        self.orders.iter().filter(counts).count()
    }

    /// No mail came in more often than once.
    pub(crate) fn each_mail_came_once(&self) {
        let doubled: Vec<_> = self.mails.counts.iter().filter(|(_, count)| **count != 1).collect();
        assert!(doubled.is_empty() && self.mails.dropped == 0, "{doubled:?}, {} not counted", self.mails.dropped);
    }

    /// An error says what has not happened yet; what can never become right panics.
    fn balance(&self, accepted: &[Accepted], opening: &Value) -> Result<(), String> {
        let by_id: HashMap<&str, &Value> =
            self.orders.iter().map(|order| (order["order_id"].as_str().unwrap(), order)).collect();
        let receipts: HashSet<&str> = accepted.iter().map(|one| one.order_id.as_str()).collect();
        assert_eq!(receipts.len(), accepted.len(), "two requests with keys of their own became one order");
        assert_eq!(by_id.len(), self.orders.len(), "an order is listed twice");
        for id in by_id.keys() {
            assert!(receipts.contains(id), "nobody was told of the order {id}");
        }
        for intent in &self.ledger.intents {
            let order = intent.order_id.as_deref().unwrap();
            assert!(receipts.contains(order), "money of an order nobody placed: {intent:?}");
        }
        let mut waiting = Ok(());
        for one in accepted {
            let Some(order) = by_id.get(one.order_id.as_str()) else {
                panic!("{} was accepted and is lost", one.order_id);
            };
            assert_eq!(order["total"]["minor"], one.total_minor, "{order}");
            waiting = waiting.and(self.money(one, order)).and(self.mail(order));
        }
        waiting.and(self.goods(opening))
    }

    fn money(&self, one: &Accepted, order: &Value) -> Result<(), String> {
        let intents: Vec<&Summary> =
            self.ledger.intents.iter().filter(|intent| intent.order_id.as_deref() == Some(&one.order_id)).collect();
        assert!(intents.len() <= 1, "authorized twice: {intents:?}");
        let intent = intents.first();
        let (captures, captured) = intent.map_or((0, 0), |intent| (intent.captures, intent.captured));
        assert!(captures <= 1, "charged twice: {intents:?}");
        match order["status"].as_str().unwrap() {
            "confirmed" => {
                // The ledger was read first, so it may be behind.
                let Some(intent) = intent else { return Err(format!("no money yet: {order}")) };
                assert_eq!(intent.amount, one.total_minor, "{intent:?}");
                let settled = captured == one.total_minor && order["payment"] == "captured";
                if settled { Ok(()) } else { Err(format!("not captured: {intent:?} {order}")) }
            }
            "cancelled" => {
                assert_eq!(captures, 0, "charged for a cancelled order: {intent:?} {order}");
                let held = intent.is_some_and(|intent| intent.status == Status::RequiresCapture);
                if held { Err(format!("money is still held: {intent:?} {order}")) } else { Ok(()) }
            }
            _ => {
                assert_eq!(captures, 0, "charged for an order that is not confirmed: {intent:?} {order}");
                Err(format!("no end yet: {order}"))
            }
        }
    }

    fn goods(&self, opening: &Value) -> Result<(), String> {
        let mut ordered: HashMap<&str, i64> = HashMap::new();
        for order in self.orders.iter().filter(|order| order["status"] == "confirmed") {
            for item in order["items"].as_array().unwrap() {
                *ordered.entry(item["product_id"].as_str().unwrap()).or_default() += item["quantity"].as_i64().unwrap();
            }
        }
        for product in opening.as_array().unwrap() {
            let id = product["product_id"].as_str().unwrap();
            let [available, reserved, committed] = self.stock.get(id).copied().ok_or("a product is not stocked yet")?;
            let all = available + reserved + committed;
            assert_eq!(all, product["opening_stock"].as_i64().unwrap(), "units of {id} came from or went nowhere");
            assert!(available >= 0 && reserved >= 0, "{id} is oversold: {available} available, {reserved} reserved");
            let sold = ordered.get(id).copied().unwrap_or(0);
            assert!(committed <= sold, "{committed} units of {id} went out for {sold} ordered ones");
            if reserved != 0 || committed != sold {
                return Err(format!("{id}: {reserved} reserved, {committed} of {sold} committed"));
            }
        }
        Ok(())
    }

    /// A mail may arrive twice, as mails do, but then as the same mail: with one Message-ID.
    fn mail(&self, order: &Value) -> Result<(), String> {
        let id = order["order_id"].as_str().unwrap();
        let mut sent: Vec<&str> = self
            .mails
            .counts
            .keys()
            .filter_map(|message| message.strip_prefix(id)?.strip_prefix('.')?.strip_suffix("@millrace.example"))
            .collect();
        sent.sort_unstable();
        let expected = match order["status"].as_str().unwrap() {
            "confirmed" => ["acknowledgement", "confirmation"],
            "cancelled" => ["acknowledgement", "cancellation"],
            _ => return Err(format!("no end yet: {order}")),
        };
        assert!(sent.iter().all(|notice| expected.contains(notice)), "told {sent:?} about {order}");
        if sent == expected { Ok(()) } else { Err(format!("told only {sent:?} about {order}")) }
    }
}
