use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::ops::Range;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use futures::TryStreamExt;
use millrace::store::DatabaseUrl;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Process, TestNats, eventually, wait_for_http};

use super::{Backend, PATIENCE, Shop, Wire, cli};

/// The services with a database, one process each.
pub(crate) const SERVICES: [&str; 4] = ["order", "payment", "inventory", "notification"];

/// So that what waits for a killed process, or for its messages, waits for seconds and not for minutes. The number of
/// deliveries stays what users have.
const QUICK: [(&str, &str); 16] = [
    ("MILLRACE_TOPOLOGY_ACK_WAIT", "2s"),
    ("MILLRACE_OUTBOX_SWEEP_EVERY", "500ms"),
    ("MILLRACE_OUTBOX_SWEEP_AFTER", "1s"),
    ("MILLRACE_CONSUMER_RETRY_FIRST", "200ms"),
    ("MILLRACE_NATS_RECONNECT_MAX_MS", "500"),
    ("MILLRACE_ORDER_SUBMIT_PATIENCE", "2s"),
    ("MILLRACE_PAYMENT_GATEWAY_TIMEOUT_MS", "4000"),
    ("MILLRACE_PAYMENT_GRACE", "5s"),
    ("MILLRACE_PAYMENT_RETRY_FIRST", "200ms"),
    ("MILLRACE_PAYMENT_SWEEP_EVERY", "200ms"),
    ("MILLRACE_NOTIFICATION_EMAIL_TIMEOUT_MS", "2000"),
    ("MILLRACE_NOTIFICATION_SMS_TIMEOUT_MS", "2000"),
    ("MILLRACE_NOTIFICATION_CLAIM", "3s"),
    ("MILLRACE_NOTIFICATION_RETRY_FIRST", "200ms"),
    ("MILLRACE_NOTIFICATION_SWEEP_EVERY", "200ms"),
    ("MILLRACE_TELEMETRY_LOG_FILTER", "info,async_nats=warn,millrace=debug"),
];

/// Everything that runs. What is declared first is ended first.
pub(crate) struct Installation {
    processes: BTreeMap<String, Process>,
    /// Operations ports, by the name of the process.
    ops: BTreeMap<String, u16>,
    pub(crate) nats: TestNats,
    pub(crate) shop: Shop,
    environment: Vec<(String, String)>,
    pub(crate) folder: TempDir,
}

impl Installation {
    /// A broker and free ports; no service runs yet. `settings` are further environment variables.
    pub(crate) async fn new(database_url: Option<String>, settings: &[(&str, &str)]) -> Self {
        Self::at(testkit::nats().await, database_url, settings)
    }

    /// As [`new`](Self::new), at a broker that is unlike others.
    pub(crate) fn at(nats: TestNats, database_url: Option<String>, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let local = || format!("127.0.0.1:{}", free_port());
        let (http, gateway, smtp, mail, sms) = (local(), local(), local(), local(), local());
        let in_folder = || format!("sqlite:{}/{{service}}.db", folder.path().display());
        let mut environment = vec![
            ("NATS_URL".to_owned(), nats.url()),
            ("DATABASE_URL".to_owned(), database_url.unwrap_or_else(in_folder)),
            // A variable of testkit, and no setting: empty counts as not set.
        ];
        let of_services = [
            ("MILLRACE_HTTP_LISTEN", http.clone()),
            ("MILLRACE_SIMULATORS_GATEWAY_LISTEN", gateway.clone()),
            ("MILLRACE_SIMULATORS_SMTP_LISTEN", smtp.clone()),
            ("MILLRACE_SIMULATORS_MAIL_LISTEN", mail.clone()),
            ("MILLRACE_SIMULATORS_SMS_LISTEN", sms.clone()),
            ("MILLRACE_PAYMENT_GATEWAY_URL", format!("http://{gateway}")),
            ("MILLRACE_NOTIFICATION_EMAIL_URL", format!("smtp://{smtp}")),
            ("MILLRACE_NOTIFICATION_SMS_URL", format!("http://{sms}")),
        ];
        let given = QUICK.iter().chain(settings).map(|(name, value)| (*name, (*value).to_owned()));
        environment.extend(of_services.into_iter().chain(given).map(|(name, value)| (name.to_owned(), value)));
        let shop = Shop::new(&http, &gateway, &mail);
        Self { processes: BTreeMap::new(), ops: BTreeMap::new(), nats, shop, environment, folder }
    }

    /// Everything started, ready, and with `products` on sale.
    pub(crate) async fn running(database_url: Option<String>, settings: &[(&str, &str)], products: &Value) -> Self {
        let mut all = Self::new(database_url, settings).await;
        all.start(products).await;
        all
    }

    /// Starts everything that [`new`](Self::new) has only prepared.
    pub(crate) async fn start(&mut self, products: &Value) {
        self.import(products).await;
        self.serve("simulators");
        SERVICES.into_iter().for_each(|service| self.serve(service));
        self.ready().await;
    }

    /// Puts a wire that can be cut in front of the server that this variable names, for what is started from now on.
    pub(crate) async fn wire(&mut self, variable: &str) -> Wire {
        let url = self.variable(variable).to_owned();
        let (scheme, server) = url.split_once("://").unwrap();
        let wire = Wire::to(server.parse().unwrap()).await;
        self.environment.push((variable.to_owned(), format!("{scheme}://{}", wire.address())));
        wire
    }

    /// Sets a variable, for what is started from now on.
    pub(crate) fn always(&mut self, variable: &str, value: &str) {
        self.environment.push((variable.to_owned(), value.to_owned()));
    }

    /// The value that counts, which is the last one.
    pub(crate) fn variable(&self, name: &str) -> &str {
        &self.environment.iter().rev().find(|(known, _)| known == name).unwrap().1
    }

    /// As [`running`](Self::running), on an empty database of this kind.
    pub(crate) async fn on(backend: Backend, products: &Value) -> Self {
        Self::running(backend.fresh().await, &[], products).await
    }

    /// Starts a process that runs this service.
    pub(crate) fn serve(&mut self, service: &str) {
        self.serve_as(service, service, &[]);
    }

    /// Starts a further process of a service, under a name of its own and with settings of its own.
    pub(crate) fn serve_as(&mut self, name: &str, service: &str, settings: &[(&str, &str)]) {
        self.spawn(name, &["serve", service], settings);
    }

    /// Starts a service so that it dies at this crash point, whether it runs now or not. Returns the file that it marks
    /// with the point's name right before.
    pub(crate) async fn serve_to_die(&mut self, service: &str, point: &str) -> PathBuf {
        let mark = self.folder.path().join(format!("{service}.mark"));
        let _ = std::fs::remove_file(&mark);
        if let Some(running) = self.processes.get_mut(service) {
            running.kill().await;
        }
        let switches = [("MILLRACE_CRASH_AT", point), ("MILLRACE_CRASH_MARK", mark.to_str().unwrap())];
        self.spawn(service, &["serve", service, "--under-test"], &switches);
        mark
    }

    /// Starts a service whose database is alone on a disk of so many bytes. The disk is gone with the process.
    pub(crate) fn serve_on_small_disk(&mut self, service: &str, bytes: u64) -> SmallDisk {
        let folder = self.folder.path().join("small-disk");
        std::fs::create_dir(&folder).unwrap();
        let database = format!("sqlite:{}/{{service}}.db", folder.display());
        let mount = format!("mount -t tmpfs -o size={bytes} tmpfs '{}' && exec \"$0\" \"$@\"", folder.display());
        // In a namespace of its own: that needs no rights, and nothing has to be unmounted afterwards.
        let program = ["--user", "--map-root-user", "--mount", "sh", "-c", &mount, env!("CARGO_BIN_EXE_millrace")];
        let args = [&program[..], &["serve", service]].concat();
        self.spawn_program("/usr/bin/unshare", service, &args, &[("DATABASE_URL", database.as_str())]);
        let pid = self.process(service).pid().unwrap();
        SmallDisk { filler: PathBuf::from(format!("/proc/{pid}/root{}/filler", folder.display())) }
    }

    fn spawn(&mut self, name: &str, args: &[&str], settings: &[(&str, &str)]) {
        self.spawn_program(env!("CARGO_BIN_EXE_millrace"), name, args, settings);
    }

    fn spawn_program(&mut self, program: &str, name: &str, args: &[&str], settings: &[(&str, &str)]) {
        let port = *self.ops.entry(name.to_owned()).or_insert_with(free_port);
        let mut builder = Process::builder(name, program)
            .args(args)
            .env("MILLRACE_OPS_LISTEN", format!("127.0.0.1:{port}"))
            .current_dir(self.folder.path());
        for (name, value) in &self.environment {
            builder = builder.env(name, value);
        }
        for (name, value) in settings {
            builder = builder.env(name, value);
        }
        self.processes.insert(name.to_owned(), builder.start());
    }

    pub(crate) fn process(&mut self, name: &str) -> &mut Process {
        self.processes.get_mut(name).unwrap()
    }

    /// Kills a service's process, or the broker, as `kill -9` does, and starts it again after a moment.
    pub(crate) async fn kill_and_restart(&mut self, victim: &str, pause: Duration) {
        if victim == "nats-server" {
            self.nats.kill().await;
            tokio::time::sleep(pause).await;
            self.nats.start().await.unwrap();
        } else {
            self.process(victim).kill().await;
            tokio::time::sleep(pause).await;
            self.process(victim).start();
        }
    }

    /// Where a service keeps its data.
    pub(crate) fn database_url(&self, service: &str) -> DatabaseUrl {
        let configured = self.environment.iter().find(|(name, _)| name == "DATABASE_URL").unwrap();
        DatabaseUrl::for_service(&configured.1, service).unwrap()
    }

    /// Waits until every process says that it is ready.
    pub(crate) async fn ready(&self) {
        self.ready_but(&[]).await;
    }

    /// As [`ready`](Self::ready), leaving out processes that do not run.
    pub(crate) async fn ready_but(&self, stopped: &[&str]) {
        for (_, port) in self.ops.iter().filter(|(name, _)| !stopped.contains(&name.as_str())) {
            wait_for_http(&format!("http://127.0.0.1:{port}/readyz"), PATIENCE).await;
        }
    }

    /// What a process says about its readiness: the status and the text.
    pub(crate) async fn readiness(&self, name: &str) -> Result<(u16, String), String> {
        self.shop.fetch(&self.readiness_url(name)).await
    }

    /// `/health` of a process.
    pub(crate) async fn health(&self, name: &str) -> Result<Value, String> {
        let (_, text) = self.shop.fetch(&format!("http://127.0.0.1:{}/health", self.ops[name])).await?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    pub(crate) fn readiness_url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/readyz", self.ops[name])
    }

    /// Puts products on sale.
    pub(crate) async fn import(&self, products: &Value) {
        let file = self.folder.path().join("catalog.json");
        std::fs::write(&file, json!({ "products": products }).to_string()).unwrap();
        let ran = self.millrace(&["catalog", "import", file.to_str().unwrap()]).await;
        assert_eq!(ran.code, 0, "{ran}");
    }

    /// Runs a command of the binary with the settings of this installation.
    pub(crate) async fn millrace(&self, args: &[&str]) -> cli::Ran {
        cli::millrace(self.folder.path(), &self.environment, args).await
    }

    /// As [`millrace`](Self::millrace), with settings of its own, and for what takes minutes on a busy machine.
    pub(crate) async fn millrace_with(&self, settings: &[(&str, &str)], args: &[&str]) -> cli::Ran {
        let own = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment: Vec<_> = self.environment.iter().cloned().chain(own).collect();
        cli::millrace_within(4 * PATIENCE, self.folder.path(), &environment, args).await
    }

    /// As [`millrace`](Self::millrace), beside whatever else happens.
    pub(crate) fn spawn_millrace(&self, args: &[&str]) -> tokio::task::JoinHandle<cli::Ran> {
        let (folder, environment) = (self.folder.path().to_owned(), self.environment.clone());
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        tokio::spawn(async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            cli::millrace(&folder, &environment, &args).await
        })
    }

    /// Runs a command that has to die at this crash point.
    pub(crate) async fn millrace_dies_at(&self, point: &str, args: &[&str]) {
        let mark = self.folder.path().join("command.mark");
        let ended = tokio::process::Command::new(env!("CARGO_BIN_EXE_millrace"))
            .args(args)
            .arg("--under-test")
            .current_dir(self.folder.path())
            .envs(self.environment.iter().cloned())
            .envs([("MILLRACE_CRASH_AT", point), ("MILLRACE_CRASH_MARK", mark.to_str().unwrap())])
            .kill_on_drop(true)
            .output();
        let ended = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap();
        assert_eq!(ended.status.signal(), Some(9), "{args:?}: {ended:?}");
        assert_eq!(std::fs::read_to_string(mark).unwrap(), point);
    }

    /// What inventory says about each product: available, reserved, committed.
    pub(crate) async fn stock(&self) -> Result<BTreeMap<String, [i64; 3]>, String> {
        let client = self.nats.client().await;
        let answer = client.request("api.inventory.stock", "{}".into()).await.map_err(|e| e.to_string())?;
        let levels: contracts::api::StockLevels = serde_json::from_slice(&answer.payload).map_err(|e| e.to_string())?;
        let row = |level: contracts::api::StockLevel| {
            (level.product_id.to_string(), [level.available, level.reserved, level.committed])
        };
        Ok(levels.levels.into_iter().map(row).collect())
    }

    /// Damages a service's database. Returns how many rows the statement changed.
    pub(crate) async fn damage(&self, service: &str, sql: &str) -> u64 {
        let (_, configured) = self.environment.iter().find(|(name, _)| name == "DATABASE_URL").unwrap();
        match DatabaseUrl::for_service(configured, service).unwrap() {
            DatabaseUrl::Sqlite(path) => {
                let db = rusqlite::Connection::open(path).unwrap();
                db.busy_timeout(PATIENCE).unwrap();
                db.execute(sql, []).unwrap() as u64
            }
            DatabaseUrl::Postgres(url) => {
                let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
                tokio::spawn(connection);
                client.execute(sql, &[]).await.unwrap()
            }
        }
    }

    /// Where a process answers operators.
    pub(crate) fn ops_url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}", self.ops[name])
    }

    /// Waits until nothing is under way: no event waits to be published, handled or acknowledged.
    pub(crate) async fn quiet(&self) {
        eventually(PATIENCE, || self.is_quiet(), "nothing to be under way").await;
    }

    async fn is_quiet(&self) -> Result<(), String> {
        for name in self.ops.keys().filter(|name| *name != "simulators") {
            let rows = self.metric(name, "millrace_outbox_depth_rows", "").await?;
            if rows > 0.0 {
                return Err(format!("{rows} outbox rows of {name} are not published"));
            }
        }
        let js = jetstream::new(self.nats.client().await);
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let mut streams = js.streams();
        while let Some(stream) = streams.try_next().await.map_err(|e| text(&e))? {
            let stream = js.get_stream(stream.config.name).await.map_err(|e| text(&e))?;
            let mut consumers = stream.consumers();
            while let Some(consumer) = consumers.try_next().await.map_err(|e| text(&e))? {
                let left = consumer.num_pending + consumer.num_ack_pending as u64;
                if left > 0 && consumer.config.durable_name.is_some() {
                    return Err(format!("{left} messages are left for {}", consumer.name));
                }
            }
        }
        Ok(())
    }

    /// The sum of a metric of a process over the series whose line contains `filter`.
    pub(crate) async fn metric(&self, name: &str, metric: &str, filter: &str) -> Result<f64, String> {
        let (_, text) = self.shop.fetch(&format!("http://127.0.0.1:{}/metrics", self.ops[name])).await?;
        let of_metric = |line: &&str| {
            line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(filter)
        };
        let values: Vec<f64> =
            text.lines().filter(of_metric).filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect();
        if values.is_empty() { Err(format!("{name} shows no {metric}")) } else { Ok(values.iter().sum()) }
    }

    /// What the broker knows of a consumer.
    pub(crate) async fn consumer(&self, stream: &str, durable: &str) -> jetstream::consumer::Info {
        let js = jetstream::new(self.nats.client().await);
        let consumer: jetstream::consumer::PullConsumer = js.get_consumer_from_stream(durable, stream).await.unwrap();
        consumer.cached_info().clone()
    }

    /// Nothing became a dead letter, and no message ran out of deliveries.
    pub(crate) async fn no_dead_letters(&self) {
        let js = jetstream::new(self.nats.client().await);
        for stream in ["DEAD_LETTERS", "ADVISORIES"] {
            let stream = js.get_stream(stream).await.unwrap();
            let (name, state) = (&stream.cached_info().config.name, &stream.cached_info().state);
            if state.messages > 0 {
                let last = stream.get_raw_message(state.last_sequence).await.unwrap();
                panic!("{} messages in {name}, the last of them: {last:?}", state.messages);
            }
        }
    }
}

/// A disk on which somebody else's file can take all the room there is.
pub(crate) struct SmallDisk {
    filler: PathBuf,
}

impl SmallDisk {
    pub(crate) fn fill(&self) {
        let mut file = std::fs::File::create(&self.filler).unwrap();
        // The last of it byte by byte, as it were: whoever has a page left can go on for a while.
        for size in [64 * 1024, 512] {
            let full = std::iter::repeat_with(|| file.write_all(&vec![0; size])).find_map(Result::err).unwrap();
            assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        }
    }

    pub(crate) fn make_room(&self) {
        std::fs::remove_file(&self.filler).unwrap();
    }
}

/// Three products; of `rare` there are only a few.
pub(crate) fn sample() -> Value {
    let product = |id: &str, minor: i64, stock: u32| json!({ "product_id": id, "name": id, "unit_price": { "minor": minor, "currency": "EUR" }, "opening_stock": stock });
    json!([product("mug", 1_050, 100_000), product("kettle", 3_999, 100_000), product("rare", 250_000, 3)])
}

/// Apart from the range in which the servers of testkit, and outgoing connections, are given theirs.
const PORTS: Range<u16> = 10_000..20_000;

/// A port nobody listens on and that no other test of this process is given: it is bound only when its process starts,
/// and is free for a moment whenever that is killed.
pub(crate) fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    let draw = || PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(draw).take(PORTS.len()).find(is_free).unwrap()
}
