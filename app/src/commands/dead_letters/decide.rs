//! Replaying and discarding.

use std::io::IsTerminal;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use millrace::config::HumanDuration;
use millrace::dead_letter::Reason;
use millrace::dead_letters::{Correction, DeadLetters, Ended, Options, Outcome, Report};
use serde_json::json;

use super::select::Which;
use super::{edit, exit_code, failed};
use crate::commands::Context;
use crate::failure::{CommandResult, Failure};
use crate::output;

#[derive(Debug, clap::Args)]
pub struct Replay {
    #[command(flatten)]
    which: Which,
    /// Only with this reason: undecodable, permanent, attempts_exhausted, never_answered
    #[arg(long)]
    reason: Option<Reason>,
    /// Replay so many first, and the others only if all of these were handled
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    canary: Option<u32>,
    /// Most replays sent in a second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Correct the body in $EDITOR first; for one dead letter
    #[arg(long, conflicts_with_all = ["body", "all"])]
    edit: bool,
    /// Replay with the body in this file instead; for one dead letter
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    body: Option<PathBuf>,
    /// Set a header, or take it away with an empty value; for one dead letter
    #[arg(long = "header", value_name = "NAME=VALUE", conflicts_with = "all")]
    headers: Vec<String>,
    /// Also those replayed or discarded before, which is harmless, and those older than inbox.keep_handled, whose effect may
    /// come twice
    #[arg(long)]
    again: bool,
    /// How long to wait for results after the last was sent; the consumer's own retries take their time
    #[arg(long, default_value = "60s", value_name = "DURATION")]
    wait: HumanDuration,
    /// Who stands in the audit [default: $USER@host]
    #[arg(long = "as", value_name = "WHO")]
    pub by: Option<String>,
    /// Obey MILLRACE_CRASH_AT
    #[arg(long, hide = true)]
    pub under_test: bool,
}

#[derive(Debug, clap::Args)]
pub struct Discard {
    #[command(flatten)]
    which: Which,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who stands in the audit [default: $USER@host]
    #[arg(long = "as", value_name = "WHO")]
    pub by: Option<String>,
}

/// More than these are counted, not listed one by one, and get a progress bar.
const FEW: usize = 20;

pub async fn replay(context: &Context, desk: &DeadLetters, args: Replay) -> CommandResult {
    let ids = args.which.ids(desk, args.reason).await?;
    let options = Options {
        canary: args.canary.map(|count| count as usize),
        per_second: args.rate,
        again: args.again,
        remembered: Some(context.settings.inbox.keep_handled.get()),
        correction: correction(desk, &ids, &args).await?,
        wait: args.wait.get(),
    };
    let bar = bar(context, ids.len());
    let report = desk.replay(&ids, &options, |now| {
        bar.set_position((now.handled + now.failed_again) as u64);
        bar.set_message(format!("sent {}, handled {}, failed again {}", now.sent, now.handled, now.failed_again));
    });
    let report = report.await.map_err(failed)?;
    bar.finish_and_clear();
    if context.json {
        output::json(&report);
    } else {
        tell(&report);
    }
    Ok(exit_code(report.all_handled()))
}

async fn correction(desk: &DeadLetters, ids: &[u64], args: &Replay) -> Result<Correction, Failure> {
    let mut correction = Correction::default();
    for header in &args.headers {
        let (name, value) = header.split_once('=').ok_or_else(|| {
            Failure::new(format!("--header {header}: there is no =")).remedy("--header NAME=VALUE").usage()
        })?;
        correction.headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    if let Some(file) = &args.body {
        let body = std::fs::read(file).map_err(|e| Failure::new(format!("--body {}: {e}", file.display())).usage())?;
        correction.body = Some(body.into());
    }
    if args.edit {
        let [id] = ids else {
            return Err(Failure::new("one dead letter is corrected at a time").remedy("give one id").usage());
        };
        let letter = desk.get(*id).await.map_err(failed)?;
        correction.body = Some(edit::edited(*id, &letter.body).await?.into());
    }
    Ok(correction)
}

fn bar(context: &Context, count: usize) -> ProgressBar {
    if context.json || count <= FEW || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(count as u64);
    match ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn tell(report: &Report) {
    let letters = &report.letters;
    if letters.is_empty() {
        return output::note("No dead letter matches.");
    }
    let count = |wanted: fn(&Outcome) -> bool| report.count(wanted);
    let handled = count(|outcome| *outcome == Outcome::Handled);
    // Of many, only what needs somebody.
    let notable: Vec<&Ended> = letters
        .iter()
        .filter(|ended| letters.len() <= FEW || !matches!(ended.outcome, Outcome::Handled | Outcome::NotTried))
        .collect();
    notable.iter().take(FEW).for_each(|ended| output::line(&sentence(ended)));
    if notable.len() > FEW {
        output::line(&format!("... and {} more", notable.len() - FEW));
    }
    output::line(&format!("{handled} of {} handled.", letters.len()));
    if report.stopped_by_canary {
        let left = count(|outcome| *outcome == Outcome::NotTried);
        output::note(&format!(
            "The first were not all handled, so the other {left} were not replayed and wait as before."
        ));
    }
    if count(|outcome| matches!(outcome, Outcome::FailedAgain { .. })) > 0 {
        output::note("What failed again waits as a new dead letter: millrace dead-letters show ID");
    }
    if count(|outcome| *outcome == Outcome::StillBeingHandled) > 0 {
        output::note("What is still being handled will say so in: millrace dead-letters audit");
    }
}

fn sentence(ended: &Ended) -> String {
    let text = match &ended.outcome {
        Outcome::Handled => "handled".to_owned(),
        Outcome::FailedAgain { dead_letter } => format!("failed again, dead letter {dead_letter}"),
        Outcome::StillBeingHandled => "sent, and still being handled; is its service running?".to_owned(),
        Outcome::NotSent { why } => format!("not sent: {why}"),
        Outcome::Refused { why } => format!("left alone: {why}"),
        Outcome::NotTried => "not tried".to_owned(),
        Outcome::Discarded => "discarded".to_owned(),
    };
    format!("{:>8}  {text}", ended.id)
}

pub async fn discard(context: &Context, desk: &DeadLetters, args: Discard) -> CommandResult {
    if args.reason.trim().is_empty() {
        return Err(Failure::new("--reason is empty").remedy("say why, for whoever asks later").usage());
    }
    let ids = args.which.ids(desk, None).await?;
    let ended = desk.discard(&ids, args.reason.trim()).await.map_err(failed)?;
    let discarded = ended.iter().filter(|one| one.outcome == Outcome::Discarded).count();
    if context.json {
        output::json(&json!({ "letters": ended }));
    } else {
        ended
            .iter()
            .filter(|one| ended.len() <= FEW || one.outcome != Outcome::Discarded)
            .for_each(|one| output::line(&sentence(one)));
        output::line(&format!("{discarded} of {} discarded.", ended.len()));
    }
    Ok(exit_code(discarded == ended.len()))
}
