use std::collections::BTreeMap;

use super::{Finding, Index};
use crate::commands::verify::evidence::{Charge, Evidence, Id, OrderRow, Wish};

/// I2: confirmed is captured exactly once, the exact amount; cancelled keeps no money and leaves no authorization open.
pub(super) fn check(evidence: &Evidence, index: &Index<'_>) -> Finding {
    let mut finding =
        Finding::new("I2", "confirmed = charged once, exactly; cancelled = no money kept, none left on hold");
    let mut charges: BTreeMap<&Id, Vec<&Charge>> = BTreeMap::new();
    for charge in &evidence.charges {
        match charge.order.as_ref().filter(|id| index.wishes.contains_key(id)) {
            Some(order) => charges.entry(order).or_default().push(charge),
            None => finding.look(charge.order.as_ref(), [format!("{} belongs to no order that was placed", charge.id)]),
        }
    }
    for (id, wish) in &index.wishes {
        // I1 speaks of orders that are not there.
        let Some(order) = evidence.orders.get(*id) else { continue };
        let charges = charges.get(id).map(Vec::as_slice).unwrap_or_default();
        let mut wrong = at_the_gateway(order, wish, charges);
        wrong.extend(in_our_books(order, evidence.payments.get(*id), charges));
        finding.look(Some(id), wrong);
    }
    for forgotten in &evidence.forgotten {
        finding.look(None, [forgotten.clone()]);
    }
    let taken: i64 = evidence.charges.iter().map(|charge| charge.captured - charge.refunded).sum();
    finding.remarks.push(format!("{} payments at the gateway, {} cents kept", evidence.charges.len(), taken));
    finding
}

fn at_the_gateway(order: &OrderRow, wish: &Wish, charges: &[&Charge]) -> Vec<String> {
    let mut wrong = Vec::new();
    if charges.len() > 1 {
        let ids: Vec<_> = charges.iter().map(|charge| charge.id.as_str()).collect();
        wrong.push(format!("has {} payments at the gateway: {ids:?}", charges.len()));
    }
    let captures: u32 = charges.iter().map(|charge| charge.captures).sum();
    let kept: i64 = charges.iter().map(|charge| charge.captured - charge.refunded).sum();
    let on_hold = charges.iter().any(|charge| charge.status == "requires_capture");
    if order.is_confirmed() {
        if captures != 1 {
            wrong.push(format!("is confirmed and was charged {captures} times"));
        }
        if kept != wish.total {
            wrong.push(format!("is confirmed for {} cents and {kept} were kept", wish.total));
        }
    } else {
        if captures != 0 {
            wrong.push(format!("is {} and was charged {captures} times", order.end()));
        }
        if kept != 0 {
            wrong.push(format!("is {} and {kept} cents were kept", order.end()));
        }
    }
    if on_hold {
        wrong.push(format!("is {} and money is still on hold", order.end()));
    }
    wrong
}

/// What the payment service believes is what the gateway knows.
fn in_our_books(order: &OrderRow, state: Option<&String>, charges: &[&Charge]) -> Option<String> {
    let state = state.map_or("nothing", String::as_str);
    let expected: &[&str] = match charges.first().map(|charge| charge.status.as_str()) {
        None => &["cancelled"],
        Some("requires_payment_method") => &["declined"],
        Some("succeeded") => &["captured"],
        Some("canceled") => &["voided"],
        // Said above.
        Some(_) => return None,
    };
    // An order that nobody heard of but its cancellation leaves a tombstone; one that ended otherwise was paid for.
    let tombstone = charges.is_empty() && !order.is_cancelled();
    (tombstone || !expected.contains(&state))
        .then(|| format!("the payment service says {state}; by the gateway it would be {}", expected.join(" or ")))
}
