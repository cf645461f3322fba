//! Three nats-servers that are one cluster.

use std::time::Duration;

use async_nats::jetstream;
use futures::future::join_all;
use millrace::local::{NatsServerBuilder, SyncInterval, free_port};

use crate::eventually;
use crate::nats::{TestNats, nats_with};
use crate::programs::done;

const SERVERS: usize = 3;
/// Until three servers have found each other and agreed on a leader.
const AGREED: Duration = Duration::from_secs(30);

/// Starts three nats-servers that form a cluster, each message on disk before it is acknowledged, and waits until
/// JetStream answers. Their names are `testkit-0` to `testkit-2`, in this order.
///
/// # Panics
/// When they cannot be had or started, or do not agree.
pub async fn nats_cluster() -> Vec<TestNats> {
    let ports: Vec<u16> = (0..SERVERS).map(|_| done(free_port(), "no port is free")).collect();
    let routes = ports.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect::<Vec<_>>().join(", ");
    let starting = ports.iter().enumerate().map(|(number, port)| {
        let cluster =
            format!("cluster {{\n  name: testkit\n  listen: \"127.0.0.1:{port}\"\n  routes: [{routes}]\n}}\n");
        let settings = move |server: NatsServerBuilder| {
            let named = server.server_name(format!("testkit-{number}"));
            named.sync_interval(SyncInterval::Always).extra_config(cluster)
        };
        nats_with(settings)
    });
    let servers = join_all(starting).await;
    let js = jetstream::new(servers[0].client().await);
    eventually(AGREED, || js.query_account(), "the cluster to agree on a leader").await;
    servers
}
