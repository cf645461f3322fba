//! A database that is older than the stream, whatever is left in its outbox.

use millrace::store::DatabaseUrl;
use order::Settings;
use serde_json::json;
use tokio_postgres::NoTls;

use crate::support::{Backend, Instance, PATIENCE, World, on_both_backends};

on_both_backends! {
    what_was_told_is_learnt_again_also_when_the_outbox_says_nothing,
}

async fn what_was_told_is_learnt_again_also_when_the_outbox_says_nothing(backend: Backend) {
    let world = World::start(backend).await;
    let mut orders = Vec::new();
    for _ in 0..3 {
        let id = world.service.place().await;
        world.say_yes(id).await;
        world.service.becomes(id, json!({ "status": "confirmed" })).await;
        orders.push(id);
    }
    let [kept, undone, lost] = [orders[0], orders[1], orders[2]];
    let timeline = world.service.timeline(undone).await;
    let told = world.service.get(&format!("/orders/{lost}")).await.body;
    world.service.stop().await;

    // What an older copy has, whose outbox rows have been removed as too old; and what a new database has.
    let outbox = match &world.database_url {
        DatabaseUrl::Sqlite(_) => "delete from outbox_message; delete from outbox_place",
        DatabaseUrl::Postgres(_) => "delete from outbox",
    };
    let undo = |what: &str| {
        format!(
            "{outbox};
             delete from orders where order_id = '{lost}'; delete from order_timeline where order_id = '{lost}';
             update orders set status = 'processing', ended_at = null, deadline_at = 1 where order_id = '{undone}';
             delete from order_timeline where order_id = '{undone}' and event_type = 'orders.confirmed'; {what}"
        )
    };
    for what in ["", "delete from orders; delete from order_timeline;"] {
        execute(&world.database_url, &undo(what)).await;
        let service = Instance::start(&world.nats.url(), &world.database_url, Settings::default()).await;
        for id in [undone, lost] {
            service.becomes(id, json!({ "status": "confirmed", "items": told["items"], "total": told["total"] })).await;
        }
        if what.is_empty() {
            let mut learnt = service.timeline(undone).await;
            learnt.sort_unstable();
            let mut before = timeline.clone();
            before.sort_unstable();
            assert_eq!(learnt, before);
        }
        service.becomes(kept, json!({ "status": "confirmed" })).await;
        service.stop().await;
    }
    assert_eq!(world.published("orders.cancelled").await.len(), 0);
    assert_eq!(world.published("orders.confirmed").await.len(), 3);
}

async fn execute(url: &DatabaseUrl, sql: &str) {
    match url {
        DatabaseUrl::Sqlite(path) => {
            let db = rusqlite::Connection::open(path).unwrap();
            db.busy_timeout(PATIENCE).unwrap();
            db.execute_batch(sql).unwrap();
        }
        DatabaseUrl::Postgres(url) => {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute(sql).await.unwrap();
        }
    }
}
