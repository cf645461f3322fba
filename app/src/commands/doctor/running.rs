//! What is going on: breakers that are open, events and messages that wait, payments that need somebody. These are warnings
//! where nothing keeps the system from running.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use contracts::api::{PaymentQuery, PaymentRecords, subjects};
use millrace::request_reply::request_json;
use millrace::store::DatabaseUrl;
use millrace::telemetry::metrics::BREAKER_STATE;
use time::OffsetDateTime;

use super::Check;
use crate::commands::Context;
use crate::commands::reconcile::database::{Database, int};
use crate::settings::Settings;
use crate::stack;

const PATIENCE: Duration = Duration::from_secs(3);
/// An event leaves its outbox within milliseconds; for this long only one that cannot.
const OLD: Duration = Duration::from_secs(60);
/// More messages than a consumer takes up in a few seconds.
const MANY: u64 = 1_000;

/// Breakers, as the processes behind these addresses show them.
pub async fn breakers(urls: &[String]) -> Vec<Check> {
    let mut states: BTreeMap<String, f64> = BTreeMap::new();
    let mut checks = Vec::new();
    for url in urls {
        match scrape(url).await {
            // Of several processes the worst counts.
            Ok(text) => breaker_states(&text).for_each(|(name, state)| {
                let worst = states.entry(name).or_default();
                *worst = worst.max(state);
            }),
            Err(reason) => checks.push(
                Check::ok("breakers", format!("unknown: {reason}"))
                    .warn("name the operations ports of running services: millrace doctor --ops http://HOST:PORT ..."),
            ),
        }
    }
    let wait = "calls wait and cost no attempts; see that the other side runs, then it closes by itself";
    checks.extend(states.into_iter().map(|(name, state)| {
        let check = format!("breaker {name}");
        match state {
            2.0 => Check::failed(&check, "open: the other side failed again and again", wait),
            1.0 => Check::ok(&check, "half-open: one call at a time is let through".into()).warn(wait),
            _ => Check::ok(&check, "closed".into()),
        }
    }));
    checks
}

async fn scrape(url: &str) -> Result<String, String> {
    let client = millrace::http_client::http_client(PATIENCE, PATIENCE).map_err(|e| e.to_string())?;
    let url = format!("{}/metrics", url.trim_end_matches('/'));
    let answer = client.get(&url).send().await.and_then(reqwest::Response::error_for_status);
    let no_answer = |_| format!("{url} does not answer");
    answer.map_err(no_answer)?.text().await.map_err(no_answer)
}

/// `millrace_breaker_state{breaker="payment-gateway"} 2`
fn breaker_states(metrics: &str) -> impl Iterator<Item = (String, f64)> {
    metrics.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(BREAKER_STATE)?.split_once("} ")?;
        let name = labels.split_once("breaker=\"")?.1.split('"').next()?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    })
}

/// What each consumer has left.
pub async fn consumers(settings: &Settings) -> Check {
    let name = "consumers";
    let failed = |reason: String| Check::failed(name, reason, "millrace topology plan");
    let connection = match stack::connect(settings, "doctor").await {
        Ok(connection) => connection,
        Err(failure) => return failed(failure.message),
    };
    let (mut left, mut lagging) = (0, Vec::new());
    for spec in settings.declared_topology().consumers {
        let context = connection.jetstream();
        let found = context.get_consumer_from_stream::<pull::Config, _, _>(&spec.durable, &spec.stream).await;
        let mut found = match found {
            Ok(found) => found,
            Err(error) => return failed(format!("{}: {error}", spec.durable)),
        };
        let info = match found.info().await {
            Ok(info) => info,
            Err(error) => return failed(format!("{}: {error}", spec.durable)),
        };
        left += info.num_pending;
        if info.num_pending > MANY {
            lagging.push(format!("{} {}", spec.durable, info.num_pending));
        }
    }
    match lagging.as_slice() {
        [] => Check::ok(name, format!("{left} messages wait for a consumer")),
        lagging => Check::ok(name, format!("behind: {}", lagging.join(", ")))
            .warn("see that the service runs, and what its breaker says; more instances of it share the work"),
    }
}

/// Events that no broker has confirmed, by service.
pub async fn outboxes(settings: &Settings) -> Check {
    let name = "outboxes";
    let (mut rows, mut old) = (0, Vec::new());
    for service in stack::SERVICES {
        // Before its first start it has nothing.
        if let Ok(DatabaseUrl::Sqlite(path)) = DatabaseUrl::for_service(&settings.database.url, service)
            && !path.exists()
        {
            continue;
        }
        let Ok(database) = Database::open(&settings.database.url, service).await else { continue };
        let sql = "select count(*), min(created_at) from outbox where published_at is null";
        let Ok(found) = database.rows(sql.to_owned()).await else { continue };
        let Some(row) = found.first() else { continue };
        rows += int(row, 0).unwrap_or(0);
        let now_ms = OffsetDateTime::now_utc().unix_timestamp() * 1_000;
        let age_s = int(row, 1).map_or(0, |created| (now_ms - created) / 1_000);
        if age_s > OLD.as_secs() as i64 {
            old.push(format!("{service} has {} events, the oldest {age_s} s old", int(row, 0).unwrap_or(0)));
        }
    }
    match old.as_slice() {
        [] => Check::ok(name, format!("{rows} events wait to be published")),
        old => Check::ok(name, old.join("; "))
            .warn("see that these services run and NATS answers; what waits is safe, and leaves by itself"),
    }
}

/// Whether the order service prices by its copy because the bucket has lost changes.
pub async fn catalog(settings: &Settings) -> Option<Check> {
    let name = "catalog";
    // Before its first start, and before the release that looks for this, it has nothing to say.
    if let Ok(DatabaseUrl::Sqlite(path)) = DatabaseUrl::for_service(&settings.database.url, "order")
        && !path.exists()
    {
        return None;
    }
    let database = Database::open(&settings.database.url, "order").await.ok()?;
    let rows = database.rows("select lost_behind from catalog_place".to_owned()).await.ok()?;
    Some(match int(rows.first()?, 0) {
        None => Check::ok(name, "the bucket has what was followed".into()),
        Some(behind) => Check::ok(
            name,
            format!("the bucket has lost what came behind revision {behind}, orders are priced by the order service's copy"),
        )
        .warn("millrace catalog import FILE, the one that was imported last; /health of order names the products that differ"),
    })
}

/// Payments with a step that failed for good.
pub async fn payments(context: &Context) -> Check {
    let name = "payments";
    let connection = match stack::connect(&context.settings, "doctor").await {
        Ok(connection) => connection,
        Err(failure) => return Check::failed(name, failure.message, failure.remedy.unwrap_or_default()),
    };
    let query = PaymentQuery { needs_operator: true, ..PaymentQuery::default() };
    let asked: Result<PaymentRecords, _> = request_json(&connection, subjects::PAYMENT_LIST, &query, PATIENCE).await;
    match asked {
        Ok(found) if found.payments.is_empty() => Check::ok(name, "none needs an operator".into()),
        Ok(found) => Check::ok(name, format!("{} need an operator", found.payments.len()))
            .warn("millrace payments list --needs-operator"),
        Err(error) => Check::ok(name, format!("unknown: {error}")).warn("see that the payment service runs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breakers_are_read_from_what_a_process_shows() {
        let text = "# HELP millrace_breaker_state State\nmillrace_breaker_state{breaker=\"payment-gateway\"} 2\n\
                    millrace_breaker_state{service=\"x\",breaker=\"smtp\"} 0\nmillrace_other 1\n";
        let states: Vec<_> = breaker_states(text).collect();
        assert_eq!(states, [("payment-gateway".to_owned(), 2.0), ("smtp".to_owned(), 0.0)]);
    }
}
