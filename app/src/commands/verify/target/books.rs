//! The databases of the services: what they hold of the orders of this run.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::commands::verify::evidence::{Book, Evidence, Id, OrderRow, OutboxRow, SharedStock, Stock};
use crate::commands::verify::gather::database::{Row, Source, int, maybe, text};

/// Values in one query.
const CHUNK: usize = 200;

/// What a service's database holds of these orders.
pub(super) async fn of_service(
    source: &Source,
    service: &'static str,
    own: &BTreeSet<Id>,
    evidence: &mut Evidence,
) -> Result<(), String> {
    let table = match service {
        "payment" => "payments",
        "inventory" => "reservations",
        _ => "orders",
    };
    let known = rows_in(source, &format!("select order_id from {table}"), "order_id", own).await?;
    if known.is_empty() && !own.is_empty() {
        return Err("it knows none of these orders, so it is not the target's (database.url)".into());
    }
    match service {
        "order" => {
            let columns =
                "select order_id, customer_id, status, cancel_reason, total_minor, accepted_at, ended_at from orders";
            for row in rows_in(source, columns, "order_id", own).await? {
                let order = OrderRow {
                    customer: text(&row, 1),
                    status: text(&row, 2),
                    reason: maybe(&row, 3),
                    total: int(&row, 4).unwrap_or(0),
                    accepted_at: int(&row, 5).unwrap_or(0),
                    ended_at: int(&row, 6),
                };
                evidence.orders.insert(text(&row, 0), order);
            }
        }
        "payment" => {
            let rows = rows_in(source, "select order_id, state from payments", "order_id", own).await?;
            evidence.payments = rows.iter().map(|row| (text(row, 0), text(row, 1))).collect();
        }
        "inventory" => stock_books(source, own, evidence).await?,
        _ => {}
    }
    let lanes: BTreeSet<String> = own.iter().flat_map(|id| [id.clone(), format!("{id}/v1")]).collect();
    let rows = rows_in(source, "select message_id, subject, published_at from outbox", "lane", &lanes).await?;
    let row =
        |row: &Row| OutboxRow { message_id: text(row, 0), subject: text(row, 1), published: maybe(row, 2).is_some() };
    evidence.outboxes.insert(service.to_owned(), rows.iter().map(row).collect());
    Ok(())
}

/// One line of a reservation.
#[derive(Deserialize)]
struct Line {
    product_id: String,
    quantity: i64,
}

/// One statement, so that everything is of one moment, whatever others order meanwhile.
const BOOKS: &str = "
    select 'stock', product_id, cast(available as text), cast(reserved as text), cast(committed as text) from stock
    union all
    select 'came in', product_id, cast(sum(delta) as text), '', '' from stock_adjustments group by product_id
    union all
    select 'reservation', cast(order_id as text), status, items, '' from reservations";

async fn stock_books(source: &Source, own: &BTreeSet<Id>, evidence: &mut Evidence) -> Result<(), String> {
    let (mut shared, mut books) = (SharedStock::default(), BTreeMap::<String, Book>::new());
    for row in source.rows(BOOKS).await? {
        let (name, number) = (text(&row, 1), |at| int(&row, at).unwrap_or(0));
        match text(&row, 0).as_str() {
            "stock" => {
                let stock = Stock { available: number(2), reserved: number(3), committed: number(4) };
                books.entry(name).or_default().stock = stock;
            }
            "came in" => books.entry(name).or_default().came_in = number(2),
            _ => {
                let status = text(&row, 2);
                let lines: Vec<Line> =
                    serde_json::from_str(&text(&row, 3)).map_err(|e| format!("items of {name}: {e}"))?;
                for line in &lines {
                    let book = books.entry(line.product_id.clone()).or_default();
                    match status.as_str() {
                        "held" => book.held += line.quantity,
                        "committed" => book.taken += line.quantity,
                        _ => {}
                    }
                }
                if own.contains(&name) {
                    shared.lines.insert(name.clone(), lines.into_iter().map(|l| (l.product_id, l.quantity)).collect());
                    evidence.reservations.insert(name, status);
                }
            }
        }
    }
    let wanted: BTreeSet<&String> =
        evidence.wishes.iter().flat_map(|wish| wish.items.iter().map(|(product, _)| product)).collect();
    shared.books = books.into_iter().filter(|(product, _)| wanted.contains(product)).collect();
    evidence.shared_stock = Some(shared);
    Ok(())
}

/// Rows whose column has one of these values.
pub(super) async fn rows_in(
    source: &Source,
    select: &str,
    column: &str,
    values: &BTreeSet<String>,
) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let values: Vec<&String> = values.iter().collect();
    for chunk in values.chunks(CHUNK) {
        let list: Vec<String> = chunk.iter().map(|value| format!("'{}'", value.replace('\'', "''"))).collect();
        rows.extend(source.rows(&format!("{select} where {column} in ({})", list.join(", "))).await?);
    }
    Ok(rows)
}
