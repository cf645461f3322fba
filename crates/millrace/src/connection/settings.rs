//! What an operator can set about the connection to NATS, and the checks that refuse a wrong setting before anything
//! is dialled.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::ServerAddr;
use serde::{Deserialize, Serialize, Serializer};

/// How to reach NATS and how patient to be with it. Section `nats` of the configuration.
///
/// At most one way of authenticating may be set: `user` with `password`, `token`, `nkey_seed_file` or
/// `credentials_file`. `Debug` and `Serialize` show secrets as `***`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsSettings {
    /// Servers, separated by commas: `nats://host:4222` or `tls://host:4222`. One is enough to find a whole cluster;
    /// naming several lets the service start while one of them is down. May carry `user:password@`.
    #[serde(serialize_with = "url_without_secrets")]
    pub url: String,
    /// User name, together with `password`.
    pub user: Option<String>,
    /// Password of `user`.
    #[serde(serialize_with = "masked")]
    pub password: Option<String>,
    /// Bearer token.
    #[serde(serialize_with = "masked")]
    pub token: Option<String>,
    /// File that holds an nkey seed (one line, begins with `SU`).
    pub nkey_seed_file: Option<PathBuf>,
    /// `.creds` file with a user JWT and its seed.
    pub credentials_file: Option<PathBuf>,
    /// Certificate authorities (PEM) to trust instead of those of the system.
    pub tls_ca_file: Option<PathBuf>,
    /// Client certificate (PEM) for mutual TLS, together with `tls_key_file`.
    pub tls_cert_file: Option<PathBuf>,
    /// Private key (PEM) of `tls_cert_file`.
    pub tls_key_file: Option<PathBuf>,
    /// Refuse to speak to a server without TLS.
    pub tls_required: bool,
    /// Prefix of the subjects replies come back on. Give each service its own where permissions are narrow, and allow
    /// the service to subscribe to `<inbox_prefix>.>`.
    pub inbox_prefix: String,
    /// Milliseconds one attempt to connect (TCP, TLS and login) may take.
    pub connect_timeout_ms: u64,
    /// Milliseconds to wait for the answer to a JetStream API request or for the acknowledgement of a publish.
    pub request_timeout_ms: u64,
    /// Upper bound in milliseconds of the random pause before the first reconnection; doubles with each round.
    pub reconnect_base_ms: u64,
    /// Milliseconds the pause between two rounds of reconnection never exceeds.
    pub reconnect_max_ms: u64,
    /// Milliseconds between pings to an idle server. Two unanswered pings end the connection, so a silently dead
    /// link is noticed after about three intervals.
    pub ping_interval_ms: u64,
    /// Publishes that may await their acknowledgement at once. 64 saturate a server; the limit bounds memory when a
    /// server stops answering.
    pub publish_max_in_flight: usize,
}

impl Default for NatsSettings {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            user: None,
            password: None,
            token: None,
            nkey_seed_file: None,
            credentials_file: None,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            tls_required: false,
            inbox_prefix: "_INBOX".to_owned(),
            connect_timeout_ms: 5_000,
            request_timeout_ms: 5_000,
            reconnect_base_ms: 100,
            reconnect_max_ms: 5_000,
            ping_interval_ms: 10_000,
            publish_max_in_flight: 1_024,
        }
    }
}

/// A setting of the section `nats` that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the setting {setting} is wrong: {problem}; {hint}")]
pub struct SettingsError {
    /// Full name of the setting, such as `nats.url`.
    pub setting: &'static str,
    /// What is wrong with its value. Never contains a secret.
    pub problem: String,
    /// What would be right.
    pub hint: &'static str,
}

impl SettingsError {
    pub(super) fn new(setting: &'static str, problem: impl Into<String>, hint: &'static str) -> Self {
        Self { setting, problem: problem.into(), hint }
    }
}

impl NatsSettings {
    /// Checks everything that can be checked without the network or the disk.
    ///
    /// # Errors
    /// The first setting that cannot work, by name.
    pub fn validate(&self) -> Result<(), SettingsError> {
        self.servers()?;
        self.validate_authentication()?;
        if self.tls_cert_file.is_some() != self.tls_key_file.is_some() {
            let (setting, problem) = match self.tls_key_file {
                None => ("nats.tls_key_file", "it is missing while nats.tls_cert_file is set"),
                Some(_) => ("nats.tls_cert_file", "it is missing while nats.tls_key_file is set"),
            };
            return Err(SettingsError::new(setting, problem, "set both or neither"));
        }
        let valid_prefix = !self.inbox_prefix.is_empty()
            && self.inbox_prefix.split('.').all(|token| !token.is_empty())
            && !self.inbox_prefix.contains(|c: char| c.is_whitespace() || c == '*' || c == '>');
        if !valid_prefix {
            return Err(SettingsError::new(
                "nats.inbox_prefix",
                format!("\"{}\" is not a subject", self.inbox_prefix),
                "use tokens joined by dots, without spaces or wildcards, such as _INBOX_payment",
            ));
        }
        for (setting, value) in [
            ("nats.connect_timeout_ms", self.connect_timeout_ms),
            ("nats.request_timeout_ms", self.request_timeout_ms),
            ("nats.reconnect_base_ms", self.reconnect_base_ms),
            ("nats.ping_interval_ms", self.ping_interval_ms),
            ("nats.publish_max_in_flight", self.publish_max_in_flight as u64),
        ] {
            if value == 0 {
                return Err(SettingsError::new(setting, "it is 0", "use a number greater than 0"));
            }
        }
        if self.reconnect_max_ms < self.reconnect_base_ms {
            return Err(SettingsError::new(
                "nats.reconnect_max_ms",
                format!("{} is less than nats.reconnect_base_ms, {}", self.reconnect_max_ms, self.reconnect_base_ms),
                "make it at least as long as the base",
            ));
        }
        Ok(())
    }

    /// The servers of `url`, parsed.
    ///
    /// # Errors
    /// `nats.url` when it is empty or one of its parts is not the address of a NATS server.
    pub fn servers(&self) -> Result<Vec<ServerAddr>, SettingsError> {
        const HINT: &str = "use nats://host:4222 or tls://host:4222, several separated by commas";
        let mut servers = Vec::new();
        for part in self.url.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let shown = strip_secrets(part);
            let server: ServerAddr =
                part.parse().map_err(|error| SettingsError::new("nats.url", format!("\"{shown}\": {error}"), HINT))?;
            // The client is built without WebSocket support and would dial such an address as plain TCP.
            if server.is_websocket() || server.host().is_empty() {
                return Err(SettingsError::new("nats.url", format!("\"{shown}\" cannot be dialled"), HINT));
            }
            servers.push(server);
        }
        if servers.is_empty() {
            return Err(SettingsError::new("nats.url", "it names no server", HINT));
        }
        Ok(servers)
    }

    fn validate_authentication(&self) -> Result<(), SettingsError> {
        if self.user.is_some() != self.password.is_some() {
            let (setting, problem) = match self.password {
                None => ("nats.password", "it is missing while nats.user is set"),
                Some(_) => ("nats.user", "it is missing while nats.password is set"),
            };
            return Err(SettingsError::new(setting, problem, "set both or neither"));
        }
        let ways: Vec<&'static str> = [
            ("nats.user", self.user.is_some()),
            ("nats.token", self.token.is_some()),
            ("nats.nkey_seed_file", self.nkey_seed_file.is_some()),
            ("nats.credentials_file", self.credentials_file.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
        .collect();
        match ways.as_slice() {
            [first, second, ..] => Err(SettingsError::new(
                second,
                format!("it is set together with {first}"),
                "choose one way of authenticating and leave the others unset",
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }
}

impl fmt::Debug for NatsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = serde_json::to_value(self).map_err(|_| fmt::Error)?;
        write!(f, "NatsSettings {shown}")
    }
}

/// A server address as it may be logged: without user and password.
pub(super) fn strip_secrets(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}***@{}", &url[..scheme + 3], &url[at + 1..]),
        (None, Some(at)) => format!("***@{}", &url[at + 1..]),
        _ => url.to_owned(),
    }
}

fn masked<S: Serializer>(secret: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| "***").serialize(serializer)
}

fn url_without_secrets<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    url.split(',').map(strip_secrets).collect::<Vec<_>>().join(",").serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(change: impl FnOnce(&mut NatsSettings)) -> SettingsError {
        let mut settings = NatsSettings::default();
        change(&mut settings);
        settings.validate().unwrap_err()
    }

    #[test]
    fn every_wrong_setting_is_refused_by_name() {
        type Case = (fn(&mut NatsSettings), &'static str);
        let cases: [Case; 12] = [
            (|s| s.url = String::new(), "nats.url"),
            (|s| s.url = " , ".into(), "nats.url"),
            (|s| s.url = "http://host".into(), "nats.url"),
            (|s| s.url = "ws://host:80".into(), "nats.url"),
            (|s| s.user = Some("a".into()), "nats.password"),
            (|s| s.password = Some("a".into()), "nats.user"),
            (
                |s| {
                    s.token = Some("t".into());
                    s.nkey_seed_file = Some("seed".into());
                },
                "nats.nkey_seed_file",
            ),
            (|s| s.tls_cert_file = Some("c.pem".into()), "nats.tls_key_file"),
            (|s| s.tls_key_file = Some("k.pem".into()), "nats.tls_cert_file"),
            (|s| s.inbox_prefix = "_IN BOX".into(), "nats.inbox_prefix"),
            (|s| s.request_timeout_ms = 0, "nats.request_timeout_ms"),
            (|s| s.reconnect_max_ms = 1, "nats.reconnect_max_ms"),
        ];
        for (change, setting) in cases {
            assert_eq!(broken(change).setting, setting);
        }
    }

    #[test]
    fn several_servers_are_read_from_one_setting() {
        let settings = NatsSettings { url: "nats://a:4222, b ,tls://c:5222".into(), ..NatsSettings::default() };
        let servers = settings.servers().unwrap();
        let shown: Vec<_> = servers.iter().map(|s| (s.host(), s.port(), s.tls_required())).collect();
        assert_eq!(shown, [("a", 4222, false), ("b", 4222, false), ("c", 5222, true)]);
    }

    #[test]
    fn no_secret_shows_in_debug_in_json_or_in_an_error() {
        let settings = NatsSettings {
            url: "nats://u:hunter2@a:1,nats://b:2".into(),
            password: Some("hunter2".into()),
            token: Some("hunter2".into()),
            ..NatsSettings::default()
        };
        let json = serde_json::to_string(&settings).unwrap();
        assert!(!json.contains("hunter2"), "{json}");
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert!(json.contains("nats://***@a:1,nats://b:2"), "{json}");
        let error = broken(|s| s.url = "http://u:hunter2@host".into());
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn an_unknown_setting_is_refused_by_name() {
        let error = serde_json::from_str::<NatsSettings>(r#"{"urls": "x"}"#).unwrap_err();
        assert!(error.to_string().contains("urls"), "{error}");
    }
}
