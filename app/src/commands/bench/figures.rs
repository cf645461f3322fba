//! What is measured: a number for each round, its unit, the limit it is held against and what it should be.

use serde_json::{Value, json};

use super::latency::Latency;
use super::usage::Spent;

/// One part of a run.
#[derive(Debug, Default)]
pub struct Part {
    pub name: &'static str,
    /// What was done, in a sentence or two, with what ran in which process.
    pub what: String,
    pub figures: Vec<Figure>,
    /// Processor time and memory by process; one block for each load that was looked at.
    pub spent: Vec<(String, Vec<Spent>)>,
    /// Every order that was accepted, seen from all sides, for each world there was.
    pub counted: Vec<(String, Counted)>,
}

/// Orders, as many as each side knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    pub accepted: u64,
    /// At the order API: confirmed, or known at all where nobody is there to confirm them.
    pub at_api: u64,
    /// Captured, at the gateway; `None` where none was asked.
    pub captured_at_gateway: Option<u64>,
    /// Two for each order.
    pub mails: Option<u64>,
}

impl Counted {
    pub fn is_consistent(self) -> bool {
        self.at_api == self.accepted
            && self.captured_at_gateway.is_none_or(|captured| captured == self.accepted)
            && self.mails.is_none_or(|mails| mails == 2 * self.accepted)
    }
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// At least this part of the limit.
    OfLimit(f64),
}

#[derive(Debug, Clone)]
pub struct Figure {
    pub name: String,
    pub unit: &'static str,
    /// One for each round.
    pub values: Vec<f64>,
    /// The same for the limit, in the same unit, and what it is.
    pub limit: Option<(String, Vec<f64>)>,
    pub target: Option<Target>,
}

impl Figure {
    pub fn new(name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        Self { name: name.into(), unit, values, limit: None, target: None }
    }

    pub fn one(name: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self::new(name, unit, vec![value])
    }

    pub fn limit(mut self, what: impl Into<String>, values: Vec<f64>) -> Self {
        self.limit = Some((what.into(), values));
        self
    }

    pub fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    pub fn median(&self) -> f64 {
        median(&self.values)
    }

    /// Least and most.
    pub fn spread(&self) -> (f64, f64) {
        let bounds = |(least, most): (f64, f64), value: &f64| (least.min(*value), most.max(*value));
        self.values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), bounds)
    }

    /// Median to median.
    pub fn ratio(&self) -> Option<f64> {
        let (_, limit) = self.limit.as_ref()?;
        let limit = median(limit);
        (limit > 0.0).then(|| self.median() / limit)
    }

    pub fn met(&self) -> Option<bool> {
        Some(match self.target? {
            Target::AtLeast(least) => self.median() >= least,
            Target::AtMost(most) => self.median() <= most,
            Target::OfLimit(part) => self.ratio()? >= part,
        })
    }

    pub fn to_json(&self) -> Value {
        let (least, most) = self.spread();
        let target = self.target.map(|target| match target {
            Target::AtLeast(least) => json!({ "at_least": least, "unit": self.unit }),
            Target::AtMost(most) => json!({ "at_most": most, "unit": self.unit }),
            Target::OfLimit(part) => json!({ "at_least": part, "unit": "of the limit" }),
        });
        let limit = self.limit.as_ref().map(
            |(what, values)| json!({ "what": what, "unit": self.unit, "median": median(values), "rounds": values }),
        );
        json!({
            "name": self.name, "unit": self.unit, "median": self.median(), "min": least, "max": most,
            "rounds": self.values, "limit": limit, "ratio_to_limit": self.ratio(), "target": target,
            // A debug build meets or misses nothing.
            "met": self.met().filter(|_| !cfg!(debug_assertions)),
        })
    }
}

/// The percentiles of one latency over several rounds.
pub fn latency_figures(name: &str, rounds: &[Latency]) -> Vec<Figure> {
    let at = |percent| rounds.iter().map(|round| round.percentile(percent)).collect::<Vec<_>>();
    vec![
        Figure::new(format!("{name}, p50"), "ms", at(50.0)),
        Figure::new(format!("{name}, p99"), "ms", at(99.0)),
        Figure::new(format!("{name}, max"), "ms", rounds.iter().map(Latency::max).collect()),
    ]
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        length if length % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_held_against_its_limit_by_medians() {
        let figure = Figure::new("rate", "orders/s", vec![90.0, 10.0, 80.0]).limit("bare", vec![100.0, 120.0]);
        assert_eq!((figure.median(), figure.spread()), (80.0, (10.0, 90.0)));
        let ratio = figure.ratio().unwrap();
        assert!((ratio - 80.0 / 110.0).abs() < 1e-9);
        assert_eq!(figure.clone().target(Target::OfLimit(0.7)).met(), Some(true));
        assert_eq!(figure.clone().target(Target::OfLimit(0.75)).met(), Some(false));
        assert_eq!(figure.clone().target(Target::AtLeast(80.0)).met(), Some(true));
        assert_eq!(figure.clone().target(Target::AtMost(79.0)).met(), Some(false));
        assert_eq!(figure.met(), None);
        assert_eq!(Figure::one("rate", "orders/s", 1.0).target(Target::OfLimit(0.5)).met(), None, "there is no limit");
    }

    #[test]
    fn an_order_that_one_side_does_not_know_is_an_inconsistency() {
        let good = Counted { accepted: 5, at_api: 5, captured_at_gateway: Some(5), mails: Some(10) };
        assert!(good.is_consistent());
        assert!(!Counted { at_api: 4, ..good }.is_consistent());
        assert!(!Counted { captured_at_gateway: Some(6), ..good }.is_consistent());
        assert!(!Counted { mails: Some(9), ..good }.is_consistent());
    }
}
