use super::order::at;
use super::{Disagreement, Facts, Kind, Moment};

/// Whether goods went where the order's end says.
pub(super) fn stock(facts: &Facts, moment: Moment, found: &mut Vec<Disagreement>) {
    let held = facts.reservation.as_ref().map(|reservation| reservation.status.as_str());
    let (kind, remedy) = match (facts.status(), held) {
        ("confirmed", None) => {
            (Kind::ReservationMissing, "the inventory service's database has lost it: restore its latest backup")
        }
        ("confirmed", Some(status)) if status != "committed" => (
            Kind::StockNotCommitted,
            "inventory was told, and did not act: keep its log, take the units out with millrace stock adjust, and \
             report this",
        ),
        ("cancelled", Some("held" | "committed" | "expected")) => (
            Kind::StockStillHeld,
            "inventory was told, and did not act: keep its log, put the units back with millrace stock adjust, and \
             report this",
        ),
        _ => return,
    };
    found.push(
        Disagreement::new(facts, kind, remedy)
            .says("order", facts.status())
            .says("inventory", held.unwrap_or("does not know it"))
            .fixed_by(facts.redeliveries("inventory", moment)),
    );
}

/// Whether the customer heard how the order ended.
pub(super) fn notices(facts: &Facts, moment: Moment, found: &mut Vec<Disagreement>) {
    let Some(order) = &facts.order else { return };
    let notice = match order.status.as_str() {
        "confirmed" => "confirmation",
        "cancelled" => "cancellation",
        _ => return,
    };
    let deliveries = facts.notices.as_ref().map(|notices| notices.deliveries.as_slice()).unwrap_or_default();
    for channel in [("email", order.email), ("sms", order.phone)].into_iter().filter_map(|(c, has)| has.then_some(c)) {
        let delivery = deliveries.iter().find(|one| one.notice == notice && one.channel == channel);
        let says = match delivery {
            None => format!("knows of no {notice} by {channel}"),
            Some(delivery) if delivery.status == "due" && delivery.next_attempt_at < moment.overdue_before => {
                format!("the {notice} by {channel} is due since {}", at(delivery.next_attempt_at))
            }
            Some(_) => continue,
        };
        let remedy = "see that the notification service runs, and its providers answer: millrace doctor";
        found.push(
            Disagreement::new(facts, Kind::NoticeNotSent, remedy)
                .says("order", facts.status())
                .says("notification", says)
                .fixed_by(facts.redeliveries("notification", moment)),
        );
    }
}
