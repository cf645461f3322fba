use std::collections::BTreeMap;

use compat::{Contract, Names, Verdict, compare_contracts};
use serde_json::{Value, json};

fn set(files: &[(&str, Value)]) -> BTreeMap<Contract, Value> {
    files.iter().map(|(name, schema)| (Contract::of_file(name).unwrap(), schema.clone())).collect()
}

#[test]
fn a_new_event_or_version_breaks_nobody_and_a_removed_one_only_unless_it_was_retired() {
    let text = json!({ "type": "string" });
    let old = set(&[("a.b.v1.json", text.clone()), ("a.c.v1.json", text.clone())]);
    let new =
        set(&[("a.b.v1.json", text.clone()), ("a.b.v2.json", json!({ "type": "object" })), ("a.d.v1.json", text)]);
    let told = |retired: bool| {
        let changes = compare_contracts(&old, &new, Names::Fresh, |contract| retired && contract.name == "a.c");
        changes.iter().map(|c| (c.contract.to_string(), c.verdict)).collect::<Vec<_>>()
    };
    let (fine, broken) = (Verdict::Compatible, Verdict::Breaking);
    let named =
        |last: Verdict| vec![("a.b v2".to_owned(), fine), ("a.c v1".to_owned(), last), ("a.d v1".to_owned(), fine)];
    assert_eq!(told(false), named(broken));
    assert_eq!(told(true), named(fine));
}

#[test]
fn a_changed_contract_is_as_good_as_the_worst_of_its_differences() {
    let old = set(&[("a.v1.json", json!({ "enum": [1, 2], "title": "x" }))]);
    let new = set(&[("a.v1.json", json!({ "enum": [1, 2, 3], "title": "y" }))]);
    let changes = compare_contracts(&old, &new, Names::Fresh, |_| false);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].verdict, Verdict::ForReaders);
    assert_eq!(changes[0].differences.len(), 2, "{changes:?}");
}

#[test]
fn only_files_named_like_a_contract_are_contracts() {
    for (name, is_one) in
        [("a.b.v12.json", true), ("a.b.json", false), ("README.md", false), ("a.vx.json", false), ("a.v1.yaml", false)]
    {
        assert_eq!(Contract::of_file(name).is_some(), is_one, "{name}");
    }
    assert_eq!(Contract::of_file("a.b.v12.json").unwrap().file_name(), "a.b.v12.json");
}
