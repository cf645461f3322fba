//! Everything on this machine, for `up` and `demo`: a nats-server of our own and all roles in this process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace::health::Health;
use millrace::local::NatsServer;
use millrace::local::provision::Provision;
use millrace::ops;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Listeners, Role};
use crate::api_client::ApiClient;
use crate::commands::catalog;
use crate::failure::Failure;
use crate::settings::Settings;

/// What differs between a run to stay and a run to show something.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Streams, databases and logs.
    pub data_dir: PathBuf,
    /// Starts no nats-server but uses the one of `nats.url`.
    pub external_nats: bool,
    /// 0 for a free one.
    pub nats_port: u16,
    pub nats_monitor_port: u16,
}

/// A running installation.
pub struct LocalStack {
    pub settings: Settings,
    pub nats: Option<NatsServer>,
    pub api: ApiClient,
    pub api_url: String,
    pub health: Health,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), Failure>>,
}

/// From start to ready; the slowest part is a first nats-server start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

impl LocalStack {
    /// Starts everything and waits until it is ready and the catalog has products. `progress` gets sentences.
    pub async fn start(
        mut settings: Settings,
        options: LocalOptions,
        shutdown: CancellationToken,
        mut progress: impl FnMut(&str) + Send + 'static,
    ) -> Result<Self, Failure> {
        let listeners = Listeners::bind(&settings, &Role::ALL).await?;
        listeners.write_into(&mut settings);
        let api_url = listeners.api_url().unwrap_or_default();
        let nats = match options.external_nats {
            true => None,
            false => {
                let program = find_nats_server(&mut progress).await?;
                progress("Starting nats-server.");
                let server = start_nats(&program, &options).await?;
                settings.nats.url = server.url();
                Some(server)
            }
        };
        progress("Starting the services.");
        let health = Health::new();
        // Named before they exist, so that nobody takes a half-started process for a ready one.
        for service in super::SERVICES {
            for part in ["nats", "database", "topology"] {
                health.scope(service).component(part);
            }
        }
        let mut listeners = listeners;
        if let Some(ops) = listeners.ops.take() {
            tokio::spawn(ops::serve(ops, health.clone(), shutdown.clone()));
        }
        let running = tokio::spawn({
            let (settings, health, shutdown) = (settings.clone(), health.clone(), shutdown.clone());
            async move { super::run(&settings, &Role::ALL, listeners, health, shutdown).await }
        });
        let api = ApiClient::new(&api_url)?;
        let mut stack = Self { settings, nats, api, api_url, health, shutdown, running };
        if let Err(failure) = stack.become_ready().await {
            let shutdown = stack.shutdown.clone();
            shutdown.cancel();
            let stopped = stack.stop().await;
            return Err(stopped.err().unwrap_or(failure));
        }
        Ok(stack)
    }

    async fn become_ready(&mut self) -> Result<(), Failure> {
        let ready = async {
            while !self.health.readiness().ready {
                if self.running.is_finished() {
                    return Err(Failure::new("a service ended while starting"));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            import_demo_catalog(&self.settings).await?;
            loop {
                let sold = self.api.get("/catalog").await.ok().filter(|answer| answer.status == 200);
                let products =
                    sold.and_then(|answer| answer.body.get("products").and_then(|p| p.as_array()).map(Vec::len));
                if products.unwrap_or(0) > 0 {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let outcome = tokio::time::timeout(START_LIMIT, ready).await;
        outcome.unwrap_or_else(|_| {
            let waiting: Vec<String> = self
                .health
                .readiness()
                .components
                .into_iter()
                .filter_map(|(name, condition)| condition.reason.map(|reason| format!("{name}: {reason}")))
                .collect();
            Err(Failure::new(format!("not ready within {START_LIMIT:?}: {}", waiting.join("; ")))
                .remedy("millrace doctor"))
        })
    }

    /// Resolves when the services have ended by themselves.
    pub async fn ended(&mut self) -> Result<(), Failure> {
        (&mut self.running).await.unwrap_or_else(|panic| Err(Failure::new(panic.to_string())))
    }

    /// Drains the services within the deadline, then stops nats-server.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.shutdown.cancel();
        let limit = self.settings.shutdown.drain.get();
        let drained = match tokio::time::timeout(limit, &mut self.running).await {
            Ok(ended) => ended.unwrap_or_else(|panic| Err(Failure::new(panic.to_string()))),
            Err(_) => Err(Failure::new(format!(
                "work in hand was not finished within {limit:?}; it goes on at the next start"
            ))),
        };
        if let Some(nats) = &mut self.nats {
            nats.stop().await;
        }
        drained
    }
}

async fn find_nats_server(progress: &mut (impl FnMut(&str) + Send)) -> Result<PathBuf, Failure> {
    let (said, mut saying) = tokio::sync::mpsc::unbounded_channel::<String>();
    let finding = tokio::task::spawn_blocking(move || {
        Provision::from_env().nats_server(&mut |text| {
            let _ = said.send(text.to_owned());
        })
    });
    while let Some(text) = saying.recv().await {
        progress(&text);
    }
    let found = finding.await.map_err(|panic| Failure::new(panic.to_string()))?;
    found.map_err(|e| Failure::new(e.to_string()).code(millrace::codes::NATS_SERVER_NOT_FOUND))
}

async fn start_nats(program: &Path, options: &LocalOptions) -> Result<NatsServer, Failure> {
    let data = options.data_dir.join("nats");
    std::fs::create_dir_all(&data).map_err(|e| Failure::new(format!("{}: {e}", data.display())))?;
    NatsServer::builder(program, &data)
        .client_port(options.nats_port)
        .monitor_port(options.nats_monitor_port)
        .start()
        .await
        .map_err(|e| {
            Failure::new(e.to_string())
                .remedy(
                    "--nats-port and --nats-monitor-port choose other ports; NATS_URL uses a server that runs already",
                )
                .code(millrace::codes::PORT_TAKEN)
        })
}

/// Puts the demo products on sale unless there are products already.
async fn import_demo_catalog(settings: &Settings) -> Result<(), Failure> {
    let connection = super::connect(settings, "catalog").await?;
    if catalog::list(&connection).await?.is_empty() {
        catalog::import(&connection, &catalog::demo_products()?, false).await?;
    }
    let _ = connection.close(super::CLOSE_PATIENCE).await;
    Ok(())
}
