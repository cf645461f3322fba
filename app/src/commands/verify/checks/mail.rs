use std::collections::BTreeSet;

use super::{Finding, Index};
use crate::commands::verify::evidence::Evidence;

/// I4: one confirmation for each confirmed order, none for a cancelled one. A mail that came twice is counted apart: it
/// carries the same Message-ID, so that it is shown once.
pub(super) fn check(evidence: &Evidence, index: &Index<'_>) -> Finding {
    let mut finding =
        Finding::new("I4", "one confirmation per confirmed order with an address, none for cancelled ones");
    let mut expected = BTreeSet::new();
    for (id, wish) in &index.wishes {
        let Some(order) = evidence.orders.get(*id) else { continue };
        let mut wrong = Vec::new();
        let due = ["acknowledgement", if order.is_confirmed() { "confirmation" } else { "cancellation" }];
        for notice in due {
            let message_id = mail(id, notice);
            let came = evidence.mails.get(&message_id).copied().unwrap_or(0);
            match (wish.email, came) {
                (true, 0) => wrong.push(format!("is {} and the {notice} was never sent", order.end())),
                (false, 1..) => wrong.push(format!("names no address, and the {notice} was sent {came} times")),
                _ => {}
            }
            expected.insert(message_id);
        }
        finding.look(Some(id), wrong);
    }
    for message_id in evidence.mails.keys().filter(|id| !expected.contains(*id)) {
        let order = message_id.split('.').next().map(str::to_owned).filter(|id| index.wishes.contains_key(id));
        finding.look(order.as_ref(), [format!("nothing explains the mail {message_id}")]);
    }
    let repeated = evidence.mails.values().filter(|count| **count > 1).count();
    let mails: u64 = evidence.mails.values().sum();
    finding.remarks.push(format!("{mails} mails, {repeated} of them came more than once, with the same Message-ID"));
    finding
}

fn mail(order: &str, notice: &str) -> String {
    format!("{order}.{notice}@millrace.example")
}
