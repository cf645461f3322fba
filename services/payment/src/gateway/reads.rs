//! What the gateway has on record, for whoever compares it with ours. Moves nothing.

use reqwest::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::{Answer, Gateway, GatewayError, Step};

/// Most payments on one page; Stripe's limit.
const PAGE: &str = "100";

/// A payment as the gateway knows it. Amounts are minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayPayment {
    /// `pi_...`
    pub id: String,
    /// From its metadata; `None` for a payment that is not ours.
    pub order_id: Option<Uuid>,
    /// `requires_capture`, `succeeded`, `canceled`, `requires_payment_method`, ...
    pub status: String,
    pub amount: i64,
    /// ISO 4217, upper case.
    pub currency: String,
    pub captured: i64,
    pub refunded: i64,
    /// When it was made, Unix seconds.
    pub created: i64,
}

/// A part of all payments, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub payments: Vec<GatewayPayment>,
    pub has_more: bool,
}

impl Gateway {
    /// A page of all payments, newest first, behind the payment with this id.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn payments(&self, after: Option<&str>) -> Result<Page, GatewayError> {
        let mut query = vec![("limit", PAGE), ("expand[]", "data.latest_charge")];
        query.extend(after.map(|id| ("starting_after", id)));
        self.page(&["payment_intents"], &query).await
    }

    /// The payments of one order. A gateway may take a minute until a new payment is found like this.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn payments_of(&self, order_id: Uuid) -> Result<Vec<GatewayPayment>, GatewayError> {
        let wanted = format!("metadata[\"order_id\"]:\"{order_id}\"");
        let query = [("query", wanted.as_str()), ("limit", PAGE), ("expand[]", "data.latest_charge")];
        Ok(self.page(&["payment_intents", "search"], &query).await?.payments)
    }

    /// One payment; `None` if the gateway does not know it.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn payment(&self, id: &str) -> Result<Option<GatewayPayment>, GatewayError> {
        let request = self.client.get(self.address(&["payment_intents", id])).query(&[("expand[]", "latest_charge")]);
        match self.exchange::<Intent>(Step::Look, request).await? {
            Answer::Done(intent) => Ok(Some(intent.into())),
            Answer::Refused(refusal) if refusal.status == StatusCode::NOT_FOUND => Ok(None),
            Answer::Refused(refusal) => Err(refusal.permanent(Step::Look)),
        }
    }

    async fn page(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Page, GatewayError> {
        let request = self.client.get(self.address(path)).query(query);
        match self.exchange::<List>(Step::Look, request).await? {
            Answer::Done(List { data, has_more }) => {
                Ok(Page { payments: data.into_iter().map(Into::into).collect(), has_more })
            }
            Answer::Refused(refusal) => Err(refusal.permanent(Step::Look)),
        }
    }
}

#[derive(Deserialize)]
struct List {
    data: Vec<Intent>,
    has_more: bool,
}

/// As much of a PaymentIntent as we read.
#[derive(Deserialize)]
struct Intent {
    id: String,
    status: String,
    amount: i64,
    currency: String,
    #[serde(default)]
    amount_received: i64,
    created: i64,
    #[serde(default)]
    metadata: Metadata,
    latest_charge: Option<Charge>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    order_id: Option<String>,
}

/// Its id alone, where the gateway does not show more.
#[derive(Deserialize)]
#[serde(untagged)]
enum Charge {
    Shown { amount_refunded: i64 },
    Named(IgnoredAny),
}

impl From<Intent> for GatewayPayment {
    fn from(intent: Intent) -> Self {
        let refunded = match intent.latest_charge {
            Some(Charge::Shown { amount_refunded }) => amount_refunded,
            Some(Charge::Named(_)) | None => 0,
        };
        Self {
            id: intent.id,
            order_id: intent.metadata.order_id.and_then(|id| id.parse().ok()),
            status: intent.status,
            amount: intent.amount,
            currency: intent.currency.to_ascii_uppercase(),
            captured: intent.amount_received,
            refunded,
            created: intent.created,
        }
    }
}
