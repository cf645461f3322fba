//! Text messages through a provider that speaks Twilio's Messages API.
//!
//! The API has no idempotency keys: when an answer is lost the message may have been sent, and trying again sends it
//! twice. What guards against more than that is the inbox in front of the handler that calls this.

use std::fmt;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;

/// Where the provider is and whose account pays.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmsSettings {
    /// Base address, such as `https://api.twilio.com`.
    pub url: String,
    /// The account, `AC...`.
    pub account_sid: String,
    /// The account's secret.
    pub auth_token: String,
    /// The number messages come from, `+` and digits.
    pub from: String,
    /// How long to wait for one answer, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for SmsSettings {
    /// The SMS sink on this machine.
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:12112".into(),
            account_sid: "ACmillrace".into(),
            auth_token: "simulator".into(),
            from: "+15005550006".into(),
            timeout_ms: 10_000,
        }
    }
}

impl fmt::Debug for SmsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmsSettings")
            .field("url", &self.url)
            .field("account_sid", &self.account_sid)
            .field("auth_token", &"<hidden>")
            .field("from", &self.from)
            .field("timeout_ms", &self.timeout_ms)
            .finish()
    }
}

/// A setting that cannot work. The operator has to change it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the SMS setting `{name}` {problem}")]
pub struct InvalidSmsSetting {
    /// The field of [`SmsSettings`].
    pub name: &'static str,
    /// What is wrong with it and what to do.
    pub problem: String,
}

/// A text message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmsMessage {
    /// The recipient, `+` and digits (E.164).
    pub to: String,
    /// In any script, up to the provider's 1,600 characters.
    pub body: String,
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SmsError {
    /// Try again later; it may have been sent all the same. Wrong credentials or a wrong address are reported like this
    /// too, because they say nothing about the message.
    #[error("the SMS provider did not take the message for now: {reason}")]
    Transient {
        /// What went wrong.
        reason: String,
        /// How long the provider asked us to wait.
        retry_after: Option<Duration>,
        /// The failure of the exchange, if there was no answer.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// This message will never be taken.
    #[error("the SMS provider refused the message: {message} ({code})")]
    Permanent {
        /// The provider's code, such as 21211 for a number that does not exist.
        code: u32,
        /// The provider's explanation; it may hold the recipient's number.
        message: String,
    },
}

impl SmsError {
    /// Whether trying again later can help. Only these count against a circuit breaker.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }

    /// How long the provider asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after, .. } => *retry_after,
            Self::Permanent { .. } => None,
        }
    }
}

/// Sends text messages. Cheap to clone; clones share the connections of the client.
#[derive(Clone)]
pub struct SmsSender {
    client: Client,
    address: Url,
    settings: SmsSettings,
}

impl SmsSender {
    /// Checks the settings; does not connect.
    ///
    /// # Errors
    /// Names the setting that cannot work.
    pub fn new(client: Client, settings: &SmsSettings) -> Result<Self, InvalidSmsSetting> {
        let invalid = |name, problem: String| Err(InvalidSmsSetting { name, problem });
        for (name, value) in
            [("account_sid", &settings.account_sid), ("auth_token", &settings.auth_token), ("from", &settings.from)]
        {
            if value.is_empty() {
                return invalid(name, "is empty; the provider's console shows it".into());
            }
        }
        if settings.timeout_ms == 0 {
            return invalid("timeout_ms", "is 0; give the provider some milliseconds to answer".into());
        }
        let url = settings.url.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(mut address) = url else {
            let problem = format!("is {:?}; use an address such as https://api.twilio.com", settings.url);
            return invalid("url", problem);
        };
        // Fails for addresses that cannot have a path only, and those of http can.
        if let Ok(mut segments) = address.path_segments_mut() {
            segments.pop_if_empty().extend(["2010-04-01", "Accounts", &settings.account_sid, "Messages.json"]);
        }
        Ok(Self { client, address, settings: settings.clone() })
    }

    /// Hands a message to the provider and returns the provider's id of it.
    ///
    /// # Errors
    /// See [`SmsError`].
    pub async fn send(&self, message: &SmsMessage) -> Result<String, SmsError> {
        let form = [("To", &message.to), ("From", &self.settings.from), ("Body", &message.body)];
        let request = self
            .client
            .post(self.address.clone())
            .basic_auth(&self.settings.account_sid, Some(&self.settings.auth_token))
            .timeout(Duration::from_millis(self.settings.timeout_ms))
            .form(&form);
        let response = request.send().await.map_err(|error| self.no_answer(error))?;
        let (status, retry_after) = (response.status(), retry_after(&response));
        let body = response.bytes().await.map_err(|error| self.no_answer(error))?;
        let unusable = |reason| SmsError::Transient { reason, retry_after, source: None };
        if status.is_success() {
            let queued: Queued = serde_json::from_slice(&body)
                .map_err(|error| unusable(format!("its answer makes no sense: {error}")))?;
            return Ok(queued.sid);
        }
        // What does not come in the provider's own words comes from something in between, and decides nothing.
        let Ok(refusal) = serde_json::from_slice::<Refusal>(&body) else {
            return Err(unusable(format!("it answered {status} without an explanation; check the setting `url`")));
        };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => {}
            status if status.is_client_error() => {
                return Err(SmsError::Permanent { code: refusal.code, message: refusal.message });
            }
            _ => {}
        }
        Err(unusable(format!("it answered {status}: {} ({})", refusal.message, refusal.code)))
    }

    fn no_answer(&self, error: reqwest::Error) -> SmsError {
        let reason = match &error {
            error if error.is_connect() => format!("{} cannot be reached", self.settings.url),
            error if error.is_timeout() => format!("no answer within {} ms", self.settings.timeout_ms),
            _ => "the exchange broke off".to_owned(),
        };
        SmsError::Transient { reason, retry_after: None, source: Some(error.without_url()) }
    }
}

#[derive(Deserialize)]
struct Queued {
    sid: String,
}

#[derive(Deserialize)]
struct Refusal {
    code: u32,
    message: String,
}

/// The form of the header in seconds; providers do not use the one with a date.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(settings: SmsSettings) -> &'static str {
        let client = millrace::http_client::http_client(Duration::from_secs(1), Duration::from_secs(1)).unwrap();
        SmsSender::new(client, &settings).err().map_or("nothing", |error| error.name)
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let usual = SmsSettings::default;
        assert_eq!(refused(usual()), "nothing");
        assert_eq!(refused(SmsSettings { url: "api.twilio.com".into(), ..usual() }), "url");
        assert_eq!(refused(SmsSettings { account_sid: String::new(), ..usual() }), "account_sid");
        assert_eq!(refused(SmsSettings { auth_token: String::new(), ..usual() }), "auth_token");
        assert_eq!(refused(SmsSettings { from: String::new(), ..usual() }), "from");
        assert_eq!(refused(SmsSettings { timeout_ms: 0, ..usual() }), "timeout_ms");
    }

    #[test]
    fn the_token_is_not_in_the_debug_output() {
        let settings = SmsSettings { auth_token: "secret".into(), ..SmsSettings::default() };
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
