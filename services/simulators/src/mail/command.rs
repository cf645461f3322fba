//! SMTP commands, parsed. RFC 5321 section 4.1.

/// What a server says: a code and a line of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply(pub(super) u16, pub(super) String);

impl Reply {
    pub(super) fn new(code: u16, text: impl Into<String>) -> Self {
        Self(code, text.into())
    }
}

/// What a client may say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// EHLO, which asks for the list of extensions, or HELO, which does not; with the client's name.
    Hello {
        extended: bool,
        name: String,
    },
    /// The sender, empty for a bounce, and the size the client announces.
    Mail {
        from: String,
        size: Option<usize>,
    },
    Rcpt {
        to: String,
    },
    Data,
    Reset,
    Noop,
    Verify,
    Help,
    Quit,
}

impl Command {
    /// Parses a line without its line break. What it does not understand it refuses with the reply to give.
    pub(super) fn parse(line: &str) -> Result<Self, Reply> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => hello(true, rest),
            "HELO" => hello(false, rest),
            "MAIL" => mail(rest),
            "RCPT" => rcpt(rest),
            "DATA" => Ok(Self::Data),
            "RSET" => Ok(Self::Reset),
            "NOOP" => Ok(Self::Noop),
            "VRFY" => Ok(Self::Verify),
            "HELP" => Ok(Self::Help),
            "QUIT" => Ok(Self::Quit),
            "AUTH" | "STARTTLS" | "EXPN" | "BDAT" | "TURN" | "ETRN" => {
                Err(Reply::new(502, format!("{verb} is not implemented here")))
            }
            _ => Err(Reply::new(500, "Command not recognized")),
        }
    }
}

fn hello(extended: bool, name: &str) -> Result<Command, Reply> {
    match name {
        "" => Err(Reply::new(501, "Say your name: EHLO host.example")),
        name => Ok(Command::Hello { extended, name: name.to_owned() }),
    }
}

fn mail(rest: &str) -> Result<Command, Reply> {
    let (from, parameters) = path(rest, "FROM:")?;
    let mut size = None;
    for parameter in parameters.split_ascii_whitespace() {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match (name.to_ascii_uppercase().as_str(), value.to_ascii_uppercase().as_str()) {
            ("SIZE", value) => {
                size = Some(value.parse().map_err(|_| Reply::new(501, "SIZE wants a number of bytes"))?);
            }
            ("BODY", "7BIT" | "8BITMIME") | ("SMTPUTF8", "") => {}
            _ => return Err(Reply::new(555, format!("Parameter {parameter} is not supported"))),
        }
    }
    Ok(Command::Mail { from, size })
}

fn rcpt(rest: &str) -> Result<Command, Reply> {
    match path(rest, "TO:")? {
        (_, parameters) if !parameters.is_empty() => {
            Err(Reply::new(555, format!("Parameter {parameters} is not supported")))
        }
        (to, _) if to.is_empty() => Err(Reply::new(501, "A recipient is needed: RCPT TO:<name@host>")),
        (to, _) => Ok(Command::Rcpt { to }),
    }
}

/// Splits `FROM:<address> PARAMETERS`. A quoted local part may hold a `>`.
fn path<'a>(rest: &'a str, keyword: &str) -> Result<(String, &'a str), Reply> {
    let syntax = || Reply::new(501, format!("Syntax: {keyword}<name@host>"));
    let (head, tail) = rest.split_at_checked(keyword.len()).ok_or_else(syntax)?;
    if !head.eq_ignore_ascii_case(keyword) {
        return Err(syntax());
    }
    let inner = tail.trim_start().strip_prefix('<').ok_or_else(syntax)?;
    let (mut quoted, mut escaped) = (false, false);
    let end = inner.find(|character: char| {
        let ends = character == '>' && !quoted;
        if character == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = character == '\\' && !escaped;
        ends
    });
    let (address, parameters) = end.and_then(|end| inner.split_at_checked(end)).ok_or_else(syntax)?;
    let valid = address.is_empty()
        || address.eq_ignore_ascii_case("postmaster")
        || address.rsplit_once('@').is_some_and(|(local, host)| !local.is_empty() && !host.is_empty());
    match valid {
        true => Ok((address.to_owned(), parameters.trim_start_matches('>').trim())),
        false => Err(Reply::new(501, format!("<{address}> is not an address of the form name@host"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_and_keywords_are_taken_in_any_case() {
        let from = |from: &str, size| Ok(Command::Mail { from: from.into(), size });
        assert_eq!(Command::parse("mail from:<a@b>"), from("a@b", None));
        assert_eq!(Command::parse("MAIL FROM: <a@b> size=12 BODY=8bitmime"), from("a@b", Some(12)));
        assert_eq!(Command::parse("Quit"), Ok(Command::Quit));
    }

    #[test]
    fn the_null_sender_of_a_bounce_is_taken() {
        assert_eq!(Command::parse("MAIL FROM:<>"), Ok(Command::Mail { from: String::new(), size: None }));
        assert_eq!(Command::parse("RCPT TO:<>").map_err(|reply| reply.0), Err(501));
    }

    #[test]
    fn a_quoted_local_part_may_hold_an_angle_bracket() {
        let to = r#""a>\">b"@c"#;
        assert_eq!(Command::parse(&format!("RCPT TO:<{to}>")), Ok(Command::Rcpt { to: to.into() }));
    }

    #[test]
    fn nonsense_is_refused_with_the_code_the_standard_gives_it() {
        for (line, code) in [
            ("", 500),
            ("HELLO you", 500),
            ("EHLO", 501),
            ("STARTTLS", 502),
            ("MAIL", 501),
            ("MAIL FROM:a@b", 501),
            ("MAIL FROM:<a@b", 501),
            ("MAIL FROM:<a@b> SIZE=x", 501),
            ("MAIL FROM:<a@b> MAGIC=1", 555),
            ("RCPT TO:<nobody>", 501),
            ("RCPT FRÖM:<a@b>", 501),
        ] {
            assert_eq!(Command::parse(line).map_err(|reply| reply.0), Err(code), "{line}");
        }
    }
}
