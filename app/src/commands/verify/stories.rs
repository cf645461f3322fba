//! What customers and other systems want, drawn from the seed. Pure.

use std::time::Duration;

use contracts::catalog::Product;
use contracts::{Currency, Money, ProductId};
use serde_json::{Value, json};

use super::sabotage::Safety;
use crate::failure::Failure;

/// A product and what there is of it at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ware {
    pub id: String,
    /// In cents.
    pub price: i64,
    pub opening: i64,
}

/// Everybody wants it and there is not enough of it.
pub const HOT: &str = "verify-hot";
/// There is one.
pub const LAST: &str = "verify-last";
/// Products of which there is plenty.
const COLD: usize = 12;
const PLENTY: i64 = 1_000_000;

/// What is sold in a run with so many orders.
pub fn wares(orders: u32) -> Vec<Ware> {
    let scarce = [
        Ware { id: HOT.into(), price: 4_900, opening: i64::from(orders / 15).max(3) },
        Ware { id: LAST.into(), price: 99_900, opening: 1 },
    ];
    let cold = (0..COLD).map(|n| Ware { id: cold(n), price: 199 + 350 * n as i64, opening: PLENTY });
    scarce.into_iter().chain(cold).collect()
}

/// More of the hot product arrives while customers fight for it.
pub fn deliveries(orders: u32) -> Vec<(String, i64)> {
    vec![(HOT.to_owned(), i64::from(orders / 40).max(2)), (cold(0), 17), (cold(1), -5)]
}

fn cold(n: usize) -> String {
    format!("verify-cold-{n:02}")
}

impl Ware {
    pub fn product(&self) -> Result<Product, Failure> {
        let currency: Currency = "EUR".parse().map_err(|e| Failure::new(format!("{e}")))?;
        Ok(Product {
            product_id: ProductId::new(&self.id).map_err(|e| Failure::new(e.to_string()))?,
            name: self.id.clone(),
            unit_price: Money { minor: self.price, currency },
            opening_stock: u32::try_from(self.opening).unwrap_or(u32::MAX),
        })
    }
}

/// How an order comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Over HTTP, sent so many times side by side with one key, and once more after the answer if `later`.
    Http { copies: usize, later: bool },
    /// As an event in version 1 of another system, which names its goods or does not. Sent twice by some.
    Foreign { id: uuid::Uuid, goods: bool, twice: bool },
}

/// One order somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    pub number: u32,
    /// The beginning of its customer's name.
    pub crowd: String,
    pub way: Way,
    pub items: Vec<(String, u32)>,
    /// In cents.
    pub total: i64,
    pub payment_method: &'static str,
    pub email: bool,
    pub phone: bool,
    /// The customer has second thoughts so long after the answer.
    pub cancel_after: Option<Duration>,
}

/// Customers of a run that has the system to itself.
const CROWD: &str = "verify-customer";
const GOOD_CARDS: [&str; 3] = ["pm_card_visa", "pm_card_mastercard", "pm_card_amex"];
const BAD_CARDS: [&str; 3] =
    ["pm_card_chargeDeclined", "pm_card_chargeDeclinedInsufficientFunds", "pm_card_chargeDeclinedExpiredCard"];

/// How many of a hundred customers have second thoughts. Most come too late. Those that do not meet a payment service
/// that is away: the cancellation overtakes the order.
const CANCEL: u32 = 25;
const CANCEL_MORE: u32 = 85;

/// All orders of a run, in the order in which they are placed.
pub fn stories(seed: u64, orders: u32, focus: Option<Safety>) -> Vec<Story> {
    let cancel = if focus == Some(Safety::Tombstone) { CANCEL_MORE } else { CANCEL };
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x0073_746f_7269_6573);
    let wares = wares(orders);
    (0..orders).map(|number| story(&mut rng, number, &wares, cancel)).collect()
}

fn story(rng: &mut fastrand::Rng, number: u32, wares: &[Ware], cancel: u32) -> Story {
    let foreign = rng.u32(0..100) < 8;
    let way = match foreign {
        true => Way::Foreign {
            id: uuid::Builder::from_random_bytes(rng.u128(..).to_le_bytes()).into_uuid(),
            goods: rng.bool(),
            twice: rng.u32(0..4) == 0,
        },
        false => {
            Way::Http { copies: if rng.u32(0..100) < 15 { rng.usize(2..=3) } else { 1 }, later: rng.u32(0..100) < 10 }
        }
    };
    let items = if matches!(way, Way::Foreign { goods: false, .. }) { Vec::new() } else { items(rng) };
    let price = |id: &str| wares.iter().find(|ware| ware.id == id).map_or(0, |ware| ware.price);
    let total = match foreign {
        // Another system has its own prices.
        true => rng.i64(100..50_000),
        false => items.iter().map(|(id, quantity)| price(id) * i64::from(*quantity)).sum(),
    };
    let payment_method = match rng.u32(0..100) {
        // Foreign orders name no card and get the configured one.
        _ if foreign => GOOD_CARDS[0],
        0..10 => BAD_CARDS[rng.usize(0..BAD_CARDS.len())],
        10..15 => "pm_flaky",
        15..21 => "pm_answer_lost",
        21..24 => "pm_slow",
        _ => GOOD_CARDS[rng.usize(0..GOOD_CARDS.len())],
    };
    let cancels = !foreign && rng.u32(0..100) < cancel;
    Story {
        number,
        crowd: CROWD.to_owned(),
        way,
        items,
        total,
        payment_method,
        email: !foreign && rng.u32(0..100) < 75,
        phone: !foreign && rng.u32(0..100) < 10,
        cancel_after: cancels.then(|| Duration::from_millis(rng.u64(0..2_500))),
    }
}

/// Orders for a system that others use as well: of goods it has, few of each, and with cards that exist at test gateways
/// alone. `simulated`: its gateway is our simulator, which knows cards with which things go wrong.
pub fn modest_stories(seed: u64, orders: u32, crowd: &str, wares: &[Ware], simulated: bool) -> Vec<Story> {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x0074_6172_6765_7473);
    let rng = &mut rng;
    (0..orders).map(|number| modest_story(rng, number, crowd, wares, simulated)).collect()
}

fn modest_story(rng: &mut fastrand::Rng, number: u32, crowd: &str, wares: &[Ware], simulated: bool) -> Story {
    let kinds = rng.usize(1..=3).min(wares.len());
    let chosen = rng.choose_multiple(wares, kinds);
    let items: Vec<(String, u32)> = chosen.iter().map(|ware| (ware.id.clone(), rng.u32(1..=2))).collect();
    let total = chosen.iter().zip(&items).map(|(ware, (_, units))| ware.price * i64::from(*units)).sum();
    let payment_method = match rng.u32(0..100) {
        0..12 => BAD_CARDS[rng.usize(0..BAD_CARDS.len())],
        12..18 if simulated => "pm_answer_lost",
        18..22 if simulated => "pm_slow",
        _ => GOOD_CARDS[rng.usize(0..GOOD_CARDS.len())],
    };
    let (copies, later) = (if rng.u32(0..100) < 15 { 2 } else { 1 }, rng.u32(0..100) < 10);
    Story {
        number,
        crowd: crowd.to_owned(),
        way: Way::Http { copies, later },
        items,
        total,
        payment_method,
        email: rng.u32(0..100) < 75,
        // A number may be somebody's.
        phone: false,
        cancel_after: (rng.u32(0..100) < 20).then(|| Duration::from_millis(rng.u64(0..1_000))),
    }
}

fn items(rng: &mut fastrand::Rng) -> Vec<(String, u32)> {
    let mut items = Vec::new();
    match rng.u32(0..100) {
        0..20 => items.push((HOT.to_owned(), rng.u32(1..=2))),
        20..35 => {
            items.push((cold(rng.usize(0..COLD)), rng.u32(1..=3)));
            items.push((HOT.to_owned(), 1));
        }
        35..38 => items.push((LAST.to_owned(), 1)),
        38..68 => {
            let mut products: Vec<usize> = (0..COLD).collect();
            rng.shuffle(&mut products);
            let kinds = rng.usize(2..=4);
            items.extend(products.into_iter().take(kinds).map(|n| (cold(n), rng.u32(1..=5))));
        }
        _ => items.push((cold(rng.usize(0..COLD)), rng.u32(1..=5))),
    }
    items
}

impl Story {
    /// Unique, so that an order which exists twice is found.
    pub fn customer(&self) -> String {
        format!("{}-{}", self.crowd, self.number)
    }

    /// Whether the bank says no in the end.
    pub fn card_is_bad(&self) -> bool {
        BAD_CARDS.contains(&self.payment_method)
    }

    /// Whether there may be too little of something.
    pub fn wants_scarce(&self) -> bool {
        self.items.iter().any(|(id, _)| id == HOT || id == LAST)
    }

    /// The request body of `POST /orders`.
    pub fn order(&self) -> Value {
        let items: Vec<_> =
            self.items.iter().map(|(id, quantity)| json!({ "product_id": id, "quantity": quantity })).collect();
        let mut order = json!({
            "customer_id": self.customer(), "payment_method": self.payment_method, "items": items,
        });
        if self.email {
            order["email"] = json!(format!("customer-{}@verify.example", self.number));
        }
        if self.phone {
            order["phone"] = json!(format!("+49151{:07}", self.number));
        }
        order
    }

    /// The body of `orders.created` in version 1.
    pub fn version_1(&self, id: uuid::Uuid, goods: bool) -> Value {
        let mut body = json!({
            "order_id": id,
            "customer_id": self.customer(),
            "amount": self.total as f64 / 100.0,
            "currency": "EUR",
            "timestamp": contracts::Timestamp(time::OffsetDateTime::now_utc()),
        });
        if goods {
            let item = |(id, quantity): &(String, u32)| json!({ "product_id": id, "quantity": quantity });
            body["items"] = self.items.iter().map(item).collect();
            body["version"] = json!("v1");
        }
        body
    }
}

/// What another system sends when it is broken: each of these has to become a dead letter. The mark finds it again.
pub fn poison(seed: u64, orders: u32) -> Vec<(String, String)> {
    (0..orders.div_ceil(500).max(2))
        .map(|n| {
            let mark = format!("verify-poison-{seed}-{n}");
            let body = match n % 2 {
                0 => format!("{{\"order_id\": \"{mark}\", \"amount\": twelve"),
                _ => json!({ "order_id": mark, "amount": -1 }).to_string(),
            };
            (mark, body)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_tells_the_same_stories_and_every_kind_of_them() {
        let told = stories(1, 400, None);
        assert_eq!(told, stories(1, 400, None));
        let some = |what: &str, wanted: &dyn Fn(&Story) -> bool| assert!(told.iter().any(wanted), "no {what}");
        some("bad card", &Story::card_is_bad);
        some("flaky card", &|story| story.payment_method == "pm_flaky");
        some("lost answer", &|story| story.payment_method == "pm_answer_lost");
        some("slow card", &|story| story.payment_method == "pm_slow");
        some("scarce product", &Story::wants_scarce);
        some("several items", &|story| story.items.len() > 1);
        some("second thoughts", &|story| story.cancel_after.is_some());
        some("repeated submit", &|story| matches!(story.way, Way::Http { copies: 2.., .. }));
        some("late repetition", &|story| matches!(story.way, Way::Http { later: true, .. }));
        some("foreign order without goods", &|story| matches!(story.way, Way::Foreign { goods: false, .. }));
        some("foreign order with goods", &|story| matches!(story.way, Way::Foreign { goods: true, .. }));
    }

    #[test]
    fn orders_for_a_system_of_others_name_no_number_and_only_cards_of_test_gateways() {
        let wares = wares(10);
        let told = modest_stories(1, 300, "run-7", &wares, false);
        assert_eq!(told, modest_stories(1, 300, "run-7", &wares, false));
        let harmless = |story: &Story| GOOD_CARDS.contains(&story.payment_method) || story.card_is_bad();
        assert!(told.iter().all(|story| harmless(story) && !story.phone && story.total > 0), "{told:#?}");
        assert_eq!(told[3].customer(), "run-7-3");
        assert!(told.iter().any(Story::card_is_bad) && told.iter().any(|story| story.cancel_after.is_some()));
    }

    #[test]
    fn every_total_is_the_sum_of_its_items() {
        let wares = wares(100);
        for story in stories(3, 100, None).iter().filter(|story| matches!(story.way, Way::Http { .. })) {
            let price = |id: &String| wares.iter().find(|ware| ware.id == *id).unwrap().price;
            assert_eq!(story.total, story.items.iter().map(|(id, n)| price(id) * i64::from(*n)).sum::<i64>());
            assert!(story.total > 0 && !story.items.is_empty());
        }
    }
}
