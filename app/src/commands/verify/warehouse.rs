//! Looks at the stock during the run, and books what comes in and goes out.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::ProductId;
use contracts::api::{StockAdjustment, StockLevel, StockLevels, StockQuery, subjects};
use millrace::connection::Connection;
use millrace::request_reply::request_json;
use serde_json::Value;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::evidence::Samples;

const LOOK_EVERY: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks until `stop`.
pub async fn watch(
    connection: &Connection,
    opening: &BTreeMap<String, i64>,
    adjustments: &[(String, i64)],
    stop: CancellationToken,
) -> Samples {
    let mut samples = Samples::default();
    while !stop.is_cancelled() {
        let all = StockQuery::default();
        let asked = request_json(connection, subjects::INVENTORY_STOCK, &all, PATIENCE);
        // An inventory that is being killed does not answer; that is not what is looked for here.
        let answer: Option<StockLevels> = asked.await.ok();
        for level in answer.into_iter().flat_map(|levels| levels.levels) {
            samples.taken += 1;
            samples.wrong.extend(wrong(&level, opening, adjustments));
        }
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
    samples
}

fn wrong(level: &StockLevel, opening: &BTreeMap<String, i64>, adjustments: &[(String, i64)]) -> Option<String> {
    let product = level.product_id.as_str();
    let opening = opening.get(product)?;
    let total = level.available + level.reserved + level.committed;
    let adjusted: i64 = adjustments.iter().filter(|(id, _)| id == product).map(|(_, units)| units).sum();
    let negative = level.available < 0 || level.reserved < 0 || level.committed < 0;
    (negative || ![*opening, opening + adjusted].contains(&total)).then(|| {
        format!(
            "{product}: {} available, {} held, {} sold of {opening} (+ {adjusted})",
            level.available, level.reserved, level.committed
        )
    })
}

/// Books each adjustment once, however often it has to be asked for. Returns what could not be booked until `stop`.
pub async fn adjust(connection: &Connection, adjustments: &[(String, i64)], stop: &CancellationToken) -> Vec<String> {
    let mut failed = Vec::new();
    for (product, units) in adjustments {
        let Ok(product_id) = ProductId::new(product) else { continue };
        let adjustment = StockAdjustment {
            adjustment_id: uuid::Uuid::now_v7(),
            product_id,
            delta: *units,
            reason: "verify".to_owned(),
        };
        let mut last = None;
        while !stop.is_cancelled() {
            match request_json::<_, Value>(connection, subjects::INVENTORY_ADJUST, &adjustment, PATIENCE).await {
                Ok(_) => {
                    last = None;
                    break;
                }
                Err(error) => last = Some(error.to_string()),
            }
            sleep(LOOK_EVERY).await;
        }
        failed.extend(last.map(|reason| format!("the adjustment of {product} by {units} was not booked: {reason}")));
    }
    failed
}
