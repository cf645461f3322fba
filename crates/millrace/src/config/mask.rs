//! Secrets never leave through a dump, an error or a log line.

const MASK: &str = "***";
/// A setting whose name ends in one of these words is a secret.
const SECRET_WORDS: [&str; 6] = ["secret", "password", "token", "key", "seed", "nkey"];

/// `text` with the user information of every URL in it, and passwords of `key=value` connection strings, replaced.
pub fn mask_url(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        masked.push_str(before);
        // The user information ends at the last @ before the path.
        let end = after.find(['/', '?', '#', ',', ' ', '"']).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                masked.push_str(MASK);
                masked.push('@');
                masked.push_str(host);
            }
            None => masked.push_str(authority),
        }
        rest = tail;
    }
    masked.push_str(rest);
    mask_password_pair(&masked)
}

/// `host=db password=secret` and `?password=secret`.
fn mask_password_pair(text: &str) -> String {
    let Some(at) = text.find("password=") else { return text.to_owned() };
    let (before, value) = text.split_at(at + "password=".len());
    // A quoted password may hold spaces.
    let end = match value.strip_prefix('\'') {
        Some(quoted) => quoted.find('\'').map_or(value.len(), |end| end + 2),
        None => value.find([' ', '&', '"']).unwrap_or(value.len()),
    };
    format!("{before}{MASK}{}", value.get(end..).unwrap_or_default())
}

/// The value of the setting `path` as it may be shown.
pub(super) fn shown(path: &str, value: &toml::Value) -> toml::Value {
    match value {
        toml::Value::String(text) if text.is_empty() => value.clone(),
        _ if is_secret(path) => toml::Value::from(MASK),
        toml::Value::String(text) => toml::Value::from(mask_url(text)),
        toml::Value::Array(list) => list.iter().map(|item| shown(path, item)).collect::<Vec<_>>().into(),
        _ => value.clone(),
    }
}

pub(super) fn is_secret(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    let word = name.rsplit(['_', '-']).next().unwrap_or(name);
    SECRET_WORDS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_information_is_masked_wherever_it_hides() {
        for (plain, masked) in [
            ("nats://localhost:4222", "nats://localhost:4222"),
            ("nats://token@host:4222", "nats://***@host:4222"),
            ("postgres://u:p@ss@db/x?a=b", "postgres://***@db/x?a=b"),
            ("nats://a:b@h1,nats://c:d@h2", "nats://***@h1,nats://***@h2"),
            ("host=db password=hunter2 user=u", "host=db password=*** user=u"),
            ("host=db password='a b' user=u", "host=db password=*** user=u"),
            ("postgres://db/x?password=hunter2&y=z", "postgres://db/x?password=***&y=z"),
        ] {
            assert_eq!(mask_url(plain), masked);
        }
    }

    #[test]
    fn secret_settings_are_known_by_their_last_word() {
        for secret in ["nats.password", "payment.api_key", "webhook.signing_secret", "token"] {
            assert!(is_secret(secret), "{secret}");
        }
        for open in ["http.idempotency_key_ttl", "nats.credentials_file", "nats.tls_key_file", "token.lifetime"] {
            assert!(!is_secret(open), "{open}");
        }
    }
}
