//! The test payment methods: Stripe's own names where it has one, and ours for what its test mode cannot do.

/// What happens to a payment with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Approve,
    /// The bank says no: code, decline code and message.
    Decline(&'static str, Option<&'static str>, &'static str),
    /// Approved, after `slow_ms`.
    Slow,
    /// Dropped without being processed, every time.
    Unreachable,
    /// 503 twice for a key, then approved.
    Flaky,
    /// Approved, but the capture fails for good.
    CaptureFails,
    /// Approved, but the answer is lost; a retry with the same key gets it.
    AnswerLost,
}

/// One payment method the simulator knows.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    /// What to send as `payment_method`.
    pub name: &'static str,
    /// What happens to a payment with it, in words.
    pub about: &'static str,
    pub(super) fate: Fate,
}

/// Every payment method the simulator knows.
pub const TOKENS: &[Token] = &[
    token("pm_card_visa", "is approved", Fate::Approve),
    token("pm_card_mastercard", "is approved", Fate::Approve),
    token("pm_card_amex", "is approved", Fate::Approve),
    token("pm_card_chargeDeclined", "is declined", DECLINED),
    token("pm_card_visa_chargeDeclined", "is declined", DECLINED),
    token("pm_card_chargeDeclinedInsufficientFunds", "is declined: insufficient funds", INSUFFICIENT_FUNDS),
    token("pm_card_visa_chargeDeclinedInsufficientFunds", "is declined: insufficient funds", INSUFFICIENT_FUNDS),
    token("pm_card_chargeDeclinedExpiredCard", "is declined: the card has expired", EXPIRED),
    token("pm_card_visa_chargeDeclinedExpiredCard", "is declined: the card has expired", EXPIRED),
    token("pm_slow", "is approved, but only after a delay", Fate::Slow),
    token(
        "pm_unreachable",
        "never gets an answer: the connection is dropped and nothing is charged",
        Fate::Unreachable,
    ),
    token("pm_flaky", "is refused twice with 503 for an idempotency key, then approved", Fate::Flaky),
    token("pm_capture_fails", "is approved, but its capture fails for good", Fate::CaptureFails),
    token(
        "pm_answer_lost",
        "is approved, but the first answer is lost; a retry with the same key gets it",
        Fate::AnswerLost,
    ),
];

const DECLINED: Fate = Fate::Decline("card_declined", Some("generic_decline"), "Your card was declined.");
const INSUFFICIENT_FUNDS: Fate =
    Fate::Decline("card_declined", Some("insufficient_funds"), "Your card has insufficient funds.");
const EXPIRED: Fate = Fate::Decline("expired_card", None, "Your card has expired.");

const fn token(name: &'static str, about: &'static str, fate: Fate) -> Token {
    Token { name, about, fate }
}

pub(super) fn find(name: &str) -> Option<&'static Token> {
    TOKENS.iter().find(|token| token.name == name)
}
