//! Streams, consumers and buckets, declared in code as data, compared with what a server has, and brought there.
//!
//! A service's promise to lose nothing rests on how the broker keeps its messages. So each difference between what is
//! declared and what exists is judged: one that would break the promise stops a service's start, another is a warning.
//! What cannot be changed in place, or would throw data away, is left to a person.
//!
//! | function | who calls it |
//! | --- | --- |
//! | [`plan`] | an operator who wants to see what would change |
//! | [`apply`] | an operator or a service that creates what is missing |
//! | [`verify`] | anybody who must not run on a topology that breaks the promise |
//! | [`ensure`] | a service's start: waits for NATS, applies if allowed to, verifies |
//! | [`rewind`] | an operator whose service lost what it had handled: its database was restored from an older copy |
//!
//! Invariants: `plan` and `verify` change nothing; `apply` and `ensure` never delete a stream, a consumer, a bucket or
//! a message, and several may run at once; settings the declaration does not know are left as they are.

mod api;
mod apply;
mod compare;
mod dead_letters;
mod ensure;
mod error;
mod plan;
mod rewind;
mod spec;
mod subjects;

pub use apply::{Applied, apply, plan};
pub use ensure::{ensure, verify};
pub use error::TopologyError;
pub(crate) use error::stream_is_missing;
pub use plan::{Change, Entry, Kind, Plan};
pub use rewind::{Rewound, Since, rewind};
pub use spec::{BucketSpec, ConsumerSpec, DeliverPolicy, Discard, SpecError, StreamSpec, Topology};
pub(crate) use subjects::{covers, overlap};

use crate::connection::Connection;

/// See [`last_before`](crate::history::last_before).
pub(crate) async fn sequence_at(connection: &Connection, stream: &str, time: &str) -> Result<u64, TopologyError> {
    api::Api::new(connection).sequence_at(stream, time).await
}
