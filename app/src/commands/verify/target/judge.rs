use std::collections::BTreeMap;
use std::time::Duration;

use super::gather::Gathered;
use crate::commands::verify::checks::{self, Finding};
use crate::commands::verify::evidence::Evidence;
use crate::stack::SERVICES;

/// Services keep what they have published for 15 minutes by default, and after that cannot show that it was committed.
const OUTBOX_KEPT: Duration = Duration::from_secs(10 * 60);

/// Checks what can be checked, and says of the rest why not.
pub fn judge(gathered: Gathered) -> (Vec<Finding>, Evidence) {
    let Gathered { mut evidence, missing, age } = gathered;
    if missing.contains_key("payment") {
        evidence.payments = as_the_api_shows(&evidence);
    }
    let findings = checks::all(&evidence);
    let findings = findings.into_iter().map(|mut finding| {
        if let Some(why) = why_unchecked(finding.id, &missing, age) {
            finding.violations.clear();
            finding.checked = 0;
            finding.remarks.clear();
            finding.unchecked = Some(why);
        }
        finding
    });
    let mut findings: Vec<Finding> = findings.collect();
    if let Some(why) = missing.get("nats") {
        let ends = findings.iter_mut().filter(|finding| finding.id == "I1");
        ends.for_each(|finding| finding.remarks.push(format!("as the API shows them, not the streams: {why}")));
    }
    (findings, evidence)
}

/// What has to be looked at for an invariant; I1 can be seen from outside.
fn needs(invariant: &str) -> &'static [&'static str] {
    match invariant {
        "I2" => &["ledger"],
        "I3" => &["inventory"],
        "I4" => &["mailbox"],
        "I5" | "I6" => &["nats"],
        "I7" => &["nats", "order", "payment", "inventory", "notification"],
        _ => &[],
    }
}

fn why_unchecked(invariant: &str, missing: &BTreeMap<&'static str, String>, age: Duration) -> Option<String> {
    if invariant == "I7" && age > OUTBOX_KEPT {
        return Some(format!("the run took {} minutes, longer than outboxes are kept", age.as_secs() / 60));
    }
    let why = needs(invariant).iter().filter_map(|part| Some((*part, missing.get(part)?)));
    let why: Vec<String> = why
        .map(|(part, why)| match SERVICES.contains(&part) {
            true => format!("database of {part}: {why}"),
            false => format!("{part}: {why}"),
        })
        .collect();
    (!why.is_empty()).then(|| why.join("; "))
}

/// Payments as the API shows them, where the payment service's own books cannot be read.
fn as_the_api_shows(evidence: &Evidence) -> BTreeMap<String, String> {
    let state = |payment: &str| match payment {
        // Cancelled before it was asked for.
        "pending" => "cancelled".to_owned(),
        other => other.to_owned(),
    };
    evidence.listed.iter().map(|(id, listed)| (id.clone(), state(&listed.payment))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_at_is_never_called_fine() {
        let missing: BTreeMap<_, _> =
            ["nats", "ledger", "mailbox", "inventory"].map(|part| (part, "it is away".to_owned())).into();
        let gathered = Gathered { evidence: Evidence::default(), missing, age: Duration::ZERO };
        let (findings, _) = judge(gathered);
        let unchecked: Vec<_> = findings.iter().filter(|f| f.unchecked.is_some()).map(|f| f.id).collect();
        assert_eq!(unchecked, ["I2", "I3", "I4", "I5", "I6", "I7"]);
        assert!(findings.iter().all(|finding| finding.id == "I1" || finding.checked == 0), "{findings:#?}");
        let late =
            Gathered { evidence: Evidence::default(), missing: BTreeMap::new(), age: Duration::from_secs(3_600) };
        let (findings, _) = judge(late);
        let unchecked: Vec<_> = findings.iter().filter(|f| f.unchecked.is_some()).map(|f| f.id).collect();
        assert_eq!(unchecked, ["I7"]);
    }
}
