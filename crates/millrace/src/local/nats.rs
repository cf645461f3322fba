//! A nats-server with JetStream as a guarded child.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

use super::guard::{Guarded, GuardedCommand};
use super::{LocalError, logfile, port};

const NAME: &str = "nats-server";

/// When JetStream forces what it stored to disk. It acknowledges before that, unless told `Always`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncInterval {
    /// Before every acknowledgement: survives a power cut, at the price of one fsync per message.
    Always,
    /// At this interval; the server's own default is two minutes.
    Every(Duration),
}

/// How a nats-server is to be run. Made by [`NatsServer::builder`].
#[derive(Debug, Clone)]
pub struct NatsServerBuilder {
    program: PathBuf,
    data_dir: PathBuf,
    server_name: String,
    client_port: u16,
    monitor_port: Option<u16>,
    sync_interval: Option<SyncInterval>,
    max_file_store: Option<u64>,
    extra_config: String,
    start_limit: Duration,
    stop_limit: Duration,
    temporary: bool,
}

impl NatsServerBuilder {
    /// Name of the server, as clients and `nats` tools show it; "millrace" by default. No white space.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = name.into();
        self
    }

    /// Port for clients; 0, the default, for a free one.
    pub fn client_port(mut self, port: u16) -> Self {
        self.client_port = port;
        self
    }

    /// Port for the HTTP monitoring view, 0 for a free one; without this call there is none.
    pub fn monitor_port(mut self, port: u16) -> Self {
        self.monitor_port = Some(port);
        self
    }

    /// When stored messages are forced to disk; the server's default (two minutes) without this call.
    pub fn sync_interval(mut self, interval: SyncInterval) -> Self {
        self.sync_interval = Some(interval);
        self
    }

    /// How many bytes the streams may take on disk, all together; what the disk has without this call. The server refuses
    /// what comes beyond it.
    pub fn max_file_store(mut self, bytes: u64) -> Self {
        self.max_file_store = Some(bytes);
        self
    }

    /// Text put at the end of the server's configuration file, in its own syntax.
    pub fn extra_config(mut self, text: impl Into<String>) -> Self {
        self.extra_config = text.into();
        self
    }

    /// How long the server may take until it answers; 30 s by default, as it first reads back what it has stored.
    pub fn start_limit(mut self, limit: Duration) -> Self {
        self.start_limit = limit;
        self
    }

    /// How long the server may take to stop in order before it is killed; 10 s by default.
    pub fn stop_limit(mut self, limit: Duration) -> Self {
        self.stop_limit = limit;
        self
    }

    /// The data folder is removed by the guard if this process ends without stopping the server.
    pub fn temporary(mut self) -> Self {
        self.temporary = true;
        self
    }

    /// Starts the server and waits until it answers clients.
    ///
    /// # Errors
    /// [`LocalError`]: a port in use, a server that ends or does not answer (with the end of its log), a bad setting.
    pub async fn start(self) -> Result<NatsServer, LocalError> {
        if self.server_name.is_empty() || self.server_name.contains(char::is_whitespace) {
            return Err(LocalError::BadSetting {
                field: "server_name",
                value: self.server_name,
                problem: "a name without white space is needed",
            });
        }
        let data_dir = std::path::absolute(&self.data_dir).map_err(LocalError::io("resolve", &self.data_dir))?;
        fs::create_dir_all(&data_dir).map_err(LocalError::io("create the data folder", &data_dir))?;
        let drawn = self.client_port == 0 || self.monitor_port == Some(0);
        let mut attempts = if drawn { port::START_ATTEMPTS } else { 1 };
        loop {
            let client_port = port::claim(self.client_port, "client", NAME)?;
            let monitor_port = self.monitor_port.map(|asked| port::claim(asked, "monitoring", NAME)).transpose()?;
            let mut server = NatsServer {
                data_dir: data_dir.clone(),
                builder: self.clone(),
                client_port,
                monitor_port,
                child: None,
            };
            attempts -= 1;
            match server.start().await {
                Ok(()) => return Ok(server),
                Err(LocalError::PortTaken { .. }) if attempts > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A nats-server on 127.0.0.1. Dropping it asks the server to stop without waiting for it; see [`NatsServer::stop`].
#[derive(Debug)]
pub struct NatsServer {
    builder: NatsServerBuilder,
    data_dir: PathBuf,
    client_port: u16,
    monitor_port: Option<u16>,
    child: Option<Guarded>,
}

impl NatsServer {
    /// A server run from `program`, which keeps streams, configuration (`nats.conf`) and log (`nats.log`) in `data_dir`.
    pub fn builder(program: impl Into<PathBuf>, data_dir: impl Into<PathBuf>) -> NatsServerBuilder {
        NatsServerBuilder {
            program: program.into(),
            data_dir: data_dir.into(),
            server_name: "millrace".to_owned(),
            client_port: 0,
            monitor_port: None,
            sync_interval: None,
            max_file_store: None,
            extra_config: String::new(),
            start_limit: Duration::from_secs(30),
            stop_limit: Duration::from_secs(10),
            temporary: false,
        }
    }

    /// What clients and the other servers of its cluster call it.
    pub fn name(&self) -> &str {
        &self.builder.server_name
    }

    /// Where clients connect: `nats://127.0.0.1:<port>`. Stays the same through restarts.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.client_port)
    }

    /// The port clients connect to.
    pub fn client_port(&self) -> u16 {
        self.client_port
    }

    /// The port of the monitoring view, if there is one.
    pub fn monitor_port(&self) -> Option<u16> {
        self.monitor_port
    }

    /// Process id of the server itself, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Guarded::pid)
    }

    /// Whether the server runs; a paused one does.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(Guarded::is_running)
    }

    /// The server's log file.
    pub fn log_path(&self) -> PathBuf {
        self.data_dir.join("nats.log")
    }

    /// The folder with everything the server keeps.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// From the next start on the streams may take as many bytes as the disk has.
    pub fn lift_max_file_store(&mut self) {
        self.builder.max_file_store = None;
    }

    /// Starts the server again, on the same port and data, after [`stop`](Self::stop), [`kill`](Self::kill) or a crash.
    /// Does nothing when it runs.
    ///
    /// # Errors
    /// As for [`NatsServerBuilder::start`].
    pub async fn start(&mut self) -> Result<(), LocalError> {
        if self.is_running() {
            return Ok(());
        }
        let config = self.data_dir.join("nats.conf");
        fs::write(&config, self.config()).map_err(LocalError::io("write the configuration", &config))?;
        let mut command = GuardedCommand::new(NAME, &self.builder.program, self.log_path())
            .arg("--config")
            .arg(&config)
            .grace(self.builder.stop_limit);
        if self.builder.temporary {
            command = command.remove_when_orphaned(&self.data_dir);
        }
        let log = self.log_path();
        let log_starts = logfile::prepare(&log).map_err(LocalError::io("open the log file", &log))?;
        let mut child = command.spawn()?;
        self.until_it_answers(&mut child, log_starts).await?;
        self.child = Some(child);
        Ok(())
    }

    async fn until_it_answers(&self, child: &mut Guarded, log_starts: u64) -> Result<(), LocalError> {
        let started = Instant::now();
        loop {
            if let Some(code) = child.exit_code() {
                return Err(self.port_taken(log_starts).unwrap_or_else(|| LocalError::Exited {
                    server: NAME.to_owned(),
                    status: format!("exit code {code}"),
                    log: self.log_path(),
                    tail: logfile::tail(&self.log_path(), logfile::TAIL_LINES),
                }));
            }
            let answers = tokio::time::timeout(Duration::from_secs(1), greets(self.client_port)).await;
            // Asked again afterwards: what greeted may be somebody else's server, on whose port ours has just failed.
            if answers == Ok(true) && child.is_running() && self.port_taken(log_starts).is_none() {
                return Ok(());
            }
            if started.elapsed() > self.builder.start_limit {
                child.kill().await;
                return Err(LocalError::NotReady {
                    server: NAME.to_owned(),
                    waited: self.builder.start_limit,
                    log: self.log_path(),
                    tail: logfile::tail(&self.log_path(), logfile::TAIL_LINES),
                });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Reads from what the log gained since `log_starts` whether a port was taken by somebody faster.
    fn port_taken(&self, log_starts: u64) -> Option<LocalError> {
        let text = logfile::since(&self.log_path(), log_starts);
        let line = text.lines().find(|line| line.contains("address already in use"))?;
        let taken = |port: &u16| line.contains(&format!(":{port}: bind"));
        let (port, purpose) = match self.monitor_port.filter(taken) {
            Some(port) => (port, "monitoring"),
            None => (self.client_port, "client"),
        };
        Some(LocalError::PortTaken { port, purpose, server: NAME })
    }

    fn config(&self) -> String {
        let NatsServerBuilder { server_name, sync_interval, max_file_store, extra_config, .. } = &self.builder;
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let store = self.data_dir.join("jetstream");
        let sync = match sync_interval {
            None => String::new(),
            Some(SyncInterval::Always) => "  sync_interval: always\n".to_owned(),
            Some(SyncInterval::Every(interval)) => format!("  sync_interval: \"{}ms\"\n", interval.as_millis().max(1)),
        };
        let limit = max_file_store.map(|bytes| format!("  max_file_store: {bytes}\n")).unwrap_or_default();
        let monitor = self.monitor_port.map(|port| format!("http: \"127.0.0.1:{port}\"\n")).unwrap_or_default();
        format!(
            "# Written by millrace at every start; changes are lost.\nserver_name: {}\nlisten: \"127.0.0.1:{}\"\n{monitor}jetstream {{\n  store_dir: {}\n{sync}{limit}}}\n{extra_config}\n",
            quoted(server_name),
            self.client_port,
            quoted(&store.to_string_lossy()),
        )
    }

    fn child(&mut self) -> Result<&mut Guarded, LocalError> {
        self.child.as_mut().ok_or(LocalError::NotRunning { server: NAME.to_owned() })
    }

    /// Stops the server in order; kills it if it has not stopped within the builder's `stop_limit`. Harmless on a stopped one.
    pub async fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.stop(self.builder.stop_limit).await;
        }
    }

    /// Kills the server (SIGKILL) and waits until it is gone. Harmless on a stopped one.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await;
        }
    }

    /// Sends SIGKILL without waiting, for use where nothing can be awaited.
    pub fn kill_now(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill_now();
        }
    }

    /// Stops the server if it runs, and starts it on the same port and data.
    ///
    /// # Errors
    /// As for [`NatsServerBuilder::start`].
    pub async fn restart(&mut self) -> Result<(), LocalError> {
        self.stop().await;
        self.start().await
    }

    /// Freezes the server (SIGSTOP): connections stay open and nothing answers, as behind a dead network.
    ///
    /// # Errors
    /// [`LocalError::NotRunning`].
    pub async fn pause(&mut self) -> Result<(), LocalError> {
        self.child()?.pause().await
    }

    /// Lets a paused server go on.
    ///
    /// # Errors
    /// [`LocalError::NotRunning`].
    pub fn resume(&mut self) -> Result<(), LocalError> {
        self.child()?.resume()
    }
}

/// Whether something on this port greets as a NATS server does: with a line that starts with INFO.
async fn greets(port: u16) -> bool {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.is_ok() && line.starts_with("INFO ")
}
