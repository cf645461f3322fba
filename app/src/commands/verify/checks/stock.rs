use std::collections::BTreeMap;

use super::{Finding, Index};
use crate::commands::verify::evidence::Evidence;

/// I3: every unit is accounted for, nothing is held, and never was anything below zero.
pub(super) fn check(evidence: &Evidence, index: &Index<'_>) -> Finding {
    let mut finding =
        Finding::new("I3", "stock: initial + adjustments = available + sold, none held, never below zero");
    let mut sold: BTreeMap<&str, i64> = BTreeMap::new();
    for (id, wish) in &index.wishes {
        if evidence.orders.get(*id).is_some_and(|order| order.status == "confirmed") {
            for (product, units) in &wish.items {
                *sold.entry(product).or_default() += i64::from(*units);
            }
        }
    }
    let mut came_in = evidence.opening.clone();
    for (product, units) in &evidence.adjustments {
        *came_in.entry(product.clone()).or_default() += units;
    }
    for (product, came_in) in &came_in {
        let Some(stock) = evidence.stock.get(product) else {
            finding.look(None, [format!("{product} is not in stock at all")]);
            continue;
        };
        let sold = sold.remove(product.as_str()).unwrap_or(0);
        let mut wrong = Vec::new();
        if stock.available + stock.committed + stock.reserved != *came_in {
            wrong.push(format!(
                "{product}: {came_in} came in, but {} are available, {} held and {} sold",
                stock.available, stock.reserved, stock.committed
            ));
        }
        if stock.reserved != 0 {
            wrong.push(format!("{product}: {} are still held", stock.reserved));
        }
        if stock.available < 0 || stock.committed < 0 {
            wrong.push(format!("{product}: below zero: {stock:?}"));
        }
        if stock.committed != sold {
            wrong.push(format!("{product}: confirmed orders took {sold}, {} are booked as sold", stock.committed));
        }
        let booked = evidence.booked_adjustments.get(product).copied().unwrap_or(0);
        if booked != *came_in {
            wrong.push(format!("{product}: adjustments come to {booked} instead of {came_in}"));
        }
        finding.look(None, wrong);
    }
    for (product, units) in sold {
        finding.look(None, [format!("{units} of {product} were sold, which was never in stock")]);
    }
    for (id, status) in &evidence.reservations {
        finding.look(Some(id), reservation(evidence, id, status));
    }
    // Otherwise nobody can say that it never was.
    finding.look(None, (evidence.samples.taken == 0).then(|| "the stock was never seen during the run".to_owned()));
    finding.checked += evidence.samples.taken;
    for wrong in &evidence.samples.wrong {
        finding.look(None, [format!("seen during the run: {wrong}")]);
    }
    finding.remarks.push(format!("{} looks at the stock during the run", evidence.samples.taken));
    finding
}

fn reservation(evidence: &Evidence, id: &str, status: &str) -> Option<String> {
    let order = evidence.orders.get(id).map_or("unknown", |order| order.status.as_str());
    let fits = match order {
        "confirmed" => status == "committed",
        "cancelled" => matches!(status, "released" | "tombstone"),
        _ => false,
    };
    (!fits).then(|| format!("its reservation is {status} and the order {order}"))
}
