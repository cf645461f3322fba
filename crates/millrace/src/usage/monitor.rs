//! Subscribers without JetStream, from nats-server's monitoring port.

use std::time::Duration;

use serde::Deserialize;

use super::{Kind, Reader, Whose};
use crate::http_client::http_client;
use crate::topology::overlap;

const TIMEOUT: Duration = Duration::from_secs(3);
/// Connections on a page.
const PAGE: u64 = 1_024;

/// The connections of one server that subscribe to anything.
pub(super) struct Subscribers(Vec<Client>);

#[derive(Debug, Deserialize)]
struct Page {
    #[serde(default)]
    connections: Vec<Client>,
    #[serde(default)]
    total: u64,
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

/// Asks `url`; the error says why they cannot be seen.
pub(super) async fn subscribers(url: Option<&str>) -> Result<Subscribers, String> {
    let Some(url) = url else { return Err("no monitoring port is known".into()) };
    let base = url.trim_end_matches('/');
    let client = http_client(TIMEOUT, TIMEOUT).map_err(|e| e.to_string())?;
    let mut all = Vec::new();
    loop {
        let page = format!("{base}/connz?subs=1&limit={PAGE}&offset={}", all.len());
        let answered = async { client.get(&page).send().await?.error_for_status()?.json::<Page>().await };
        let page = answered.await.map_err(|_| format!("nats-server's monitoring does not answer at {base}"))?;
        let last = page.connections.is_empty();
        all.extend(page.connections);
        if last || all.len() as u64 >= page.total {
            return Ok(Subscribers(all));
        }
    }
}

impl Subscribers {
    pub(super) fn of<'a>(&'a self, subject: &'a str) -> impl Iterator<Item = Reader> + 'a {
        self.0.iter().filter_map(move |client| {
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
