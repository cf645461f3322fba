use notification::sms::{SmsError, SmsMessage, SmsSender, SmsSettings};
use serde_json::json;
use simulators::sms::{MAGIC_NUMBERS, Settings, run};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::View;

struct Sink {
    view: View,
    _stop: DropGuard,
}

impl Sink {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let view = View::of(&listener);
        let shutdown = CancellationToken::new();
        tokio::spawn(run(listener, Settings::default(), shutdown.clone()));
        Self { view, _stop: shutdown.drop_guard() }
    }

    fn settings(&self) -> SmsSettings {
        SmsSettings { url: self.view.url.clone(), ..SmsSettings::default() }
    }

    fn sender(&self, settings: &SmsSettings) -> SmsSender {
        SmsSender::new(self.view.client.clone(), settings).unwrap()
    }

    /// The account's messages, read as the provider's own clients do.
    async fn messages(&self) -> serde_json::Value {
        let settings = self.settings();
        let url = format!("{}/2010-04-01/Accounts/{}/Messages.json", self.view.url, settings.account_sid);
        let request = self.view.client.get(url).basic_auth(settings.account_sid, Some(settings.auth_token));
        request.send().await.unwrap().json::<serde_json::Value>().await.unwrap()["messages"].take()
    }
}

fn message(to: &str) -> SmsMessage {
    SmsMessage { to: to.into(), body: "Dein Paket & mehr: 5 € + ✓".into() }
}

#[tokio::test]
async fn a_message_is_queued_as_it_was_written() {
    let sink = Sink::start().await;
    let sid = sink.sender(&sink.settings()).send(&message("+4915112345678")).await.unwrap();
    let messages = sink.messages().await;
    assert_eq!(messages.as_array().unwrap().len(), 1);
    assert_eq!(messages[0]["sid"], sid);
    assert_eq!(messages[0]["status"], "queued");
    assert_eq!(messages[0]["to"], "+4915112345678");
    assert_eq!(messages[0]["from"], "+15005550006");
    assert_eq!(messages[0]["body"], "Dein Paket & mehr: 5 € + ✓");
}

#[tokio::test]
async fn a_number_the_provider_refuses_is_permanent() {
    let sink = Sink::start().await;
    let sender = sink.sender(&sink.settings());
    for (number, expected, _) in MAGIC_NUMBERS {
        match sender.send(&message(number)).await.unwrap_err() {
            SmsError::Permanent { code, .. } => assert_eq!(code, *expected),
            other => panic!("{other}"),
        }
    }
    assert_eq!(sink.messages().await, json!([]));
}

#[tokio::test]
async fn outages_and_wrong_credentials_are_transient() {
    let sink = Sink::start().await;
    let settings = sink.settings();
    for (mode, timeout_ms) in [
        (json!({ "mode": "down", "requests": 1 }), 5_000),
        (json!({ "mode": "errors", "requests": 1 }), 5_000),
        (json!({ "mode": "errors", "status": 429, "requests": 1 }), 5_000),
        (json!({ "mode": "errors", "status": 401, "requests": 1 }), 5_000),
        (json!({ "mode": "timeout", "requests": 1 }), 100),
    ] {
        sink.view.set_mode(mode.clone()).await;
        let sender = sink.sender(&SmsSettings { timeout_ms, ..settings.clone() });
        let error = sender.send(&message("+4915112345678")).await.unwrap_err();
        assert!(error.is_transient(), "{mode}: {error}");
    }
    assert_eq!(sink.messages().await, json!([]));
    sink.sender(&settings).send(&message("+4915112345678")).await.unwrap();

    sink.view.set_mode(json!({ "mode": "lose_answers", "requests": 1 })).await;
    assert!(sink.sender(&settings).send(&message("+4915112345678")).await.unwrap_err().is_transient());
    assert_eq!(sink.messages().await.as_array().unwrap().len(), 2, "the lost answer was to a message that was sent");
}
