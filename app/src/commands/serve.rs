//! `millrace serve`: one or more services of the order pipeline in this process.

use std::process::ExitCode;

use millrace::health::Health;
use millrace::{ops, shutdown, telemetry};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Context;
use crate::failure::{CommandResult, Failure};
use crate::stack::{self, Listeners, Role};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which services
    #[arg(required = true, value_enum)]
    services: Vec<Role>,
    /// Obey MILLRACE_CRASH_AT and MILLRACE_SABOTAGE. Never for a process that serves anybody
    #[arg(long, hide = true)]
    pub under_test: bool,
}

pub async fn run(context: Context, args: Args) -> CommandResult {
    let Context { mut settings, .. } = context;
    let mut roles = args.services;
    roles.dedup();
    // Lines of one process are told apart from another's by this name.
    if settings.telemetry.service_name == "millrace" {
        settings.telemetry.service_name = roles.iter().map(|role| role.name()).collect::<Vec<_>>().join("+");
    }
    let guard = telemetry::init(&settings.telemetry).map_err(|e| Failure::new(e.to_string()).usage())?;
    let shutdown = shutdown::on_signal().map_err(|e| Failure::new(e.to_string()))?;
    let mut listeners = Listeners::bind(&settings, &roles).await?;
    let health = Health::new();
    // Probes are answered until everything is drained.
    let ops_end = CancellationToken::new();
    let ops = listeners.ops.take().map(|ops| tokio::spawn(ops::serve(ops, health.clone(), ops_end.clone())));
    info!(services = settings.telemetry.service_name, ops = %settings.ops.listen, "serving");
    let work = stack::run(&settings, &roles, listeners, health, shutdown.clone());
    let drained = shutdown::drain(&shutdown, settings.shutdown.drain.get(), work).await;
    ops_end.cancel();
    if let Some(ops) = ops {
        let _ = ops.await;
    }
    guard.shutdown().await;
    drained.map_err(|late| Failure::new(late.to_string()))??;
    Ok(ExitCode::SUCCESS)
}
