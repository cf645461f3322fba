//! `millrace doctor`: checks each thing a run needs, and says what to do about each failure.

mod running;

use std::process::ExitCode;
use std::time::Duration;

use millrace::local::provision::Provision;
use millrace::store::{Database, DatabaseUrl};
use millrace::topology;
use serde::Serialize;

use super::Context;
use crate::failure::CommandResult;
use crate::settings::Settings;
use crate::{output, stack};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Operations ports of running services, whose breakers are looked at [default: http://ops.listen]
    #[arg(long, value_name = "URL")]
    ops: Vec<String>,
}

/// What was looked at and what was found.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    ok: bool,
    /// Nothing is broken, and somebody should look all the same.
    warn: bool,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// How long any one answer may take.
const PATIENCE: Duration = Duration::from_secs(4);

pub async fn run(context: &Context, args: Args) -> CommandResult {
    let settings = &context.settings;
    let mut checks = vec![check("settings", Ok("all are valid".into()))];
    checks.push(check("nats-server program", nats_program().await));
    let nats = nats(settings).await;
    let nats_answers = nats.is_ok();
    checks.push(check("NATS", nats));
    if nats_answers {
        checks.push(check("topology", declared(settings).await));
        checks.push(running::consumers(settings).await);
        checks.push(dead_letters(context).await);
        checks.push(running::payments(context).await);
    }
    for service in stack::SERVICES {
        checks.push(check(&format!("database of {service}"), database(settings, service).await));
    }
    checks.push(running::outboxes(settings).await);
    checks.extend(running::catalog(settings).await);
    let ops = if args.ops.is_empty() { vec![format!("http://{}", settings.ops.listen)] } else { args.ops };
    checks.extend(running::breakers(&ops).await);
    checks.push(check("payment gateway", reach(&settings.payment.gateway.url).await));
    checks.push(check("mail server", reach(&settings.notification.email.url).await));
    checks.push(check("order API", reach(&format!("http://{}", settings.http.listen)).await));

    let all_well = checks.iter().all(|check| check.ok);
    if context.json {
        output::json(&serde_json::json!({ "ok": all_well, "checks": checks }));
    } else {
        for one in &checks {
            let word = match (one.ok, one.warn) {
                (false, _) => "FAIL",
                (true, true) => "warn",
                (true, false) => "ok  ",
            };
            output::line(&format!("{word}  {:<24} {}", one.name, one.found));
            if let Some(remedy) = &one.remedy {
                output::line(&format!("      {:<24} -> {remedy}", ""));
            }
        }
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Check {
    fn ok(name: &str, found: String) -> Self {
        Self { name: name.to_owned(), ok: true, warn: false, found, remedy: None }
    }

    fn failed(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.to_owned(), ok: false, warn: false, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn warn(self, remedy: impl Into<String>) -> Self {
        Self { warn: true, remedy: Some(remedy.into()), ..self }
    }
}

/// What was found, or what is wrong and what to do about it.
type Finding = Result<String, (String, String)>;

fn check(name: &str, finding: Finding) -> Check {
    match finding {
        Ok(found) => Check::ok(name, found),
        Err((found, remedy)) => Check::failed(name, found, remedy),
    }
}

async fn nats_program() -> Finding {
    let found = tokio::task::spawn_blocking(|| Provision::from_env().nats_server(&mut |_| {})).await;
    match found {
        Ok(Ok(path)) => Ok(path.display().to_string()),
        Ok(Err(error)) => Err((error.to_string(), "needed only for `millrace up`; see the alternatives named".into())),
        Err(error) => Err((error.to_string(), "run it again".into())),
    }
}

async fn nats(settings: &Settings) -> Finding {
    match stack::connect(settings, "doctor").await {
        Ok(connection) => {
            let info = connection.client().server_info();
            Ok(format!("{} {} at {}", info.server_name, info.version, millrace::config::mask_url(&settings.nats.url)))
        }
        Err(failure) => Err((failure.message, failure.remedy.unwrap_or_default())),
    }
}

async fn declared(settings: &Settings) -> Finding {
    let wrong = |error: String| (error, "millrace topology plan".to_owned());
    let connection = stack::connect(settings, "doctor").await.map_err(|f| wrong(f.message))?;
    let plan = topology::plan(&connection, &settings.declared_topology()).await.map_err(|e| wrong(e.to_string()))?;
    match plan.broken().count() {
        0 => Ok("streams and consumers keep the promise".into()),
        n => Err((
            format!("{n} differences break the promise"),
            "millrace topology plan, then millrace topology apply".into(),
        )),
    }
}

/// Those that wait keep nothing from running, but they wait for somebody.
async fn dead_letters(context: &Context) -> Check {
    let name = "dead letters";
    match super::dead_letters::waiting(context).await {
        Ok(0) => Check::ok(name, "none waits".into()),
        Ok(count) => Check::ok(name, format!("{count} waiting for a decision"))
            .warn(format!("millrace dead-letters list, millrace explain {}", millrace::codes::DEAD_LETTERS_WAITING)),
        Err(failure) => Check::failed(name, failure.message, failure.remedy.unwrap_or_default()),
    }
}

async fn database(settings: &Settings, service: &str) -> Finding {
    let wrong = |error: String| (error, "check database.url (DATABASE_URL)".to_owned());
    let url = DatabaseUrl::for_service(&settings.database.url, service).map_err(|e| wrong(e.to_string()))?;
    match &url {
        DatabaseUrl::Sqlite(path) => {
            let state = if path.exists() { "is there" } else { "will be created at the first start" };
            Ok(format!("{} {state}", path.display()))
        }
        DatabaseUrl::Postgres(_) => {
            let probed = Database::probe(&url, PATIENCE).await.map_err(|e| wrong(e.to_string()));
            probed.map(|()| format!("{url} answers"))
        }
    }
}

/// Whether something listens at a URL.
async fn reach(url: &str) -> Finding {
    let wrong = |error: String| (error, "start it, or change the setting that points to it".to_owned());
    let parsed = reqwest::Url::parse(url).map_err(|e| wrong(format!("{url}: {e}")))?;
    let host = parsed.host_str().unwrap_or("127.0.0.1").to_owned();
    let port = parsed.port_or_known_default().unwrap_or(match parsed.scheme() {
        "smtps" => 465,
        "smtp+starttls" => 587,
        _ => 25,
    });
    match tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => Ok(format!("something listens at {host}:{port}")),
        Ok(Err(error)) => Err(wrong(format!("{host}:{port}: {error}"))),
        Err(_) => Err(wrong(format!("{host}:{port} does not answer"))),
    }
}
