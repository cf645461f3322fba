//! What a service does about the topology before it starts to work.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::TopologyError;
use super::apply::{Scope, apply_within, plan};
use super::plan::Entry;
use super::spec::Topology;
use crate::connection::Connection;

/// Bounds of the random pause between two attempts: a server that is about to answer is found quickly, and one that is
/// away for long is asked rarely.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Whether a service may run on what the server has: returns the harmless differences, and the things it could not
/// look at. Changes nothing.
///
/// # Errors
/// [`TopologyError::Broken`] lists every difference that breaks the promise, by field, with what to do.
pub async fn verify(connection: &Connection, topology: &Topology) -> Result<Vec<Entry>, TopologyError> {
    let plan = plan(connection, topology).await?;
    let broken: Vec<Entry> = plan.broken().cloned().collect();
    if broken.is_empty() { Ok(plan.warnings().cloned().collect()) } else { Err(TopologyError::Broken(broken)) }
}

/// Waits until NATS answers, creates what is missing and mends what breaks the promise when `auto_apply` is set, and
/// then verifies. Returns the harmless differences, which are logged too.
///
/// Waits for ever while the cause may pass by itself: NATS away, a cluster forming, another service that has yet to
/// create its stream. `cancel` ends the wait.
///
/// Where permissions forbid looking and `auto_apply` is not set, what cannot be seen is logged and taken on trust.
///
/// # Errors
/// Whatever waiting does not cure, see [`TopologyError`]; [`TopologyError::Cancelled`].
pub async fn ensure(
    connection: &Connection,
    topology: &Topology,
    auto_apply: bool,
    cancel: &CancellationToken,
) -> Result<Vec<Entry>, TopologyError> {
    let work = async {
        topology.validate()?;
        let mut bound = FIRST_PAUSE;
        loop {
            connection.connected().await?;
            let error = match attempt(connection, topology, auto_apply).await {
                Ok(warnings) => return Ok(warnings),
                Err(error) if error.is_transient() => error,
                Err(error) => return Err(error),
            };
            if bound >= LONGEST_PAUSE / 4 {
                tracing::warn!(error.message = %error, "Still waiting for JetStream to be as declared.");
            }
            tokio::time::sleep(bound.mul_f64(fastrand::f64())).await;
            bound = (bound * 2).min(LONGEST_PAUSE);
        }
    };
    tokio::select! {
        () = cancel.cancelled() => Err(TopologyError::Cancelled),
        outcome = work => outcome,
    }
}

async fn attempt(connection: &Connection, topology: &Topology, auto_apply: bool) -> Result<Vec<Entry>, TopologyError> {
    if auto_apply {
        apply_within(connection, topology, Scope::Needed).await?;
    }
    let warnings = verify(connection, topology).await?;
    for warning in &warnings {
        tracing::warn!(
            topology.kind = %warning.kind,
            topology.name = warning.name,
            "The topology differs from what is declared, without harm: {warning}"
        );
    }
    Ok(warnings)
}
