//! What scenarios act on and look at. What counts is what the other side saw: each check asks the gateway, the mail
//! server, the inventory or the broker, not only the order API.

mod dead_letters;
mod foreign;
mod gateway;
mod mail;
mod operations;
mod orders;
mod stock;

pub use gateway::Money;
pub use orders::{Ending, accepted};

use std::path::PathBuf;
use std::time::Duration;

use millrace::connection::Connection;
use millrace::http_client::http_client;
use millrace::local::NatsServer;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::scenario::{Deviation, Scenario};
use crate::api_client::ApiClient;
use crate::commands::catalog;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::stack::{self, LocalStack};

/// A running installation, seen from all sides.
pub struct World {
    pub api: ApiClient,
    pub api_url: String,
    /// With the real addresses.
    pub settings: Settings,
    /// Of the demo alone; the services have their own.
    connection: Connection,
    /// For the sides that are no order API.
    http: reqwest::Client,
    nats: Mutex<Option<NatsServer>>,
}

/// Everything is on this machine; what takes longer is broken.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long new products may take to get around.
const STOCKING_LIMIT: Duration = Duration::from_secs(10);
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

impl World {
    /// Takes over the nats-server, to be given back by [`close`](Self::close), and stocks what the scenarios sell.
    pub async fn open(stack: &mut LocalStack, scenarios: &[&'static Scenario]) -> Result<Self, Failure> {
        let connection = stack::connect(&stack.settings, "demo").await?;
        let wares = scenarios.iter().flat_map(|scenario| scenario.wares);
        let products = wares.map(|ware| ware.product()).collect::<Result<Vec<_>, _>>()?;
        catalog::import(&connection, &products, false).await?;
        let world = Self {
            api: stack.api.clone(),
            api_url: stack.api_url.clone(),
            settings: stack.settings.clone(),
            connection,
            http: http_client(ANSWER_LIMIT, ANSWER_LIMIT).map_err(|e| Failure::new(e.to_string()))?,
            nats: Mutex::new(stack.nats.take()),
        };
        let stocked = async {
            for product in &products {
                while !world.sells(product).await {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        let stocked = tokio::time::timeout(STOCKING_LIMIT, stocked).await;
        if stocked.is_err() {
            stack.nats = world.close().await;
            return Err(Failure::new(format!("the products of the demo were not on sale within {STOCKING_LIMIT:?}")));
        }
        Ok(world)
    }

    /// Gives the nats-server back.
    pub async fn close(self) -> Option<NatsServer> {
        // Closed or not, nothing follows.
        let _ = self.connection.close(CLOSE_LIMIT).await;
        self.nats.into_inner()
    }

    pub fn log(&self) -> PathBuf {
        self.settings.telemetry.log_file.clone().unwrap_or_default()
    }

    async fn get(&self, url: String) -> Result<reqwest::Response, Deviation> {
        self.http.get(&url).send().await.map_err(|e| Deviation::new(format!("an answer of {url}"), e.to_string()))
    }

    async fn get_json<T: DeserializeOwned>(&self, url: String) -> Result<T, Deviation> {
        let read = self.get(url.clone()).await?.json().await;
        read.map_err(|e| Deviation::new(format!("an answer of {url} that can be read"), e.to_string()))
    }
}
