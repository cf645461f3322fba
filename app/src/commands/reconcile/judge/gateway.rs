use super::{Disagreement, Facts, Fix, Kind, Moment};
use crate::commands::reconcile::facts::{Intent, Payment};

const LOST: &str = "the payment service's database has lost the order: restore a later backup, then compare again";

/// Whether the gateway and the payment service say the same about the order's money.
pub(super) fn judge(facts: &Facts, moment: Moment, found: &mut Vec<Disagreement>) {
    let Some(intents) = &facts.gateway else { return };
    let payment = facts.payment.as_ref();
    let known = |intent: &&Intent| payment.is_some_and(|payment| payment.payment_id.as_ref() == Some(&intent.id));
    let on_record = intents.iter().find(known);
    if let Some(payment) = payment.filter(|payment| payment.due_at.is_none()) {
        compare(facts, payment, on_record, found);
    }
    for intent in intents.iter().filter(|intent| !known(intent)) {
        unrecorded(facts, intent, moment, found);
    }
    let charged: Vec<&Intent> = intents.iter().filter(|intent| intent.captured > intent.refunded).collect();
    if charged.len() > 1 {
        let mut twice = Disagreement::new(facts, Kind::ChargedTwice, "refund all but one at the gateway");
        for intent in charged {
            twice = twice.says("gateway", told(intent));
        }
        found.push(twice);
    }
}

/// The payment on record.
fn compare(facts: &Facts, payment: &Payment, intent: Option<&Intent>, found: &mut Vec<Disagreement>) {
    let Some(payment_id) = &payment.payment_id else { return };
    let Some(intent) = intent else {
        // What an operator settled elsewhere is not at the gateway.
        if payment_id.starts_with("pi_") {
            let remedy = "see that payment.gateway names the account that the payment was made with";
            found.push(
                Disagreement::new(facts, Kind::GatewayDisagrees, remedy)
                    .says("payment", format!("{}: {payment_id}", payment.state))
                    .says("gateway", "does not know it"),
            );
        }
        return;
    };
    let fits = match payment.state.as_str() {
        "authorized" => intent.status == "requires_capture",
        "captured" => intent.status == "succeeded" && intent.captured == intent.amount.minor && intent.refunded == 0,
        "voided" => intent.status == "canceled",
        "refunded" => intent.status == "succeeded" && intent.refunded == intent.captured,
        // Where a step failed for good, an operator looks anyway.
        _ => true,
    };
    if !fits {
        let remedy = "somebody moved the money at the gateway: set it right there, so that it fits the order's end";
        found.push(
            Disagreement::new(facts, Kind::GatewayDisagrees, remedy)
                .says("order", facts.status())
                .says("payment", format!("{}: {payment_id}", payment.state))
                .says("gateway", told(intent)),
        );
    }
    // Of what was released or given back, no amount is owed.
    let moves_money = intent.status == "requires_capture" || intent.captured > intent.refunded;
    if let Some(amount) = payment.amount.as_ref().filter(|amount| moves_money && **amount != intent.amount) {
        let remedy = "find out which is right, and refund what was charged too much at the gateway";
        found.push(
            Disagreement::new(facts, Kind::AmountsDiffer, remedy)
                .says("payment", amount.to_string())
                .says("gateway", told(intent)),
        );
    }
}

/// A payment at the gateway that the payment service has not on record.
fn unrecorded(facts: &Facts, intent: &Intent, moment: Moment, found: &mut Vec<Disagreement>) {
    let says = match &facts.payment {
        None => "does not know the order".to_owned(),
        Some(payment) => match &payment.payment_id {
            None => format!("{}, without a payment at the gateway", payment.state),
            Some(other) => format!("{}, and its payment is {other}", payment.state),
        },
    };
    if intent.captured > intent.refunded {
        // An order that payment has lost was charged rightly; told again, payment finds this very charge.
        let lost = facts.payment.is_none() && facts.status() == "confirmed";
        let (remedy, fixes) = match lost {
            true => (LOST.to_owned(), facts.redeliveries("payment", moment)),
            false => {
                (format!("find out whether the order was to be charged; if not, refund {}", intent.id), Vec::new())
            }
        };
        found.push(
            Disagreement::new(facts, Kind::ChargeUnrecorded, remedy)
                .says("order", facts.status())
                .says("payment", says)
                .says("gateway", told(intent))
                .fixed_by(fixes),
        );
        return;
    }
    // A step that is due finds the hold by itself.
    if intent.status != "requires_capture" || facts.payment.as_ref().is_some_and(|payment| payment.due_at.is_some()) {
        return;
    }
    let id = &intent.id;
    let (remedy, fixes) = match &facts.payment {
        Some(payment) if payment.payment_id.is_none() && payment.cancelled => {
            (String::new(), vec![Fix::Release { payment_id: id.clone() }])
        }
        // Money of an order that still goes on, or a second hold, whose release would share an idempotency key.
        Some(_) => (format!("release {id} at the gateway, once the order does not need it"), Vec::new()),
        None if facts.order.is_some() => (LOST.to_owned(), facts.redeliveries("payment", moment)),
        // It may be somebody else's, who shares the account: nobody but an operator can know.
        None => (
            format!(
                "if nobody else uses this account of the gateway: millrace payments release {} {id} --order-is-unknown",
                facts.order_id
            ),
            Vec::new(),
        ),
    };
    found.push(
        Disagreement::new(facts, Kind::HoldUnrecorded, remedy)
            .says("order", facts.status())
            .says("payment", says)
            .says("gateway", told(intent))
            .fixed_by(fixes),
    );
}

fn told(intent: &Intent) -> String {
    let Intent { id, status, amount, captured, refunded, .. } = intent;
    match (captured, refunded) {
        (0, _) => format!("{id} is {status}, {amount}"),
        (captured, 0) => format!("{id} is {status}, {amount}, captured {captured}"),
        (captured, refunded) => format!("{id} is {status}, {amount}, captured {captured}, refunded {refunded}"),
    }
}
