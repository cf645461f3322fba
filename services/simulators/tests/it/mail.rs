use serde_json::{Value, json};
use simulators::mail::{Settings, run};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{PATIENCE, http};

struct Sink {
    smtp: std::net::SocketAddr,
    view: String,
    shutdown: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
}

impl Sink {
    async fn start(settings: Settings) -> Self {
        let smtp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, view) = (smtp.local_addr().unwrap(), format!("http://{}", http.local_addr().unwrap()));
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(run(smtp, http, settings, shutdown.clone()));
        Self { smtp: address, view, shutdown, server }
    }

    /// A client that was greeted.
    async fn client(&self) -> Client {
        let mut client = Client(BufReader::new(TcpStream::connect(self.smtp).await.unwrap()));
        client.expect(220).await;
        client
    }

    async fn get(&self, path: &str) -> Value {
        http().get(format!("{}{path}", self.view)).send().await.unwrap().json().await.unwrap()
    }

    async fn set_mode(&self, mode: Value) {
        let answer = http().put(format!("{}/_control/mode", self.view)).json(&mode).send().await.unwrap();
        assert!(answer.status().is_success());
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn read(&mut self) -> String {
        let mut line = String::new();
        tokio::time::timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("no reply").unwrap();
        line
    }

    async fn expect(&mut self, code: u16) {
        let line = self.read().await;
        assert!(line.starts_with(&format!("{code} ")), "expected {code}, got {line:?}");
    }

    async fn say(&mut self, line: &str, code: u16) {
        self.send(format!("{line}\r\n")).await;
        self.expect(code).await;
    }

    async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("still open").unwrap_or_default();
        rest.is_empty()
    }
}

#[tokio::test]
async fn commands_sent_all_at_once_are_answered_in_order() {
    let sink = Sink::start(Settings::default()).await;
    let mut client = sink.client().await;
    client.send("EHLO me\r\n").await;
    let mut extensions = Vec::new();
    loop {
        let line = client.read().await;
        extensions.push(line[4..].trim_end().to_owned());
        if line.starts_with("250 ") {
            break;
        }
    }
    for extension in ["PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 262144"] {
        assert!(extensions.iter().any(|offered| offered == extension), "{extension} is not in {extensions:?}");
    }
    let mail = "MAIL FROM:<a@b> BODY=8BITMIME\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n";
    client.send(mail).await;
    for code in [250, 250, 250, 354] {
        client.expect(code).await;
    }
    client.send("Subject: one\r\n\r\n..dot\r\n.\r\nMAIL FROM:<>\r\nNOOP\r\nRSET\r\nQUIT\r\n").await;
    for code in [250, 250, 250, 250, 221] {
        client.expect(code).await;
    }
    assert!(client.is_closed().await);
    let seen = sink.get("/messages").await;
    let mail = &seen["messages"][0];
    assert_eq!((&mail["from"], &mail["to"], &mail["subject"]), (&json!("a@b"), &json!(["c@d", "e@f"]), &json!("one")));
    assert_eq!(mail["text"].as_str().unwrap().trim_end(), ".dot");
    assert_eq!(seen["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn commands_out_of_order_are_refused_and_the_session_goes_on() {
    let sink = Sink::start(Settings { max_recipients: 1, ..Settings::default() }).await;
    let mut client = sink.client().await;
    client.say("MAIL FROM:<a@b>", 503).await;
    client.say("HELO me", 250).await;
    client.say("RCPT TO:<a@b>", 503).await;
    client.say("DATA", 503).await;
    client.say("MAIL FROM:<a@b>", 250).await;
    client.say("MAIL FROM:<a@b>", 503).await;
    client.say("RCPT TO:<bounce@b>", 550).await;
    client.say("DATA", 503).await;
    client.say("RCPT TO:<c@d>", 250).await;
    client.say("RCPT TO:<e@f>", 452).await;
    client.say("FROBNICATE", 500).await;
    client.say(&"X".repeat(100_000), 500).await;
    client.send(b"NOOP \xff\r\n").await;
    client.expect(500).await;
    client.say("DATA", 354).await;
    client.say("still here\r\n.", 250).await;
    client.say("DATA", 503).await;
}

#[tokio::test]
async fn a_mail_that_is_too_large_is_refused_before_or_after_and_the_session_goes_on() {
    let sink = Sink::start(Settings { max_mail_bytes: 100, ..Settings::default() }).await;
    let mut client = sink.client().await;
    client.say("HELO me", 250).await;
    client.say("MAIL FROM:<a@b> SIZE=101", 552).await;
    client.say("MAIL FROM:<a@b> SIZE=100", 250).await;
    client.say("RCPT TO:<c@d>", 250).await;
    client.say("DATA", 354).await;
    client.say(&format!("{}\r\n.", "x".repeat(200_000)), 552).await;
    client.say("MAIL FROM:<a@b>", 250).await;
    assert_eq!(sink.get("/messages").await["received"], 0);
}

#[tokio::test]
async fn a_mail_that_is_cut_off_is_not_taken() {
    let sink = Sink::start(Settings::default()).await;
    let mut client = sink.client().await;
    client.say("HELO me", 250).await;
    client.say("MAIL FROM:<a@b>", 250).await;
    client.say("RCPT TO:<c@d>", 250).await;
    client.say("DATA", 354).await;
    client.send("half a mail\r\n.").await;
    client.0.get_mut().shutdown().await.unwrap();
    assert!(client.is_closed().await);
    assert_eq!(sink.get("/messages").await["received"], 0);
}

#[tokio::test]
async fn the_modes_act_on_mails() {
    let sink = Sink::start(Settings::default()).await;
    let mut client = sink.client().await;
    client.say("HELO me", 250).await;
    sink.set_mode(json!({ "mode": "errors", "requests": 1 })).await;
    client.say("MAIL FROM:<a@b>", 451).await;
    sink.set_mode(json!({ "mode": "errors", "status": 550, "requests": 1 })).await;
    client.say("MAIL FROM:<a@b>", 550).await;
    sink.set_mode(json!({ "mode": "lose_answers", "requests": 1 })).await;
    client.say("MAIL FROM:<a@b>", 250).await;
    client.say("RCPT TO:<c@d>", 250).await;
    client.say("DATA", 354).await;
    client.send("kept\r\n.\r\n").await;
    assert!(client.is_closed().await);
    assert_eq!(sink.get("/messages").await["received"], 1);

    sink.set_mode(json!({ "mode": "down" })).await;
    let mut refused = Client(BufReader::new(TcpStream::connect(sink.smtp).await.unwrap()));
    assert!(refused.is_closed().await);
    sink.set_mode(json!({ "mode": "ok" })).await;
    sink.client().await.say("NOOP", 250).await;
}

#[tokio::test]
async fn too_many_silent_or_late_clients_are_told_so() {
    let settings = Settings { max_connections: 1, idle_timeout_ms: 1_000, ..Settings::default() };
    let sink = Sink::start(settings).await;
    let mut silent = sink.client().await;
    let mut second = Client(BufReader::new(TcpStream::connect(sink.smtp).await.unwrap()));
    second.expect(421).await;
    silent.expect(421).await;
    assert!(silent.is_closed().await);
}

#[tokio::test]
async fn a_shutdown_ends_open_sessions() {
    let sink = Sink::start(Settings::default()).await;
    let mut client = sink.client().await;
    sink.shutdown.cancel();
    client.expect(421).await;
    tokio::time::timeout(PATIENCE, sink.server).await.unwrap().unwrap().unwrap();
}
