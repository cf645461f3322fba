use super::order::at;
use super::{Disagreement, Facts, Kind, Moment};
use crate::commands::reconcile::facts::Payment;

/// States that only an operator can end.
const NEEDS_OPERATOR: [&str; 4] = ["authorize_unknown", "capture_failed", "void_failed", "refund_failed"];

/// Whether the payment service does what follows from the order's end.
pub(super) fn judge(facts: &Facts, moment: Moment, found: &mut Vec<Disagreement>) {
    let status = facts.status();
    let Some(payment) = &facts.payment else {
        if status == "confirmed" {
            let remedy = "the payment service's database has lost it: restore its latest backup";
            found.push(
                Disagreement::new(facts, Kind::PaymentMissing, remedy)
                    .says("order", status)
                    .says("payment", "does not know it")
                    .fixed_by(facts.redeliveries("payment", moment)),
            );
        }
        return;
    };
    amounts(facts, payment, found);
    let state = payment.state.as_str();
    if let Some(due_at) = payment.due_at {
        if due_at < moment.overdue_before {
            let remedy = "see that the payment service runs, and its gateway answers: millrace doctor";
            let problem = payment.problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
            found.push(
                Disagreement::new(facts, Kind::PaymentStepOverdue, remedy)
                    .says("payment", format!("{state}, and a step is due since {}{problem}", at(due_at))),
            );
        }
        return;
    }
    if NEEDS_OPERATOR.contains(&state) {
        let problem = payment.problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
        found.push(
            Disagreement::new(
                facts,
                Kind::PaymentNeedsOperator,
                format!("millrace payments show {}, then retry or settle it", facts.order_id),
            )
            .says("order", status)
            .says("payment", format!("{state}{problem}")),
        );
        return;
    }
    let kind = match (status, state) {
        ("confirmed", "captured") => return,
        ("confirmed", _) => Kind::NotCaptured,
        ("cancelled", "authorized" | "captured") => Kind::MoneyKept,
        _ => return,
    };
    let end = if kind == Kind::NotCaptured { "confirmed" } else { "cancelled" };
    let remedy = format!(
        "the payment service was told that the order is {end}, and did not act: keep its log, settle the payment at the \
         gateway, and report this"
    );
    found.push(
        Disagreement::new(facts, kind, remedy)
            .says("order", status)
            .says("payment", format!("{state}, and no step is due"))
            .fixed_by(facts.redeliveries("payment", moment)),
    );
}

fn amounts(facts: &Facts, payment: &Payment, found: &mut Vec<Disagreement>) {
    let (Some(order), Some(amount)) = (&facts.order, &payment.amount) else { return };
    if order.total != *amount {
        let remedy = "find out which is right, and refund what was charged too much at the gateway";
        found.push(
            Disagreement::new(facts, Kind::AmountsDiffer, remedy)
                .says("order", order.total.to_string())
                .says("payment", amount.to_string()),
        );
    }
}
