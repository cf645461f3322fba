//! A real nats-server for one test, and waiting with a deadline.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use millrace::connection::{Connection, NatsSettings, State};
use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A nats-server with JetStream that can be stopped and started again on the same port and store.
pub(crate) struct Server {
    pub(crate) port: u16,
    folder: TempDir,
    config: Option<PathBuf>,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let mut server = Self::prepare("");
        server.resume();
        server
    }

    pub(crate) fn with_config(config: &str) -> Self {
        let mut server = Self::prepare(config);
        server.resume();
        server
    }

    /// Reserves a port without starting anything yet.
    pub(crate) fn prepare(config: &str) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let config = (!config.is_empty()).then(|| {
            let path = folder.path().join("nats.conf");
            std::fs::write(&path, config).unwrap();
            path
        });
        Self { port, folder, config, child: None }
    }

    pub(crate) fn resume(&mut self) {
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-js", "-p", &self.port.to_string(), "-sd"]).arg(self.folder.path());
        if let Some(config) = &self.config {
            command.arg("-c").arg(config);
        }
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let deadline = std::time::Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(std::time::Instant::now() < deadline, "nats-server did not open its port");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn settings(&self) -> NatsSettings {
        NatsSettings { url: self.url(), reconnect_base_ms: 10, reconnect_max_ms: 100, ..NatsSettings::default() }
    }

    pub(crate) async fn connect(&self) -> Connection {
        let connection = open(&self.settings()).await;
        within(connection.connected()).await.unwrap();
        connection
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) async fn open(settings: &NatsSettings) -> Connection {
    Connection::open(settings, "test", |_| {}).await.unwrap()
}

/// The result of `work`, which must come in time.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it took too long")
}

/// Waits until the connection's state is as wanted, and returns it.
pub(crate) async fn state(connection: &Connection, wanted: impl FnMut(&State) -> bool) -> State {
    within(async { connection.state().wait_for(wanted).await.unwrap().clone() }).await
}
