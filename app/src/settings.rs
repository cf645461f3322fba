//! All settings of the binary: one struct per section of `millrace.toml`, which is also the lowest layer.

use std::net::SocketAddr;
use std::path::Path;

use contracts::topology::TopologySettings;
use millrace::config::{ByteSize, HumanDuration, Invalid, Loaded, Loader, Validate};
use millrace::connection::NatsSettings;
use millrace::consumer::ConsumerSettings;
use millrace::event::Retired;
use millrace::kit::KitSettings;
use millrace::outbox::RelaySettings;
use millrace::store::{DatabaseSettings, DatabaseUrl, WriterSettings};
use millrace::telemetry;
use millrace::topology::Topology;
use serde::Deserialize;

use crate::failure::Failure;

/// Every setting, its default and its meaning, in the form a user writes them.
pub const DEFAULTS: &str = include_str!("../millrace.default.toml");

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub nats: NatsSettings,
    pub database: Database,
    pub http: Http,
    pub ops: Ops,
    pub telemetry: telemetry::Settings,
    pub topology: Streams,
    pub outbox: Outbox,
    pub inbox: Inbox,
    pub consumer: Consumer,
    pub contracts: Contracts,
    pub shutdown: Shutdown,
    pub order: order::Settings,
    pub payment: payment::Settings,
    pub inventory: inventory::Settings,
    pub notification: notification::Settings,
    pub simulators: Simulators,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    pub url: String,
    pub readers: usize,
    pub connect_timeout: HumanDuration,
    pub max_batch: usize,
    pub queue: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ops {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Streams {
    pub auto_apply: bool,
    pub replicas: usize,
    pub max_age: HumanDuration,
    pub duplicate_window: HumanDuration,
    pub max_event: ByteSize,
    pub ack_wait: HumanDuration,
    pub max_deliver: u32,
    pub max_ack_pending: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbox {
    pub max_in_flight: usize,
    pub max_pending: usize,
    pub sweep_every: HumanDuration,
    pub sweep_after: HumanDuration,
    pub confirm_every: HumanDuration,
    pub keep_published: HumanDuration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inbox {
    pub keep_handled: HumanDuration,
    pub prune_every: HumanDuration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    pub workers: usize,
    pub retry_first: HumanDuration,
    pub retry_most: HumanDuration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contracts {
    pub retired: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    pub drain: HumanDuration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simulators {
    pub gateway_listen: SocketAddr,
    pub smtp_listen: SocketAddr,
    pub mail_listen: SocketAddr,
    pub sms_listen: SocketAddr,
}

/// Reads defaults, file, environment and `--set`, in this order; later ones win.
pub fn load(file: Option<&Path>, set: &[String]) -> Result<Loaded<Settings>, Failure> {
    let mut loader = Loader::new(DEFAULTS)
        .file(file)
        .file_if_present("millrace.toml")
        .env_prefix("MILLRACE")
        .aliases([("NATS_URL", "nats.url"), ("DATABASE_URL", "database.url")])
        .ignore([
            "MILLRACE_CONFIG",
            "MILLRACE_URL",
            "MILLRACE_CACHE_DIR",
            "MILLRACE_NATS_SERVER",
            "MILLRACE_POSTGRES_BIN",
            "MILLRACE_PYTHON",
        ]);
    for one in set {
        let (name, value) = one
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("--set {one}: there is no =")).remedy("--set NAME=VALUE").usage())?;
        loader = loader.set_by(&format!("--set {name}"), name.trim(), value.trim());
    }
    loader.load::<Settings>().map_err(|error| {
        let code = millrace::codes::Coded::code(&error).map(str::to_owned);
        let failure = Failure::new(error.to_string()).remedy("millrace --dump-config shows all names and values").usage();
        code.into_iter().fold(failure, Failure::code)
    })
}

impl Settings {
    /// Everything that should exist at the broker.
    pub fn declared_topology(&self) -> Topology {
        let t = &self.topology;
        contracts::topology::topology(&TopologySettings {
            replicas: t.replicas,
            max_age: t.max_age.get(),
            duplicate_window: t.duplicate_window.get(),
            max_event_bytes: u32::try_from(t.max_event.get()).unwrap_or(u32::MAX),
            ack_wait: t.ack_wait.get(),
            max_deliver: t.max_deliver,
            max_ack_pending: t.max_ack_pending,
        })
    }

    /// The limits that all services share.
    pub fn kit(&self) -> KitSettings {
        KitSettings {
            database: DatabaseSettings {
                readers: self.database.readers,
                connect_timeout: self.database.connect_timeout.get(),
            },
            writer: WriterSettings {
                max_batch: self.database.max_batch,
                queue: self.database.queue,
                prune_every: self.inbox.prune_every.get(),
                keep_published: self.outbox.keep_published.get(),
                keep_handled: self.inbox.keep_handled.get(),
            },
            relay: RelaySettings {
                max_in_flight: self.outbox.max_in_flight,
                max_pending: self.outbox.max_pending,
                sweep_after: self.outbox.sweep_after.get(),
                sweep_every: self.outbox.sweep_every.get(),
                confirm_every: self.outbox.confirm_every.get(),
            },
            consumer: ConsumerSettings {
                workers: self.consumer.workers,
                retry_first: self.consumer.retry_first.get(),
                retry_most: self.consumer.retry_most.get(),
                ..ConsumerSettings::default()
            },
            topology_auto_apply: self.topology.auto_apply,
            retired: self.retired(),
        }
    }

    /// `orders.created v1` and the like; what cannot be read is refused by `validate`.
    fn retired(&self) -> Retired {
        Retired(self.contracts.retired.iter().filter_map(|text| parse_retired(text)).collect())
    }
}

fn parse_retired(text: &str) -> Option<(String, u32)> {
    let (event, version) = text.trim().split_once(" v")?;
    Some((event.trim().to_owned(), version.parse().ok()?))
}

impl Validate for Settings {
    fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut wrong = Vec::new();
        let mut need = |holds: bool, setting: &str, value: String, expected: &str| {
            if !holds {
                wrong.push(Invalid::new(setting, value, expected));
            }
        };
        if let Err(error) = self.nats.validate() {
            need(false, error.setting, error.problem.clone(), error.hint);
        }
        let url = DatabaseUrl::for_service(&self.database.url, "order");
        need(
            url.is_ok(),
            "database.url",
            self.database.url.clone(),
            "sqlite:FOLDER/{service}.db or postgres://USER:PASSWORD@HOST/DATABASE",
        );
        let counts = [
            ("database.readers", self.database.readers, 1, 1_000),
            ("database.max_batch", self.database.max_batch, 1, 10_000),
            ("database.queue", self.database.queue, 1, 1_000_000),
            ("outbox.max_in_flight", self.outbox.max_in_flight, 1, 100_000),
            ("outbox.max_pending", self.outbox.max_pending, 1, 10_000_000),
            ("consumer.workers", self.consumer.workers, 1, 10_000),
            ("topology.replicas", self.topology.replicas, 1, 5),
            ("topology.max_deliver", self.topology.max_deliver as usize, 1, 1_000),
            ("topology.max_ack_pending", self.topology.max_ack_pending as usize, 1, 1_000_000),
        ];
        for (setting, value, least, most) in counts {
            need((least..=most).contains(&value), setting, value.to_string(), &format!("a number from {least} to {most}"));
        }
        // Forgetting sooner than the streams do would let a replay act twice.
        need(
            self.inbox.keep_handled >= self.topology.max_age,
            "inbox.keep_handled",
            self.inbox.keep_handled.to_string(),
            "at least topology.max_age",
        );
        need(
            self.topology.ack_wait.get().as_secs() >= 1,
            "topology.ack_wait",
            self.topology.ack_wait.to_string(),
            "a second or more",
        );
        for text in &self.contracts.retired {
            need(parse_retired(text).is_some(), "contracts.retired", text.clone(), "a list such as [\"orders.created v1\"]");
        }
        for section in [
            self.order.check("order"),
            self.payment.check("payment"),
            self.inventory.validate(),
            self.notification.validate(),
        ] {
            wrong.extend(section.err().unwrap_or_default());
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}
