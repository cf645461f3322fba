//! The live stream of an order.

use std::time::Duration;

use futures::StreamExt;
use millrace::config::HumanDuration;
use order::Settings;
use reqwest::Method;
use serde_json::Value;
use tokio::time::timeout;

use crate::support::{Backend, Instance, PATIENCE, World, authorized, on_both_backends, reserved};

on_both_backends! {
    a_stream_shows_history_then_what_happens_and_resumes,
    a_stream_sees_what_another_instance_handles,
}

/// Reads messages of a stream.
struct Reader {
    chunks: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
    comments: usize,
}

impl Reader {
    async fn open(service: &Instance, path: &str, last_seen: Option<i64>) -> Self {
        let mut request = service.request(Method::GET, path);
        if let Some(seq) = last_seen {
            request = request.header("Last-Event-ID", seq.to_string());
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { chunks: response.bytes_stream().boxed(), text: String::new(), comments: 0 }
    }

    /// The next message's id and data; `None` at the end of the stream.
    async fn next(&mut self) -> Option<(i64, Value)> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                if let (Some(id), Some(data)) = (field("id:"), field("data:")) {
                    return Some((id.parse().unwrap(), serde_json::from_str(data).unwrap()));
                }
                self.comments += usize::from(block.starts_with(':'));
            }
            let chunk = timeout(PATIENCE, self.chunks.next()).await.expect("the stream is silent")?;
            self.text.push_str(std::str::from_utf8(&chunk.ok()?).unwrap());
        }
    }

    async fn events(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        for _ in 0..count {
            let (id, entry) = self.next().await.expect("the stream ended");
            assert_eq!(entry["seq"], id);
            events.push(entry["event"].as_str().unwrap().to_owned());
        }
        events
    }
}

async fn a_stream_shows_history_then_what_happens_and_resumes(backend: Backend) {
    let settings = Settings {
        max_streams: 2,
        stream_heartbeat: HumanDuration::from_millis(50),
        // What this instance handles itself has to wake the stream without polling.
        stream_poll: HumanDuration::from_secs(3600),
        ..Settings::default()
    };
    let world = World::start_with(backend, settings).await;
    let id = world.service.place().await;
    let path = format!("/orders/{id}/events");
    let mut live = Reader::open(&world.service, &path, None).await;
    assert_eq!(live.events(1).await, ["orders.created"]);
    world.publish("payment", &authorized(id)).await;
    assert_eq!(live.events(1).await, ["payments.authorized"]);
    tokio::time::sleep(Duration::from_millis(120)).await;
    world.publish("inventory", &reserved(id)).await;
    assert_eq!(live.events(2).await, ["inventory.reserved", "orders.confirmed"]);
    assert!(live.comments > 0, "a silent stream sent no comment");

    let mut resumed = Reader::open(&world.service, &path, Some(2)).await;
    assert_eq!(resumed.events(2).await, ["inventory.reserved", "orders.confirmed"]);
    let full = world.service.get(&path).await;
    assert_eq!(full.status, 503, "{full:?}");
    assert!(!full.header("retry-after").is_empty());
    drop(resumed);
    let freed =
        || async { world.service.request(Method::GET, &path).send().await.is_ok_and(|answer| answer.status() == 200) };
    testkit::eventually(PATIENCE, freed, "a place for another stream").await;

    world.service.stop().await;
    while live.next().await.is_some() {}
}

async fn a_stream_sees_what_another_instance_handles(backend: Backend) {
    let settings = || Settings { stream_poll: HumanDuration::from_millis(50), ..Settings::default() };
    let world = World::start_with(backend, settings()).await;
    let other = Instance::start(&world.nats.url(), &world.database_url, settings()).await;
    other.ready().await;
    let id = other.place().await;
    let path = format!("/orders/{id}/events");
    let (mut here, mut there) =
        (Reader::open(&world.service, &path, None).await, Reader::open(&other, &path, None).await);
    world.say_yes(id).await;
    for reader in [&mut here, &mut there] {
        let mut events = reader.events(4).await;
        assert_eq!(events.pop().as_deref(), Some("orders.confirmed"));
        events.sort_unstable();
        assert_eq!(events, ["inventory.reserved", "orders.created", "payments.authorized"]);
    }
    other.stop().await;
    world.service.stop().await;
}
