use super::{Disagreement, Facts, Kind, Moment};

/// Whether the order service knows the order, and brings it to its end.
pub(super) fn judge(facts: &Facts, moment: Moment, found: &mut Vec<Disagreement>) {
    let id = &facts.order_id;
    let Some(order) = &facts.order else {
        let payment = facts.payment.as_ref().filter(|payment| payment.amount.is_some());
        let created = facts.events.iter().find(|event| event.subject.starts_with("orders.created"));
        if payment.is_none() && facts.reservation.is_none() && created.is_none() {
            // Known from the gateway alone, or from nothing but its cancellation.
            return;
        }
        let remedy = format!(
            "the order service's database has lost the order: restore its latest backup, and look at what is left with \
             millrace events tail --order {id} --since 7d --no-follow"
        );
        let mut unknown = Disagreement::new(facts, Kind::OrderUnknown, remedy).says("order", "does not know it");
        if let Some(payment) = payment {
            unknown = unknown.says("payment", &payment.state);
        }
        if let Some(reservation) = &facts.reservation {
            unknown = unknown.says("inventory", &reservation.status);
        }
        if let Some(event) = created {
            unknown =
                unknown.says("streams", format!("{} is message {} of {}", event.subject, event.seq, event.stream));
        }
        return found.push(unknown);
    };
    if order.status == "processing" && order.deadline_at < moment.overdue_before {
        let remedy = "the order service cancels such orders by itself: see that it runs, millrace doctor";
        found.push(
            Disagreement::new(facts, Kind::OrderOverdue, remedy)
                .says("order", format!("processing, and its deadline was {}", at(order.deadline_at))),
        );
    }
}

/// RFC 3339, to the second.
pub(super) fn at(ms: i64) -> String {
    let seconds = time::OffsetDateTime::from_unix_timestamp(ms.div_euclid(1_000));
    let text = seconds.ok().and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_else(|| format!("{ms} ms after 1970"))
}
