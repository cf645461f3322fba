//! Orders, through the API like any customer's.

use contracts::OrderId;
use order::api::view::{OrderView, Receipt, Timeline};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::World;
use crate::api_client::Answer;
use crate::commands::demo::scenario::{Deviation, Ware};
use crate::commands::demo::trial::Trial;

/// How an order ends, beside the outcome.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// Where the money is then.
    pub payment: &'static str,
    /// Where the goods are then.
    pub stock: &'static str,
    /// Everything on its timeline but notices, in no order.
    pub events: &'static [&'static str],
    /// How many times the customer was written to.
    pub notices: usize,
}

impl Ending {
    pub const CONFIRMED: Self = Self {
        payment: "captured",
        stock: "committed",
        events: &[
            "orders.created",
            "payments.authorized",
            "inventory.reserved",
            "orders.confirmed",
            "payments.captured",
            "inventory.committed",
        ],
        notices: 2,
    };
}

const NOTICE: &str = "notifications.sent";
/// The two events that end an order.
const ENDS: [&str; 2] = ["orders.confirmed", "orders.cancelled"];

impl World {
    /// The body of an order.
    pub fn order_of(trial: &Trial, items: &[(&Ware, u32)]) -> Value {
        let name = trial.scenario.name;
        let items: Vec<_> =
            items.iter().map(|(ware, quantity)| json!({ "product_id": ware.id, "quantity": quantity })).collect();
        json!({
            "customer_id": format!("customer-{name}"),
            "email": Self::address(trial),
            "payment_method": "pm_card_visa",
            "items": items,
        })
    }

    /// Places an order, which must be accepted.
    pub async fn place(&self, trial: &Trial, order: &Value) -> Result<OrderId, Deviation> {
        let answer = trial.asked("an answer to POST /orders", self.api.place(order, None)).await?;
        let location = answer.location.clone().unwrap_or_default();
        let receipt = accepted(answer)?;
        Deviation::unless_equal("Location", &location, &format!("/orders/{}", receipt.order_id))?;
        trial.say(format!("     POST /orders -> 202, {} for {}", receipt.order_id, receipt.total));
        trial.follows(receipt.order_id);
        Ok(receipt.order_id)
    }

    /// Follows an order until all of its ending has happened, and checks that nothing else has.
    pub async fn see_through(&self, trial: &Trial, id: OrderId, ending: &Ending) -> Result<(), Deviation> {
        let mut wanted: Vec<&str> = ending.events.to_vec();
        wanted.extend(std::iter::repeat_n(NOTICE, ending.notices));
        wanted.sort_unstable();
        let what = format!("order {id} to be {} with {}", trial.scenario.expects, counted(&wanted));
        let seen = trial
            .until(&what, async || {
                let seen = self.look(trial, id).await.map_err(|deviation| deviation.to_string())?;
                let ended_otherwise = seen.iter().any(|e| ENDS.contains(&e.as_str()) && !wanted.contains(&e.as_str()));
                let complete = wanted.iter().all(|event| count(&seen, event) >= count(&wanted, event));
                if complete || ended_otherwise { Ok(seen) } else { Err(counted(&seen)) }
            })
            .await;
        let order: OrderView = self.read(&format!("/orders/{id}")).await?;
        let outcome = outcome_of(&order);
        trial.stands(id, outcome.clone());
        Deviation::unless_equal("the outcome", &outcome.as_str(), &trial.scenario.expects)?;
        Deviation::unless_equal("everything on the timeline", &counted(&seen), &counted(&wanted))?;
        Deviation::unless_equal("the payment", &order.payment.as_str(), &ending.payment)?;
        Deviation::unless_equal("the stock", &order.stock.as_str(), &ending.stock)?;
        self.nothing_died_of(id).await
    }

    /// The events of an order so far, sorted.
    pub async fn look(&self, trial: &Trial, id: OrderId) -> Result<Vec<String>, Deviation> {
        let timeline: Timeline = self.read(&format!("/orders/{id}/timeline")).await?;
        trial.saw(id, &timeline.timeline);
        let mut events: Vec<_> = timeline.timeline.into_iter().map(|entry| entry.event).collect();
        events.sort_unstable();
        Ok(events)
    }

    /// Waits for an event of an order that is still to be processing then.
    pub async fn still_processing_at(&self, trial: &Trial, id: OrderId, event: &str) -> Result<(), Deviation> {
        trial
            .until(&format!("{event} of order {id}"), async || {
                let seen = self.look(trial, id).await.map_err(|deviation| deviation.to_string())?;
                if seen.iter().any(|one| one == event) { Ok(()) } else { Err(counted(&seen)) }
            })
            .await;
        let order: OrderView = self.read(&format!("/orders/{id}")).await?;
        Deviation::unless_equal(&format!("order {id}"), &order.status.as_str(), &"processing")
    }

    /// All orders of the scenario's customer.
    pub async fn orders_of_customer(&self, trial: &Trial) -> Result<Vec<OrderId>, Deviation> {
        let path = format!("/orders?customer_id=customer-{}", trial.scenario.name);
        let list: order::api::view::OrderList = self.read(&path).await?;
        Ok(list.orders.into_iter().map(|order| order.order_id).collect())
    }

    /// Brings the record of every order up to date after a scenario has failed, as far as that can be had.
    pub async fn look_once_more(&self, trial: &Trial) {
        let ids: Vec<_> = trial.orders().iter().map(|order| order.id).collect();
        for id in ids {
            // What cannot be read now stays as it was last seen.
            let _ = self.look(trial, id).await;
            if let Ok(order) = self.read::<OrderView>(&format!("/orders/{id}")).await {
                trial.stands(id, outcome_of(&order));
            }
        }
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Deviation> {
        let answer = self.api.get(path).await?;
        with_status(answer, 200, path)
    }
}

/// The receipt of an accepted order.
pub fn accepted(answer: Answer) -> Result<Receipt, Deviation> {
    with_status(answer, 202, "POST /orders")
}

fn with_status<T: DeserializeOwned>(answer: Answer, status: u16, what: &str) -> Result<T, Deviation> {
    if answer.status != status {
        return Err(Deviation::new(
            format!("{what} to be answered with {status}"),
            format!("{} {}", answer.status, answer.body),
        ));
    }
    serde_json::from_value(answer.body)
        .map_err(|e| Deviation::new(format!("{what} to be answered as documented"), e.to_string()))
}

fn outcome_of(order: &OrderView) -> String {
    match order.reason {
        Some(reason) => format!("{} ({})", order.status, reason.as_str()),
        None => order.status.clone(),
    }
}

fn count<T: AsRef<str>>(events: &[T], event: &str) -> usize {
    events.iter().filter(|one| one.as_ref() == event).count()
}

/// `a, b (2 times)`, of sorted events.
fn counted<T: AsRef<str>>(events: &[T]) -> String {
    let each = events.chunk_by(|a, b| a.as_ref() == b.as_ref()).map(|same| match same.len() {
        1 => same[0].as_ref().to_owned(),
        n => format!("{} ({n} times)", same[0].as_ref()),
    });
    let all: Vec<_> = each.collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_one_by_one() {
        assert_eq!(counted::<&str>(&[]), "nothing");
        assert_eq!(counted(&["a", "b", "b", "c"]), "a, b (2 times), c");
        assert_eq!(count(&["a", "b", "b"], "b"), 2);
    }
}
