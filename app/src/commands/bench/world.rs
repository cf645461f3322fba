//! One installation, made for one part: servers, a process for each service, the simulators, a client that looks on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use contracts::api::{StockLevels, StockQuery, subjects};
use millrace::connection::Connection;
use millrace::local::guard::{Guarded, GuardedCommand};
use millrace::local::{NatsServer, Postgres, free_port};
use millrace::request_reply::request_json;
use millrace::topology;
use tokio_util::sync::CancellationToken;

use super::orders::{self, Taste};
use super::shoppers::Shop;
use super::tracker::Tracker;
use super::usage::Component;
use super::{Bench, setup};
use crate::api_client::ApiClient;
use crate::commands::catalog;
use crate::commands::verify::Backend;
use crate::commands::verify::setup::{foreign_variables, variable};
use crate::failure::Failure;
use crate::stack::{self, Role};

/// From start to ready on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// This process, where it is a row among others.
const LOAD: &str = "load generator";

/// The four services.
pub const SERVICES: [Role; 4] = [Role::Order, Role::Payment, Role::Inventory, Role::Notification];

/// Which service runs in which process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    /// One process for each service
    Apart,
    /// One process for all of them
    Together,
}

/// What JetStream runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    One,
    /// Three servers, three copies of each stream, every message on disk before it is acknowledged.
    Cluster,
}

/// Who plays payment gateway and mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// Simulators in a process of their own, over HTTP and SMTP.
    Servers,
    /// The services' own clients, which say yes without asking anybody.
    InProcess,
}

pub struct World {
    pub api: SocketAddr,
    pub nats_url: String,
    pub database_url: String,
    pub connection: Connection,
    pub tracker: Arc<Tracker>,
    pub outside: Outside,
    gateway: SocketAddr,
    mail: SocketAddr,
    limit: SocketAddr,
    nats: Vec<NatsServer>,
    postgres: Option<Postgres>,
    /// By the name of what runs in it.
    processes: BTreeMap<String, (Guarded, SocketAddr)>,
    /// All that every process is told.
    environment: Vec<(String, String)>,
    layout: Layout,
    folder: PathBuf,
    numbers: Arc<AtomicU64>,
    seed: u64,
}

impl World {
    /// Starts the servers and puts the products on sale; no service runs yet.
    pub async fn open(bench: &Bench, name: &str, broker: Broker, outside: Outside) -> Result<Self, Failure> {
        bench.progress.step("starting servers");
        let folder = bench.folder.path().join(name);
        let made = std::fs::create_dir_all(folder.join("logs"));
        made.map_err(|e| Failure::new(format!("{}: {e}", folder.display())))?;
        if millrace::local::run_account().is_some() {
            use std::os::unix::fs::PermissionsExt;
            let opened = std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711));
            opened.map_err(|e| Failure::new(format!("{}: {e}", folder.display())))?;
        }
        let nats = setup::start_nats(broker, &folder).await?;
        let nats_url = nats.iter().map(NatsServer::url).collect::<Vec<_>>().join(",");
        let postgres = match bench.backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(setup::start_postgres(&folder).await?),
        };
        let database_url = match &postgres {
            Some(server) => server.database_url("millrace"),
            None => format!("sqlite:{}/{{service}}.db", folder.display()),
        };
        let mut settings = setup::settings(&bench.tuned)?;
        settings.nats.url.clone_from(&nats_url);
        let connection = stack::connect(&settings, "bench").await?;
        let mut declared = settings.declared_topology();
        if broker == Broker::Cluster {
            settings.topology.replicas = nats.len();
            declared = settings.declared_topology();
        }
        let never = CancellationToken::new();
        let making = topology::ensure(&connection, &declared, true, &never);
        let made = tokio::time::timeout(START_LIMIT, making).await;
        let made = made.map_err(|_| Failure::new(format!("JetStream was not ready within {START_LIMIT:?}")))?;
        made.map_err(|e| Failure::new(e.to_string()))?;
        catalog::import(&connection, &orders::products()?, false).await?;
        let mut world = Self {
            api: place()?,
            gateway: place()?,
            mail: place()?,
            limit: place()?,
            tracker: Tracker::start(&nats_url).await?,
            nats_url,
            database_url,
            connection,
            outside,
            nats,
            postgres,
            processes: BTreeMap::new(),
            environment: Vec::new(),
            layout: bench.layout,
            folder,
            numbers: Arc::new(AtomicU64::new(0)),
            seed: bench.seed,
        };
        world.environment = world.environment(bench)?;
        if outside == Outside::Servers {
            world.launch("simulators", &["serve", "simulators"])?;
            world.ready(&["simulators"]).await?;
        }
        Ok(world)
    }

    fn environment(&self, bench: &Bench) -> Result<Vec<(String, String)>, Failure> {
        let (smtp, sms) = (place()?, place()?);
        // Those that wait are all authorized before the first is captured.
        let ledger_intents =
            simulators::gateway::Settings::default().ledger_intents.max(2 * bench.sizes.drain as usize);
        let mut settings: Vec<(&str, String)> = vec![
            ("http.listen", self.api.to_string()),
            ("simulators.gateway_listen", self.gateway.to_string()),
            ("simulators.smtp_listen", smtp.to_string()),
            ("simulators.mail_listen", self.mail.to_string()),
            ("simulators.sms_listen", sms.to_string()),
            ("simulators.ledger_intents", ledger_intents.to_string()),
            ("nats.url", self.nats_url.clone()),
            ("database.url", self.database_url.clone()),
            ("topology.replicas", self.nats.len().to_string()),
            ("notification.sms.url", format!("http://{sms}")),
        ];
        settings.extend(match self.outside {
            Outside::Servers => [
                ("payment.gateway.url", format!("http://{}", self.gateway)),
                ("notification.email.url", format!("smtp://{smtp}")),
            ],
            Outside::InProcess => [
                ("payment.gateway.url", payment::gateway::SIMULATED.to_owned()),
                ("notification.email.url", notification::email::SIMULATED.to_owned()),
            ],
        });
        settings.extend(bench.tuned.iter().map(|(name, value)| (name.as_str(), value.clone())));
        Ok(settings.into_iter().map(|(name, value)| (variable(name), value)).collect())
    }

    /// Sees to it that exactly these services run, and returns once they are ready.
    pub async fn serve(&mut self, roles: &[Role]) -> Result<(), Failure> {
        let groups: Vec<Vec<&str>> = match self.layout {
            Layout::Apart => roles.iter().map(|role| vec![role.name()]).collect(),
            Layout::Together if roles.is_empty() => Vec::new(),
            Layout::Together => vec![roles.iter().map(|role| role.name()).collect()],
        };
        let names: Vec<String> = groups.iter().map(|group| group.join("+")).collect();
        let running: Vec<String> = self.processes.keys().filter(|name| is_service(name)).cloned().collect();
        let mut stopping = Vec::new();
        for name in running.iter().filter(|name| !names.contains(name)) {
            stopping.extend(self.processes.remove(name).map(|(process, _)| (name.clone(), process)));
        }
        let stopped = stopping.into_iter().map(async |(name, process)| self.stop(&name, process).await);
        futures::future::try_join_all(stopped).await?;
        for (name, group) in names.iter().zip(groups) {
            if !self.processes.contains_key(name) {
                let mut args = vec!["serve"];
                args.extend(group);
                self.launch(name, &args)?;
            }
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.ready(&names).await
    }

    /// One more instance of a service, on the database of the first.
    pub async fn double(&mut self, role: Role) -> Result<(), Failure> {
        let name = second(role);
        self.launch(&name, &["serve", role.name()])?;
        self.ready(&[&name]).await
    }

    /// Stops the second instance.
    pub async fn halve(&mut self, role: Role) -> Result<(), Failure> {
        let name = second(role);
        match self.processes.remove(&name) {
            Some((process, _)) => self.stop(&name, process).await,
            None => Ok(()),
        }
    }

    /// Once what it had begun is done.
    async fn stop(&self, name: &str, mut process: Guarded) -> Result<(), Failure> {
        match process.stop(STOP_LIMIT).await {
            Some(0) => Ok(()),
            code => Err(self.log_of(name, &format!("{name} did not stop in order: exit code {code:?}"))),
        }
    }

    /// All services, with the products on sale and in stock.
    pub async fn serve_all(&mut self) -> Result<(), Failure> {
        self.serve(&SERVICES).await?;
        self.on_sale(true).await
    }

    /// Waits until the order service, and inventory if it runs, know the products.
    pub async fn on_sale(&self, in_stock: bool) -> Result<(), Failure> {
        let wanted = orders::products()?.len();
        let api = ApiClient::new(&format!("http://{}", self.api))?;
        let known = async {
            loop {
                let sold = api.get("/catalog").await.map(|answer| answer.body).unwrap_or_default();
                let sold = sold.get("products").and_then(|products| products.as_array()).map_or(0, Vec::len);
                if sold == wanted && (!in_stock || self.stocked().await == wanted) {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let known = tokio::time::timeout(START_LIMIT, known).await;
        known.map_err(|_| Failure::new(format!("the products were not on sale within {START_LIMIT:?}")))
    }

    async fn stocked(&self) -> usize {
        let (query, patience) = (StockQuery::default(), Duration::from_secs(2));
        let levels: Result<StockLevels, _> =
            request_json(&self.connection, subjects::INVENTORY_STOCK, &query, patience).await;
        levels.map_or(0, |stock| stock.levels.iter().filter(|level| level.available > 0).count())
    }

    /// Starts the limit of `accept` beside the services and says where it listens.
    pub async fn serve_limit(&mut self) -> Result<SocketAddr, Failure> {
        let (listen, nats) = (self.limit.to_string(), self.nats_url.clone());
        self.launch("limit", &["bench", "--serve-limit", &listen, "--limit-nats", &nats])?;
        let deadline = Instant::now() + START_LIMIT;
        while tokio::net::TcpStream::connect(self.limit).await.is_err() {
            self.still_runs("limit")?;
            if Instant::now() > deadline {
                return Err(self.log_of("limit", "the limit was not ready in time"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(self.limit)
    }

    /// The load, at this order API.
    pub fn shop(&self, taste: Taste) -> Shop {
        Shop {
            api: self.api,
            taste,
            seed: self.seed,
            numbers: self.numbers.clone(),
            tracker: Some(self.tracker.clone()),
        }
    }

    /// Where the simulators show what they saw: gateway, mail.
    pub fn simulators(&self) -> Option<(SocketAddr, SocketAddr)> {
        (self.outside == Outside::Servers).then_some((self.gateway, self.mail))
    }

    /// Everything that takes processor time, the load generator first.
    pub fn components(&self) -> Vec<Component> {
        let one = |name: &str, pids: Vec<u32>| Component { name: name.to_owned(), pids, with_children: false };
        let mut components = vec![one(LOAD, vec![std::process::id()])];
        components.extend(self.processes.iter().map(|(name, (process, _))| one(name, vec![process.pid()])));
        components.push(one("nats-server", self.nats.iter().filter_map(NatsServer::pid).collect()));
        if let Some(postgres) = &self.postgres {
            let pids = postgres.pid().into_iter().collect();
            components.push(Component { name: "postgres".to_owned(), pids, with_children: true });
        }
        components
    }

    /// Stops everything, services first, so that none fails for want of its server.
    pub async fn close(mut self) -> Result<(), Failure> {
        self.serve(&[]).await?;
        let others = std::mem::take(&mut self.processes);
        futures::future::join_all(others.into_values().map(async |(mut process, _)| process.kill().await)).await;
        self.tracker.close();
        let _ = self.connection.close(Duration::from_secs(1)).await;
        futures::future::join_all(self.nats.iter_mut().map(NatsServer::kill)).await;
        if let Some(postgres) = &mut self.postgres {
            postgres.stop().await;
        }
        Ok(())
    }

    fn launch(&mut self, name: &str, args: &[&str]) -> Result<(), Failure> {
        let program = std::env::current_exe().map_err(|e| Failure::new(format!("this program is not found: {e}")))?;
        let ops = place()?;
        // Read in place of the user's own.
        let config = self.folder.join("millrace.toml");
        std::fs::write(&config, "# The settings of each process are in its environment.\n")
            .map_err(|e| Failure::new(format!("{}: {e}", config.display())))?;
        let mut command = GuardedCommand::new(name, program, self.log(name))
            .arg("--config")
            .arg(&config)
            .args(args)
            .current_dir(&self.folder);
        for foreign in foreign_variables() {
            command = command.env(foreign, "");
        }
        for (name, value) in &self.environment {
            command = command.env(name, value);
        }
        command = command.env(variable("ops.listen"), ops.to_string());
        let process = command.spawn().map_err(|e| Failure::new(format!("{name}: {e}")))?;
        self.processes.insert(name.to_owned(), (process, ops));
        Ok(())
    }

    async fn ready(&mut self, names: &[&str]) -> Result<(), Failure> {
        let http = millrace::http_client::http_client(Duration::from_secs(2), Duration::from_secs(1))
            .map_err(|e| Failure::new(e.to_string()))?;
        let deadline = Instant::now() + START_LIMIT;
        for name in names {
            let Some((_, ops)) = self.processes.get(*name) else { continue };
            let url = format!("http://{ops}/readyz");
            while !http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                self.still_runs(name)?;
                if Instant::now() > deadline {
                    return Err(self.log_of(name, &format!("{name} was not ready within {START_LIMIT:?}")));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    fn still_runs(&mut self, name: &str) -> Result<(), Failure> {
        match self.processes.get_mut(name).and_then(|(process, _)| process.exit_code()) {
            None => Ok(()),
            Some(code) => Err(self.log_of(name, &format!("{name} ended with exit code {code}"))),
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }

    fn log_of(&self, name: &str, what: &str) -> Failure {
        Failure::new(format!("{what}:\n{}", millrace::local::tail(&self.log(name), 12)))
    }
}

fn second(role: Role) -> String {
    format!("{}-2", role.name())
}

fn is_service(name: &str) -> bool {
    name.split('+').any(|part| SERVICES.iter().any(|role| role.name() == part))
}

fn place() -> Result<SocketAddr, Failure> {
    let port = free_port().map_err(|e| Failure::new(e.to_string()))?;
    Ok(SocketAddr::from(([127, 0, 0, 1], port)))
}
