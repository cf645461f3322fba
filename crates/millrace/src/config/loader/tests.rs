use serde::Deserialize;

use super::super::{HumanDuration, Invalid, reference};
use super::*;

const DEFAULTS: &str = r#"# Where NATS is.
[nats]
# Servers, separated by commas.
url = "nats://localhost:4222"
# Of the user. Empty: none.
password = ""

[http]
# The port.
# Of the API.
port = 8080
max_in_flight = 512
workers = ""
hosts = ["localhost"]
verbose = false
deadline = "15s"
mode = "safe"
"#;

#[derive(Debug, Deserialize)]
struct Settings {
    nats: Nats,
    http: Http,
}

#[derive(Debug, Deserialize)]
struct Nats {
    url: String,
    password: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Http {
    port: u16,
    max_in_flight: usize,
    workers: Option<u32>,
    hosts: Vec<String>,
    verbose: bool,
    deadline: HumanDuration,
    mode: Mode,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Safe,
    Fast,
}

impl Validate for Settings {
    fn validate(&self) -> Result<(), Vec<Invalid>> {
        if self.http.max_in_flight == 0 {
            return Err(vec![Invalid::new("http.max_in_flight", 0, "a number greater than 0")]);
        }
        Ok(())
    }
}

fn loader(environment: &[(&str, &str)]) -> Loader {
    Loader::new(DEFAULTS)
        .env_prefix("MILLRACE")
        .environment(environment.iter().copied())
        .aliases([("NATS_URL", "nats.url")])
        .ignore(["MILLRACE_CONFIG"])
}

fn error(loader: Loader) -> String {
    loader.load::<Settings>().unwrap_err().to_string()
}

/// Deleted when dropped.
fn file(text: &str) -> tempfile::TempPath {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file.into_temp_path()
}

#[test]
fn the_defaults_alone_are_a_configuration() {
    let settings = loader(&[]).load::<Settings>().unwrap().settings;
    assert_eq!(settings.nats.url, "nats://localhost:4222");
    assert_eq!(settings.nats.password, None);
    assert_eq!(settings.http.workers, None);
    assert_eq!(settings.http.deadline, HumanDuration::from_secs(15));
    assert_eq!(settings.http.mode, Mode::Safe);
    assert!(!settings.http.verbose);
}

#[test]
fn a_later_layer_wins() {
    let path = file("[http]\nport = 1\nmax_in_flight = 2\nmode = \"fast\"\n[nats]\n");
    let environment = [("MILLRACE_HTTP_PORT", "3"), ("MILLRACE_HTTP_MAX_IN_FLIGHT", "4"), ("MILLRACE_CONFIG", "x")];
    let loaded = loader(&environment).file(Some(&path)).set("http.port", 5).load::<Settings>().unwrap();
    assert_eq!(loaded.settings.http.port, 5);
    assert_eq!(loaded.settings.http.max_in_flight, 4);
    assert_eq!(loaded.settings.http.mode, Mode::Fast);
    assert_eq!(loaded.effective.origin("http.port"), Some(&Origin::Flag("--http-port".into())));
    assert_eq!(loaded.effective.origin("http.mode"), Some(&Origin::File { path: path.to_path_buf(), line: 4 }));
}

#[test]
fn optional_settings_and_lists_can_come_from_the_environment() {
    let environment = [
        ("MILLRACE_HTTP_WORKERS", "7"),
        ("MILLRACE_HTTP_HOSTS", "a, b"),
        ("MILLRACE_NATS_PASSWORD", "12345"),
        ("MILLRACE_HTTP_VERBOSE", "on"),
    ];
    let settings = loader(&environment).load::<Settings>().unwrap().settings;
    assert_eq!(settings.http.workers, Some(7));
    assert_eq!(settings.http.hosts, ["a", "b"]);
    assert_eq!(settings.nats.password.as_deref(), Some("12345"));
    assert!(settings.http.verbose);
}

#[test]
fn an_alias_works_and_the_own_name_wins_over_it() {
    let alone = loader(&[("NATS_URL", "nats://a")]).load::<Settings>().unwrap();
    assert_eq!(alone.settings.nats.url, "nats://a");
    let both = loader(&[("MILLRACE_NATS_URL", "nats://b"), ("NATS_URL", "nats://a")]).load::<Settings>().unwrap();
    assert_eq!(both.settings.nats.url, "nats://b");
    let empty = loader(&[("NATS_URL", "")]).load::<Settings>().unwrap();
    assert_eq!(empty.settings.nats.url, "nats://localhost:4222");
}

#[test]
fn an_unknown_variable_is_refused_with_the_name_that_was_meant() {
    assert_eq!(
        error(loader(&[("MILLRACE_HTTP_PROT", "1")])),
        "wrong setting: there is no setting for the environment variable MILLRACE_HTTP_PROT; did you mean MILLRACE_HTTP_PORT?"
    );
    assert!(error(loader(&[("MILLRACE_XYZZY_PLUGH_QUUX", "1")])).ends_with("; remove it"));
}

#[test]
fn an_unknown_key_of_the_file_is_refused_with_its_line() {
    let path = file("[http]\nprot = 1\n");
    let shown = path.display();
    assert_eq!(
        error(loader(&[]).file(Some(&path))),
        format!("wrong setting: there is no setting http.prot ({shown}, line 2); did you mean http.port?")
    );
    let path = file("http = 5\n[nast]\n");
    let text = error(loader(&[]).file(Some(&path)));
    assert!(text.contains("http is 5") && text.contains("expected a section of settings"), "{text}");
    assert!(text.contains("there is no setting nast"), "{text}");
}

#[test]
fn a_wrong_value_is_named_with_its_origin_and_what_would_be_right() {
    assert_eq!(
        error(loader(&[("MILLRACE_HTTP_PORT", "http")])),
        "wrong setting: http.port is \"http\" (environment variable MILLRACE_HTTP_PORT); expected a whole number from 0 to 65535"
    );
    assert_eq!(
        error(loader(&[]).set("http.mode", "quick")),
        "wrong setting: http.mode is \"quick\" (flag --http-mode); expected \"safe\" or \"fast\""
    );
    let path = file("[http]\ndeadline = 15\n");
    let text = error(loader(&[]).file(Some(&path)));
    assert!(text.contains("http.deadline is 15 (") && text.contains("line 2") && text.contains("\"15s\""), "{text}");
    assert_eq!(
        error(loader(&[]).set("http.max_in_flight", 0)),
        "wrong setting: http.max_in_flight is 0 (flag --http-max-in-flight); expected a number greater than 0"
    );
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let environment = [("MILLRACE_HTTP_PORT", "70000"), ("MILLRACE_HTTP_DEADLINE", "soon"), ("MILLRACE_NOPE", "1")];
    let text = error(loader(&environment).set("http.workers", "many"));
    assert!(text.starts_with("4 wrong settings:\n  - "), "{text}");
    for part in ["http.port is 70000", "http.deadline is \"soon\"", "http.workers is \"many\"", "MILLRACE_NOPE"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_missing_or_broken_file_is_named() {
    let text = error(loader(&[]).file(Some("/none/millrace.toml")));
    assert_eq!(text, "the configuration file /none/millrace.toml cannot be read");
    let path = file("[http\nport = 1");
    let text = error(loader(&[]).file(Some(&path)));
    assert!(text.contains("is not valid TOML") && text.contains("line 1"), "{text}");
    assert!(loader(&[]).file_if_present("/none/millrace.toml").load::<Settings>().is_ok());
}

#[test]
fn the_dump_is_commented_toml_with_origins_and_without_secrets() {
    let environment = [("MILLRACE_NATS_PASSWORD", "hunter2"), ("NATS_URL", "nats://u:hunter2@host")];
    let dump = loader(&environment).set("http.hosts", "a,b").load::<Settings>().unwrap().effective.dump();
    assert!(!dump.contains("hunter2"), "{dump}");
    assert!(dump.contains("# Servers, separated by commas.\n"), "{dump}");
    assert!(dump.contains("url = \"nats://***@host\"  # environment variable NATS_URL\n"), "{dump}");
    assert!(dump.contains("password = \"***\"  # environment variable MILLRACE_NATS_PASSWORD\n"), "{dump}");
    assert!(dump.contains("hosts = [\"a\", \"b\"]  # flag --http-hosts\n"), "{dump}");
    assert!(dump.contains("port = 8080  # built-in default\n"), "{dump}");
    assert!(dump.parse::<toml::Table>().is_ok());
}

#[test]
fn a_secret_is_masked_in_errors() {
    let path = file("[nats]\npassword = 12345\n");
    let text = error(loader(&[]).file(Some(&path)));
    assert!(text.contains("nats.password is \"***\"") && !text.contains("12345"), "{text}");
}

#[test]
fn names_that_meet_in_the_environment_are_a_defect() {
    let clash = Loader::new("a_b = 1\n[a]\nb = 2\n").env_prefix("X").environment::<&str, &str>([]);
    assert!(clash.load::<Settings>().unwrap_err().to_string().contains("are both X_A_B"));
}

#[test]
fn the_reference_lists_every_setting_with_its_comment() {
    let settings = reference(DEFAULTS, "MILLRACE").unwrap();
    assert_eq!(settings.len(), 9);
    let port = settings.iter().find(|setting| setting.name == "http.port").unwrap();
    assert_eq!(port.variable, "MILLRACE_HTTP_PORT");
    assert_eq!(port.default, "8080");
    assert_eq!(port.text, "The port. Of the API.");
}
