//! The mails that came in.

use std::collections::HashMap;

use mail_parser::{Message, MessageParser};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::bounded::BoundedLog;

/// Who a mail is from and to, as said to the server; the headers of the mail may say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Empty for a bounce.
    pub from: String,
    /// At least one.
    pub to: Vec<String>,
}

/// One mail, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    #[serde(flatten)]
    pub envelope: Envelope,
    /// Decoded.
    pub subject: Option<String>,
    /// Without the angle brackets.
    pub message_id: Option<String>,
    /// The first text part, decoded.
    pub text: String,
    /// When its last byte came in.
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// The size of the content as it came in.
    pub size_bytes: usize,
}

impl Mail {
    /// Decodes a mail; what is missing from it stays empty.
    pub(super) fn read(envelope: Envelope, content: &[u8]) -> Self {
        let message = MessageParser::default().parse(content);
        let message = message.as_ref();
        Self {
            envelope,
            subject: message.and_then(Message::subject).map(str::to_owned),
            message_id: message.and_then(Message::message_id).map(str::to_owned),
            text: message.and_then(|message| message.body_text(0)).unwrap_or_default().into_owned(),
            received_at: OffsetDateTime::now_utc(),
            size_bytes: content.len(),
        }
    }

    pub(super) fn is_to(&self, address: &str) -> bool {
        self.envelope.to.iter().any(|to| to.eq_ignore_ascii_case(address))
    }
}

/// The newest mails, and how often each Message-ID came in.
pub(super) struct Mailbox {
    mails: BoundedLog<Mail>,
    received: u64,
    counts: HashMap<String, u64>,
    message_ids: BoundedLog<String>,
}

impl Mailbox {
    pub(super) fn new(keep_mails: usize, keep_message_ids: usize) -> Self {
        Self {
            mails: BoundedLog::new(keep_mails),
            received: 0,
            counts: HashMap::new(),
            message_ids: BoundedLog::new(keep_message_ids),
        }
    }

    /// Keeps a mail and returns its number, counted from 1.
    pub(super) fn receive(&mut self, mail: Mail) -> u64 {
        if let Some(id) = &mail.message_id {
            self.count(id.clone());
        }
        self.mails.push(mail);
        self.received += 1;
        self.received
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Mail> {
        self.mails.iter().rev()
    }

    /// All mails since the start, kept or dropped.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn mails_dropped(&self) -> u64 {
        self.mails.dropped()
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts.iter().map(|(id, count)| (id.as_str(), *count))
    }

    pub(super) fn message_ids_dropped(&self) -> u64 {
        self.message_ids.dropped()
    }

    fn count(&mut self, id: String) {
        if let Some(count) = self.counts.get_mut(&id) {
            *count += 1;
            return;
        }
        self.counts.insert(id.clone(), 1);
        if let Some(oldest) = self.message_ids.push(id) {
            self.counts.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(content: &str) -> Mail {
        let envelope = Envelope { from: "shop@example.org".into(), to: vec!["Ann@example.org".into()] };
        Mail::read(envelope, content.as_bytes())
    }

    #[test]
    fn encoded_words_and_transfer_encodings_are_decoded() {
        let mail = mail(concat!(
            "Subject: =?utf-8?B?R3LDvMOfZQ==?=\r\nMessage-ID: <1@example.org>\r\n",
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
            "5=C2=A0=E2=82=AC\r\n.\r\n"
        ));
        assert_eq!(mail.subject.as_deref(), Some("Grüße"));
        assert_eq!(mail.message_id.as_deref(), Some("1@example.org"));
        assert_eq!(mail.text.trim_end(), "5\u{a0}€\r\n.");
        assert!(mail.is_to("ann@EXAMPLE.org") && !mail.is_to("bob@example.org"));
    }

    #[test]
    fn a_mail_without_headers_is_kept_all_the_same() {
        let mut mailbox = Mailbox::new(1, 1);
        for (number, content) in (1..).zip(["", "\r\n", "no header at all", "Subject: no end"]) {
            assert_eq!(mailbox.receive(mail(content)), number);
        }
        assert_eq!(mailbox.newest_first().count(), 1);
        assert_eq!(mailbox.counts().count(), 0);
    }

    #[test]
    fn duplicates_are_counted_and_the_oldest_ids_make_room() {
        let mut mailbox = Mailbox::new(10, 2);
        for id in ["a@x", "b@x", "b@x", "c@x"] {
            mailbox.receive(mail(&format!("Message-ID: <{id}>\r\n\r\n")));
        }
        let mut counts: Vec<_> = mailbox.counts().collect();
        counts.sort_unstable();
        assert_eq!(counts, [("b@x", 2), ("c@x", 1)]);
        assert_eq!(mailbox.message_ids_dropped(), 1);
        assert_eq!(mailbox.received(), 4);
    }
}
