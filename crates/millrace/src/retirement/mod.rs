//! Retiring a version of an event while services run: who decided what stands in a key-value bucket, and every service
//! follows it.
//!
//! A service that cannot read the bucket publishes every version: a copy that nobody reads does no harm, one that somebody
//! misses does. For the same reason a bucket that was lost means that nothing is retired.

mod decisions;
mod follow;

pub use decisions::{Decision, Error, State, decide, decisions, history};
pub(crate) use follow::follow;

use crate::topology::BucketSpec;

/// The bucket of all decisions, one key per version: `orders.created.v1`.
pub const BUCKET: &str = "contracts";

/// Decisions about one version that are kept, for whoever asks why.
const HISTORY: u8 = 32;

/// To be declared in the topology; a service whose topology has it follows it.
pub fn bucket() -> BucketSpec {
    let mut bucket =
        BucketSpec::new(BUCKET).description("Versions of events that are no longer published, and who decided it");
    bucket.history = HISTORY;
    bucket
}
