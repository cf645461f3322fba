//! All settings of the binary: one struct per section of `millrace.toml`, which is also the lowest layer.

mod overrides;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

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

use self::overrides::Override;
use crate::failure::Failure;

/// Every setting, its default and its meaning, in the form a user writes them.
pub const DEFAULTS: &str = include_str!("../millrace.default.toml");

/// Longer, and a handful of decisions in a row would take longer than whoever asked is willing to wait.
const LONGEST_COMMIT_INTERVAL: Duration = Duration::from_secs(1);

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
    pub commit_interval: HumanDuration,
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
    pub look_every: HumanDuration,
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
    pub overrides: Vec<String>,
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
    pub ledger_intents: usize,
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
            // Of processes under test: see `under_test`.
            millrace::crash::AT,
            millrace::crash::MARK,
            millrace::sabotage::VARIABLE,
        ]);
    for one in set {
        let (name, value) = one
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("--set {one}: there is no =")).remedy("--set NAME=VALUE").usage())?;
        loader = loader.set_by(&format!("--set {name}"), name.trim(), value.trim());
    }
    loader.load::<Settings>().map_err(|error| {
        let code = millrace::codes::Coded::code(&error).map(str::to_owned);
        let failure =
            Failure::new(error.to_string()).remedy("millrace --dump-config shows all names and values").usage();
        code.into_iter().fold(failure, Failure::code)
    })
}

impl Settings {
    /// Everything that should exist at the broker.
    pub fn declared_topology(&self) -> Topology {
        let t = &self.topology;
        let mut declared = contracts::topology::topology(&TopologySettings {
            replicas: t.replicas,
            max_age: t.max_age.get(),
            duplicate_window: t.duplicate_window.get(),
            max_event_bytes: u32::try_from(t.max_event.get()).unwrap_or(u32::MAX),
            ack_wait: t.ack_wait.get(),
            max_deliver: t.max_deliver,
            max_ack_pending: t.max_ack_pending,
        });
        for own in self.overrides() {
            let of_consumer = declared.consumers.iter_mut().filter(|consumer| consumer.durable == own.consumer);
            of_consumer.for_each(|consumer| consumer.max_deliver = own.max_deliver.unwrap_or(consumer.max_deliver));
        }
        declared
    }

    /// What cannot be read is refused by `validate`.
    fn overrides(&self) -> impl Iterator<Item = Override> {
        self.consumer.overrides.iter().filter_map(|text| text.parse().ok())
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
                commit_interval: self.database.commit_interval.get(),
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
                look_every: self.outbox.look_every.get(),
            },
            consumer: ConsumerSettings {
                workers: self.consumer.workers,
                retry_first: self.consumer.retry_first.get(),
                retry_most: self.consumer.retry_most.get(),
                ..ConsumerSettings::default()
            },
            retry_delays: self.overrides().map(|own| (own.consumer.clone(), own.delays(&self.consumer))).collect(),
            topology_auto_apply: self.topology.auto_apply,
            retired: self.retired(),
        }
    }

    /// A setting of the section `nats` as it may be shown.
    fn nats_value(&self, setting: &str) -> String {
        let shown = serde_json::to_value(&self.nats).unwrap_or_default();
        match shown.get(setting.trim_start_matches("nats.")) {
            None | Some(serde_json::Value::Null) => String::new(),
            Some(value) => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        }
    }

    /// `orders.created v1` and the like; what cannot be read is refused by `validate`.
    pub fn retired(&self) -> Retired {
        Retired(self.contracts.retired.iter().filter_map(|text| parse_retired(text)).collect())
    }
}

fn parse_retired(text: &str) -> Option<(String, u32)> {
    let (event, version) = text.trim().split_once(" v")?;
    Some((event.trim().to_owned(), version.parse().ok()?))
}

/// nats-server flushes to disk every two minutes by default; and it has to be there again.
const SHORTEST_KEEP_PUBLISHED: Duration = Duration::from_secs(3 * 60);

/// Whether there is such a version of an event, and a newer one.
fn is_older(event: &str, version: u32) -> bool {
    let versions: Vec<u32> =
        contracts::all_schemas().iter().filter(|s| s.event_type == event).map(|s| s.version).collect();
    versions.contains(&version) && versions.iter().any(|other| *other > version)
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
            let expected = format!("another value: {}; {}", error.problem, error.hint);
            need(false, error.setting, self.nats_value(error.setting), &expected);
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
            ("simulators.ledger_intents", self.simulators.ledger_intents, 1, 10_000_000),
            ("topology.replicas", self.topology.replicas, 1, 5),
            ("topology.max_deliver", self.topology.max_deliver as usize, 1, 1_000),
            ("topology.max_ack_pending", self.topology.max_ack_pending as usize, 1, 1_000_000),
        ];
        for (setting, value, least, most) in counts {
            need(
                (least..=most).contains(&value),
                setting,
                value.to_string(),
                &format!("a number from {least} to {most}"),
            );
        }
        let durations = [
            ("database.connect_timeout", self.database.connect_timeout),
            ("outbox.sweep_every", self.outbox.sweep_every),
            ("outbox.confirm_every", self.outbox.confirm_every),
            ("outbox.look_every", self.outbox.look_every),
            ("inbox.prune_every", self.inbox.prune_every),
            ("consumer.retry_first", self.consumer.retry_first),
            ("topology.max_age", self.topology.max_age),
            ("shutdown.drain", self.shutdown.drain),
        ];
        for (setting, value) in durations {
            need(!value.is_zero(), setting, value.to_string(), "more than zero, such as \"1s\"");
        }
        need(
            self.database.commit_interval.get() <= LONGEST_COMMIT_INTERVAL,
            "database.commit_interval",
            self.database.commit_interval.to_string(),
            "at most a second: every decision under load waits for it; \"0s\" switches it off",
        );
        need(
            self.consumer.retry_most >= self.consumer.retry_first,
            "consumer.retry_most",
            self.consumer.retry_most.to_string(),
            "at least consumer.retry_first",
        );
        need(
            (0.0..=1.0).contains(&self.telemetry.otlp_sample_ratio),
            "telemetry.otlp_sample_ratio",
            self.telemetry.otlp_sample_ratio.to_string(),
            "a number from 0.0 to 1.0",
        );
        // Forgetting sooner than the streams do would let a replay act twice.
        need(
            self.inbox.keep_handled >= self.topology.max_age,
            "inbox.keep_handled",
            self.inbox.keep_handled.to_string(),
            "at least topology.max_age",
        );
        // Otherwise what the broker loses in a power cut is gone from here as well.
        need(
            self.outbox.keep_published.get() >= SHORTEST_KEEP_PUBLISHED,
            "outbox.keep_published",
            self.outbox.keep_published.to_string(),
            "at least \"3m\": a power cut takes back what NATS acknowledged in the last 2 minutes, and it is published again from here",
        );
        // What the streams have dropped for its age would be taken for lost.
        need(
            self.outbox.keep_published <= self.topology.max_age,
            "outbox.keep_published",
            self.outbox.keep_published.to_string(),
            "at most topology.max_age",
        );
        need(
            self.outbox.look_every < self.outbox.keep_published,
            "outbox.look_every",
            self.outbox.look_every.to_string(),
            "less than outbox.keep_published: what is lost is published again from what is kept",
        );
        need(
            self.topology.ack_wait.get().as_secs() >= 1,
            "topology.ack_wait",
            self.topology.ack_wait.to_string(),
            "a second or more",
        );
        let known = contracts::topology::topology(&TopologySettings::default()).consumers;
        let known: Vec<&str> = known.iter().map(|consumer| consumer.durable.as_str()).collect();
        for text in &self.consumer.overrides {
            let expected = overrides::wrong(text, &known, &self.consumer);
            need(expected.is_none(), "consumer.overrides", text.clone(), &expected.unwrap_or_default());
        }
        for text in &self.contracts.retired {
            // One that does not exist would retire nothing, and nobody would notice.
            let older = parse_retired(text).is_some_and(|(event, version)| is_older(&event, version));
            let expected = "a list such as [\"orders.created v1\"], of versions that are older than the newest";
            need(older, "contracts.retired", text.clone(), expected);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Debug;

    use super::*;

    /// The default TOML alone, whatever the environment of the test says.
    fn defaults() -> Settings {
        Loader::new(DEFAULTS).load::<Settings>().unwrap().settings
    }

    fn same(section: &str, written: &impl Debug, built_in: &impl Debug) {
        assert_eq!(format!("{written:#?}"), format!("{built_in:#?}"), "{section}: the default TOML and Default differ");
    }

    #[test]
    fn the_default_toml_says_what_the_code_does_without_it() {
        let (written, kit) = (defaults(), KitSettings::default());
        same("nats", &written.nats, &NatsSettings::default());
        same("telemetry", &written.telemetry, &telemetry::Settings::default());
        same("order", &written.order, &order::Settings::default());
        same("payment", &written.payment, &payment::Settings::default());
        same(
            "payment.gateway.secret_key",
            &written.payment.gateway.secret_key,
            &payment::Settings::default().gateway.secret_key,
        );
        same("inventory", &written.inventory, &inventory::Settings::default());
        same("notification", &written.notification, &notification::Settings::default());
        same("shared limits of services", &written.kit(), &kit);
        same(
            "simulators.ledger_intents",
            &written.simulators.ledger_intents,
            &simulators::gateway::Settings::default().ledger_intents,
        );
        same("topology", &written.declared_topology(), &contracts::topology::topology(&TopologySettings::default()));
    }

    /// A field that the TOML leaves out cannot be set by environment or flag, since their names come from it.
    #[test]
    fn the_default_toml_names_every_setting() {
        let named: BTreeSet<String> = millrace::config::reference(DEFAULTS, "MILLRACE")
            .unwrap()
            .into_iter()
            .map(|setting| setting.name)
            .collect();
        let nats = serde_json::to_value(NatsSettings::default()).unwrap();
        let mut fields: BTreeSet<String> =
            nats.as_object().unwrap().keys().map(|name| format!("nats.{name}")).collect();
        fields.extend(fields_of(&format!("{:#?}", defaults())));
        assert_eq!(fields.difference(&named).collect::<Vec<_>>(), Vec::<&String>::new(), "not in the default TOML");
        assert_eq!(named.difference(&fields).collect::<Vec<_>>(), Vec::<&String>::new(), "in no settings struct");
    }

    /// The paths of all fields that are no sections, from pretty `Debug` output.
    fn fields_of(debug: &str) -> BTreeSet<String> {
        let mut sections: Vec<(usize, String)> = Vec::new();
        let mut fields = BTreeSet::new();
        for line in debug.lines() {
            let depth = line.len() - line.trim_start().len();
            let Some((name, value)) = line.trim_start().split_once(": ") else { continue };
            if name == "nats" || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
                continue;
            }
            sections.retain(|(outer, _)| *outer < depth);
            sections.push((depth, name.to_owned()));
            if !value.ends_with('{') {
                fields.insert(sections.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join("."));
            }
        }
        fields
    }
}
