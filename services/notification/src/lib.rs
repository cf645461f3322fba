//! The notification service: tells customers by e-mail and text message what becomes of their orders.
//!
//! | event in | what becomes due | events out |
//! | --- | --- | --- |
//! | `orders.created` | the acknowledgement | `notifications.sent` or `notifications.failed`, |
//! | `orders.confirmed` | the confirmation | one per notice and channel |
//! | `orders.cancelled` | the cancellation, with its reason | |

pub mod channels;
pub mod domain;
pub mod drive;
pub mod email;
pub mod handlers;
pub mod model;
mod redact;
mod settings;
pub mod sms;
pub mod store;
pub mod templates;
pub mod under_test;

pub use settings::Settings;

use std::sync::Arc;
use std::time::Duration;

use millrace::breaker::Breaker;
use millrace::kit::{Error, Kit, KitParts};
use tokio::sync::Semaphore;

use crate::channels::{Channels, Guarded};
use crate::drive::Driver;
use crate::email::Mailer;
use crate::model::NotificationModel;
use crate::sms::SmsSender;
use crate::store::Reads;

/// What the service is given.
pub struct Parts {
    pub kit: KitParts,
    pub settings: Settings,
}

/// Runs the service until its shutdown is asked for, or until a part of it fails.
pub async fn run(parts: Parts) -> Result<(), Error> {
    let Parts { kit, settings } = parts;
    let service = kit.service;
    let channels = channels(&settings).map_err(|reason| Error::Task { service, task: "the settings", reason })?;
    let model = NotificationModel { policy: settings.policy(), message_domain: settings.message_domain.clone() };
    let mut kit = Kit::start(kit, model, store::MIGRATIONS).await?;
    let driver = Arc::new(Driver {
        writer: kit.writer(),
        reads: Reads::new(kit.database()),
        channels,
        last_start: settings.claim.get().saturating_sub(settings.attempt_limit()),
    });
    kit.consume(handlers::router(&driver), Vec::new())?;
    for breaker in driver.channels.breakers() {
        let (component, shutdown) = (kit.health().component(breaker.name()), kit.shutdown());
        kit.spawn("a breaker's health", async move {
            breaker.show_in(component, shutdown).await;
            Ok(())
        });
    }
    let shutdown = kit.shutdown();
    kit.spawn("sweep", async move { driver.sweep(settings.sweep(), shutdown).await });
    kit.run().await
}

fn channels(settings: &Settings) -> Result<Channels, String> {
    let email = || -> Result<_, String> {
        let client = Mailer::new(&settings.email).map_err(|e| e.to_string())?;
        Ok(guarded("email", client, settings))
    };
    let sms = || -> Result<_, String> {
        let timeout = Duration::from_millis(settings.sms.timeout_ms);
        let http = millrace::http_client::http_client(timeout, timeout).map_err(|e| e.to_string())?;
        let client = SmsSender::new(http, &settings.sms).map_err(|e| e.to_string())?;
        Ok(guarded("sms", client, settings))
    };
    Ok(Channels {
        email: settings.email_enabled.then(email).transpose()?,
        sms: settings.sms_enabled.then(sms).transpose()?,
        backoff: settings.backoff(),
        message_domain: settings.message_domain.clone(),
    })
}

fn guarded<Client>(name: &str, client: Client, settings: &Settings) -> Guarded<Client> {
    let (breaker, slots) = (Breaker::new(name, settings.breaker()), Semaphore::new(settings.sends_at_once));
    Guarded { client, breaker, slots }
}
