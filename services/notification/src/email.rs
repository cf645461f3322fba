//! E-mail over SMTP.
//!
//! SMTP has no idempotency keys: when the server's last answer is lost, the mail may have been taken, and sending it
//! again delivers it twice. The Message-ID is therefore handed in and stable, so that the recipient's server can tell
//! and we can count.

mod session;

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, Message};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use serde::Deserialize;
use tokio::net::TcpStream;

use self::session::{NotSent, Session};

/// Replies that reject us and not the mail: authentication required, too weak, failed, or in need of encryption. An
/// operator mends the settings, and the mail can go out then.
const NOT_ABOUT_THE_MAIL: [u16; 5] = [523, 530, 534, 535, 538];
/// A header line may be 998 bytes long (RFC 5322); ours carry an order's id and a domain.
const LONGEST_MESSAGE_ID: usize = 250;

/// As the setting `url`: mails are written and go nowhere. For measuring what everything else takes; refused with a sender
/// that could be somebody, which is every one whose domain does not end in `.example` (RFC 2606).
pub const SIMULATED: &str = "simulated:";

/// Where mails go and whom they come from.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmailSettings {
    /// `smtps://user:password@host` (TLS, port 465), `smtp+starttls://user:password@host` (TLS after a greeting, port
    /// 587) or `smtp://host` (unencrypted, port 25). Reserved characters in user and password are percent-encoded.
    pub url: String,
    /// The sender: `orders@example.org` or `Name <orders@example.org>`.
    pub from: String,
    /// How long handing over one mail may take, with the connection if one is needed, in milliseconds. Servers that
    /// check content before they answer take seconds.
    pub timeout_ms: u64,
    /// How many connections are kept open between mails. More than mails are sent at once is of no use; servers limit
    /// connections from one address.
    pub idle_connections: usize,
}

impl Default for EmailSettings {
    /// The mail sink on this machine.
    fn default() -> Self {
        Self {
            url: "smtp://127.0.0.1:2525".into(),
            from: "Millrace <orders@millrace.example>".into(),
            timeout_ms: 10_000,
            idle_connections: 16,
        }
    }
}

impl fmt::Debug for EmailSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The user goes as well: an address that does not parse may hold the password anywhere before the last @.
        let host = self.url.rsplit_once('@').map_or(self.url.as_str(), |(_, host)| host);
        f.debug_struct("EmailSettings")
            .field("url", &host)
            .field("from", &self.from)
            .field("timeout_ms", &self.timeout_ms)
            .field("idle_connections", &self.idle_connections)
            .finish()
    }
}

/// A setting that cannot work. The operator has to change it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the e-mail setting `{name}` {problem}")]
pub struct InvalidEmailSetting {
    /// The field of [`EmailSettings`].
    pub name: &'static str,
    /// What is wrong with it and what to do.
    pub problem: String,
}

/// A mail in plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailMessage {
    /// One recipient, `ann@example.org`.
    pub to: String,
    /// In any script.
    pub subject: String,
    /// In any script.
    pub text: String,
    /// `unique@domain`, the same every time this mail is sent; angle brackets are optional.
    pub message_id: String,
}

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub enum EmailError {
    /// Try again later with the same Message-ID; it may have been sent all the same. Wrong credentials are reported
    /// like this too, because they say nothing about the mail.
    #[error("the mail server did not take the mail for now: {reason}")]
    Transient {
        /// What went wrong.
        reason: String,
        /// What the connection or the server said.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// This mail will never be taken: the address is wrong or the server refuses it for good.
    #[error("the mail cannot be sent: {reason}")]
    Permanent {
        /// What is wrong with it; a server's words may hold the recipient's address.
        reason: String,
    },
}

impl EmailError {
    /// Whether trying again later can help. Only these count against a circuit breaker.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }
}

/// Sends mails over a few connections that are kept open. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Mailer(Arc<Inner>);

struct Inner {
    /// `None`: mails go nowhere.
    server: Option<Server>,
    from: Address,
    /// What is the same in every mail.
    letterhead: MessageBuilder,
    timeout: Duration,
    /// Connections with no conversation going on. lettre's own pool puts a connection back even when its conversation
    /// was cut short by a timeout, and the next mail would then take the rest of the old answers for its own; here a
    /// connection comes back only after a mail that went well, and is closed in every other case.
    idle: Mutex<Vec<Session>>,
    most_idle: usize,
}

impl Mailer {
    /// Checks the settings; does not connect.
    ///
    /// # Errors
    /// Names the setting that cannot work.
    pub fn new(settings: &EmailSettings) -> Result<Self, InvalidEmailSetting> {
        let invalid = |name, problem: String| InvalidEmailSetting { name, problem };
        let simulated = settings.url == SIMULATED;
        let server = (!simulated).then(|| Server::parse(&settings.url)).transpose();
        let server = server.map_err(|problem| invalid("url", problem))?;
        let from: Mailbox = settings
            .from
            .parse()
            .map_err(|_| invalid("from", format!("is {:?}; use an address like orders@example.org", settings.from)))?;
        if simulated && !from.email.domain().ends_with(".example") {
            return Err(invalid("url", "sends mails nowhere, and the sender is a real one; name the server".into()));
        }
        if settings.timeout_ms == 0 {
            return Err(invalid("timeout_ms", "is 0; give the server some milliseconds to answer".into()));
        }
        Ok(Self(Arc::new(Inner {
            server,
            letterhead: Message::builder().from(from.clone()).header(ContentType::TEXT_PLAIN),
            from: from.email,
            timeout: Duration::from_millis(settings.timeout_ms),
            idle: Mutex::default(),
            most_idle: settings.idle_connections,
        })))
    }

    /// Hands a mail to the server. May be dropped at any moment.
    ///
    /// # Errors
    /// See [`EmailError`].
    pub async fn send(&self, message: &EmailMessage) -> Result<(), EmailError> {
        let mail = self.0.compose(message).map_err(|reason| EmailError::Permanent { reason })?;
        let (envelope, content) = (mail.envelope().clone(), mail.formatted());
        let Some(server) = &self.0.server else { return Ok(()) };
        // lettre bounds the connecting alone, not the conversation.
        match tokio::time::timeout(self.0.timeout, self.0.deliver(server, &envelope, &content)).await {
            Ok(delivered) => delivered,
            Err(_) => Err(EmailError::Transient {
                reason: format!("not done within {} ms", self.0.timeout.as_millis()),
                source: None,
            }),
        }
    }
}

impl Inner {
    fn compose(&self, message: &EmailMessage) -> Result<Message, String> {
        let to: Mailbox = message.to.parse().map_err(|_| "the recipient's address is not valid".to_owned())?;
        let id = message.message_id.trim_start_matches('<').trim_end_matches('>');
        let valid = id.len() <= LONGEST_MESSAGE_ID
            && id.split_once('@').is_some_and(|(left, right)| !left.is_empty() && !right.is_empty())
            && id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'<' && byte != b'>');
        if !valid {
            return Err(format!("the Message-ID {id:?} is not of the form unique@domain"));
        }
        let addresses = Envelope::new(Some(self.from.clone()), vec![to.email.clone()]);
        let mut mail = self
            .letterhead
            .clone()
            // Otherwise the addresses are read back out of the headers.
            .envelope(addresses.map_err(|error| error.to_string())?)
            .to(to)
            .subject(message.subject.replace(['\r', '\n'], " "))
            .message_id(Some(format!("<{id}>")))
            .body(message.text.clone())
            .map_err(|error| error.to_string())?;
        // RFC 3834: keeps away-from-office replies from coming back.
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        mail.headers_mut().insert_raw(HeaderValue::new(automatic, "auto-generated".into()));
        Ok(mail)
    }

    async fn deliver(&self, server: &Server, envelope: &Envelope, content: &[u8]) -> Result<(), EmailError> {
        let idle = self.lock().pop();
        if let Some(mut session) = idle {
            match session.send(envelope, content).await {
                Ok(()) => {
                    self.park(session);
                    return Ok(());
                }
                Err(NotSent { gone: true, .. }) => {}
                Err(NotSent { error, .. }) => return Err(rejected(error)),
            }
        }
        let mut session = server.connect(self.timeout).await.map_err(|error| EmailError::Transient {
            reason: format!("no session with {}:{}", server.host, server.port),
            source: Some(error),
        })?;
        session.send(envelope, content).await.map_err(|NotSent { error, .. }| rejected(error))?;
        self.park(session);
        Ok(())
    }

    fn park(&self, session: Session) {
        let mut idle = self.lock();
        if idle.len() < self.most_idle {
            idle.push(session);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The conversation about the mail failed.
fn rejected(error: SmtpError) -> EmailError {
    let code = error.status().map(u16::from);
    let about_us = code.is_some_and(|code| NOT_ABOUT_THE_MAIL.contains(&code));
    // A client error means that the mail needs what the server cannot do, such as an address in UTF-8.
    if (error.is_permanent() || error.is_client()) && !about_us {
        let said = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        let reason = code.map_or_else(|| said.clone(), |code| format!("the server answered {code} {said}"));
        return EmailError::Permanent { reason };
    }
    let reason = match code {
        Some(code) => format!("it answered {code}"),
        None => "the conversation broke off".into(),
    };
    EmailError::Transient { reason, source: Some(error.into()) }
}

/// A mail server, and how to get a session with it.
struct Server {
    host: String,
    port: u16,
    security: Security,
    credentials: Option<Credentials>,
}

enum Security {
    None,
    Tls(TlsParameters),
    StartTls(TlsParameters),
}

impl Server {
    /// The error says what is wrong with the address, and never repeats it: it may hold a password.
    fn parse(url: &str) -> Result<Self, String> {
        let url = url.parse::<Url>().map_err(|error| format!("is not an address: {error}"))?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err("names no host; use smtps://host or smtp://host".into());
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err("has something after the host; leave it out".into());
        }
        let tls = || TlsParameters::new(host.clone()).map_err(|error| format!("names no host TLS can check: {error}"));
        let (security, usual_port) = match url.scheme() {
            "smtp" => (Security::None, 25),
            "smtps" => (Security::Tls(tls()?), 465),
            "smtp+starttls" => (Security::StartTls(tls()?), 587),
            other => return Err(format!("starts with {other}://; use smtps://, smtp+starttls:// or smtp://")),
        };
        let credentials = credentials(&url)?;
        if credentials.is_some() && matches!(security, Security::None) && !is_this_machine(&host) {
            return Err("would send the password unencrypted; use smtps:// or smtp+starttls://".into());
        }
        Ok(Self { port: url.port().unwrap_or(usual_port), host, security, credentials })
    }

    async fn connect(&self, timeout: Duration) -> Result<Session, Box<dyn Error + Send + Sync>> {
        let name = ClientId::default();
        let address = (self.host.as_str(), self.port);
        let mut connection = match &self.security {
            Security::Tls(tls) => {
                AsyncSmtpConnection::connect_tokio1(address, Some(timeout), &name, Some(tls.clone()), None).await?
            }
            Security::None | Security::StartTls(_) => {
                let stream = TcpStream::connect(address).await?;
                // lettre writes a mail and its final dot separately. With Nagle's algorithm the dot waits for the
                // server's delayed acknowledgement: 40 ms for each mail.
                stream.set_nodelay(true)?;
                AsyncSmtpConnection::connect_with_transport(Box::new(stream), &name).await?
            }
        };
        if let Security::StartTls(parameters) = &self.security {
            connection.starttls(parameters.clone(), &name).await?;
        }
        let mut session = Session::begun(connection, &name).await?;
        if let Some(credentials) = &self.credentials {
            session.log_in(credentials).await?;
        }
        Ok(session)
    }
}

fn credentials(url: &Url) -> Result<Option<Credentials>, String> {
    let decode = |text: &str| match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err("has a user or password that is not UTF-8 when percent-decoded".to_owned()),
    };
    match (url.username(), url.password()) {
        ("", None) => Ok(None),
        ("", Some(_)) => Err("has a password but no user".into()),
        (_, None) => Err("has a user but no password; write user:password@host".into()),
        (user, Some(password)) => Ok(Some(Credentials::new(decode(user)?, decode(password)?))),
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailer(url: &str) -> Result<Mailer, String> {
        Mailer::new(&EmailSettings { url: url.into(), ..EmailSettings::default() }).map_err(|error| error.problem)
    }

    fn message() -> EmailMessage {
        EmailMessage {
            to: "ann@example.org".into(),
            subject: "Your order".into(),
            text: "Hello".into(),
            message_id: "1@millrace.example".into(),
        }
    }

    #[test]
    fn a_sender_that_could_be_somebody_does_not_send_nowhere() {
        assert!(mailer(SIMULATED).unwrap().0.server.is_none());
        let from = "Shop <orders@example.org>".into();
        let real = EmailSettings { url: SIMULATED.into(), from, ..EmailSettings::default() };
        assert_eq!(Mailer::new(&real).err().unwrap().name, "url");
    }

    #[test]
    fn each_scheme_has_its_port() {
        for (url, port) in [
            ("smtp://127.0.0.1:2525", 2525),
            ("smtp://mail.example", 25),
            ("smtps://user:p%40ss@mail.example", 465),
            ("smtp+starttls://user:pass@mail.example", 587),
            ("smtp+starttls://mail.example:2587", 2587),
            ("smtp://user:pass@[::1]", 25),
        ] {
            assert_eq!(mailer(url).unwrap().0.server.as_ref().unwrap().port, port, "{url}");
        }
    }

    #[test]
    fn an_address_that_cannot_work_is_refused_without_repeating_the_password() {
        for (url, hint) in [
            ("mail.example:25", "smtps://"),
            ("http://mail.example", "smtps://"),
            ("smtp://", "host"),
            ("smtps://mail.example/path", "after the host"),
            ("smtps://user@mail.example", "no password"),
            ("smtp://user:secret@mail.example", "unencrypted"),
            ("smtps://user:sec/ret@mail.example", ""),
        ] {
            let problem = mailer(url).err().expect(url);
            assert!(problem.contains(hint), "{url}: {problem}");
            assert!(!problem.contains("sec"), "{url}: {problem}");
        }
    }

    #[test]
    fn the_password_is_not_in_the_debug_output() {
        for url in ["smtps://user:secret@mail.example", "smtps//user:sec@ret@mail.example"] {
            let settings = EmailSettings { url: url.into(), ..EmailSettings::default() };
            let debug = format!("{settings:?}");
            assert!(!debug.contains("sec") && debug.contains("mail.example"), "{debug}");
        }
    }

    #[test]
    fn nothing_in_a_message_can_add_a_header() {
        let mailer = mailer("smtp://127.0.0.1").unwrap();
        let subject = "Hi\r\nBcc: eve@example.org".to_owned();
        let mail = mailer.0.compose(&EmailMessage { subject, ..message() }).unwrap();
        let text = String::from_utf8(mail.formatted()).unwrap();
        assert!(!text.contains("\r\nBcc:"), "{text}");
        assert!(text.contains("From: Millrace <orders@millrace.example>\r\n"), "{text}");
        let (from, to) = (mail.envelope().from().unwrap(), mail.envelope().to());
        assert_eq!(
            (from.to_string().as_str(), to[0].to_string().as_str()),
            ("orders@millrace.example", "ann@example.org")
        );
        for (to, id) in
            [("a@b.c\r\nBcc: d@e.f", "1@x"), ("a@b.c", "1@x\r\nBcc: d@e.f"), ("a@b.c", "1"), ("nobody", "1@x")]
        {
            assert!(mailer.0.compose(&EmailMessage { to: to.into(), message_id: id.into(), ..message() }).is_err());
        }
    }

    /// A mail sink whose patience with silent clients is short, and how many mails it has.
    async fn sink(idle_timeout_ms: u64) -> (Mailer, impl AsyncFn() -> u64, tokio_util::sync::DropGuard) {
        let bind = || tokio::net::TcpListener::bind("127.0.0.1:0");
        let (smtp, http) = (bind().await.unwrap(), bind().await.unwrap());
        let (url, view) = (format!("smtp://{}", smtp.local_addr().unwrap()), http.local_addr().unwrap());
        let settings = simulators::mail::Settings { idle_timeout_ms, ..Default::default() };
        let stop = tokio_util::sync::CancellationToken::new();
        tokio::spawn(simulators::mail::run(smtp, http, settings, stop.clone()));
        let limit = Duration::from_secs(5);
        let http = millrace::http_client::http_client(limit, limit).unwrap();
        let count = async move || {
            let answer = http.get(format!("http://{view}/messages?limit=0")).send().await.unwrap();
            answer.json::<serde_json::Value>().await.unwrap()["received"].as_u64().unwrap()
        };
        (mailer(&url).unwrap(), count, stop.drop_guard())
    }

    #[tokio::test]
    async fn a_connection_that_the_server_has_closed_meanwhile_costs_no_mail() {
        let (mailer, received, _stop) = sink(50).await;
        for mails in 1..=2 {
            mailer.send(&message()).await.unwrap();
            assert_eq!(received().await, mails);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    #[tokio::test]
    async fn a_recipient_that_is_refused_is_told_from_the_mail_that_goes_out_next() {
        let (mailer, received, _stop) = sink(60_000).await;
        let unknown = EmailMessage { to: "bounce@example.org".into(), ..message() };
        for mails in 1..=2 {
            let refused = mailer.send(&unknown).await.unwrap_err();
            assert!(matches!(refused, EmailError::Permanent { .. }), "{refused}");
            mailer.send(&message()).await.unwrap();
            assert_eq!(received().await, mails);
        }
    }

    #[tokio::test]
    async fn a_server_that_takes_one_command_at_a_time_is_told_one_at_a_time() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            stream.write_all(b"220 plain\r\n").await.unwrap();
            for mails in 0.. {
                loop {
                    let read = stream.read(&mut buffer).await.unwrap();
                    let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                    if read == 0 {
                        return mails;
                    }
                    let answer: &[u8] = match text.get(..4) {
                        Some("EHLO") => b"250-plain\r\n250 8BITMIME\r\n",
                        Some("DATA") => b"354 go on\r\n",
                        Some("MAIL" | "RCPT" | "NOOP") => b"250 ok\r\n",
                        _ if !text.ends_with("\r\n.\r\n") => b"",
                        _ => b"250 kept\r\n",
                    };
                    stream.write_all(answer).await.unwrap();
                    if answer == b"250 kept\r\n" {
                        break;
                    }
                }
            }
            unreachable!("it serves until the client is gone")
        });
        let mailer = mailer(&url).unwrap();
        for _ in 0..2 {
            mailer.send(&message()).await.unwrap();
        }
        drop(mailer);
        // Each read is answered once: commands that came together would wait for answers for ever.
        assert_eq!(server.await.unwrap(), 2);
    }
}
