//! The processes and the wires between them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex as Shared;
use std::sync::PoisonError;
use std::time::Duration;

use millrace::local::guard::{Guarded, GuardedCommand};
use millrace::local::proxy::Proxy;
use millrace::local::{NatsServer, Postgres};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::Backend;
use super::faults::{Link, VICTIMS, links};
use super::setup::{self, Folder, Places};
use crate::failure::Failure;
use crate::stack::Role;

/// From start to ready, all services side by side on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// More than a service takes to finish what it has begun: setting `shutdown.drain` of this run.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked whether a process has ended by itself.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// Everything that runs. What is being broken is locked meanwhile.
pub struct Fleet {
    pub places: Places,
    services: HashMap<Role, Mutex<Service>>,
    pub nats: Mutex<NatsServer>,
    pub postgres: Mutex<Option<Postgres>>,
    wires: HashMap<Link, Proxy>,
    /// Of NATS, without a proxy.
    pub nats_url: String,
    /// Of the databases, without a proxy, with `{service}` or the like in it.
    pub database_url: String,
    pub folder: PathBuf,
    /// What went wrong that no fault explains.
    problems: Shared<Vec<String>>,
}

/// One service as a process of its own.
pub struct Service {
    role: Role,
    command: GuardedCommand,
    pub child: Guarded,
}

impl Service {
    fn start(role: Role, command: GuardedCommand) -> Result<Self, Failure> {
        let child = command.spawn().map_err(|e| Failure::new(format!("{}: {e}", role.name())))?;
        Ok(Self { role, command, child })
    }

    /// Starts it again, with the same settings and on the same ports.
    pub fn restart(&mut self) -> Result<(), Failure> {
        self.child = self.command.spawn().map_err(|e| Failure::new(format!("{}: {e}", self.role.name())))?;
        Ok(())
    }

    /// As [`restart`](Self::restart), and it kills itself at this crash point.
    pub fn restart_to_die(&mut self, at: &str) -> Result<(), Failure> {
        let command = self.command.clone().env(millrace::crash::AT, at);
        self.child = command.spawn().map_err(|e| Failure::new(format!("{}: {e}", self.role.name())))?;
        Ok(())
    }
}

impl Fleet {
    /// Starts everything and waits until it is ready. `told` are variables that every service gets besides its settings.
    pub async fn start(
        backend: Backend,
        told: &[(String, String)],
        folder: &Folder,
        say: impl Fn(&str) + Copy + Send + 'static,
    ) -> Result<Self, Failure> {
        let places = Places::choose()?;
        let nats = setup::start_nats(folder, places.nats, say).await?;
        let postgres = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(setup::start_postgres(folder, places.postgres, say).await?),
        };
        let database_url = setup::database_url(backend, folder, postgres.as_ref());
        let mut wires = HashMap::new();
        for link in links(backend) {
            let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
            let upstream = match link {
                Link::Nats(_) => local(nats.client_port()),
                Link::Database(_) => local(postgres.as_ref().map_or(0, Postgres::port)),
                Link::Gateway => places.gateway,
                Link::Smtp => places.smtp,
                Link::Sms => places.sms,
                Link::Customers => places.api,
            };
            let proxy = Proxy::start(upstream).await.map_err(|e| Failure::new(format!("a proxy: {e}")))?;
            wires.insert(link, proxy);
        }
        let mut fleet = Self {
            places,
            services: HashMap::new(),
            nats_url: nats.url(),
            nats: Mutex::new(nats),
            postgres: Mutex::new(postgres),
            wires,
            database_url,
            folder: folder.path().to_owned(),
            problems: Shared::default(),
        };
        // Read in place of the user's own; each process has its settings in its environment.
        let config = folder.path().join("millrace.toml");
        std::fs::write(&config, "# The settings of each process are in its environment: see logs/*.env\n")
            .map_err(|e| Failure::new(format!("{}: {e}", config.display())))?;
        for role in Role::ALL {
            let service = Service::start(role, fleet.command(role, told, folder)?)?;
            fleet.services.insert(role, Mutex::new(service));
        }
        fleet.become_ready().await?;
        Ok(fleet)
    }

    /// How a service is started: this very program with settings of its own.
    fn command(&self, role: Role, told: &[(String, String)], folder: &Folder) -> Result<GuardedCommand, Failure> {
        let program = std::env::current_exe().map_err(|e| Failure::new(format!("this program is not found: {e}")))?;
        let log = folder.logs().join(format!("{}.log", role.name()));
        let mut settings = self.environment(role);
        settings.extend_from_slice(told);
        let text: String = settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let file = folder.logs().join(format!("{}.env", role.name()));
        std::fs::write(&file, text).map_err(|e| Failure::new(format!("{}: {e}", file.display())))?;
        let mut command = GuardedCommand::new(role.name(), program, log)
            .arg("--config")
            .arg(folder.path().join("millrace.toml"))
            .args(["serve", role.name(), "--under-test"])
            .current_dir(folder.path());
        for name in setup::foreign_variables() {
            command = command.env(name, "");
        }
        Ok(settings.into_iter().fold(command, |command, (name, value)| command.env(name, value)))
    }

    /// All a service is told: nothing else of this run reaches it.
    fn environment(&self, role: Role) -> Vec<(String, String)> {
        let places = &self.places;
        let wire = |link| self.wires.get(&link).map(|proxy| proxy.address().to_string()).unwrap_or_default();
        let mut settings: Vec<(&str, String)> =
            setup::SHORTENED.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        settings.extend([
            ("ops.listen", places.ops.get(role.name()).map(ToString::to_string).unwrap_or_default()),
            ("http.listen", places.api.to_string()),
            ("simulators.gateway_listen", places.gateway.to_string()),
            ("simulators.smtp_listen", places.smtp.to_string()),
            ("simulators.mail_listen", places.mail.to_string()),
            ("simulators.sms_listen", places.sms.to_string()),
            ("telemetry.log_filter", "info,async_nats=off".into()),
        ]);
        if role != Role::Simulators {
            settings.extend([
                ("nats.url", format!("nats://{}", wire(Link::Nats(role)))),
                ("database.url", self.database_behind_wire(role)),
                ("payment.gateway.url", format!("http://{}", wire(Link::Gateway))),
                ("notification.email.url", format!("smtp://{}", wire(Link::Smtp))),
                ("notification.sms.url", format!("http://{}", wire(Link::Sms))),
            ]);
        }
        settings.into_iter().map(|(name, value)| (setup::variable(name), value)).collect()
    }

    fn database_behind_wire(&self, role: Role) -> String {
        let Some(proxy) = self.wires.get(&Link::Database(role)) else { return self.database_url.clone() };
        // postgres://user@127.0.0.1:PORT/database
        let (head, tail) = self.database_url.rsplit_once('/').unwrap_or((&self.database_url, ""));
        let (head, _) = head.rsplit_once(':').unwrap_or((head, ""));
        format!("{head}:{}/{tail}", proxy.address().port())
    }

    async fn become_ready(&self) -> Result<(), Failure> {
        let http = millrace::http_client::http_client(Duration::from_secs(2), Duration::from_secs(1))
            .map_err(|e| Failure::new(e.to_string()))?;
        let mut waiting: Vec<Role> = Role::ALL.to_vec();
        let ready = async {
            while let Some(role) = waiting.first().copied() {
                let ops = self.places.ops.get(role.name()).map(ToString::to_string).unwrap_or_default();
                let answer = http.get(format!("http://{ops}/readyz")).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    waiting.remove(0);
                    continue;
                }
                if let Some(code) = self.service(role).lock().await.child.exit_code() {
                    return Err(self.log_of(role, &format!("{} ended with exit code {code}", role.name())));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        };
        let outcome = tokio::time::timeout(START_LIMIT, ready).await;
        outcome.unwrap_or_else(|_| {
            let role = waiting.first().copied().unwrap_or(Role::Order);
            Err(self.log_of(role, &format!("{} was not ready within {START_LIMIT:?}", role.name())))
        })
    }

    fn log_of(&self, role: Role, what: &str) -> Failure {
        let log = self.folder.join("logs").join(format!("{}.log", role.name()));
        Failure::new(format!("{what}:\n{}", millrace::local::tail(&log, 12)))
    }

    /// The process of a role. There is one for each.
    #[expect(clippy::expect_used, reason = "start() makes one for every role")]
    pub fn service(&self, role: Role) -> &Mutex<Service> {
        self.services.get(&role).expect("one for every role")
    }

    pub fn wire(&self, link: Link) -> Option<&Proxy> {
        self.wires.get(&link)
    }

    pub fn wires(&self) -> impl Iterator<Item = &Proxy> {
        self.wires.values()
    }

    pub fn problem(&self, what: impl Into<String>) {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    /// What went wrong that no fault explains, panics among it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for role in Role::ALL {
            let log = self.folder.join("logs").join(format!("{}.log", role.name()));
            let text =
                std::fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            let panics = text.lines().filter(|line| line.contains("panicked")).take(3);
            problems.extend(panics.map(|line| format!("{}: {line}", role.name())));
        }
        problems
    }

    /// Starts again what has ended by itself, as a supervisor would, and remembers that it did.
    pub async fn watch(&self, stop: CancellationToken) {
        loop {
            for role in VICTIMS {
                let Ok(mut service) = self.service(role).try_lock() else { continue };
                if let Some(code) = service.child.exit_code() {
                    self.problem(format!("{} ended by itself with exit code {code}", role.name()));
                    if let Err(failure) = service.restart() {
                        self.problem(failure.message);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(WATCH_EVERY) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Stops everything, services first, so that none fails for want of its server. Returns which did not stop in order.
    pub async fn stop(&self) -> Vec<String> {
        let stopping = Role::ALL.map(|role| async move {
            match self.service(role).lock().await.child.stop(STOP_LIMIT).await {
                Some(0) => None,
                code => Some(format!("{} did not stop in order: exit code {code:?}", role.name())),
            }
        });
        let problems = futures::future::join_all(stopping).await;
        self.nats.lock().await.stop().await;
        if let Some(postgres) = &mut *self.postgres.lock().await {
            postgres.stop().await;
        }
        problems.into_iter().flatten().collect()
    }

    /// Ends everything at once, whatever it is doing. There is nothing to say about it.
    pub async fn kill(&self) -> Vec<String> {
        let killing = Role::ALL.map(|role| async move { self.service(role).lock().await.child.kill().await });
        futures::future::join_all(killing).await;
        self.nats.lock().await.kill().await;
        if let Some(postgres) = &mut *self.postgres.lock().await {
            postgres.stop().await;
        }
        Vec::new()
    }
}
