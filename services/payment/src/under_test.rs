//! Where a payment service under test can be told to die, and what it can be told to do without.

use millrace::sabotage::Sabotage;

millrace::crash_points! {
    /// A step is due on record, and the gateway was not asked.
    BEFORE_GATEWAY_CALL = "before-gateway-call",
    /// The gateway has done what it was asked to, and nothing is committed about it.
    AFTER_GATEWAY_ANSWER = "after-gateway-answer",
}

/// A cancellation that comes before its order leaves nothing.
pub static TOMBSTONE: Sabotage = Sabotage::new("tombstone");
/// Every call to the gateway has a key of its own.
pub static IDEMPOTENCY_KEY: Sabotage = Sabotage::new("idempotency-key");

/// Of this service.
pub static SABOTAGES: &[&Sabotage] = &[&TOMBSTONE, &IDEMPOTENCY_KEY];
