//! Counts the orders of a world once more, where they have to be: at the order API, at the payment gateway, at the mail
//! server. A fast system that loses some would be no system.

use std::net::SocketAddr;
use std::time::Duration;

use order::api::view::OrderList;
use serde::de::DeserializeOwned;
use simulators::gateway::ledger::Ledger;
use simulators::mail::Messages;

use super::figures::Counted;
use super::past;
use super::world::World;
use crate::failure::Failure;

/// Ledgers of many thousands of orders take their time.
const PATIENCE: Duration = Duration::from_secs(60);
const PAGE: u32 = 100;

/// After everything has settled.
pub async fn count(world: &World) -> Result<Counted, Failure> {
    let http = Http(millrace::http_client::http_client(PATIENCE, PATIENCE).map_err(|e| Failure::new(e.to_string()))?);
    let accepted = world.tracker.placed();
    let at_api = http.at_api(world.api, Some("confirmed")).await?;
    let (mut captured_at_gateway, mut mails) = (None, None);
    if let Some((gateway, mail)) = world.simulators() {
        let ledger: Ledger = http.get(&format!("http://{gateway}/_control/ledger?requests=0")).await?;
        let captured = ledger.intents.iter().filter(|intent| intent.captures == 1).count() as u64;
        // What it has forgotten held no money: it was captured, for nothing here is ever voided.
        captured_at_gateway = Some(captured + ledger.intents_dropped);
        let messages: Messages = http.get(&format!("http://{mail}/messages?limit=0")).await?;
        mails = Some(messages.received);
    }
    Ok(Counted { accepted, at_api, captured_at_gateway, mails })
}

/// Where only the order service runs: all orders, whatever has become of them.
pub async fn count_accepted(world: &World) -> Result<Counted, Failure> {
    let http = Http(millrace::http_client::http_client(PATIENCE, PATIENCE).map_err(|e| Failure::new(e.to_string()))?);
    let at_api = http.at_api(world.api, None).await?;
    Ok(Counted { accepted: world.tracker.placed(), at_api, captured_at_gateway: None, mails: None })
}

struct Http(reqwest::Client);

impl Http {
    /// Orders on all pages, those of the past excepted.
    async fn at_api(&self, api: SocketAddr, status: Option<&str>) -> Result<u64, Failure> {
        let filter = status.map(|status| format!("&status={status}")).unwrap_or_default();
        let (mut count, mut cursor) = (0, String::new());
        loop {
            let page: OrderList = self.get(&format!("http://{api}/orders?limit={PAGE}{filter}{cursor}")).await?;
            let orders = page.orders.len();
            let present =
                page.orders.iter().take_while(|order| !order.customer_id.as_str().starts_with(past::CUSTOMER));
            let present = present.count();
            count += present as u64;
            match page.next_cursor {
                // The newest come first.
                Some(next) if present == orders => cursor = format!("&cursor={next}"),
                _ => return Ok(count),
            }
        }
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, Failure> {
        let answer = self.0.get(url).send().await.and_then(reqwest::Response::error_for_status);
        let answer = answer.map_err(|e| Failure::new(format!("{url}: {e}")))?;
        answer.json().await.map_err(|e| Failure::new(format!("{url}: {e}")))
    }
}
