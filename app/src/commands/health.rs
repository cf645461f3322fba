//! `millrace health`: a container's health check by the binary itself.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::Context;
use crate::failure::{CommandResult, Failure};
use crate::output;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to ask [default: /readyz on ops.listen]
    #[arg(long)]
    url: Option<String>,
}

/// Shorter than a container engine waits for its health check.
const PATIENCE: Duration = Duration::from_secs(3);

pub async fn run(context: &Context, args: Args) -> CommandResult {
    let url = args.url.unwrap_or_else(|| {
        let port = context.settings.ops.listen.port();
        format!("http://127.0.0.1:{port}/readyz")
    });
    let client = millrace::http_client::http_client(PATIENCE, PATIENCE).map_err(|e| Failure::new(e.to_string()))?;
    let answer = client.get(&url).send().await;
    let (ready, detail) = match answer {
        Ok(response) => (response.status().is_success(), response.text().await.unwrap_or_default()),
        Err(error) => (false, format!("no answer from {url}: {error}")),
    };
    if context.json {
        output::json(&json!({ "ready": ready, "detail": detail }));
    } else {
        output::line(&detail);
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
