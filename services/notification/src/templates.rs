//! What customers read: plain text, one subject and body per notice, and one line for a phone.

use contracts::notifications::Notice;
use contracts::orders::{CancelReason, PricedItem};
use contracts::{Money, OrderId};

use crate::domain::Send;

/// A mail's subject and text.
pub fn email(order_id: OrderId, send: &Send) -> (String, String) {
    let (subject, opening) = match send.notice {
        Notice::Acknowledgement => (
            format!("We have your order {order_id}"),
            "thank you for your order. We are checking stock and payment now,\n\
             and will write again as soon as that is done."
                .to_owned(),
        ),
        Notice::Confirmation => (
            format!("Your order {order_id} is confirmed"),
            "good news: everything you ordered is reserved for you and your\n\
             payment went through. We are packing it now."
                .to_owned(),
        ),
        Notice::Cancellation => (
            format!("Your order {order_id} was cancelled"),
            format!("your order was cancelled, because {}.\nYou have not been charged for it.", because(send.reason)),
        ),
    };
    let lines: String = send.items.iter().map(|item| line(item, send.total)).collect();
    let text =
        format!("Hello,\n\n{opening}\n\nOrder: {order_id}\n{lines}Total: {}\n\nKind regards\nYour shop\n", send.total);
    (subject, text)
}

/// A text message, short enough for two parts.
pub fn sms(order_id: OrderId, send: &Send) -> String {
    let total = send.total;
    match send.notice {
        Notice::Acknowledgement => {
            format!("We have your order {order_id} ({total}) and will write when it is confirmed.")
        }
        Notice::Confirmation => format!("Your order {order_id} ({total}) is confirmed."),
        Notice::Cancellation => {
            format!(
                "Your order {order_id} ({total}) was cancelled, because {}. You have not been charged.",
                because(send.reason)
            )
        }
    }
}

fn because(reason: Option<CancelReason>) -> &'static str {
    match reason {
        Some(CancelReason::PaymentDeclined) => "the payment was declined",
        Some(CancelReason::OutOfStock) => "not everything in it is in stock",
        Some(CancelReason::Customer) => "you asked us to",
        Some(CancelReason::Deadline) => "we could not complete it in time",
        None => "it could not be completed",
    }
}

fn line(item: &PricedItem, total: Money) -> String {
    let price = item.unit_price_minor.map(|minor| Money { minor, ..total });
    match price {
        Some(price) => format!("  {} x {} at {price}\n", item.quantity, item.product_id),
        None => format!("  {} x {}\n", item.quantity, item.product_id),
    }
}

#[cfg(test)]
mod tests {
    use contracts::ProductId;
    use contracts::notifications::Channel;

    use super::*;

    fn send(notice: Notice, reason: Option<CancelReason>) -> Send {
        let item = |id: &str, unit_price_minor| PricedItem {
            product_id: ProductId::new(id).unwrap(),
            quantity: 2,
            unit_price_minor,
        };
        Send {
            notice,
            channel: Channel::Email,
            to: "ann@example.org".into(),
            total: Money::new(1998, "EUR".parse().unwrap()).unwrap(),
            items: vec![item("mug", Some(999)), item("gift", None)],
            reason,
            attempts: 0,
        }
    }

    #[test]
    fn every_notice_names_the_order_its_total_and_its_items() {
        let id = OrderId::generate();
        for notice in crate::model::NOTICES {
            let (subject, text) = email(id, &send(notice, None));
            assert!(subject.contains(&id.to_string()));
            for part in [&id.to_string(), "Total: 19.98 EUR", "  2 x mug at 9.99 EUR\n", "  2 x gift\n"] {
                assert!(text.contains(part), "{part} is missing in {text}");
            }
            let short = sms(id, &send(notice, Some(CancelReason::OutOfStock)));
            assert!(short.contains(&id.to_string()) && short.contains("19.98 EUR"), "{short}");
            assert!(short.len() <= 306, "two parts of 153 characters: {short}");
        }
    }

    #[test]
    fn a_cancellation_says_why_and_that_nothing_was_charged() {
        let reason = CancelReason::PaymentDeclined;
        let (_, text) = email(OrderId::generate(), &send(Notice::Cancellation, Some(reason)));
        assert!(text.contains("the payment was declined") && text.contains("not been charged"), "{text}");
    }
}
