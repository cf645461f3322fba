//! Sets a durable consumer back, so that it is given again what was given to it before.
//!
//! The broker remembers what a consumer has acknowledged, and the service's database remembers what was handled. When the
//! database is restored from an older copy it knows less than the broker believes. Set back, the consumer is given
//! everything since, and whatever the database does know its inbox recognises.

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::api::Api;
use super::{Topology, TopologyError};
use crate::connection::Connection;

/// The first nats-server whose consumers can be set back and keep their configuration.
const NEEDS: (u64, u64) = (2, 14);

/// How far back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// To the oldest message the stream has.
    Start,
    /// To the first message that was stored then or later.
    Time(OffsetDateTime),
}

/// A consumer that was set back, or did not have to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rewound {
    pub stream: String,
    pub consumer: String,
    /// The stream sequence it goes on from.
    pub next_seq: u64,
    /// The one it would have gone on from; the same if it had not come further than it was to be set back.
    pub was_at_seq: u64,
    /// Messages it will be given now, again or for the first time.
    pub messages: u64,
}

/// Sets the declared consumer `durable` back. Never sets one forward, which would pass messages over. Those that use the
/// consumer may go on meanwhile.
///
/// # Errors
/// [`TopologyError::UnknownConsumer`], [`TopologyError::ServerTooOld`], and whatever keeps the broker from answering.
pub async fn rewind(
    connection: &Connection,
    topology: &Topology,
    durable: &str,
    since: Since,
) -> Result<Rewound, TopologyError> {
    connection.connected().await?;
    let known = || topology.consumers.iter().map(|spec| spec.durable.clone()).collect();
    let unknown = || TopologyError::UnknownConsumer { durable: durable.to_owned(), known: known() };
    let spec = topology.consumers.iter().find(|spec| spec.durable == durable).ok_or_else(unknown)?;
    let version = connection.client().server_info().version;
    if !is_new_enough(&version) {
        return Err(TopologyError::ServerTooOld { version, what: "set a consumer back", needs: "2.14" });
    }
    let (api, stream) = (Api::new(connection), spec.stream.as_str());
    let wanted = match since {
        Since::Start => 1,
        Since::Time(at) => api.sequence_at(stream, &at.format(&Rfc3339).unwrap_or_default()).await?,
    };
    let info = api.consumer(stream, durable).await?.ok_or_else(unknown)?;
    let was_at_seq = info["ack_floor"]["stream_seq"].as_u64().unwrap_or_default() + 1;
    let result = |next_seq, info: &Value| Rewound {
        stream: stream.to_owned(),
        consumer: durable.to_owned(),
        next_seq,
        was_at_seq,
        messages: info["num_pending"].as_u64().unwrap_or_default(),
    };
    if wanted >= was_at_seq {
        return Ok(result(was_at_seq, &info));
    }
    let info = api.reset_consumer(stream, durable, wanted).await?;
    Ok(result(wanted, &info))
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map_while(|part| part.parse::<u64>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= NEEDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, enough) in [
            ("2.14.0", true),
            ("2.15.1-RC.2", true),
            ("3.0.0", true),
            ("2.9.25", false),
            ("2.12.11", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), enough, "{version}");
        }
    }
}
