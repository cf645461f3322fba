use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;

use super::dump::{Effective, Entry};
use super::flat::{Leaf, flatten};
use super::loose::{Loose, split_list};
use super::suggest::nearest;
use super::wording::{expectation, field_in_message};
use super::{ConfigError, Origin, Problem, Validate, mask};

/// Gathers the layers; [`Loader::load`] puts them together.
#[derive(Debug, Clone)]
pub struct Loader {
    defaults: String,
    file: Option<PathBuf>,
    env_prefix: Option<String>,
    environment: Option<Vec<(String, String)>>,
    aliases: Vec<(String, String)>,
    ignored: Vec<String>,
    flags: Vec<Flag>,
}

#[derive(Debug, Clone)]
struct Flag {
    shown: String,
    setting: String,
    value: String,
}

/// The settings and where each came from.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    pub settings: T,
    pub effective: Effective,
}

impl Loader {
    /// `defaults` is the commented TOML that names every setting.
    pub fn new(defaults: impl Into<String>) -> Self {
        Self {
            defaults: defaults.into(),
            file: None,
            env_prefix: None,
            environment: None,
            aliases: Vec::new(),
            ignored: Vec::new(),
            flags: Vec::new(),
        }
    }

    /// A file that must exist.
    #[must_use]
    pub fn file(mut self, path: Option<impl Into<PathBuf>>) -> Self {
        self.file = path.map(Into::into).or(self.file);
        self
    }

    /// A file that is read if it exists, unless [`Loader::file`] named another.
    #[must_use]
    pub fn file_if_present(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        if self.file.is_none() && path.exists() {
            self.file = Some(path);
        }
        self
    }

    /// Reads `<PREFIX>_<SETTING>` from the environment. An empty variable counts as not set.
    #[must_use]
    pub fn env_prefix(mut self, prefix: &str) -> Self {
        self.env_prefix = Some(format!("{prefix}_"));
        self
    }

    /// Variables to use instead of those of the process, for tests.
    #[must_use]
    pub fn environment<N: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.environment = Some(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect());
        self
    }

    /// Further variables for settings: `("NATS_URL", "nats.url")`. The prefixed name wins over an alias.
    #[must_use]
    pub fn aliases<'a>(mut self, aliases: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        self.aliases.extend(aliases.into_iter().map(|(name, setting)| (name.to_owned(), setting.to_owned())));
        self
    }

    /// Prefixed variables that are no settings, such as `MILLRACE_CONFIG`.
    #[must_use]
    pub fn ignore<'a>(mut self, variables: impl IntoIterator<Item = &'a str>) -> Self {
        self.ignored.extend(variables.into_iter().map(str::to_owned));
        self
    }

    /// A setting given by a flag, which is named after it: `http.max_body` is `--http-max-body`.
    #[must_use]
    pub fn set(self, setting: &str, value: impl ToString) -> Self {
        let flag = format!("--{}", setting.replace(['.', '_'], "-"));
        self.set_by(&flag, setting, value)
    }

    /// A setting given by a flag with a name of its own.
    #[must_use]
    pub fn set_by(mut self, flag: &str, setting: &str, value: impl ToString) -> Self {
        let value = value.to_string();
        self.flags.push(Flag { shown: flag.to_owned(), setting: setting.to_owned(), value });
        self
    }

    /// Puts the layers together and checks the result. Reports everything that is wrong at once.
    pub fn load<T: DeserializeOwned + Validate>(self) -> Result<Loaded<T>, ConfigError> {
        let leaves = flatten(&self.defaults).map_err(ConfigError::BuiltIn)?;
        let mut layers = Layers::new(leaves, self.env_prefix.as_deref())?;
        if let Some(path) = &self.file {
            layers.add_file(path)?;
        }
        layers.add_environment(&self)?;
        for flag in &self.flags {
            layers.add_flag(flag);
        }
        let settings: Option<T> = layers.deserialize()?;
        if let Some(Err(invalid)) = settings.as_ref().map(Validate::validate) {
            for one in invalid {
                let origin = layers.origin(&one.setting);
                let value = match one.value.as_str() {
                    "" => "not set".into(),
                    _ if mask::is_secret(&one.setting) => "***".into(),
                    value => mask::mask_url(value),
                };
                layers.problems.push(Problem::Invalid { setting: one.setting, value, origin, expected: one.expected });
            }
        }
        match settings {
            Some(settings) if layers.problems.is_empty() => {
                Ok(Loaded { settings, effective: Effective { text: self.defaults, entries: layers.entries } })
            }
            _ => Err(ConfigError::Problems(layers.problems)),
        }
    }
}

/// The name of a setting in the environment.
pub(super) fn env_name(prefix: &str, path: &str) -> String {
    format!("{prefix}{}", path.replace(['.', '-'], "_").to_ascii_uppercase())
}

struct Layers {
    /// In the order of the default TOML.
    entries: Vec<Entry>,
    by_path: BTreeMap<String, usize>,
    by_variable: BTreeMap<String, usize>,
    problems: Vec<Problem>,
}

impl Layers {
    fn new(leaves: Vec<Leaf>, env_prefix: Option<&str>) -> Result<Self, ConfigError> {
        let mut layers =
            Self { entries: Vec::new(), by_path: BTreeMap::new(), by_variable: BTreeMap::new(), problems: Vec::new() };
        for (at, leaf) in leaves.into_iter().enumerate() {
            if let Some(prefix) = env_prefix {
                let name = env_name(prefix, &leaf.path);
                if let Some(other) = layers.by_variable.insert(name.clone(), at) {
                    let other = &layers.entries[other].default.path;
                    return Err(ConfigError::BuiltIn(format!("{other} and {} are both {name}", leaf.path)));
                }
            }
            layers.by_path.insert(leaf.path.clone(), at);
            layers.entries.push(Entry { value: leaf.value.clone(), origin: Origin::BuiltIn, default: leaf });
        }
        Ok(layers)
    }

    fn add_file(&mut self, path: &PathBuf) -> Result<(), ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        let leaves = flatten(&text).map_err(|reason| ConfigError::Syntax { path: path.clone(), reason })?;
        for leaf in leaves {
            let origin = Origin::File { path: path.clone(), line: leaf.line };
            let section = format!("{}.", leaf.path);
            let names_section = self.by_path.keys().any(|known| known.starts_with(&section));
            match self.by_path.get(&leaf.path) {
                Some(at) => self.entries[*at].set(leaf.value, origin),
                None if names_section && leaf.value.is_table() => {}
                None if names_section => self.problems.push(Problem::Invalid {
                    value: mask::shown(&leaf.path, &leaf.value).to_string(),
                    setting: leaf.path,
                    origin,
                    expected: "a section of settings".into(),
                }),
                None => {
                    let did_you_mean = nearest(&leaf.path, self.by_path.keys().map(String::as_str)).map(str::to_owned);
                    self.problems.push(Problem::Unknown { shown: leaf.path, origin, did_you_mean });
                }
            }
        }
        Ok(())
    }

    fn add_environment(&mut self, loader: &Loader) -> Result<(), ConfigError> {
        let Some(prefix) = &loader.env_prefix else { return Ok(()) };
        let variables = loader.environment.clone().unwrap_or_else(process_environment);
        for (alias, setting) in &loader.aliases {
            let at = *self.by_path.get(setting).ok_or_else(|| {
                ConfigError::BuiltIn(format!("{alias} is an alias of {setting}, which does not exist"))
            })?;
            if let Some((_, value)) = variables.iter().find(|(name, value)| name == alias && !value.is_empty()) {
                self.entries[at].set_text(value, Origin::Environment(alias.clone()));
            }
        }
        for (name, value) in &variables {
            if !name.starts_with(prefix.as_str()) || value.is_empty() || loader.ignored.contains(name) {
                continue;
            }
            let origin = Origin::Environment(name.clone());
            match self.by_variable.get(name) {
                Some(at) => self.entries[*at].set_text(value, origin),
                None => {
                    let known =
                        self.by_variable.keys().map(String::as_str).chain(loader.ignored.iter().map(String::as_str));
                    let did_you_mean = nearest(name, known).map(str::to_owned);
                    self.problems.push(Problem::Unknown { shown: name.clone(), origin, did_you_mean });
                }
            }
        }
        Ok(())
    }

    fn add_flag(&mut self, flag: &Flag) {
        let origin = Origin::Flag(flag.shown.clone());
        match self.by_path.get(&flag.setting) {
            Some(at) => self.entries[*at].set_text(&flag.value, origin),
            None => {
                let did_you_mean = nearest(&flag.setting, self.by_path.keys().map(String::as_str)).map(str::to_owned);
                self.problems.push(Problem::Unknown { shown: flag.setting.clone(), origin, did_you_mean });
            }
        }
    }

    /// Tries again with the default in place of each value that is refused, so that all are found. `None` once anything was.
    fn deserialize<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ConfigError> {
        let mut refused = false;
        for _ in 0..=self.entries.len() {
            let error = match serde_path_to_error::deserialize::<_, T>(Loose(self.tree())) {
                Ok(settings) if refused => return Ok(Some(settings).filter(|_| false)),
                Ok(settings) => return Ok(Some(settings)),
                Err(error) => error,
            };
            let (path, message) = (error.path().to_string(), error.inner().to_string());
            let Some(at) = self.changed_setting(&path) else {
                let field =
                    field_in_message(&message).map(|(_, field)| format!(" (field {field})")).unwrap_or_default();
                return if refused || !self.problems.is_empty() {
                    Ok(None)
                } else {
                    Err(ConfigError::BuiltIn(format!("at {path}{field}: {}", expectation(&message))))
                };
            };
            refused = true;
            let entry = &mut self.entries[at];
            self.problems.push(Problem::Invalid {
                setting: entry.default.path.clone(),
                value: mask::shown(&entry.default.path, &entry.value).to_string(),
                origin: entry.origin.clone(),
                expected: expectation(&message),
            });
            entry.set(entry.default.value.clone(), Origin::BuiltIn);
        }
        Ok(None)
    }

    /// The setting that serde's path leads to, if somebody set it.
    fn changed_setting(&self, path: &str) -> Option<usize> {
        let setting = path.split('[').next().unwrap_or(path);
        let mut prefix = setting;
        loop {
            if let Some(at) = self.by_path.get(prefix) {
                return (self.entries[*at].origin != Origin::BuiltIn).then_some(*at);
            }
            prefix = prefix.rsplit_once('.')?.0;
        }
    }

    fn origin(&self, setting: &str) -> Origin {
        self.by_path.get(setting).map_or(Origin::BuiltIn, |at| self.entries[*at].origin.clone())
    }

    fn tree(&self) -> serde_json::Value {
        let mut tree = serde_json::Map::new();
        for entry in self.entries.iter().filter(|entry| !entry.is_unset()) {
            let mut table = &mut tree;
            let mut parts = entry.default.path.split('.').peekable();
            while let Some(part) = parts.next() {
                if parts.peek().is_none() {
                    table.insert(part.to_owned(), json(&entry.value));
                    break;
                }
                let next = table.entry(part).or_insert_with(|| serde_json::Value::Object(serde_json::Map::new()));
                let serde_json::Value::Object(inner) = next else { break };
                table = inner;
            }
        }
        serde_json::Value::Object(tree)
    }
}

impl Entry {
    fn set(&mut self, value: toml::Value, origin: Origin) {
        self.value = value;
        self.origin = origin;
    }

    /// Takes the type of the default where the text fits it; the settings type decides about the rest.
    fn set_text(&mut self, text: &str, origin: Origin) {
        let parsed = match &self.default.value {
            toml::Value::Integer(_) => text.trim().parse::<i64>().ok().map(toml::Value::from),
            toml::Value::Float(_) => text.trim().parse::<f64>().ok().map(toml::Value::from),
            toml::Value::Boolean(_) => text.trim().parse::<bool>().ok().map(toml::Value::from),
            toml::Value::Array(_) => Some(split_list(text).map(toml::Value::from).collect::<Vec<_>>().into()),
            _ => None,
        };
        self.set(parsed.unwrap_or_else(|| text.into()), origin);
    }

    /// Optional and empty.
    fn is_unset(&self) -> bool {
        let empty = |value: &toml::Value| value.as_str().is_some_and(str::is_empty);
        empty(&self.default.value) && empty(&self.value)
            || self.default.value.is_table() && self.value.as_table().is_some_and(toml::Table::is_empty)
    }
}

fn json(value: &toml::Value) -> serde_json::Value {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(flag) => (*flag).into(),
        toml::Value::Datetime(at) => at.to_string().into(),
        toml::Value::Array(list) => list.iter().map(json).collect(),
        toml::Value::Table(table) => table.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
    }
}

/// A name or value that is not Unicode is shown with replacement characters and then refused as a value.
fn process_environment() -> Vec<(String, String)> {
    let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

#[cfg(test)]
mod tests;
