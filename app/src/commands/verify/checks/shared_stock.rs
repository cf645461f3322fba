use std::collections::BTreeMap;

use super::Finding;
use crate::commands::verify::evidence::{Evidence, Id, SharedStock};

/// I3 where others buy as well: each order holds or took exactly what it names, and each product it names adds up over
/// everybody's orders.
pub(super) fn check(evidence: &Evidence, shared: &SharedStock) -> Finding {
    let mut finding = Finding::new(
        "I3",
        "stock: adjustments = available + held + sold, each order took what it names, none below zero",
    );
    for wish in &evidence.wishes {
        for id in &wish.accepted {
            let wrong = evidence.orders.get(id).map(|order| {
                let taken = match order.status.as_str() {
                    "confirmed" => added_up(&wish.items),
                    _ => BTreeMap::new(),
                };
                reservation(evidence, shared, id, &order.status, &taken)
            });
            finding.look(Some(id), wrong.into_iter().flatten());
        }
    }
    for (product, book) in &shared.books {
        let mut wrong = Vec::new();
        let all = book.stock.available + book.stock.reserved + book.stock.committed;
        if all != book.came_in {
            wrong.push(format!("{product}: adjustments come to {}, but it has {:?}", book.came_in, book.stock));
        }
        if book.held != book.stock.reserved || book.taken != book.stock.committed {
            wrong.push(format!(
                "{product}: orders hold {} and took {}, but it has {:?}",
                book.held, book.taken, book.stock
            ));
        }
        if book.stock.available < 0 || book.stock.reserved < 0 || book.stock.committed < 0 {
            wrong.push(format!("{product}: below zero: {:?}", book.stock));
        }
        finding.look(None, wrong);
    }
    finding.remarks.push(format!("{} products, with the orders of others", shared.books.len()));
    finding
}

fn reservation(
    evidence: &Evidence,
    shared: &SharedStock,
    id: &Id,
    status: &str,
    taken: &BTreeMap<&str, i64>,
) -> Option<String> {
    let reservation = evidence.reservations.get(id).map_or("nothing", String::as_str);
    let fits = match status {
        "confirmed" => reservation == "committed",
        "cancelled" => matches!(reservation, "released" | "tombstone" | "rejected"),
        _ => false,
    };
    if !fits {
        return Some(format!("its reservation is {reservation} and the order {status}"));
    }
    let lines = shared.lines.get(id).map(Vec::as_slice).unwrap_or_default();
    let lines: BTreeMap<&str, i64> = lines.iter().map(|(product, units)| (product.as_str(), *units)).collect();
    (status == "confirmed" && lines != *taken).then(|| format!("it wants {taken:?}, and {lines:?} went out"))
}

fn added_up(items: &[(String, u32)]) -> BTreeMap<&str, i64> {
    let mut units = BTreeMap::new();
    for (product, quantity) in items {
        *units.entry(product.as_str()).or_default() += i64::from(*quantity);
    }
    units
}
