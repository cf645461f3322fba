//! What a run comes to, for people and for programs.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::figures::{Counted, Figure, Part, Target};
use super::surroundings::Surroundings;
use super::usage::Spent;
use crate::output;

/// Said before and after a run of a build that nobody should judge.
pub const DEBUG_BUILD: &str = "DEBUG BUILD: FIGURES MEAN NOTHING. Use cargo run --release -- bench";

pub struct Report {
    pub surroundings: Surroundings,
    pub parts: Vec<Part>,
    pub size: &'static str,
    pub rounds: u32,
    pub seed: u64,
    pub took: Duration,
    pub folder: Option<PathBuf>,
}

impl Report {
    /// Whether every order is where it has to be.
    pub fn is_consistent(&self) -> bool {
        self.parts.iter().flat_map(|part| &part.counted).all(|(_, counted)| counted.is_consistent())
    }

    pub fn print(&self) {
        self.print_surroundings();
        for part in &self.parts {
            output::line(&format!("\n{}  {}", part.name.to_uppercase(), part.what));
            let header = ["", "MEDIAN", "MIN..MAX", "UNIT", "LIMIT", "RATIO", "TARGET", "MET"];
            output::table(&header, part.figures.iter().map(row));
            print_spent(&part.spent);
            for (of, counted) in &part.counted {
                output::line(&format!("  counted, {of}: {}", in_words(*counted)));
            }
        }
        output::line(&format!(
            "\n{} run, {} rounds, seed {}, {:.0} s.",
            self.size,
            self.rounds,
            self.seed,
            self.took.as_secs_f64()
        ));
        if let Some(folder) = &self.folder {
            output::line(&format!("Kept in {}", folder.display()));
        }
        if cfg!(debug_assertions) {
            output::line(DEBUG_BUILD);
        }
    }

    fn print_surroundings(&self) {
        if cfg!(debug_assertions) {
            output::line(DEBUG_BUILD);
        }
        let Surroundings { machine, versions, durability, settings, layout } = &self.surroundings;
        for (title, pairs) in [("machine", machine), ("versions", versions), ("durability", durability)] {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            let separator = if title == "durability" { "\n            " } else { ", " };
            output::line(&format!("{title:<11} {}", pairs.join(separator)));
        }
        output::line(&format!("layout      {layout}"));
        let settings: Vec<_> = settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let settings = if settings.is_empty() { "defaults, but for addresses".to_owned() } else { settings.join(", ") };
        output::line(&format!("settings    {settings}"));
    }

    pub fn to_json(&self) -> Value {
        let mut document = self.surroundings.to_json();
        document["debug_build"] = cfg!(debug_assertions).into();
        if cfg!(debug_assertions) {
            document["warning"] = DEBUG_BUILD.into();
        }
        document["size"] = self.size.into();
        document["rounds"] = self.rounds.into();
        document["seed"] = self.seed.into();
        document["took"] = json!({ "value": self.took.as_secs_f64(), "unit": "s" });
        document["consistent"] = self.is_consistent().into();
        document["folder"] = json!(self.folder);
        document["parts"] = self.parts.iter().map(part_json).collect();
        document
    }
}

fn part_json(part: &Part) -> Value {
    let spent = |(load, spent): &(String, Vec<Spent>)| json!({ "load": load, "processes": spent.iter().map(Spent::to_json).collect::<Vec<_>>() });
    let counted = |(of, counted): &(String, Counted)| {
        json!({
            "of": of, "accepted": counted.accepted, "at_order_api": counted.at_api,
            "captured_at_gateway": counted.captured_at_gateway, "mails": counted.mails,
            "consistent": counted.is_consistent(),
        })
    };
    json!({
        "part": part.name, "what": part.what,
        "figures": part.figures.iter().map(Figure::to_json).collect::<Vec<_>>(),
        "spent": part.spent.iter().map(spent).collect::<Vec<_>>(),
        "counted": part.counted.iter().map(counted).collect::<Vec<_>>(),
    })
}

fn row(figure: &Figure) -> Vec<String> {
    let (least, most) = figure.spread();
    let limit = figure.limit.as_ref().map(|(_, values)| number(super::figures::median(values)));
    let target = figure.target.map(|target| match target {
        Target::AtLeast(least) => format!(">= {}", number(least)),
        Target::AtMost(most) => format!("<= {}", number(most)),
        Target::OfLimit(part) => format!(">= {part:.2} of limit"),
    });
    let met = match figure.met() {
        _ if cfg!(debug_assertions) => "",
        Some(true) => "yes",
        Some(false) => "NO",
        None => "",
    };
    let spread = if figure.values.len() > 1 { format!("{}..{}", number(least), number(most)) } else { String::new() };
    vec![
        figure.name.clone(),
        number(figure.median()),
        spread,
        figure.unit.to_owned(),
        limit.unwrap_or_default(),
        figure.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
        target.unwrap_or_default(),
        met.to_owned(),
    ]
}

/// Loads down, processes across: processor time, and memory after the last load.
fn print_spent(spent: &[(String, Vec<Spent>)]) {
    let Some((_, last)) = spent.last() else { return };
    let mut names: Vec<&str> = Vec::new();
    for one in spent.iter().flat_map(|(_, processes)| processes) {
        if !names.contains(&one.name.as_str()) {
            names.push(&one.name);
        }
    }
    let row = |title: String, unit: &str, all: String, cell: &dyn Fn(&Spent) -> String, of: &[Spent]| {
        let cells = names.iter().map(|name| of.iter().find(|one| one.name == *name).map(cell).unwrap_or_default());
        [title, unit.to_owned()].into_iter().chain(cells).chain([all]).collect::<Vec<_>>()
    };
    let mut rows = Vec::new();
    for (load, processes) in spent {
        let all: f64 = processes.iter().filter_map(|one| one.per_order_us).sum();
        rows.push(match all > 0.0 {
            true => {
                row(load.clone(), "us/order", number(all), &|one| number(one.per_order_us.unwrap_or(0.0)), processes)
            }
            false => {
                let all: f64 = processes.iter().map(|one| one.cpu.as_secs_f64()).sum();
                row(load.clone(), "s", number(all), &|one| number(one.cpu.as_secs_f64()), processes)
            }
        });
    }
    let share = |kernel: Duration, all: Duration| {
        let part = kernel.as_secs_f64() / all.as_secs_f64();
        if part.is_finite() { number(100.0 * part) } else { String::new() }
    };
    if let Some((_, first)) = spent.first() {
        let all = share(first.iter().map(|one| one.in_kernel).sum(), first.iter().map(|one| one.cpu).sum());
        rows.push(row(
            "in the kernel, of the first line".into(),
            "%",
            all,
            &|one| share(one.in_kernel, one.cpu),
            first,
        ));
    }
    let all: f64 = last.iter().map(|one| one.rss_mb).sum();
    rows.push(row("memory, after that".into(), "MB", number(all), &|one| number(one.rss_mb), last));
    let mut header = vec!["PROCESSOR TIME", "UNIT"];
    header.extend(&names);
    header.push("ALL");
    output::table(&header, rows);
}

fn in_words(counted: Counted) -> String {
    let Counted { accepted, at_api, captured_at_gateway, mails } = counted;
    let mut words = format!("{accepted} accepted, {at_api} at the order API");
    if let Some(captured) = captured_at_gateway {
        words.push_str(&format!(", {captured} captured at the gateway"));
    }
    if let Some(mails) = mails {
        words.push_str(&format!(", {mails} mails"));
    }
    if !counted.is_consistent() {
        words.push_str("   THAT DOES NOT ADD UP");
    }
    words
}

/// Three digits say enough.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
