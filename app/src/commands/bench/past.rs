//! Orders of the past: what the databases hold after so many of them, put there by SQL in bulk. Outboxes are left empty,
//! as they are when rows have been published for a while; so are idempotency keys.

use std::path::PathBuf;

use millrace::store::DatabaseUrl;
use tokio_postgres::NoTls;

use crate::failure::Failure;

/// Customers of the past have names that begin like this.
pub const CUSTOMER: &str = "past-";
/// Rows are made in portions that fit into memory.
const PORTION: u32 = 50_000;

/// A day of November 2023; orders are a second apart.
const BEGIN_MS: &str = "1700000000000";

/// `{id}` is an order's id, `{event}` makes an event's from it, `{n}` its number, `{at}` when it was, `{yes}` and `{no}` are
/// truth values, `{numbers}` is the table of numbers with its column `n`.
const ORDER: [&str; 3] = [
    "insert into orders (order_id, status, payment, stock, entries, customer_id, total_minor, currency, items,
        payment_method, email, is_foreign, created_at, accepted_at, deadline_at, ended_at)
     select {id}, 'confirmed', 'captured', 'committed', 8, 'past-' || ({n} % 1000), 690, 'EUR',
        '[{\"product_id\":\"bench-0\",\"quantity\":1,\"unit_price_minor\":690}]', 'pm_card_visa', 'past@example.org', {no},
        {at}, {at}, {at} + 900000, {at} + 100 from {numbers}",
    "insert into order_timeline (order_id, seq, at, event_type, service, event_id, detail)
     select {id}, seq, {at} + seq, event_type, service, {event}, '{}' from {numbers},
        (select 1 as seq, 'orders.created' as event_type, 'order' as service
         union all select 2, 'inventory.reserved', 'inventory' union all select 3, 'payments.authorized', 'payment'
         union all select 4, 'orders.confirmed', 'order' union all select 5, 'notifications.sent', 'notification'
         union all select 6, 'inventory.committed', 'inventory' union all select 7, 'notifications.sent', 'notification'
         union all select 8, 'payments.captured', 'payment') as happened",
    "insert into inbox (consumer, event_id, handled_at)
     select consumer, {event}, {now} from {numbers},
        (select 2 as seq, 'order-inventory' as consumer union all select 3, 'order-payments'
         union all select 5, 'order-notifications' union all select 6, 'order-inventory'
         union all select 7, 'order-notifications' union all select 8, 'order-payments') as handled",
];
const PAYMENT: [&str; 2] = [
    "insert into payments (order_id, state, confirmed, cancelled, amount_minor, currency, payment_method, payment_id,
        attempts, correlation_id, created_at, updated_at)
     select {id}, 'captured', {yes}, {no}, 690, 'EUR', 'pm_card_visa', 'pi_past_' || {n}, 0, 'past-' || {n}, {at}, {at}
     from {numbers}",
    "insert into inbox (consumer, event_id, handled_at)
     select 'payment-orders', {event}, {now} from {numbers}, (select 1 as seq union all select 4) as handled",
];
const INVENTORY: [&str; 2] = [
    "insert into reservations (order_id, status, items, changed_at)
     select {id}, 'committed', '[{\"product_id\":\"bench-0\",\"quantity\":1}]', {at} from {numbers}",
    "insert into inbox (consumer, event_id, handled_at)
     select 'inventory-orders', {event}, {now} from {numbers}, (select 1 as seq union all select 4) as handled",
];
const NOTIFICATION: [&str; 3] = [
    "insert into orders (order_id, correlation_id, email, total_minor, currency, items, confirmed)
     select {id}, 'past-' || {n}, 'past@example.org', 690, 'EUR',
        '[{\"product_id\":\"bench-0\",\"quantity\":1,\"unit_price_minor\":690}]', {yes} from {numbers}",
    "insert into deliveries (order_id, notice, channel, status, attempts, due_since, next_attempt_at)
     select {id}, notice, 'email', 'sent', 1, {at}, {at} from {numbers},
        (select 'acknowledgement' as notice union all select 'confirmation') as sent",
    "insert into inbox (consumer, event_id, handled_at)
     select 'notification-orders', {event}, {now} from {numbers}, (select 1 as seq union all select 4) as handled",
];

/// Puts `orders` of them into every database. The services must have made their tables, and must not run.
pub async fn fill(database_url: &str, orders: u32) -> Result<(), Failure> {
    let services: [(&str, &[&str]); 4] =
        [("order", &ORDER), ("payment", &PAYMENT), ("inventory", &INVENTORY), ("notification", &NOTIFICATION)];
    for (service, statements) in services {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("past orders of {service}: {e}"));
        match DatabaseUrl::for_service(database_url, service).map_err(|e| failed(&e))? {
            DatabaseUrl::Sqlite(path) => {
                let statements = written(statements, orders, &SQLITE);
                let filling = tokio::task::spawn_blocking(move || sqlite(&path, &statements)).await;
                filling.map_err(|panic| failed(&panic))?.map_err(|e| failed(&e))?;
            }
            DatabaseUrl::Postgres(url) => {
                postgres(&url, &written(statements, orders, &POSTGRES)).await.map_err(|e| failed(&e))?;
            }
        }
    }
    Ok(())
}

/// What the dialects say differently.
struct Dialect {
    /// Twelve hexadecimal digits of a number.
    hex: fn(&str) -> String,
    uuid: fn(String) -> String,
    numbers: fn(u32, u32) -> String,
    yes: &'static str,
    no: &'static str,
    now: &'static str,
}

const SQLITE: Dialect = Dialect {
    hex: |number| format!("printf('%012x', {number})"),
    uuid: |text| text,
    numbers: |first, last| {
        format!(
            "(with recursive c(n) as (select {first} union all select n + 1 from c where n < {last}) select n from c) as numbers"
        )
    },
    yes: "1",
    no: "0",
    now: "unixepoch() * 1000",
};
const POSTGRES: Dialect = Dialect {
    hex: |number| format!("lpad(to_hex({number}), 12, '0')"),
    uuid: |text| format!("({text})::uuid"),
    numbers: |first, last| format!("generate_series({first}::bigint, {last}::bigint) as numbers(n)"),
    yes: "true",
    no: "false",
    now: "(extract(epoch from now()) * 1000)::bigint",
};

/// The statements of all portions. Ids are of version 7, so newer orders have greater ones, as in life.
fn written(statements: &[&str], orders: u32, dialect: &Dialect) -> Vec<String> {
    let at = format!("({BEGIN_MS} + n * 1000)");
    let (hex, number) = ((dialect.hex)(&at), (dialect.hex)("n"));
    let id = |third: &str| {
        format!("substr({hex}, 1, 8) || '-' || substr({hex}, 9, 4) || '-' || {third} || '-8000-' || {number}")
    };
    let portions = (1..=orders).step_by(PORTION as usize);
    portions
        .flat_map(|first| {
            let numbers = (dialect.numbers)(first, orders.min(first + PORTION - 1));
            let (order_id, event_id, at) = ((dialect.uuid)(id("'7000'")), id("('700' || seq)"), at.clone());
            let fill = move |statement: &&str| {
                let pairs = [
                    ("{id}", order_id.as_str()),
                    ("{event}", &event_id),
                    ("{n}", "n"),
                    ("{at}", &at),
                    ("{yes}", dialect.yes),
                    ("{no}", dialect.no),
                    ("{now}", dialect.now),
                    ("{numbers}", &numbers),
                ];
                pairs.iter().fold((*statement).to_owned(), |text, (name, value)| text.replace(name, value))
            };
            statements.iter().map(fill).collect::<Vec<_>>()
        })
        .collect()
}

fn sqlite(path: &PathBuf, statements: &[String]) -> rusqlite::Result<()> {
    let db = rusqlite::Connection::open(path)?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    // What has been there for long is on disk; that it got there quickly is no part of the measurement.
    db.pragma_update(None, "synchronous", "off")?;
    statements.iter().try_for_each(|statement| db.execute_batch(statement))?;
    db.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))
}

async fn postgres(url: &str, statements: &[String]) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let running = tokio::spawn(connection);
    for statement in statements {
        client.batch_execute(statement).await?;
    }
    client.batch_execute("vacuum analyze").await?;
    client.batch_execute("checkpoint").await?;
    drop(client);
    // Its end has nothing to tell any more.
    let _ = running.await;
    Ok(())
}
