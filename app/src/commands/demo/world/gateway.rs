//! The payment gateway: its ledger says what really happened to the money.

use contracts::OrderId;
use serde_json::json;
use simulators::gateway::Status;
use simulators::gateway::ledger::{Ledger, Summary};

use super::World;
use crate::commands::demo::scenario::{Deviation, in_euro};
use crate::commands::demo::trial::Trial;

/// What became of an order's money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Money {
    /// So many cents were taken, once.
    Charged(i64),
    /// So many cents were held and released.
    Released(i64),
    /// The card was declined.
    Declined,
}

impl World {
    /// Checks that the gateway knows exactly one payment for the order, and that it ended like this.
    pub async fn check_money(&self, trial: &Trial, id: OrderId, money: Money) -> Result<(), Deviation> {
        let payments = self.ledger(&format!("order_id={id}&requests=0")).await?.intents;
        let [payment] = payments.as_slice() else {
            return Err(Deviation::new("one payment at the gateway", format!("{}: {payments:?}", payments.len())));
        };
        let expected = match money {
            Money::Charged(cents) => (Status::Succeeded, cents, cents, 1),
            Money::Released(cents) => (Status::Canceled, cents, 0, 0),
            Money::Declined => (Status::RequiresPaymentMethod, 0, 0, 0),
        };
        let Summary { status, authorized, captured, captures, refunds, .. } = payment;
        let what = "status, authorized, captured, captures at the gateway";
        Deviation::unless_equal(what, &(*status, *authorized, *captured, *captures), &expected)?;
        Deviation::unless_equal("refunds at the gateway", refunds, &0)?;
        trial.checked(match money {
            Money::Charged(cents) => format!("the gateway charged {}, once", in_euro(cents)),
            Money::Released(cents) => {
                format!("the gateway held {} and released it; nothing was charged", in_euro(cents))
            }
            Money::Declined => "the gateway declined the card; nothing was held or charged".to_owned(),
        });
        Ok(())
    }

    /// How many requests the gateway has left without an answer.
    pub async fn unanswered_at_gateway(&self) -> Result<usize, Deviation> {
        let requests = self.ledger("requests=100").await?.requests;
        Ok(requests.iter().filter(|request| request.status.is_none()).count())
    }

    /// From now on the gateway drops every connection, or works again.
    pub async fn gateway_is(&self, mode: &'static str) -> Result<(), Deviation> {
        let url = format!("{}/_control/mode", self.settings.payment.gateway.url);
        let answer = self.http.put(&url).json(&json!({ "mode": mode })).send().await;
        match answer.and_then(reqwest::Response::error_for_status) {
            Ok(_) => Ok(()),
            Err(error) => Err(Deviation::new(format!("the gateway simulator to be {mode}"), error.to_string())),
        }
    }

    async fn ledger(&self, query: &str) -> Result<Ledger, Deviation> {
        self.get_json(format!("{}/_control/ledger?{query}", self.settings.payment.gateway.url)).await
    }
}
