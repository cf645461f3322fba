//! A text message and what the provider objects to.

use std::collections::HashMap;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use uuid::Uuid;

/// Twilio's own limit, in characters.
const LONGEST_BODY: usize = 1_600;
/// What fits into one text message, and into each of several, in the two alphabets of GSM 03.38. Counting all of ASCII
/// as GSM is close enough here.
const GSM_SEGMENT: (usize, usize) = (160, 153);
const UNICODE_SEGMENT: (usize, usize) = (70, 67);

/// Recipients that are always refused, as at Twilio: number, code, and what is wrong with it.
pub const MAGIC_NUMBERS: &[(&str, u32, &str)] = &[
    ("+15005550001", 21211, "is not a valid phone number"),
    ("+15005550002", 21612, "cannot be reached from this sender"),
    ("+15005550003", 21408, "is in a region this account may not send to"),
    ("+15005550004", 21610, "has unsubscribed from this sender"),
    ("+15005550009", 21614, "is not a mobile number"),
];

/// The provider's error: its own code and a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u32,
    pub(super) message: String,
}

/// A message as the provider shows it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Message {
    pub(super) sid: String,
    pub(super) account_sid: String,
    pub(super) to: String,
    from: String,
    body: String,
    status: &'static str,
    direction: &'static str,
    num_segments: String,
    date_created: Option<String>,
    error_code: Option<u32>,
    error_message: Option<String>,
    uri: String,
}

impl Message {
    /// Checks the form and makes a message of it.
    pub(super) fn new(account_sid: &str, mut form: HashMap<String, String>) -> Result<Self, Refusal> {
        let mut take = |name: &str, code| match form.remove(name) {
            Some(value) if !value.trim().is_empty() => Ok(value),
            _ => Err(Refusal { code, message: format!("'{name}' is required.") }),
        };
        let to = take("To", 21604)?;
        let from = take("From", 21603)?;
        let body = take("Body", 21602)?;
        check_recipient(&to)?;
        let length = body.chars().count();
        if length > LONGEST_BODY {
            let message = format!("'Body' has {length} characters; at most {LONGEST_BODY} are allowed.");
            return Err(Refusal { code: 21617, message });
        }
        let sid = format!("SM{}", Uuid::now_v7().simple());
        Ok(Self {
            account_sid: account_sid.to_owned(),
            uri: format!("/2010-04-01/Accounts/{account_sid}/Messages/{sid}.json"),
            num_segments: segments(&body).to_string(),
            sid,
            to,
            from,
            body,
            status: "queued",
            direction: "outbound-api",
            date_created: OffsetDateTime::now_utc().format(&Rfc2822).ok(),
            error_code: None,
            error_message: None,
        })
    }
}

/// E.164: a plus and eight to fifteen digits, the first of them not zero.
fn check_recipient(to: &str) -> Result<(), Refusal> {
    if let Some((_, code, problem)) = MAGIC_NUMBERS.iter().find(|(number, ..)| *number == to) {
        return Err(Refusal { code: *code, message: format!("The 'To' number {to} {problem}.") });
    }
    let digits = to.strip_prefix('+').unwrap_or_default();
    let valid = (8..=15).contains(&digits.len())
        && !digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    match valid {
        true => Ok(()),
        false => Err(Refusal { code: 21211, message: format!("The 'To' number {to} is not a valid phone number.") }),
    }
}

fn segments(body: &str) -> usize {
    let (length, (single, part)) =
        if body.is_ascii() { (body.len(), GSM_SEGMENT) } else { (body.encode_utf16().count(), UNICODE_SEGMENT) };
    if length <= single { 1 } else { length.div_ceil(part) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(to: &str, body: &str) -> Result<Message, u32> {
        let form = [("To", to), ("From", "+15005550006"), ("Body", body)];
        let form = form.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Message::new("AC1", form).map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_bad_form_is_refused_with_the_providers_code() {
        for (to, body, code) in [
            ("", "hi", 21604),
            ("+4915112345678", "  ", 21602),
            ("015112345678", "hi", 21211),
            ("+49 151 123456", "hi", 21211),
            ("+15005550004", "hi", 21610),
            ("+4915112345678", &"x".repeat(1_601), 21617),
        ] {
            assert_eq!(message(to, body).unwrap_err(), code, "{to}: {body}");
        }
    }

    #[test]
    fn long_and_non_latin_texts_take_more_segments() {
        for (body, expected) in
            [("x".repeat(160), "1"), ("x".repeat(161), "2"), ("я".repeat(70), "1"), ("я".repeat(71), "2")]
        {
            assert_eq!(message("+4915112345678", &body).unwrap().num_segments, expected);
        }
    }
}
