use std::time::{Duration, Instant};

use notification::email::{EmailError, EmailMessage, EmailSettings, Mailer};
use serde_json::json;
use simulators::mail::{Settings, run};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::View;

struct Sink {
    smtp: String,
    view: View,
    _stop: DropGuard,
}

impl Sink {
    async fn start() -> Self {
        let smtp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (url, view) = (format!("smtp://{}", smtp.local_addr().unwrap()), View::of(&http));
        let shutdown = CancellationToken::new();
        tokio::spawn(run(smtp, http, Settings::default(), shutdown.clone()));
        Self { smtp: url, view, _stop: shutdown.drop_guard() }
    }

    fn mailer(&self) -> Mailer {
        mailer(&self.smtp, 5_000)
    }
}

fn mailer(url: &str, timeout_ms: u64) -> Mailer {
    Mailer::new(&EmailSettings { url: url.into(), timeout_ms, ..EmailSettings::default() }).unwrap()
}

fn message(number: usize) -> EmailMessage {
    EmailMessage {
        to: "ann@example.org".into(),
        subject: "Your order".into(),
        text: "Thank you.\r\n".into(),
        message_id: format!("{number}.confirmed@millrace.example"),
    }
}

#[tokio::test]
async fn a_mail_arrives_as_it_was_written() {
    let sink = Sink::start().await;
    let text = ".\r\n..two dots\r\nGrüße aus Köln, 5 €\r\n.hidden\r\n\r\nпривет\r\n.\r\n".to_owned();
    let subject = "Bestellung bestätigt ✓".to_owned();
    let long = "x".repeat(5_000);
    sink.mailer().send(&EmailMessage { subject: subject.clone(), text: text.clone(), ..message(1) }).await.unwrap();
    sink.mailer()
        .send(&EmailMessage { to: "jürgen@exämple.org".into(), text: long.clone(), ..message(2) })
        .await
        .unwrap();

    let seen = sink.view.get("/messages?to=ANN@example.org").await;
    let mail = &seen["messages"][0];
    assert_eq!(mail["subject"], subject);
    assert_eq!(mail["text"].as_str().unwrap().trim_end_matches("\r\n"), text.trim_end_matches("\r\n"));
    assert_eq!(mail["message_id"], "1.confirmed@millrace.example");
    assert_eq!((&mail["from"], &mail["to"]), (&json!("orders@millrace.example"), &json!(["ann@example.org"])));
    let seen = sink.view.get("/messages?limit=1").await;
    assert_eq!(seen["messages"][0]["text"].as_str().unwrap().trim_end(), long);
    assert_eq!(seen["received"], 2);
}

#[tokio::test]
async fn a_temporary_refusal_is_transient_and_a_retry_delivers_one_mail() {
    let sink = Sink::start().await;
    let mailer = sink.mailer();
    sink.view.set_mode(json!({ "mode": "errors", "requests": 2 })).await;
    for _ in 0..2 {
        let error = mailer.send(&message(1)).await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("451"), "{error}");
    }
    mailer.send(&message(1)).await.unwrap();
    assert_eq!(sink.view.get("/counts").await["counts"], json!({ "1.confirmed@millrace.example": 1 }));
}

#[tokio::test]
async fn a_lost_answer_leads_to_a_second_mail_with_the_same_message_id() {
    let sink = Sink::start().await;
    let mailer = sink.mailer();
    sink.view.set_mode(json!({ "mode": "lose_answers", "requests": 1 })).await;
    let error = mailer.send(&message(1)).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    mailer.send(&message(1)).await.unwrap();
    let duplicates = sink.view.get("/counts?at_least=2").await;
    assert_eq!(duplicates["counts"], json!({ "1.confirmed@millrace.example": 2 }));
}

#[tokio::test]
async fn a_mailbox_that_does_not_exist_is_permanent() {
    let sink = Sink::start().await;
    let mailer = sink.mailer();
    let error = mailer.send(&EmailMessage { to: "bounce@example.org".into(), ..message(1) }).await.unwrap_err();
    assert!(matches!(&error, EmailError::Permanent { reason } if reason.contains("550")), "{error}");
    mailer.send(&message(2)).await.unwrap();
    for status in [530, 535] {
        sink.view.set_mode(json!({ "mode": "errors", "status": status, "requests": 1 })).await;
        let error = mailer.send(&message(3)).await.unwrap_err();
        assert!(error.is_transient(), "{status} is about our credentials, not about the mail: {error}");
    }
}

#[tokio::test]
async fn an_outage_is_transient_and_connections_kept_through_it_do_no_harm() {
    let sink = Sink::start().await;
    let mailer = sink.mailer();
    mailer.send(&message(1)).await.unwrap();
    sink.view.set_mode(json!({ "mode": "down" })).await;
    for _ in 0..3 {
        assert!(mailer.send(&message(2)).await.unwrap_err().is_transient());
    }
    sink.view.set_mode(json!({ "mode": "ok" })).await;
    mailer.send(&message(2)).await.unwrap();
    assert_eq!(sink.view.get("/messages").await["received"], 2);
}

/// A server that is slow once. A client that reuses the connection would take the late answers to the first mail for
/// answers to the second, and believe it sent.
#[tokio::test]
async fn a_mail_cut_short_by_the_timeout_spoils_no_later_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (first, _) = listener.accept().await.unwrap();
        let mut first = BufReader::new(first);
        first.write_all(b"220 slow\r\n").await.unwrap();
        let mut line = String::new();
        // The library's greeting, and ours, which asks what the server offers.
        for _ in 0..2 {
            first.read_line(&mut line).await.unwrap();
            assert!(line.starts_with("EHLO"), "{line}");
            first.write_all(b"250 hello\r\n").await.unwrap();
            line.clear();
        }
        first.read_line(&mut line).await.unwrap();
        assert!(line.starts_with("MAIL"), "{line}");
        // Silence now; the client must close this connection, which ends the read.
        let mut rest = Vec::new();
        first.read_to_end(&mut rest).await.unwrap();
        rest
    });
    let mailer = mailer(&url, 1_000);
    let started = Instant::now();
    let error = mailer.send(&message(1)).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("1000 ms"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    let rest = tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
    assert_eq!(rest, b"", "nothing may follow on a connection in an unknown state");
}

#[tokio::test]
async fn without_the_encryption_or_the_login_we_insist_on_no_mail_is_sent() {
    let sink = Sink::start().await;
    let address = sink.smtp.strip_prefix("smtp://").unwrap();
    for url in [
        format!("smtp+starttls://user:secret@{address}"),
        format!("smtps://user:secret@{address}"),
        format!("smtp://user:secret@{address}"),
    ] {
        let error = mailer(&url, 2_000).send(&message(1)).await.unwrap_err();
        assert!(error.is_transient() && !format!("{error:?}").contains("secret"), "{url}: {error:?}");
    }
    assert_eq!(sink.view.get("/messages").await["received"], 0);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_transient() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = mailer(&format!("smtp://{closed}"), 1_000).send(&message(1)).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("no session"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_mails_a_second_each_arrive_once() {
    const SENDERS: usize = 8;
    const EACH: usize = 100;
    let sink = Sink::start().await;
    let mailer = sink.mailer();
    let started = Instant::now();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let mailer = mailer.clone();
            tokio::spawn(async move {
                for number in 0..EACH {
                    mailer.send(&message(sender * EACH + number)).await.unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    println!("{} mails in {:?}", SENDERS * EACH, started.elapsed());
    let counts = sink.view.get("/counts").await;
    assert_eq!(counts["counts"].as_object().unwrap().len(), SENDERS * EACH);
    assert_eq!(sink.view.get("/counts?at_least=2").await["counts"], json!({}));
}
