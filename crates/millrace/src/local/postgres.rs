//! A PostgreSQL server as a guarded child.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::guard::{Account, Guarded, GuardedCommand, Signal};
use super::{LocalError, logfile, port};

const NAME: &str = "PostgreSQL";

/// Creating a data folder takes a second or two; a slow disk may need a minute for its 1,000 files.
const INITDB_LIMIT: Duration = Duration::from_secs(120);

/// The account PostgreSQL runs as when this process is root, which PostgreSQL refuses: "nobody", present everywhere.
pub const POSTGRES_ACCOUNT: Account = Account { uid: 65_534, gid: 65_534 };

/// The account PostgreSQL has to run as: `None` for this process's own, [`POSTGRES_ACCOUNT`] when that is root.
pub fn run_account() -> Option<Account> {
    rustix::process::geteuid().is_root().then_some(POSTGRES_ACCOUNT)
}

/// How a PostgreSQL server is to be run. Made by [`Postgres::builder`].
#[derive(Debug, Clone)]
pub struct PostgresBuilder {
    programs: PathBuf,
    data_dir: PathBuf,
    port: u16,
    fsync: bool,
    sync_new_data: bool,
    settings: Vec<(String, String)>,
    start_limit: Duration,
    stop_limit: Duration,
    temporary: bool,
}

impl PostgresBuilder {
    /// Port for clients; 0, the default, for a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Whether commits are forced to disk; true by default. Without it a power cut can ruin the database.
    pub fn fsync(mut self, on: bool) -> Self {
        self.fsync = on;
        self
    }

    /// Whether a newly created data folder is forced to disk; true by default. Tests that throw it away need not wait.
    pub fn sync_new_data(mut self, on: bool) -> Self {
        self.sync_new_data = on;
        self
    }

    /// One of PostgreSQL's own settings, such as `max_connections`.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// How long the server may take until it accepts connections; 30 s by default, as it first repairs after a crash.
    pub fn start_limit(mut self, limit: Duration) -> Self {
        self.start_limit = limit;
        self
    }

    /// How long the server may take to stop in order before it is killed; 20 s by default.
    pub fn stop_limit(mut self, limit: Duration) -> Self {
        self.stop_limit = limit;
        self
    }

    /// The data folder is removed by the guard if this process ends without stopping the server.
    pub fn temporary(mut self) -> Self {
        self.temporary = true;
        self
    }

    /// Creates the data if there is none, starts the server and waits until it accepts connections.
    ///
    /// # Errors
    /// [`LocalError`]: a port in use, a folder closed to the account, a server that ends or does not answer (with its log).
    pub async fn start(self) -> Result<Postgres, LocalError> {
        let folder = std::path::absolute(&self.data_dir).map_err(LocalError::io("resolve", &self.data_dir))?;
        fs::create_dir_all(&folder).map_err(LocalError::io("create the data folder", &folder))?;
        if let Some(account) = run_account() {
            std::os::unix::fs::chown(&folder, Some(account.uid), Some(account.gid))
                .map_err(LocalError::io("hand over the data folder", &folder))?;
            reachable(&folder, account)?;
            reachable(&self.programs, account)?;
        }
        let mut attempts = if self.port == 0 { port::START_ATTEMPTS } else { 1 };
        let asked = self.port;
        let mut server = Postgres { builder: self, folder, port: asked, child: None };
        server.create_data().await?;
        loop {
            server.port = port::claim(asked, "client", NAME)?;
            attempts -= 1;
            match server.start().await {
                Ok(()) => return Ok(server),
                Err(LocalError::PortTaken { .. }) if attempts > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A PostgreSQL server on 127.0.0.1, user `postgres`, no password. Dropping it asks the server to stop without waiting.
#[derive(Debug)]
pub struct Postgres {
    builder: PostgresBuilder,
    folder: PathBuf,
    port: u16,
    child: Option<Guarded>,
}

impl Postgres {
    /// A server run from the folder `programs` (with `initdb` and `postgres`), which keeps its data (`data/`) and its log
    /// (`postgres.log`) in `data_dir`. As root that folder is handed to [`POSTGRES_ACCOUNT`].
    pub fn builder(programs: impl Into<PathBuf>, data_dir: impl Into<PathBuf>) -> PostgresBuilder {
        PostgresBuilder {
            programs: programs.into(),
            data_dir: data_dir.into(),
            port: 0,
            fsync: true,
            sync_new_data: true,
            settings: Vec::new(),
            start_limit: Duration::from_secs(30),
            stop_limit: Duration::from_secs(20),
            temporary: false,
        }
    }

    /// The URL of the database `postgres`. Stays the same through restarts.
    pub fn url(&self) -> String {
        self.database_url("postgres")
    }

    /// The URL of a database of this server.
    pub fn database_url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id of the server's main process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Guarded::pid)
    }

    /// Whether the server runs; a paused one does.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(Guarded::is_running)
    }

    /// The server's log file.
    pub fn log_path(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self, program: &str) -> GuardedCommand {
        GuardedCommand::new(program, self.builder.programs.join(program), self.log_path())
            .account(run_account())
            .current_dir(&self.folder)
            // "Fast" shutdown: ends sessions and saves. SIGTERM would wait for every client to leave.
            .stop_signal(Signal::INT)
            .grace(self.builder.stop_limit)
    }

    /// Creates the data folder under another name first, so that one which was interrupted half-way is never taken for whole.
    async fn create_data(&self) -> Result<(), LocalError> {
        if self.data().join("PG_VERSION").is_file() {
            return Ok(());
        }
        let partial = self.folder.join("data.partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(LocalError::io("remove the unfinished", &partial))?;
        }
        // The locale: sorts by code point on every machine alike, and understands UTF-8.
        let mut command = self
            .command("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--pgdata"])
            .arg(&partial);
        if !self.builder.sync_new_data {
            command = command.arg("--no-sync");
        }
        let mut child = command.spawn()?;
        match child.wait(INITDB_LIMIT).await {
            Some(0) => fs::rename(&partial, self.data()).map_err(LocalError::io("move into place", &partial)),
            Some(code) => Err(self.exited("initdb", code)),
            None => {
                child.kill().await;
                Err(self.not_ready("initdb", INITDB_LIMIT))
            }
        }
    }

    /// Starts the server again, on the same port and data, after [`stop`](Self::stop), [`kill`](Self::kill) or a crash.
    /// Does nothing when it runs.
    ///
    /// # Errors
    /// As for [`PostgresBuilder::start`].
    pub async fn start(&mut self) -> Result<(), LocalError> {
        if self.is_running() {
            return Ok(());
        }
        let started = Instant::now();
        loop {
            let log = self.log_path();
            let log_starts = logfile::prepare(&log).map_err(LocalError::io("open the log file", &log))?;
            let mut child = self.server_command().spawn()?;
            match self.until_it_accepts(&mut child, started).await {
                Ok(()) => {
                    self.child = Some(child);
                    return Ok(());
                }
                Err(error) => match self.cause(log_starts) {
                    Cause::PortTaken => {
                        return Err(LocalError::PortTaken { port: self.port, purpose: "client", server: NAME });
                    }
                    // After a kill the server's helpers need a moment to notice, and hold its memory meanwhile.
                    Cause::StillInUse if started.elapsed() < self.builder.start_limit => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    fn server_command(&self) -> GuardedCommand {
        let mut command = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-c", "listen_addresses=127.0.0.1", "-c", &format!("port={}", self.port)])
            // No socket file: its path may be at most 107 bytes long, which a data folder's path can exceed.
            .args(["-c", "unix_socket_directories=", "-c", if self.builder.fsync { "fsync=on" } else { "fsync=off" }]);
        for (name, value) in &self.builder.settings {
            command = command.arg("-c").arg(format!("{name}={value}"));
        }
        if self.builder.temporary {
            command = command.remove_when_orphaned(&self.folder);
        }
        command
    }

    async fn until_it_accepts(&self, child: &mut Guarded, started: Instant) -> Result<(), LocalError> {
        loop {
            if let Some(code) = child.exit_code() {
                return Err(self.exited(NAME, code));
            }
            let answers = tokio::time::timeout(Duration::from_secs(2), accepts(&self.url())).await;
            if answers == Ok(true) && child.is_running() {
                return Ok(());
            }
            if started.elapsed() > self.builder.start_limit {
                child.kill().await;
                return Err(self.not_ready(NAME, self.builder.start_limit));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn cause(&self, log_starts: u64) -> Cause {
        let text = logfile::since(&self.log_path(), log_starts);
        if text.contains("could not bind IPv4 address") {
            Cause::PortTaken
        } else if text.contains("is still in use") || text.contains("postmaster.pid\" already exists") {
            Cause::StillInUse
        } else {
            Cause::Other
        }
    }

    fn exited(&self, what: &str, code: i32) -> LocalError {
        LocalError::Exited {
            server: what.to_owned(),
            status: format!("exit code {code}"),
            log: self.log_path(),
            tail: logfile::tail(&self.log_path(), logfile::TAIL_LINES),
        }
    }

    fn not_ready(&self, what: &str, waited: Duration) -> LocalError {
        LocalError::NotReady {
            server: what.to_owned(),
            waited,
            log: self.log_path(),
            tail: logfile::tail(&self.log_path(), logfile::TAIL_LINES),
        }
    }

    /// Stops the server in order; kills it if it has not stopped within the builder's `stop_limit`. Harmless on a stopped one.
    pub async fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.stop(self.builder.stop_limit).await;
        }
    }

    /// Kills the server's main process (SIGKILL) and waits until it is gone; its helpers follow by themselves.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await;
        }
    }

    /// Stops the server if it runs, and starts it on the same port and data.
    ///
    /// # Errors
    /// As for [`PostgresBuilder::start`].
    pub async fn restart(&mut self) -> Result<(), LocalError> {
        self.stop().await;
        self.start().await
    }
}

enum Cause {
    PortTaken,
    StillInUse,
    Other,
}

/// Whether a session can be opened: the port answers before the server has repaired its data, and then refuses.
async fn accepts(url: &str) -> bool {
    match tokio_postgres::connect(url, tokio_postgres::NoTls).await {
        Ok((client, connection)) => {
            let session = tokio::spawn(connection);
            let answered = client.simple_query("SELECT 1").await.is_ok();
            session.abort();
            answered
        }
        Err(_) => false,
    }
}

/// Whether `account` may enter `path` and everything above it, judged by owner and "other" permissions.
fn reachable(path: &Path, account: Account) -> Result<(), LocalError> {
    for folder in path.ancestors() {
        let meta = fs::metadata(folder).map_err(LocalError::io("look at", folder))?;
        let mode = meta.permissions().mode();
        let enters = if meta.uid() == account.uid { mode & 0o100 } else { mode & 0o001 };
        if enters == 0 {
            return Err(LocalError::Unreachable { path: path.to_owned(), closed: folder.to_owned(), uid: account.uid });
        }
    }
    Ok(())
}
