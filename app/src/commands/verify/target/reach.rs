use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use millrace::config::mask_url;
use millrace::connection::Connection;
use reqwest::Client;

use crate::commands::verify::gather::database::Source;
use crate::settings::Settings;
use crate::stack::{self, SERVICES};

/// What of the target can be looked at from here; of the rest, why not.
pub struct Reach {
    pub nats: Result<Connection, String>,
    pub databases: BTreeMap<&'static str, Result<Source, String>>,
    /// Of the simulated gateway.
    pub ledger: Result<String, String>,
    /// Of the simulated mail server.
    pub mailbox: Result<String, String>,
}

const PATIENCE: Duration = Duration::from_secs(4);

impl Reach {
    pub async fn probe(settings: &Settings, ledger: Option<&str>, mailbox: Option<&str>) -> Self {
        let mut databases = BTreeMap::new();
        for service in SERVICES {
            databases.insert(service, database(&settings.database.url, service).await);
        }
        let gateway = ledger.unwrap_or(&settings.payment.gateway.url).trim_end_matches('/').to_owned();
        let mut listen = settings.simulators.mail_listen;
        if listen.ip().is_unspecified() {
            listen.set_ip(IpAddr::from([127, 0, 0, 1]));
        }
        let mail = mailbox.map_or_else(|| format!("http://{listen}"), |url| url.trim_end_matches('/').to_owned());
        let http = millrace::http_client::http_client(PATIENCE, PATIENCE).map_err(|e| e.to_string());
        let (ledger, mailbox) = match &http {
            Ok(http) => (
                answers(http, &gateway, "/_control/ledger?requests=0", "the ledger of the gateway").await,
                answers(http, &mail, "/counts", "the mailbox of the simulators").await,
            ),
            Err(reason) => (Err(reason.clone()), Err(reason.clone())),
        };
        let nats = stack::connect(settings, "verify").await.map_err(|failure| failure.message);
        Self { nats, databases, ledger, mailbox }
    }

    /// For whoever watches.
    pub fn lines(&self) -> Vec<String> {
        let line = |what: &str, why: Option<&String>| match why {
            None => format!("    {what}: reached"),
            Some(why) => format!("    {what}: {why}"),
        };
        let mut lines = vec![line("NATS", self.nats.as_ref().err())];
        lines.extend(
            self.databases.iter().map(|(name, source)| line(&format!("database of {name}"), source.as_ref().err())),
        );
        lines.push(line("gateway ledger", self.ledger.as_ref().err()));
        lines.push(line("mailbox", self.mailbox.as_ref().err()));
        lines
    }
}

async fn database(configured: &str, service: &str) -> Result<Source, String> {
    let source = Source::of(configured, service)?;
    if let Source::Sqlite(path) = &source
        && !path.exists()
    {
        return Err(format!("{} is not there (database.url)", path.display()));
    }
    match tokio::time::timeout(PATIENCE, source.rows("select count(*) from inbox where id < 0")).await {
        Ok(Ok(_)) => Ok(source),
        Ok(Err(reason)) => Err(format!("{}: {reason} (database.url)", mask_url(configured))),
        Err(_) => Err(format!("{} does not answer (database.url)", mask_url(configured))),
    }
}

async fn answers(http: &Client, url: &str, path: &str, what: &str) -> Result<String, String> {
    let answer = http.get(format!("{url}{path}")).send().await;
    match answer {
        Ok(answer) if answer.status().is_success() => Ok(url.to_owned()),
        Ok(answer) => Err(format!("{what} is not at {}: status {}", mask_url(url), answer.status())),
        Err(_) => Err(format!("{what} does not answer at {}", mask_url(url))),
    }
}
