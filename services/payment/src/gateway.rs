//! The payment gateway's client: Stripe's PaymentIntents with manual capture.
//!
//! Every call carries an idempotency key made of the order and the step, so a call whose answer was lost is repeated as
//! it was and takes effect once. The gateway keeps keys for a day; nothing here may be repeated later than that.

mod reads;

pub use reads::{GatewayPayment, Page};

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::under_test;

/// As the setting `url`: nobody is asked, and every answer is yes. For measuring what everything else takes; refused with
/// any key but the simulator's, which no real gateway accepts.
pub const SIMULATED: &str = "simulated:";
const SIMULATOR_KEY: &str = "sk_test_simulator";

/// Where the gateway is and how to talk to it.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// Base address, such as `https://api.stripe.com`.
    pub url: String,
    /// The secret API key, `sk_test_...` or `sk_live_...`.
    pub secret_key: String,
    /// How long to wait for one answer, in milliseconds. A bank may take seconds; what is longer than the consumer's
    /// acknowledgement deadline is of no use.
    pub timeout_ms: u64,
}

impl Default for GatewaySettings {
    /// The simulator on this machine.
    fn default() -> Self {
        Self { url: "http://127.0.0.1:12111".into(), secret_key: SIMULATOR_KEY.into(), timeout_ms: 10_000 }
    }
}

impl fmt::Debug for GatewaySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewaySettings")
            .field("url", &self.url)
            .field("secret_key", &"<hidden>")
            .field("timeout_ms", &self.timeout_ms)
            .finish()
    }
}

/// A setting that cannot work. The operator has to change it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gateway setting `{name}` {problem}")]
pub struct InvalidGatewaySetting {
    /// The field of [`GatewaySettings`].
    pub name: &'static str,
    /// What is wrong with it and what to do.
    pub problem: String,
}

/// The things a gateway does for an order. Each happens at most once per order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Put the money on hold.
    Authorize,
    /// Take the money on hold.
    Capture,
    /// Release the hold.
    Void,
    /// Give captured money back.
    Refund,
    /// Show what it has on record; moves nothing.
    Look,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authorize => "authorize",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
            Self::Look => "show its payments",
        })
    }
}

/// How an authorization ended. Both are final for the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// The money is on hold.
    Authorized {
        /// The gateway's name for the payment, needed for everything that follows.
        intent_id: String,
    },
    /// The bank said no; nothing is on hold.
    Declined {
        /// The bank's reason where it gave one (`insufficient_funds`), else the gateway's code (`card_declined`).
        code: String,
        /// The reason in words fit for the customer.
        message: String,
    },
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Whether it took effect is unknown. Repeat the same call later, with the same arguments: the idempotency key
    /// makes that safe. A rejected key or a wrong address is reported like this too, because it says nothing about the
    /// order: the payment must wait until an operator has mended the settings, not fail.
    #[error("the payment gateway did not {step}: {reason}")]
    Transient {
        /// What was asked.
        step: Step,
        /// What went wrong.
        reason: String,
        /// How long the gateway asked us to wait.
        retry_after: Option<Duration>,
        /// The failure of the exchange, if there was no answer.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// The gateway refused for good; repeating cannot help. An operator has to look at the payment.
    #[error("the payment gateway refused to {step}: {message} ({code})")]
    Permanent {
        /// What was asked.
        step: Step,
        /// The gateway's code, such as `charge_expired_for_capture`.
        code: String,
        /// The gateway's explanation.
        message: String,
    },
}

impl GatewayError {
    /// Whether repeating the call later can help. Only these count against a circuit breaker.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }

    /// How long the gateway asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after, .. } => *retry_after,
            Self::Permanent { .. } => None,
        }
    }
}

/// A payment gateway. Cheap to clone; clones share the connections of the client.
#[derive(Clone)]
pub struct Gateway {
    client: Client,
    base: Url,
    authorization: HeaderValue,
    timeout: Duration,
    /// Behind the idempotency key, for a question that an operator wants asked anew.
    anew: Option<u32>,
    /// Nobody is asked.
    simulated: bool,
}

impl Gateway {
    /// Checks the settings; does not connect.
    ///
    /// # Errors
    /// Names the setting that cannot work.
    pub fn new(client: Client, settings: &GatewaySettings) -> Result<Self, InvalidGatewaySetting> {
        let invalid = |name, problem: &str| InvalidGatewaySetting { name, problem: problem.to_owned() };
        let simulated = settings.url == SIMULATED;
        if simulated && settings.secret_key != SIMULATOR_KEY {
            return Err(invalid("url", "asks nobody, and a real secret key is set; name the gateway"));
        }
        let base = settings.url.parse::<Url>().ok();
        let base = base.filter(|url| simulated || matches!(url.scheme(), "http" | "https"));
        let base = base.ok_or_else(|| {
            invalid("url", &format!("is {:?}; use an address such as https://api.stripe.com", settings.url))
        })?;
        if settings.secret_key.is_empty() {
            return Err(invalid("secret_key", "is empty; set the gateway's secret API key"));
        }
        if settings.secret_key.starts_with("sk_live_") && base.scheme() != "https" && !is_this_machine(&base) {
            return Err(invalid("url", "would send a live secret key unencrypted; use https"));
        }
        if settings.timeout_ms == 0 {
            return Err(invalid("timeout_ms", "is 0; give the gateway some milliseconds to answer"));
        }
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", settings.secret_key))
            .map_err(|_| invalid("secret_key", "holds characters no key has; check for a line break"))?;
        authorization.set_sensitive(true);
        let timeout = Duration::from_millis(settings.timeout_ms);
        Ok(Self { client, base, authorization, timeout, anew: None, simulated })
    }

    /// The same gateway, asked under keys of their own: a gateway repeats a refusal under the key it was given for, so a
    /// step that it refused for good has to be asked for anew. Only for steps that the gateway itself takes once, which
    /// is all but authorizing.
    #[must_use]
    pub fn asked_anew(&self, attempt: u32) -> Self {
        Self { anew: Some(attempt), ..self.clone() }
    }

    /// Puts `amount_minor` minor units of `currency` (ISO 4217) on hold.
    ///
    /// # Errors
    /// See [`GatewayError`]. A declined card is not an error.
    pub async fn authorize(
        &self,
        order_id: Uuid,
        amount_minor: i64,
        currency: &str,
        payment_method: &str,
    ) -> Result<Authorization, GatewayError> {
        if self.simulated {
            return Ok(Authorization::Authorized { intent_id: format!("pi_{}", order_id.simple()) });
        }
        let form = [
            ("amount", amount_minor.to_string()),
            ("currency", currency.to_ascii_lowercase()),
            ("payment_method", payment_method.to_owned()),
            ("payment_method_types[]", "card".into()),
            ("capture_method", "manual".into()),
            ("confirm", "true".into()),
            // Nobody is there to answer the bank's questions: a card that needs that is declined, not left half done.
            ("error_on_requires_action", "true".into()),
            ("metadata[order_id]", order_id.to_string()),
        ];
        let step = Step::Authorize;
        match self.post(step, order_id, &["payment_intents"], &form).await? {
            Answer::Done(Object { id, status }) => match status.as_str() {
                "requires_capture" | "succeeded" => Ok(Authorization::Authorized { intent_id: id }),
                "requires_payment_method" | "requires_action" => Ok(Authorization::Declined {
                    code: status,
                    message: "The card cannot be charged without its holder.".into(),
                }),
                _ => Err(transient(step, format!("the payment {id} is {status}"))),
            },
            Answer::Refused(refusal) if refusal.status == StatusCode::PAYMENT_REQUIRED => {
                Ok(Authorization::Declined { code: refusal.decline_code(), message: refusal.message })
            }
            Answer::Refused(refusal) => Err(refusal.permanent(step)),
        }
    }

    /// Takes the money on hold. Succeeds when it was taken before.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn capture(&self, order_id: Uuid, intent_id: &str) -> Result<(), GatewayError> {
        self.settle(Step::Capture, order_id, intent_id, "capture", "succeeded").await
    }

    /// Releases the hold. Succeeds when it was released before; a payment that was captured is refused for good and has
    /// to be refunded.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn void(&self, order_id: Uuid, intent_id: &str) -> Result<(), GatewayError> {
        self.settle(Step::Void, order_id, intent_id, "cancel", "canceled").await
    }

    /// Gives `amount_minor` minor units of a captured payment back. Succeeds when all of it was given back before.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn refund(&self, order_id: Uuid, intent_id: &str, amount_minor: i64) -> Result<(), GatewayError> {
        if self.simulated {
            return Ok(());
        }
        let form = [("payment_intent", intent_id.to_owned()), ("amount", amount_minor.to_string())];
        match self.post(Step::Refund, order_id, &["refunds"], &form).await? {
            Answer::Done(_) => Ok(()),
            Answer::Refused(refusal) if refusal.code == "charge_already_refunded" => Ok(()),
            Answer::Refused(refusal) => Err(refusal.permanent(Step::Refund)),
        }
    }

    /// Moves a payment to its `goal`. A payment that is there already is a success: the key's answer may have expired,
    /// or an operator was faster.
    async fn settle(
        &self,
        step: Step,
        order_id: Uuid,
        intent_id: &str,
        verb: &str,
        goal: &str,
    ) -> Result<(), GatewayError> {
        if self.simulated {
            return Ok(());
        }
        match self.post(step, order_id, &["payment_intents", intent_id, verb], &[]).await? {
            Answer::Done(intent) if intent.status == goal => Ok(()),
            Answer::Done(intent) => Err(transient(step, format!("the payment {intent_id} is {}", intent.status))),
            Answer::Refused(refusal) if refusal.code == "payment_intent_unexpected_state" => {
                let request = self.client.get(self.address(&["payment_intents", intent_id]));
                match self.exchange::<Object>(step, request).await? {
                    Answer::Done(intent) if intent.status == goal => Ok(()),
                    Answer::Done(_) | Answer::Refused(_) => Err(refusal.permanent(step)),
                }
            }
            Answer::Refused(refusal) => Err(refusal.permanent(step)),
        }
    }

    async fn post(
        &self,
        step: Step,
        order_id: Uuid,
        path: &[&str],
        form: &[(&str, String)],
    ) -> Result<Answer<Object>, GatewayError> {
        let anew = self.anew.map(|attempt| format!("-anew-{attempt}")).unwrap_or_default();
        let key = match under_test::IDEMPOTENCY_KEY.is_on() {
            false => format!("millrace-{order_id}-{step}{anew}"),
            // Sabotage: the gateway cannot recognise a repetition.
            true => Uuid::now_v7().to_string(),
        };
        let request = self.client.post(self.address(path)).header("Idempotency-Key", key).form(form);
        self.exchange(step, request).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        step: Step,
        request: RequestBuilder,
    ) -> Result<Answer<T>, GatewayError> {
        let request = request.header(AUTHORIZATION, self.authorization.clone()).timeout(self.timeout);
        let response = request.send().await.map_err(|error| self.no_answer(step, error))?;
        let (status, retry_after) = (response.status(), retry_after(&response));
        let body = response.bytes().await.map_err(|error| self.no_answer(step, error))?;
        let unusable = |reason| GatewayError::Transient { step, reason, retry_after, source: None };
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map(Answer::Done)
                .map_err(|error| unusable(format!("its answer makes no sense: {error}")));
        }
        // What does not come in the gateway's own words comes from something in between, and decides nothing.
        let Ok(ErrorBody { error }) = serde_json::from_slice::<ErrorBody>(&body) else {
            return Err(unusable(format!("it answered {status} without an explanation; check the setting `url`")));
        };
        let refusal = Refusal::new(status, error);
        if refusal.is_transient() { Err(unusable(refusal.to_string())) } else { Ok(Answer::Refused(refusal)) }
    }

    fn no_answer(&self, step: Step, error: reqwest::Error) -> GatewayError {
        let reason = match &error {
            error if error.is_connect() => format!("{} cannot be reached", self.base),
            error if error.is_timeout() => format!("no answer within {} ms", self.timeout.as_millis()),
            _ => "the exchange broke off".to_owned(),
        };
        GatewayError::Transient { step, reason, retry_after: None, source: Some(error.without_url()) }
    }

    fn address(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // Fails for addresses that cannot have a path only, and `new` has seen to it that ours can.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        url
    }
}

/// What the gateway said.
enum Answer<T> {
    Done(T),
    /// It will say the same every time.
    Refused(Refusal),
}

/// A payment intent or a refund, as much of it as we read.
#[derive(Deserialize)]
struct Object {
    id: String,
    status: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorObject,
}

#[derive(Deserialize)]
struct ErrorObject {
    #[serde(rename = "type")]
    kind: String,
    code: Option<String>,
    decline_code: Option<String>,
    message: Option<String>,
}

struct Refusal {
    status: StatusCode,
    code: String,
    decline_code: Option<String>,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, error: ErrorObject) -> Self {
        Self {
            status,
            code: error.code.unwrap_or(error.kind),
            decline_code: error.decline_code,
            message: error.message.unwrap_or_else(|| "no explanation given".into()),
        }
    }

    /// Whether the refusal is about the moment or about us, and not about this payment.
    fn is_transient(&self) -> bool {
        matches!(
            self.status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS
        ) || !self.status.is_client_error()
    }

    /// `generic_decline` says less than the code it comes with.
    fn decline_code(&self) -> String {
        let specific = self.decline_code.as_ref().filter(|code| *code != "generic_decline");
        specific.unwrap_or(&self.code).clone()
    }

    fn permanent(self, step: Step) -> GatewayError {
        GatewayError::Permanent { step, code: self.decline_code(), message: self.message }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it answered {}: {} ({})", self.status, self.message, self.code)
    }
}

fn transient(step: Step, reason: String) -> GatewayError {
    GatewayError::Transient { step, reason, retry_after: None, source: None }
}

/// The form of the header in seconds; gateways do not use the one with a date.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(settings: GatewaySettings) -> &'static str {
        // `new` sends nothing, so a client is all that is missing; without one the check of the settings is not
        // reached.
        let client = millrace::http_client::http_client(Duration::from_secs(1), Duration::from_secs(1)).unwrap();
        Gateway::new(client, &settings).err().map_or("nothing", |error| error.name)
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let usual = GatewaySettings::default;
        assert_eq!(refused(usual()), "nothing");
        assert_eq!(refused(GatewaySettings { url: "api.stripe.com".into(), ..usual() }), "url");
        assert_eq!(refused(GatewaySettings { url: "ftp://api.stripe.com".into(), ..usual() }), "url");
        assert_eq!(refused(GatewaySettings { secret_key: String::new(), ..usual() }), "secret_key");
        assert_eq!(refused(GatewaySettings { secret_key: "sk_test_1\n".into(), ..usual() }), "secret_key");
        assert_eq!(refused(GatewaySettings { timeout_ms: 0, ..usual() }), "timeout_ms");
    }

    #[test]
    fn a_live_key_is_never_sent_unencrypted_to_another_machine() {
        let live = |url: &str| GatewaySettings {
            url: url.into(),
            secret_key: "sk_live_1".into(),
            ..GatewaySettings::default()
        };
        assert_eq!(refused(live("http://gateway.example")), "url");
        assert_eq!(refused(live("https://gateway.example")), "nothing");
        assert_eq!(refused(live("http://[::1]:12111")), "nothing");
    }

    #[test]
    fn a_real_key_and_nobody_to_ask_do_not_go_together() {
        let simulated =
            |key: &str| GatewaySettings { url: SIMULATED.into(), secret_key: key.into(), ..GatewaySettings::default() };
        assert_eq!(refused(simulated(SIMULATOR_KEY)), "nothing");
        assert_eq!(refused(simulated("sk_test_51ours")), "url");
        assert_eq!(refused(simulated("sk_live_1")), "url");
    }

    #[test]
    fn the_secret_key_is_not_in_the_debug_output() {
        let settings = GatewaySettings { secret_key: "sk_test_secret".into(), ..GatewaySettings::default() };
        assert!(!format!("{settings:?}").contains("sk_test_secret"));
    }
}
