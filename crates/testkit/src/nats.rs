//! A nats-server per test.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::time::Duration;

use millrace::local::{NatsServer, NatsServerBuilder, copy_folder};
use tempfile::TempDir;

use crate::programs::{done, nats_server_program, with_sources};
use crate::{eventually, logs};

/// A nats-server with JetStream in a temporary folder. Dropping it kills the server and removes the folder; when the test
/// is failing it shows the end of the server's log first. All of [`NatsServer`] is available on it.
#[derive(Debug)]
pub struct TestNats {
    server: NatsServer,
    _folder: TempDir,
}

/// Starts a fresh nats-server on a free port.
///
/// # Panics
/// When it cannot be had or started.
pub async fn nats() -> TestNats {
    nats_with(|builder| builder).await
}

/// As [`nats`], with settings: `testkit::nats_with(|server| server.sync_interval(SyncInterval::Always)).await`.
///
/// # Panics
/// When it cannot be had or started.
pub async fn nats_with(settings: impl FnOnce(NatsServerBuilder) -> NatsServerBuilder) -> TestNats {
    let program = nats_server_program().await;
    let folder = temporary_folder("nats");
    let builder = NatsServer::builder(program, folder.path()).server_name("testkit").temporary();
    match settings(builder).start().await {
        Ok(server) => TestNats { server, _folder: folder },
        Err(error) => panic!("nats-server cannot be started: {}", with_sources(&error)),
    }
}

impl TestNats {
    /// A plain client of this server.
    ///
    /// # Panics
    /// When the server accepts none within 10 s.
    pub async fn client(&self) -> async_nats::Client {
        let url = self.server.url();
        eventually(Duration::from_secs(10), || async_nats::connect(&url), "a connection to NATS").await
    }
}

impl TestNats {
    /// A copy of what the server has written to its disk up to this moment, for [`lose_power`](Self::lose_power).
    ///
    /// # Panics
    /// When it does not run, or the copy cannot be made.
    pub async fn copy_of_disk(&mut self) -> PathBuf {
        let copy = self.server.data_dir().join("jetstream-before");
        // Held still, so that the copy is of one moment.
        done(self.server.pause().await, "nats-server cannot be held still");
        done(copy_folder(&self.store(), &copy), "the store cannot be copied");
        done(self.server.resume(), "nats-server cannot go on");
        copy
    }

    /// Kills the server as a power cut does to one that has not flushed: its disk is as it was when this copy was made.
    /// It has to be started again.
    ///
    /// # Panics
    /// When the files cannot be replaced.
    pub async fn lose_power(&mut self, copy: PathBuf) {
        self.server.kill().await;
        done(std::fs::remove_dir_all(self.store()), "the store cannot be removed");
        done(std::fs::rename(copy, self.store()), "the copy cannot take its place");
    }

    fn store(&self) -> PathBuf {
        self.server.data_dir().join("jetstream")
    }
}

impl Deref for TestNats {
    type Target = NatsServer;

    fn deref(&self) -> &NatsServer {
        &self.server
    }
}

impl DerefMut for TestNats {
    fn deref_mut(&mut self) -> &mut NatsServer {
        &mut self.server
    }
}

impl Drop for TestNats {
    fn drop(&mut self) {
        logs::show_if_failing("nats-server", &self.server.log_path());
        self.server.kill_now();
    }
}

pub(crate) fn temporary_folder(name: &str) -> TempDir {
    match tempfile::Builder::new().prefix(&format!("millrace-{name}-")).tempdir() {
        Ok(folder) => folder,
        Err(error) => panic!("no temporary folder can be made in {}: {error}", std::env::temp_dir().display()),
    }
}
