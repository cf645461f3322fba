//! What a run comes to, for people and for programs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::Backend;
use super::checks::Finding;
use super::customers::Counts;
use super::evidence::{Evidence, Id, Message};
use super::sabotage::Safety;
use super::setup::SHORTENED;
use crate::output;

/// Violations shown in words; the JSON has as many.
const SHOWN: usize = 10;
/// Of a run without a safety in which no invariant was violated: neither a success nor the failure that was asked for.
const EXIT_UNNOTICED: u8 = 3;
/// Dead letters and the like, shown below the table.
const REMARKS: usize = 12;

/// Where it took place.
pub enum Place {
    /// In processes of its own.
    Own(Backend),
    /// At the order API of a system that is deployed.
    Target(Vec<String>),
}

pub struct Report {
    pub seed: u64,
    pub place: Place,
    /// The safety that was switched off: then something has to be violated.
    pub without: Option<Safety>,
    /// The command that does the same again.
    pub again: String,
    pub orders: u32,
    /// Placing orders, waiting until everything settled, everything.
    pub placing: Duration,
    pub settling: Duration,
    pub took: Duration,
    pub faults: BTreeMap<String, u64>,
    pub requests: Requests,
    pub findings: Vec<Finding>,
    /// What had not settled when there was no more time.
    pub unsettled: Vec<String>,
    /// What went wrong beside the invariants.
    pub problems: Vec<String>,
    pub examples: Vec<Example>,
    pub folder: Option<PathBuf>,
}

/// What customers saw of the API.
#[derive(Debug, Default)]
pub struct Requests {
    pub accepted: u64,
    pub sent: u64,
    pub unanswered: u64,
    pub busy: u64,
    pub replayed: u64,
}

/// An order that broke an invariant, with all that is known of it.
pub struct Example {
    pub invariant: &'static str,
    pub order: Id,
    pub known: Vec<String>,
    /// Everything that was published about it, and whether the order service has heard of it.
    pub timeline: Vec<String>,
}

impl Requests {
    pub fn of(counts: &Counts) -> Self {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            accepted: read(&counts.accepted),
            sent: read(&counts.requests),
            unanswered: read(&counts.unanswered),
            busy: read(&counts.busy),
            replayed: read(&counts.replayed),
        }
    }
}

/// The first order of each invariant that was violated.
pub fn examples(findings: &[Finding], evidence: &Evidence) -> Vec<Example> {
    let first = |finding: &Finding| {
        let order = finding.violations.iter().find_map(|violation| violation.order.clone())?;
        let (known, timeline) = (known_of(&order, evidence), timeline_of(&order, evidence));
        Some(Example { invariant: finding.id, known, timeline, order })
    };
    findings.iter().filter_map(first).collect()
}

/// An order's story as every side tells it.
fn known_of(order: &Id, evidence: &Evidence) -> Vec<String> {
    let mut known = Vec::new();
    if let Some(wish) = evidence.wishes.iter().find(|wish| wish.accepted.contains(order)) {
        known.push(format!("wanted: {wish:?}"));
    }
    if let Some(row) = evidence.orders.get(order) {
        known.push(format!("order database: {row:?}"));
    }
    known.push(format!(
        "payment: {:?}, reservation: {:?}",
        evidence.payments.get(order),
        evidence.reservations.get(order)
    ));
    known.extend(
        evidence
            .charges
            .iter()
            .filter(|charge| charge.order.as_ref() == Some(order))
            .map(|c| format!("gateway: {c:?}")),
    );
    let mails = evidence.mails.iter().filter(|(id, _)| id.starts_with(order.as_str()));
    known.extend(mails.map(|(id, count)| format!("mail: {id}, {count} times")));
    known
}

fn timeline_of(order: &Id, evidence: &Evidence) -> Vec<String> {
    let entries = evidence.timelines.get(order).map(Vec::as_slice).unwrap_or_default();
    let mut messages: Vec<_> =
        evidence.messages.iter().filter(|message| message.order.as_ref() == Some(order)).collect();
    messages.sort_by(|a, b| a.at.cmp(&b.at));
    let event_of = |message: &Message| message.event_id.clone().unwrap_or_default();
    let mut timeline: Vec<_> = messages
        .iter()
        .map(|message| {
            let event = event_of(message);
            let shown = entries.iter().filter(|entry| entry.event_id == event).count();
            let Message { at, subject, stream, seq, .. } = message;
            format!("{at}  {subject:<24} {stream} {seq:>6}  {event}  on the timeline {shown} times")
        })
        .collect();
    let unpublished =
        entries.iter().filter(|entry| !messages.iter().any(|message| event_of(message) == entry.event_id));
    timeline.extend(unpublished.map(|entry| {
        format!("{:<30}  {:<24} on no stream  {}  on the timeline", "", entry.event_type, entry.event_id)
    }));
    timeline
}

impl Report {
    pub fn passed(&self) -> bool {
        self.unsettled.is_empty()
            && self.problems.is_empty()
            && !self.findings.is_empty()
            && self.findings.iter().all(|finding| finding.violations.is_empty())
    }

    /// A run without a safety in which nobody noticed says nothing good about the checks.
    fn went_unnoticed(&self) -> bool {
        self.without.is_some() && self.violated().next().is_none()
    }

    pub fn exit_code(&self) -> ExitCode {
        match (self.went_unnoticed(), self.passed()) {
            (true, _) => ExitCode::from(EXIT_UNNOTICED),
            (false, true) => ExitCode::SUCCESS,
            (false, false) => ExitCode::FAILURE,
        }
    }

    /// The invariants that do not hold.
    fn violated(&self) -> impl Iterator<Item = &'static str> {
        self.findings.iter().filter(|finding| !finding.violations.is_empty()).map(|finding| finding.id)
    }

    pub fn print(&self) {
        output::line("");
        let row = |finding: &Finding| {
            let violations = match finding.violations.len() {
                0 if finding.unchecked.is_some() => "not checked".to_owned(),
                0 => "none".to_owned(),
                count => format!("{count} VIOLATED"),
            };
            vec![finding.id.to_owned(), finding.promise.to_owned(), finding.checked.to_string(), violations]
        };
        output::table(&["", "INVARIANT", "CHECKED", "VIOLATIONS"], self.findings.iter().map(row));
        output::line("");
        for finding in &self.findings {
            for violation in finding.violations.iter().take(SHOWN) {
                let order = violation.order.as_deref().map(|id| format!(" order {id}")).unwrap_or_default();
                output::line(&format!("{}{order}: {}", finding.id, violation.what));
            }
            if finding.violations.len() > SHOWN {
                output::line(&format!("{}: and {} more", finding.id, finding.violations.len() - SHOWN));
            }
        }
        for finding in &self.findings {
            if let Some(why) = &finding.unchecked {
                output::line(&format!("{} was not checked: {why}", finding.id));
            }
        }
        for example in &self.examples {
            output::line(&format!("\n{}, order {}:", example.invariant, example.order));
            example.known.iter().for_each(|line| output::line(&format!("    {line}")));
            output::line("    timeline:");
            example.timeline.iter().for_each(|line| output::line(&format!("      {line}")));
        }
        for what in &self.unsettled {
            output::line(&format!("Not settled: {what}"));
        }
        for problem in &self.problems {
            output::line(&format!("Problem: {problem}"));
        }
        for finding in &self.findings {
            let remarks = finding.remarks.iter().take(REMARKS).cloned().collect::<Vec<_>>().join("; ");
            if !remarks.is_empty() {
                output::line(&format!("{}: {remarks}", finding.id));
            }
        }
        self.print_numbers();
    }

    fn print_numbers(&self) {
        let faults: u64 = self.faults.values().sum();
        let list: Vec<_> = self.faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
        if let Place::Own(_) = self.place {
            output::line(&format!("\n{faults} faults: {}", list.join(", ")));
        }
        let Requests { accepted, sent, unanswered, busy, replayed } = &self.requests;
        output::line(&format!(
            "{accepted} of {} orders accepted in {:.1} s ({:.0}/s); {sent} requests, {unanswered} without an answer, {busy} told to come again, {replayed} recognised as repeated",
            self.orders,
            self.placing.as_secs_f64(),
            self.rate()
        ));
        output::line(&format!(
            "Settled {:.1} s after the last {}; {:.1} s in all, {}.",
            self.settling.as_secs_f64(),
            if matches!(self.place, Place::Own(_)) { "order and fault" } else { "order" },
            self.took.as_secs_f64(),
            match &self.place {
                Place::Own(backend) => format!("on {backend}"),
                Place::Target(urls) => format!("at {}", urls.join(", ")),
            }
        ));
        if let Some(folder) = &self.folder {
            output::line(&format!(
                "Kept in {}: logs/ (one of each process, with its settings), answers.jsonl, nats/, and the databases",
                folder.display()
            ));
        }
        let seed = self.seed;
        let open: Vec<_> = self.unchecked().collect();
        match self.passed() {
            true if !open.is_empty() => output::line(&format!(
                "Seed {seed}: every invariant that could be checked holds; not checked: {}.",
                open.join(", ")
            )),
            true => output::line(&format!("Seed {seed}: every invariant holds.")),
            false => output::line(&format!("Seed {seed}: FAILED. The same orders and faults again: {}", self.again)),
        }
        if let Some(safety) = self.without {
            let noticed: Vec<_> = self.violated().collect();
            output::line(&match noticed.as_slice() {
                [] => format!(
                    "Without {}, and NO INVARIANT NOTICED: the checks prove nothing about it (exit code {EXIT_UNNOTICED}).",
                    safety.name()
                ),
                _ => format!("Without {}, as was asked for, which broke {}.", safety.name(), noticed.join(", ")),
            });
        }
    }

    fn unchecked(&self) -> impl Iterator<Item = &'static str> {
        self.findings.iter().filter(|finding| finding.unchecked.is_some()).map(|finding| finding.id)
    }

    fn rate(&self) -> f64 {
        self.requests.accepted as f64 / self.placing.as_secs_f64().max(0.001)
    }

    pub fn to_json(&self) -> Value {
        let finding = |finding: &Finding| {
            let violations = finding.violations.iter().take(SHOWN);
            json!({
                "id": finding.id, "promise": finding.promise, "checked": finding.checked,
                "violations": finding.violations.len(),
                "first": violations.map(|v| json!({ "order_id": v.order, "what": v.what })).collect::<Vec<_>>(),
                "remarks": finding.remarks, "not_checked": finding.unchecked,
            })
        };
        let example = |one: &Example| {
            json!({
                "invariant": one.invariant, "order_id": one.order, "known": one.known, "timeline": one.timeline,
            })
        };
        let (backend, target, settings) = match &self.place {
            Place::Own(backend) => {
                (Some(backend.name()), None, Some(SHORTENED.iter().copied().collect::<BTreeMap<_, _>>()))
            }
            Place::Target(urls) => (None, Some(urls), None),
        };
        json!({
            "passed": self.passed(),
            "not_checked": self.unchecked().collect::<Vec<_>>(),
            "seed": self.seed,
            "backend": backend,
            "target": target,
            "sabotage": self.without.map(Safety::name),
            "violated": self.violated().collect::<Vec<_>>(),
            "went_unnoticed": self.went_unnoticed(),
            "again": self.again,
            "orders": self.orders,
            "accepted": self.requests.accepted,
            "accepted_per_s": self.rate(),
            "requests": {
                "sent": self.requests.sent, "unanswered": self.requests.unanswered, "busy": self.requests.busy,
                "replayed": self.requests.replayed,
            },
            "placing_ms": millis(self.placing),
            "settling_ms": millis(self.settling),
            "took_ms": millis(self.took),
            "faults": self.faults,
            "settings": settings,
            "invariants": self.findings.iter().map(finding).collect::<Vec<_>>(),
            "examples": self.examples.iter().map(example).collect::<Vec<_>>(),
            "unsettled": self.unsettled,
            "problems": self.problems,
            "folder": self.folder,
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
