//! Looking at dead letters and at the audit.

use std::process::ExitCode;

use base64::Engine;
use millrace::config::HumanDuration;
use millrace::dead_letter::Reason;
use millrace::dead_letters::audit::{Entry, What};
use millrace::dead_letters::{DeadLetters, Group, Letter, State, group};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::select::{InState, Where};
use super::{failed, json_text};
use crate::commands::Context;
use crate::failure::CommandResult;
use crate::output;

#[derive(Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    place: Where,
    /// Only with this reason: undecodable, permanent, attempts_exhausted, never_answered
    #[arg(long)]
    reason: Option<Reason>,
    #[arg(long, value_enum, default_value_t)]
    state: InState,
    /// One line for each, with its id
    #[arg(long)]
    flat: bool,
}

#[derive(Debug, clap::Args)]
pub struct One {
    /// Its id, as `millrace dead-letters list --flat` shows it
    pub id: u64,
}

#[derive(Debug, clap::Args)]
pub struct Audit {
    /// Only within this time: 90s, 1h, 7d
    #[arg(long)]
    since: Option<HumanDuration>,
}

/// Characters of an error shown in a table.
const ERROR_WIDTH: usize = 80;
/// Ids shown of a group.
const IDS: usize = 5;

pub async fn list(context: &Context, desk: &DeadLetters, args: List) -> CommandResult {
    let listing = desk.list(&args.place.filter(args.reason, args.state)).await.map_err(failed)?;
    let letters = &listing.letters;
    let groups = group(letters);
    match (context.json, args.flat) {
        (true, true) => output::json(&json!({
            "letters": letters.iter().map(as_json).collect::<Vec<_>>(), "unreadable": listing.unreadable,
        })),
        (true, false) => output::json(&json!({
            "count": letters.len(), "groups": groups, "unreadable": listing.unreadable,
        })),
        (false, true) if !letters.is_empty() => output::table(
            &["ID", "FAILED", "CONSUMER", "SUBJECT", "REASON", "TRIES", "STATE", "ABOUT", "ERROR"],
            letters.iter().map(row),
        ),
        (false, false) if !letters.is_empty() => output::table(
            &["COUNT", "CONSUMER", "SUBJECT", "REASON", "OLDEST", "NEWEST", "IDS", "LAST ERROR"],
            groups.iter().map(group_row),
        ),
        _ => output::note("No dead letter matches."),
    }
    if !context.json && !listing.unreadable.is_empty() {
        output::note(&format!("Messages of the stream that do not say what they are: {:?}", listing.unreadable));
    }
    let unanswered = letters.iter().filter(|letter| letter.state == State::ReplayUnanswered).count();
    if !context.json && unanswered > 0 {
        output::note(&format!(
            "{unanswered} of them were replayed and nothing was heard of it (--flat shows which): is the service running? Replaying again is harmless."
        ));
    }
    if !context.json && !letters.is_empty() && !args.flat {
        output::note(
            "one: millrace dead-letters show ID   all of a kind: millrace dead-letters replay --all --canary 1 --consumer ...",
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn row(letter: &Letter) -> Vec<String> {
    let about = &letter.about;
    vec![
        letter.id.to_string(),
        at(about.last_failed_at),
        about.consumer.clone(),
        about.subject.clone(),
        about.reason.as_str().to_owned(),
        about.attempts.to_string(),
        letter.state.as_str().to_owned(),
        header(letter, "ce-subject").unwrap_or("-").to_owned(),
        short(about.errors.first().map_or("", String::as_str)),
    ]
}

fn group_row(group: &Group) -> Vec<String> {
    let mut ids: Vec<String> = group.ids.iter().take(IDS).map(u64::to_string).collect();
    if group.ids.len() > IDS {
        ids.push("...".into());
    }
    vec![
        group.count.to_string(),
        group.consumer.clone(),
        group.subject.clone(),
        group.reason.as_str().to_owned(),
        at(group.oldest),
        at(group.newest),
        ids.join(" "),
        short(&group.error),
    ]
}

pub async fn one(context: &Context, desk: &DeadLetters, id: u64) -> CommandResult {
    let letter = desk.get(id).await.map_err(failed)?;
    if context.json {
        let mut shown = as_json(&letter);
        let text = std::str::from_utf8(&letter.body).ok();
        shown["body"] = text.map_or(Value::Null, |text| serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
        shown["body_base64"] = json!(base64::engine::general_purpose::STANDARD.encode(&letter.body));
        output::json(&shown);
    } else {
        print(&letter);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(letter: &Letter) {
    let about = &letter.about;
    let field = |name: &str, value: &str| output::line(&format!("  {name:<11} {value}"));
    output::line(&format!("dead letter {}  {}", letter.id, state(&letter.state)));
    field("consumer", &about.consumer);
    field("subject", &format!("{}  (stream {}, message {})", about.subject, about.stream, about.stream_seq));
    let tries = if about.attempts == 1 { "1 attempt".to_owned() } else { format!("{} attempts", about.attempts) };
    field("reason", &format!("{} after {tries}", about.reason.as_str()));
    field("published", &at(about.published_at));
    let first = about.first_failed_at.map_or("unknown".to_owned(), at);
    field("failed", &format!("first {first}, last {}", at(about.last_failed_at)));
    if let Some(of) = &about.replay_of {
        field("replay of", &format!("dead letter {}", of.letter));
    }
    output::line("errors, outermost first:");
    about.errors.iter().for_each(|error| output::line(&format!("  {error}")));
    output::line(if about.headers.is_empty() { "headers: none" } else { "headers:" });
    about.headers.iter().for_each(|(name, value)| output::line(&format!("  {name}: {value}")));
    output::line(&format!("body, {} bytes:", letter.body.len()));
    match std::str::from_utf8(&letter.body) {
        // As it is where it is no JSON, but nothing that would steer the terminal.
        Ok(text) => output::line(&json_text::pretty(text).unwrap_or_else(|| visible(text))),
        Err(_) => output::line("  no text; --json shows it in base64"),
    }
    if !letter.history.is_empty() {
        output::line("what was done about it:");
        letter.history.iter().for_each(|entry| output::line(&format!("  {}", sentence(entry))));
    }
    if letter.state.waits() {
        let id = letter.id;
        output::note(&format!(
            "next: millrace dead-letters replay {id} [--edit]   or: millrace dead-letters discard {id} --reason TEXT"
        ));
    }
}

pub async fn audit(context: &Context, desk: &DeadLetters, args: Audit) -> CommandResult {
    let mut entries = desk.audit().await.map_err(failed)?;
    if let Some(since) = args.since {
        let start = OffsetDateTime::now_utc() - since.get();
        entries.retain(|entry| entry.at >= start);
    }
    if context.json {
        output::json(&json!({ "entries": entries }));
    } else {
        entries.iter().for_each(|entry| output::line(&format!("letter {:<6} {}", entry.letter, sentence(entry))));
    }
    Ok(ExitCode::SUCCESS)
}

fn sentence(entry: &Entry) -> String {
    let what = match &entry.what {
        What::Replayed { corrected: true, .. } => "replayed, corrected".to_owned(),
        What::Replayed { .. } => "replayed".to_owned(),
        What::NotSent { error, .. } => format!("the replay did not leave: {error}"),
        What::Handled { .. } => "handled the replay".to_owned(),
        What::FailedAgain { dead_letter, .. } => format!("failed again: dead letter {dead_letter}"),
        What::Discarded { reason, .. } => format!("discarded: {reason}"),
    };
    format!("{:<24}  {:<24}  {what}", at(entry.at), entry.who)
}

fn state(state: &State) -> String {
    match state {
        State::FailedAgain { dead_letter } => format!("failed again: dead letter {dead_letter} waits in its place"),
        State::Discarded { reason } => format!("discarded: {reason}"),
        State::BeingReplayed => "being replayed".to_owned(),
        State::ReplayUnanswered => "replayed, and nothing was heard of it: waiting again".to_owned(),
        other => other.as_str().to_owned(),
    }
}

fn as_json(letter: &Letter) -> Value {
    let mut value = serde_json::to_value(&letter.about).unwrap_or_default();
    value["id"] = json!(letter.id);
    value["size_bytes"] = json!(letter.size);
    value["state"] = json!(letter.state.as_str());
    match &letter.state {
        State::FailedAgain { dead_letter } => value["failed_again_as"] = json!(dead_letter),
        State::Discarded { reason } => value["discarded_because"] = json!(reason),
        _ => {}
    }
    value["history"] = json!(letter.history);
    value
}

fn header<'a>(letter: &'a Letter, name: &str) -> Option<&'a str> {
    letter.about.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

fn at(time: OffsetDateTime) -> String {
    let seconds = time.replace_nanosecond(time.millisecond() as u32 * 1_000_000).unwrap_or(time);
    seconds.format(&Rfc3339).unwrap_or_default()
}

fn short(text: &str) -> String {
    let text = visible(&text.replace('\n', " "));
    match text.char_indices().nth(ERROR_WIDTH) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}
