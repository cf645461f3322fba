use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a service keeps its data: `sqlite:millrace-data/{service}.db` or `postgres://user@host/millrace_{service}`.
///
/// `{service}` is replaced by the service's name. A PostgreSQL URL without it gets `_<service>` behind the database's
/// name, because services never share a database.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    Sqlite(PathBuf),
    Postgres(String),
}

/// What a database URL has to look like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a database URL: use sqlite:FOLDER/{{service}}.db or postgres://USER:PASSWORD@HOST/DATABASE")]
pub struct InvalidDatabaseUrl(String);

impl DatabaseUrl {
    /// The database of one service under a configured URL.
    pub fn for_service(configured: &str, service: &str) -> Result<Self, InvalidDatabaseUrl> {
        let has_placeholder = configured.contains("{service}");
        let filled = configured.replace("{service}", service);
        Ok(match filled.parse()? {
            Self::Postgres(url) if !has_placeholder => Self::Postgres(with_suffix(&url, service)),
            Self::Sqlite(path) if !has_placeholder => Self::Sqlite(path.join(format!("{service}.db"))),
            complete => complete,
        })
    }

    /// `SQLite` or `PostgreSQL`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        }
    }
}

/// Puts the service's name behind the database's name, before any query part.
fn with_suffix(url: &str, service: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, String::new()), |(base, query)| (base, format!("?{query}")));
    let after_scheme = base.find("://").map_or(0, |at| at + 3);
    match base[after_scheme..].find('/') {
        Some(slash) if !base[after_scheme + slash + 1..].is_empty() => format!("{base}_{service}{query}"),
        Some(_) => format!("{base}millrace_{service}{query}"),
        None => format!("{base}/millrace_{service}{query}"),
    }
}

impl FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    fn from_str(text: &str) -> Result<Self, InvalidDatabaseUrl> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(InvalidDatabaseUrl(text.into())) } else { Ok(Self::Sqlite(path.into())) };
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        Err(InvalidDatabaseUrl(text.to_owned()))
    }
}

impl fmt::Display for DatabaseUrl {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => {
                let after_scheme = url.find("://").map_or(0, |at| at + 3);
                match url[after_scheme..].rfind('@') {
                    Some(at) => write!(f, "{}…@{}", &url[..after_scheme], &url[after_scheme + at + 1..]),
                    None => f.write_str(url),
                }
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::DatabaseUrl;

    fn of(url: &str) -> DatabaseUrl {
        DatabaseUrl::for_service(url, "order").unwrap()
    }

    #[test]
    fn every_service_gets_a_database_of_its_own() {
        assert_eq!(of("sqlite:data/{service}.db"), DatabaseUrl::Sqlite("data/order.db".into()));
        assert_eq!(of("sqlite:data"), DatabaseUrl::Sqlite("data/order.db".into()));
        for (configured, meant) in [
            ("postgres://h/mill_{service}", "postgres://h/mill_order"),
            ("postgres://h/mill", "postgres://h/mill_order"),
            ("postgres://h/mill?a=b", "postgres://h/mill_order?a=b"),
            ("postgres://h/", "postgres://h/millrace_order"),
            ("postgres://h", "postgres://h/millrace_order"),
        ] {
            assert_eq!(of(configured), DatabaseUrl::Postgres(meant.into()), "{configured}");
        }
    }

    #[test]
    fn a_wrong_url_is_refused_and_a_password_is_never_shown() {
        for wrong in ["mysql://h/d", "", "sqlite:", "/var/lib/x.db"] {
            assert!(DatabaseUrl::for_service(wrong, "order").is_err(), "{wrong}");
        }
        assert!(!of("postgres://u:secret@h/d").to_string().contains("secret"));
    }
}
