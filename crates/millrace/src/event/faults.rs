//! What the versions of an event promise each other, checked on samples. For the tests of whoever declares contracts.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Event, OlderVersion, Schema, Validator};

/// Everything that is wrong with the versions of `E`, in sentences; nothing when
/// - versions and subjects are distinct and named by the rule,
/// - each sample is valid for its schema, and in each older version for that version's,
/// - an older version survives the way up and down again unchanged, and keeps the event's key,
/// - what the newest loses on the way down and up is exactly what [`Older::LOSES`](super::Older::LOSES) says, so the
///   samples together must have a value in each of those fields.
pub fn faults_of_versions<E: Event>(samples: &[E]) -> Vec<String> {
    let mut faults = faults_of_names::<E>();
    for sample in samples {
        faults.extend(value_of(sample).and_then(|value| valid::<E>(E::VERSION, &value)).err());
    }
    for older in E::OLDER {
        let mut lost = BTreeSet::new();
        for sample in samples {
            match there_and_back(older, sample) {
                Ok(more) => lost.extend(more),
                Err(fault) => faults.push(fault),
            }
        }
        let said: BTreeSet<String> = older.loses.iter().map(|path| (*path).to_owned()).collect();
        let name = format!("{} v{}", E::TYPE, older.version);
        faults.extend(lost.difference(&said).map(|path| format!("{name} loses {path} and does not say so")));
        faults
            .extend(said.difference(&lost).map(|path| format!("{name} says it loses {path}, and no sample shows it")));
    }
    faults
}

fn faults_of_names<E: Event>() -> Vec<String> {
    let mut faults = Vec::new();
    let versions = || std::iter::once((E::VERSION, E::SUBJECT)).chain(E::OLDER.iter().map(|o| (o.version, o.subject)));
    for (version, subject) in versions() {
        let expected = if version == 1 { E::TYPE.to_owned() } else { format!("{}.v{version}", E::TYPE) };
        if subject != expected {
            faults.push(format!("{} v{version} is published on {subject}, expected {expected}", E::TYPE));
        }
    }
    let mut seen = BTreeSet::from([E::VERSION]);
    for older in E::OLDER {
        if older.version > E::VERSION || !seen.insert(older.version) {
            faults.push(format!("{} v{} is declared as older than v{}", E::TYPE, older.version, E::VERSION));
        }
    }
    faults
}

/// What of `sample` is lost.
fn there_and_back<E: Event>(older: &OlderVersion<E>, sample: &E) -> Result<BTreeSet<String>, String> {
    let name = format!("{} v{}", E::TYPE, older.version);
    let fault = |what: &str, why: &dyn std::fmt::Display| format!("{name}: {what}: {why}");
    let body = (older.encode)(sample).map_err(|e| fault("it cannot be written", &e))?;
    let value: Value = serde_json::from_slice(&body).map_err(|e| fault("it is not JSON", &e))?;
    valid::<E>(older.version, &value)?;
    let back = (older.decode)(&body).map_err(|e| fault("it cannot be read back", &e))?;
    if back.key() != sample.key() {
        return Err(fault("the key changes", &format!("{} becomes {}", sample.key(), back.key())));
    }
    let again = (older.encode)(&back).map_err(|e| fault("it cannot be written again", &e))?;
    if again != body {
        return Err(fault("it does not survive the way up and down", &String::from_utf8_lossy(&again)));
    }
    let mut lost = BTreeSet::new();
    differences(&value_of(sample)?, &value_of(&back)?, String::new(), &mut lost);
    Ok(lost)
}

fn valid<E: Event>(version: u32, value: &Value) -> Result<(), String> {
    let schema = Schema::all_of::<E>().into_iter().find(|schema| schema.version == version);
    let Some(schema) = schema else { return Err(format!("{} v{version} has no schema", E::TYPE)) };
    let validator = Validator::new(&format!("{} v{version}", E::TYPE), &schema.schema).map_err(|e| e.to_string())?;
    validator.check(value.to_string().as_bytes()).map_err(|e| e.to_string())
}

fn value_of<E: Event>(event: &E) -> Result<Value, String> {
    serde_json::to_value(event).map_err(|e| format!("{} cannot be written as JSON: {e}", E::TYPE))
}

/// Paths at which `after` is not what `before` was, `*` for any index.
fn differences(before: &Value, after: &Value, path: String, found: &mut BTreeSet<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for name in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
                let side = |object: &serde_json::Map<String, Value>| object.get(name).cloned().unwrap_or(Value::Null);
                differences(&side(before), &side(after), format!("{path}/{name}"), found);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            before.iter().zip(after).for_each(|(b, a)| differences(b, a, format!("{path}/*"), found));
        }
        _ if before != after => {
            found.insert(path);
        }
        _ => {}
    }
}
