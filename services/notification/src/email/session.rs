//! A conversation with a mail server that takes one mail after the other.
//!
//! Each command of SMTP waits for its answer, so a mail costs four round trips. Servers that offer PIPELINING (RFC 2920)
//! take sender, recipients and the wish to begin at once, and a mail costs two.

use std::fmt::Write as _;

use lettre::address::Envelope;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Ehlo, Mail, Noop, Rcpt};
use lettre::transport::smtp::extension::ClientId;

/// The server is closing the connection (RFC 5321, 3.8).
const CLOSING: u16 = 421;
const PIPELINING: &str = "PIPELINING";

pub(super) struct Session {
    connection: AsyncSmtpConnection,
    pipelining: bool,
    /// It has carried a mail before, and the server may have closed it since.
    used: bool,
}

/// A mail was not taken.
pub(super) struct NotSent {
    pub(super) error: SmtpError,
    /// The server had closed the connection before anything of the mail was sent, so it can go over another one.
    pub(super) gone: bool,
}

impl From<SmtpError> for NotSent {
    fn from(error: SmtpError) -> Self {
        Self { error, gone: false }
    }
}

impl Session {
    /// Asks once more what the server offers: the library keeps only what it uses itself.
    pub(super) async fn begun(mut connection: AsyncSmtpConnection, name: &ClientId) -> Result<Self, SmtpError> {
        let offers = connection.command(Ehlo::new(name.clone())).await?;
        let pipelining = offers.message().any(|offer| offer.eq_ignore_ascii_case(PIPELINING));
        Ok(Self { connection, pipelining, used: false })
    }

    pub(super) async fn log_in(&mut self, credentials: &Credentials) -> Result<(), SmtpError> {
        self.connection.auth(DEFAULT_MECHANISMS, credentials).await.map(drop)
    }

    /// Hands a mail over. After an error the connection is of no use any more.
    pub(super) async fn send(&mut self, envelope: &Envelope, content: &[u8]) -> Result<(), NotSent> {
        let gone = |used: bool| move |error| NotSent { gone: used && is_gone(&error), error };
        // What is not ASCII needs parameters, which are the library's business.
        let mut addresses = envelope.from().into_iter().chain(envelope.to());
        let plain = addresses.all(|address| AsRef::<str>::as_ref(address).is_ascii());
        match str::from_utf8(content).ok().filter(|content| content.is_ascii()) {
            Some(content) if self.pipelining && plain => {
                self.begin(envelope).await.map_err(gone(self.used))?;
                self.connection.command(transparent(content)).await?;
            }
            _ => {
                if self.used {
                    self.connection.command(Noop).await.map_err(gone(true))?;
                }
                self.connection.send(envelope, content).await?;
            }
        }
        self.used = true;
        Ok(())
    }

    /// Everything before the content, at once. A server that refuses one of the commands refuses the rest as well, or is
    /// left waiting for a content that never comes.
    async fn begin(&mut self, envelope: &Envelope) -> Result<(), SmtpError> {
        let mut commands = Mail::new(envelope.from().cloned(), Vec::new()).to_string();
        for recipient in envelope.to() {
            let _ = write!(commands, "{}", Rcpt::new(recipient.clone(), Vec::new()));
        }
        let _ = write!(commands, "{Data}");
        self.connection.command(commands).await?;
        for _ in 0..=envelope.to().len() {
            self.connection.read_response().await?;
        }
        Ok(())
    }
}

/// A mail's content with its end. A dot that begins a line is sent twice, so that none is taken for the end (RFC 5321,
/// 4.5.2). As the library does it, but not byte by byte, and in one piece.
fn transparent(content: &str) -> String {
    let first = if content.starts_with('.') { "." } else { "" };
    [first, &content.replace("\r\n.", "\r\n.."), "\r\n.\r\n"].concat()
}

/// No answer, or the announcement that there will be none.
fn is_gone(error: &SmtpError) -> bool {
    match error.status() {
        Some(code) => u16::from(code) == CLOSING,
        None => !error.is_client(),
    }
}

#[cfg(test)]
mod tests {
    use super::transparent;

    #[test]
    fn no_line_of_a_mail_is_its_end() {
        for (content, sent) in [
            ("a\r\nb", "a\r\nb\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            ("a\r\n.\r\n.b\r\n", "a\r\n..\r\n..b\r\n\r\n.\r\n"),
            ("a.b\r\nc.", "a.b\r\nc.\r\n.\r\n"),
        ] {
            assert_eq!(transparent(content), sent);
        }
    }
}
