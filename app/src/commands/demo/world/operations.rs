//! What an operator sees and does.

use millrace::local::NatsServer;
use millrace::telemetry::metrics::BREAKER_STATE;
use tokio::sync::MutexGuard;

use super::World;
use crate::commands::demo::scenario::Deviation;
use crate::commands::demo::trial::Trial;

impl World {
    /// Waits until the metrics show the gateway's breaker like this: 0 closed, 1 half-open, 2 open.
    pub async fn breaker_shows(&self, trial: &Trial, wanted: u8) {
        let what = format!("the metric {BREAKER_STATE} of the payment gateway to be {wanted}");
        trial
            .until(&what, async || {
                let url = format!("http://{}/metrics", self.settings.ops.listen);
                let answer = self.get(url).await.map_err(|deviation| deviation.to_string())?;
                let metrics = answer.text().await.map_err(|e| e.to_string())?;
                let of_breaker = |line: &&str| line.starts_with(BREAKER_STATE) && line.contains("\"payment-gateway\"");
                let line = metrics.lines().find(of_breaker).ok_or("no such metric")?;
                if line.ends_with(&format!(" {wanted}")) { Ok(()) } else { Err(line.to_owned()) }
            })
            .await;
    }

    /// Waits until `/readyz` says yes or no.
    pub async fn ready_is(&self, trial: &Trial, wanted: bool) {
        let what = format!("/readyz to say {}", if wanted { "ready" } else { "not ready" });
        trial
            .until(&what, async || {
                let url = format!("http://{}/readyz", self.settings.ops.listen);
                let answer = self.get(url).await.map_err(|deviation| deviation.to_string())?;
                let ready = answer.status().is_success();
                if ready == wanted { Ok(()) } else { Err(answer.text().await.unwrap_or_default()) }
            })
            .await;
    }

    pub async fn stop_nats(&self) {
        if let Some(nats) = self.nats().await.as_mut() {
            nats.stop().await;
        }
    }

    pub async fn start_nats(&self) -> Result<(), Deviation> {
        let mut nats = self.nats().await;
        let Some(nats) = nats.as_mut() else { return Ok(()) };
        nats.start().await.map_err(|e| Deviation::new("nats-server to start again", e.to_string()))
    }

    /// Undoes what a scenario that failed half-way may have left behind.
    pub async fn mend(&self) {
        // What cannot be mended shows in the scenarios that follow.
        let _ = self.gateway_is("ok").await;
        let _ = self.start_nats().await;
    }

    async fn nats(&self) -> MutexGuard<'_, Option<NatsServer>> {
        self.nats.lock().await
    }
}
