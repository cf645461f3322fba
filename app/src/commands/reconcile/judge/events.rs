use super::order::at;
use super::{Disagreement, Facts, Fix, Kind, Moment};
use crate::commands::reconcile::facts::{Event, Handled, Handling};

/// Whether every event was published, stands in its stream, was handled, and is shown.
pub(super) fn judge(facts: &Facts, moment: Moment, found: &mut Vec<Disagreement>) {
    for row in &facts.outbox {
        let name = format!("outbox of {}", row.service);
        match &row.place {
            None if row.created_at < moment.overdue_before => {
                let remedy = format!("see that {} runs and NATS answers: millrace doctor", row.service);
                found.push(
                    Disagreement::new(facts, Kind::EventNotPublished, remedy)
                        .says(name, format!("{} waits since {}", row.subject, at(row.created_at))),
                );
            }
            Some((stream, seq)) if !row.on_stream => found.push(
                Disagreement::new(facts, Kind::EventLost, "")
                    .says(name, format!("{} is message {seq} of {stream}", row.subject))
                    .says("streams", format!("{stream} does not hold it"))
                    .fixed_by(vec![Fix::Republish { service: row.service, row: row.id }]),
            ),
            None | Some(_) => {}
        }
    }
    for one in never_handled(facts) {
        let (event, handling) = one;
        let remedy = "the gateway may have forgotten this payment's key, and would charge again: restore a later backup \
                      of the payment service's database, or settle the order's money at the gateway by hand";
        found.push(
            Disagreement::new(facts, Kind::EventNotHandled, remedy)
                .says("streams", place(event))
                .says("broker", format!("{} is past it", handling.durable))
                .says(handling.service, "its inbox has no mark of it")
                .fixed_by(redelivery(facts, one, moment).into_iter().collect()),
        );
    }
    for (event, handling) in handlings(facts) {
        if let Handled::DeadLetter(letter) = handling.state {
            found.push(
                Disagreement::new(facts, Kind::DeadLetterWaits, format!("millrace dead-letters show {letter}"))
                    .says("streams", place(event))
                    .says(handling.service, format!("{} could not handle it", handling.durable)),
            );
        }
    }
    if facts.order.is_some() {
        timeline(facts, moment, found);
    }
}

/// The order service writes its own events on the timeline itself, and others' when it handles them.
fn timeline(facts: &Facts, moment: Moment, found: &mut Vec<Disagreement>) {
    for event in facts.events.iter().filter(|event| !facts.timeline.contains(&event.event_id)) {
        let heard: Vec<&Handling> = event.handling.iter().filter(|one| one.service == "order").collect();
        if heard.iter().any(|one| !matches!(one.state, Handled::Yes | Handled::Never)) {
            continue;
        }
        let never = heard.iter().filter(|one| one.state == Handled::Never);
        let fixes = never.filter_map(|one| redelivery(facts, (event, one), moment));
        found.push(
            Disagreement::new(
                facts,
                Kind::TimelineGap,
                format!("rebuild it: millrace replay timeline --order {}", facts.order_id),
            )
            .says("streams", place(event))
            .says("order", "the order's timeline does not show it")
            .fixed_by(fixes.collect()),
        );
    }
}

pub(super) fn never_handled(facts: &Facts) -> impl Iterator<Item = (&Event, &Handling)> {
    handlings(facts).filter(|(_, handling)| handling.state == Handled::Never)
}

/// Delivering an event again, if that cannot do harm.
pub(super) fn redelivery(facts: &Facts, (event, handling): (&Event, &Handling), moment: Moment) -> Option<Fix> {
    let safe = handling.service != "payment" || !facts.would_authorize_anew(moment);
    let (durable, stream) = (handling.durable.clone(), event.stream.clone());
    safe.then_some(Fix::Redeliver { durable, stream, seq: event.seq })
}

fn handlings(facts: &Facts) -> impl Iterator<Item = (&Event, &Handling)> {
    facts.events.iter().flat_map(|event| event.handling.iter().map(move |handling| (event, handling)))
}

fn place(event: &Event) -> String {
    format!("{} is message {} of {}", event.subject, event.seq, event.stream)
}
