//! A running notification service with everything around it.

use contracts::OrderId;
use contracts::notifications::{NotificationFailed, NotificationSent};
use contracts::topology::durables;
use futures::StreamExt;
use millrace::config::HumanDuration;
use millrace::event::{Cause, Event, EventId, Retired, encode, encode_headers};
use millrace::kit;
use notification::email::EmailSettings;
use notification::sms::SmsSettings;
use notification::{Parts, Settings};
use serde_json::{Value, json};
use testkit::{TestNats, eventually};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{PATIENCE, Place, kit_parts};

/// The sinks, and the address of each one's HTTP side.
pub(crate) struct Sinks {
    smtp: String,
    mail: String,
    sms: String,
    http: reqwest::Client,
    _stop: DropGuard,
}

impl Sinks {
    pub(crate) async fn start() -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0");
        let (smtp, mail, sms) = (bind().await.unwrap(), bind().await.unwrap(), bind().await.unwrap());
        let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let sinks = Self {
            smtp: address(&smtp),
            mail: address(&mail),
            sms: address(&sms),
            http: millrace::http_client::http_client(PATIENCE, PATIENCE).unwrap(),
            _stop: stop.clone().drop_guard(),
        };
        tokio::spawn(simulators::mail::run(smtp, mail, simulators::mail::Settings::default(), stop.clone()));
        tokio::spawn(simulators::sms::run(sms, simulators::sms::Settings::default(), stop));
        sinks
    }

    /// Quick in everything, so that a test need not wait long.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            email: EmailSettings {
                url: format!("smtp://{}", self.smtp),
                timeout_ms: 2_000,
                ..EmailSettings::default()
            },
            sms: SmsSettings { url: format!("http://{}", self.sms), timeout_ms: 2_000, ..SmsSettings::default() },
            claim: HumanDuration::from_millis(3_000),
            retry_first: HumanDuration::from_millis(50),
            retry_most: HumanDuration::from_millis(200),
            sweep_every: HumanDuration::from_millis(50),
            breaker_failures: 3,
            breaker_open_for: HumanDuration::from_millis(300),
            ..Settings::default()
        }
    }

    async fn get(&self, address: &str, path: &str) -> Value {
        self.http.get(format!("http://{address}{path}")).send().await.unwrap().json().await.unwrap()
    }

    /// Takes the mail server down, or brings it back: a `Mode` of the simulators.
    pub(crate) async fn mail_mode(&self, mode: Value) {
        let url = format!("http://{}/_control/mode", self.mail);
        assert!(self.http.put(url).json(&mode).send().await.unwrap().status().is_success());
    }

    /// The mails about an order, oldest first.
    pub(crate) async fn mails(&self, order_id: OrderId) -> Vec<Value> {
        let all = self.get(&self.mail, "/messages?limit=1000").await;
        let mut mails = all["messages"].as_array().or_else(|| all.as_array()).unwrap().clone();
        mails.retain(|mail| mail["message_id"].as_str().unwrap().contains(&order_id.to_string()));
        mails.reverse();
        mails
    }

    /// The text messages to a number, oldest first.
    pub(crate) async fn texts(&self, to: &str) -> Vec<String> {
        let path = format!("/2010-04-01/Accounts/ACmillrace/Messages.json?PageSize=100&To=%2B{}", &to[1..]);
        let url = format!("http://{}{path}", self.sms);
        let answer = self.http.get(url).basic_auth("ACmillrace", Some("simulator")).send().await.unwrap();
        let all: Value = answer.json().await.unwrap();
        let bodies = all["messages"].as_array().unwrap().iter().map(|m| m["body"].as_str().unwrap().to_owned());
        let mut bodies: Vec<String> = bodies.collect();
        bodies.reverse();
        bodies
    }

    /// Waits until this many mails about an order came in.
    pub(crate) async fn mails_eventually(&self, order_id: OrderId, number: usize) -> Vec<Value> {
        let enough = || async {
            let mails = self.mails(order_id).await;
            if mails.len() >= number { Ok(mails) } else { Err(format!("{mails:?}")) }
        };
        let mails = eventually(PATIENCE, enough, "the mails").await;
        assert_eq!(mails.len(), number, "{mails:?}");
        mails
    }
}

/// The service, and a client that plays the order service.
pub(crate) struct Running {
    client: async_nats::Client,
    shutdown: CancellationToken,
    service: JoinHandle<Result<(), kit::Error>>,
}

/// What was announced about a notice.
#[derive(Debug)]
pub(crate) enum Announced {
    Sent(NotificationSent),
    Failed(NotificationFailed),
}

impl Running {
    pub(crate) async fn start(nats: &TestNats, place: &Place, settings: Settings) -> Self {
        let kit = kit_parts(place, &nats.url()).await;
        let shutdown = kit.shutdown.clone();
        let service = tokio::spawn(notification::run(Parts { kit, settings }));
        let running = Self { client: nats.client().await, shutdown, service };
        let consumer = || running.consumer();
        eventually(PATIENCE, consumer, "the consumer").await;
        running
    }

    fn jetstream(&self) -> async_nats::jetstream::Context {
        async_nats::jetstream::new(self.client.clone())
    }

    async fn consumer(&self) -> Result<async_nats::jetstream::consumer::Info, String> {
        let stream = self.jetstream().get_stream("ORDERS").await.map_err(|e| e.to_string())?;
        stream.consumer_info(durables::NOTIFICATION_ORDERS).await.map_err(|e| e.to_string())
    }

    /// Waits until every event is answered, and asserts that none took a second attempt.
    pub(crate) async fn all_answered_at_once(&self) {
        let answered = || async {
            let info = self.consumer().await?;
            if info.num_pending == 0 && info.num_ack_pending == 0 { Ok(info) } else { Err(format!("{info:?}")) }
        };
        let info = eventually(PATIENCE, answered, "all events to be acknowledged").await;
        assert_eq!(info.num_redelivered, 0);
    }

    pub(crate) async fn dead_letters(&self) -> u64 {
        self.jetstream().get_stream("DEAD_LETTERS").await.unwrap().cached_info().state.messages
    }

    pub(crate) async fn publish<E: Event>(&self, event: &E) {
        self.publish_as(&EventId::generate(), event).await;
    }

    pub(crate) async fn publish_as<E: Event>(&self, id: &EventId, event: &E) {
        for version in encode(event, id, &Retired::default()).unwrap() {
            let cause = Cause { correlation_id: "c-1".into(), ..Cause::default() };
            let mut headers = async_nats::HeaderMap::new();
            for (name, value) in encode_headers(&version, "/millrace/order", OffsetDateTime::now_utc(), &cause) {
                // A second publish of one event is meant to arrive, as it may after the broker's window.
                let value = if name == "Nats-Msg-Id" { EventId::generate().to_string() } else { value };
                headers.insert(name, value);
            }
            let js = self.jetstream();
            js.publish_with_headers(version.subject, headers, version.body.into()).await.unwrap().await.unwrap();
        }
    }

    pub(crate) async fn listen(&self) -> async_nats::Subscriber {
        let heard = self.client.subscribe("notifications.>").await.unwrap();
        self.client.flush().await.unwrap();
        heard
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.service).await.unwrap().unwrap().unwrap();
    }
}

pub(crate) async fn next(heard: &mut async_nats::Subscriber) -> Announced {
    let message = tokio::time::timeout(PATIENCE, heard.next()).await.unwrap().unwrap();
    assert_eq!(message.headers.unwrap().get("ce-correlationid").unwrap().as_str(), "c-1");
    match message.subject.as_str() {
        NotificationSent::SUBJECT => Announced::Sent(serde_json::from_slice(&message.payload).unwrap()),
        NotificationFailed::SUBJECT => Announced::Failed(serde_json::from_slice(&message.payload).unwrap()),
        other => panic!("{other}"),
    }
}

pub(crate) fn mode(name: &str) -> Value {
    json!({ "mode": name })
}
