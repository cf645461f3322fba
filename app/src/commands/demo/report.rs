//! What the story comes to, for people and for programs.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::setup::Backend;
use super::trial::{OrderRecord, Told};
use crate::output;

pub struct Report {
    pub backend: Backend,
    /// Everything, from the command line to the last server stopped.
    pub took: Duration,
    /// Where data and log are, if they were kept.
    pub folder: Option<PathBuf>,
    /// What went wrong beside the scenarios.
    pub problem: Option<String>,
    pub told: Vec<Told>,
}

impl Report {
    pub fn passed(&self) -> bool {
        self.problem.is_none() && !self.told.is_empty() && self.told.iter().all(Told::holds)
    }

    pub fn print(&self) {
        output::table(&["SCENARIO", "OUTCOME", "TOOK"], self.told.iter().map(row));
        output::line("");
        let failed: Vec<_> = self.told.iter().filter(|told| !told.holds()).map(|told| told.scenario.name).collect();
        let (count, seconds) = (self.told.len(), self.took.as_secs_f64());
        if failed.is_empty() {
            output::line(&format!("All {count} scenarios passed in {seconds:.1} s."));
        } else {
            output::line(&format!("{} of {count} scenarios failed: {}.", failed.len(), failed.join(", ")));
        }
        if let Some(problem) = &self.problem {
            output::line(&format!("The end was not in order: {problem}."));
        }
        if let Some(folder) = &self.folder {
            output::line(&format!("Data and log are kept in {}", folder.display()));
        }
    }

    pub fn to_json(&self) -> Value {
        json!({
            "passed": self.passed(),
            "backend": self.backend.name(),
            "took_ms": millis(self.took),
            "problem": self.problem,
            "folder": self.folder,
            "scenarios": self.told.iter().map(scenario).collect::<Vec<_>>(),
            "orders": self.told.iter().flat_map(orders).collect::<Vec<_>>(),
        })
    }
}

fn row(told: &Told) -> Vec<String> {
    let outcome = match told.holds() {
        true => told.scenario.expects.to_owned(),
        false => format!("FAILED, should be {}", told.scenario.expects),
    };
    vec![told.scenario.name.to_owned(), outcome, format!("{:.2} s", told.took.as_secs_f64())]
}

fn scenario(told: &Told) -> Value {
    json!({
        "scenario": told.scenario.name,
        "title": told.scenario.title,
        "passed": told.holds(),
        "detail": detail(told),
        "took_ms": millis(told.took),
    })
}

/// Every order of the scenario; one without id if it came to none.
fn orders(told: &Told) -> Vec<Value> {
    if told.orders.is_empty() {
        return vec![order(told, None)];
    }
    told.orders.iter().map(|record| order(told, Some(record))).collect()
}

fn order(told: &Told, record: Option<&OrderRecord>) -> Value {
    let timeline = record.map(|record| record.timeline.as_slice()).unwrap_or_default();
    let moment = |moment: &super::trial::Moment| json!({ "at_ms": moment.at_ms, "event": moment.event, "service": moment.service });
    json!({
        "scenario": told.scenario.name,
        "order_id": record.map(|record| record.id),
        "expected": told.scenario.expects,
        "outcome": record.map_or("not placed", |record| record.outcome.as_str()),
        "passed": told.holds(),
        "detail": detail(told),
        "timeline": timeline.iter().map(moment).collect::<Vec<_>>(),
    })
}

fn detail(told: &Told) -> String {
    told.deviation.as_ref().map_or_else(|| told.scenario.title.to_owned(), ToString::to_string)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
