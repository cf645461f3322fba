//! A wire to PostgreSQL that can be cut at the worst moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Forwards every connection to one server. Ends with the test's runtime.
pub(crate) struct Proxy {
    /// The server's URL with the proxy's address.
    pub(crate) url: String,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    lose_next_commit: AtomicBool,
    /// Connections of earlier generations are silent.
    generation: AtomicU64,
}

impl Proxy {
    pub(crate) async fn before(url: &str) -> Self {
        let config: tokio_postgres::Config = url.parse().unwrap();
        let server = config.get_ports()[0];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let faults = Arc::new(Faults::default());
        let shared = faults.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server, shared.clone()));
            }
        });
        let proxied = url.replace(&format!(":{server}/"), &format!(":{own}/"));
        assert_ne!(proxied, url);
        Self { url: proxied, faults }
    }

    /// The next commit reaches the server; when it has answered, the connection breaks instead.
    pub(crate) fn lose_next_commit(&self) {
        self.faults.lose_next_commit.store(true, Ordering::SeqCst);
    }

    /// Connections that are open now stay open and carry nothing any more.
    pub(crate) fn silence(&self) {
        self.faults.generation.fetch_add(1, Ordering::SeqCst);
    }
}

async fn forward(mut client: TcpStream, server: u16, faults: Arc<Faults>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let generation = faults.generation.load(Ordering::SeqCst);
    let mut losing = false;
    let (mut asked, mut answered) = ([0; 65_536], [0; 65_536]);
    loop {
        let (from_client, read) = tokio::select! {
            read = client.read(&mut asked) => (true, read),
            read = server.read(&mut answered) => (false, read),
        };
        let Ok(read @ 1..) = read else { return };
        if faults.generation.load(Ordering::SeqCst) != generation {
            std::future::pending::<()>().await;
        }
        let forwarded = if from_client {
            // A simple query, as the writer commits.
            let commits = asked[..read].windows(8).any(|window| window == b"\x0bcommit\0");
            losing |= commits && faults.lose_next_commit.swap(false, Ordering::SeqCst);
            server.write_all(&asked[..read]).await
        } else if losing {
            return;
        } else {
            client.write_all(&answered[..read]).await
        };
        if forwarded.is_err() {
            return;
        }
    }
}
