//! Subscribers without JetStream, from nats-server's monitoring port. It shows one server's connections.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Kind, Reader, Whose};
use crate::http_client::http_client;
use crate::topology::overlap;

const TIMEOUT: Duration = Duration::from_secs(3);
/// Connections on a page.
const PAGE: u64 = 1_024;

/// The connections, to the servers that were asked, that subscribe to anything.
#[derive(Default)]
pub(super) struct Subscribers {
    clients: Vec<Client>,
    asked: BTreeSet<String>,
    /// Servers that those who were asked are connected with.
    routed: BTreeSet<String>,
    /// They are connected with servers that are in no cluster with them.
    beyond: bool,
}

#[derive(Debug, Deserialize)]
struct Page {
    #[serde(default)]
    connections: Vec<Client>,
    #[serde(default)]
    total: u64,
}

/// What a server says of itself.
#[derive(Debug, Deserialize)]
struct Server {
    server_id: String,
    #[serde(default)]
    leafnodes: u64,
    #[serde(default)]
    gateway: Gateway,
}

#[derive(Debug, Default, Deserialize)]
struct Gateway {
    #[serde(default)]
    name: String,
}

#[derive(Debug, Deserialize)]
struct Routes {
    #[serde(default)]
    routes: Option<Vec<Route>>,
}

#[derive(Debug, Deserialize)]
struct Route {
    remote_id: String,
}

#[derive(Debug, Deserialize)]
struct Client {
    cid: u64,
    #[serde(default)]
    name: String,
    #[serde(default)]
    lang: String,
    #[serde(default)]
    subscriptions_list: Vec<String>,
}

/// Asks each of `urls`; the error says why they cannot be seen.
pub(super) async fn subscribers(urls: Option<&str>) -> Result<Subscribers, String> {
    let Some(urls) = urls else { return Err("no monitoring port is known".into()) };
    let mut all = Subscribers::default();
    for url in urls.split(',') {
        all.ask(url.trim().trim_end_matches('/')).await?;
    }
    Ok(all)
}

async fn get<T: DeserializeOwned>(base: &str, path: &str) -> Result<T, String> {
    let client = http_client(TIMEOUT, TIMEOUT).map_err(|e| e.to_string())?;
    let url = format!("{base}/{path}");
    let answered = async { client.get(&url).send().await?.error_for_status()?.json::<T>().await };
    answered.await.map_err(|_| format!("nats-server's monitoring does not answer at {base}"))
}

impl Subscribers {
    async fn ask(&mut self, base: &str) -> Result<(), String> {
        let server: Server = get(base, "varz").await?;
        let routes: Routes = get(base, "routez").await?;
        self.asked.insert(server.server_id);
        self.routed.extend(routes.routes.into_iter().flatten().map(|route| route.remote_id));
        self.beyond |= server.leafnodes > 0 || !server.gateway.name.is_empty();
        let mut seen = 0;
        loop {
            let page: Page = get(base, &format!("connz?subs=1&limit={PAGE}&offset={seen}")).await?;
            let last = page.connections.is_empty();
            seen += page.connections.len() as u64;
            self.clients.extend(page.connections);
            if last || seen >= page.total {
                return Ok(());
            }
        }
    }

    /// Why there may be subscribers that nobody was asked for.
    pub(super) fn partly(&self) -> Option<String> {
        let missing = self.routed.difference(&self.asked).count();
        if missing > 0 {
            let servers = if missing == 1 { "server was" } else { "servers were" };
            return Some(format!(
                "{missing} other {servers} not asked, of the cluster of {}",
                missing + self.asked.len()
            ));
        }
        self.beyond.then(|| "the server has leaf nodes or gateways, whose connections it does not show".to_owned())
    }

    pub(super) fn of<'a>(&'a self, subject: &'a str) -> impl Iterator<Item = Reader> + 'a {
        self.clients.iter().filter_map(move |client| {
            let filter: Vec<String> =
                client.subscriptions_list.iter().filter(|wanted| overlap(wanted, subject)).cloned().collect();
            (!filter.is_empty()).then(|| client.reader(filter))
        })
    }
}

impl Client {
    fn reader(&self, filter: Vec<String>) -> Reader {
        let name = match self.name.as_str() {
            "" => format!("connection {} ({})", self.cid, self.lang),
            name => name.to_owned(),
        };
        Reader {
            kind: Kind::Core,
            whose: Whose::Others,
            name,
            stream: None,
            description: None,
            filter,
            acknowledged: 0,
            acknowledged_lately: 0,
            left: 0,
            last_active: None,
            connected: true,
            idle: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_the_cluster_that_was_not_asked_is_missed() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let seen = |asked: &[&str], beyond: bool| {
            let (asked, routed) = (names(asked), names(&["A", "B", "C"]));
            Subscribers { asked, routed, beyond, ..Subscribers::default() }.partly()
        };
        assert_eq!(seen(&["A"], false).unwrap(), "2 other servers were not asked, of the cluster of 3");
        assert_eq!(seen(&["A", "B", "C"], false), None);
        assert!(seen(&["A", "B", "C"], true).unwrap().contains("leaf nodes"));
        assert_eq!(Subscribers::default().partly(), None);
    }
}
