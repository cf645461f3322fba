//! A publisher that has never heard of Millrace.

use std::time::Duration;

use super::World;
use crate::commands::demo::scenario::Deviation;

/// The broker is on this machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

impl World {
    /// Publishes a body as any NATS client does: without headers, without waiting for JetStream.
    pub async fn publish_plainly(&self, subject: &'static str, body: String) -> Result<(), Deviation> {
        let failed =
            |error: &dyn std::fmt::Display| Deviation::new("a plain NATS client to publish", error.to_string());
        let options = async_nats::ConnectOptions::new().connection_timeout(CONNECT_LIMIT);
        let client = options.connect(&self.settings.nats.url).await.map_err(|e| failed(&e))?;
        client.publish(subject, body.into()).await.map_err(|e| failed(&e))?;
        client.flush().await.map_err(|e| failed(&e))
    }
}
