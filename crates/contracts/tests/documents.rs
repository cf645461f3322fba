//! The files in `schemas/` against the types they are made from.

#![expect(clippy::unwrap_used, reason = "a helper that fails must fail its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use contracts::documents::{self, Document, Kind};
use contracts::{api, inventory, notifications, orders, payments};
use millrace::event::{Event, Validator};
use serde_json::Value;

/// Writes the files when set.
const REGENERATE: &str = "MILLRACE_REGENERATE";

/// Where the committed files stand.
fn folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
        if std::env::var_os(REGENERATE).is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            for document in documents::all() {
                std::fs::write(folder.join(document.file_name()), document.file_text()).unwrap();
            }
        }
        folder
    });
    &FOLDER
}

#[test]
fn the_committed_files_are_what_the_types_say_and_nothing_else_stands_there() {
    let documents = documents::all();
    let remedy = format!(
        "write them anew with: cargo run -- schemas export --to schemas, or {REGENERATE}=1 cargo test -p contracts"
    );
    let mut wanted: BTreeMap<String, String> = documents.iter().map(|d| (d.file_name(), d.file_text())).collect();
    assert_eq!(wanted.len(), documents.len(), "two documents have one name");
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // Written by people, for `schemas check`.
        if name == "retired.txt" {
            continue;
        }
        let Some(text) = wanted.remove(&name) else { panic!("schemas/{name} belongs to no contract; {remedy}") };
        assert!(std::fs::read_to_string(&path).unwrap() == text, "schemas/{name} is not what the types say; {remedy}");
    }
    assert!(wanted.is_empty(), "not committed: {:?}; {remedy}", wanted.keys());
}

/// Reads an example as the type does that gets it from the wire.
fn decodes(document: &Document, example: &Value) -> Result<(), String> {
    fn as_type<T: serde::de::DeserializeOwned>(example: &Value) -> Result<(), String> {
        serde_json::from_value::<T>(example.clone()).map(drop).map_err(|e| e.to_string())
    }
    fn as_event<E: Event>(version: u32, example: &Value) -> Result<(), String> {
        if version == E::VERSION {
            return as_type::<E>(example);
        }
        let older = E::OLDER.iter().find(|older| older.version == version).ok_or("no such version")?;
        (older.decode)(&serde_json::to_vec(example).unwrap()).map(drop).map_err(|e| e.to_string())
    }
    let version = document.version;
    match document.name.as_str() {
        "orders.created" => as_event::<orders::OrderCreated>(version, example),
        "orders.confirmed" => as_event::<orders::OrderConfirmed>(version, example),
        "orders.cancelled" => as_event::<orders::OrderCancelled>(version, example),
        "payments.authorized" => as_event::<payments::PaymentAuthorized>(version, example),
        "payments.declined" => as_event::<payments::PaymentDeclined>(version, example),
        "payments.captured" => as_event::<payments::PaymentCaptured>(version, example),
        "payments.voided" => as_event::<payments::PaymentVoided>(version, example),
        "payments.refunded" => as_event::<payments::PaymentRefunded>(version, example),
        "payments.failed" => as_event::<payments::PaymentFailed>(version, example),
        "inventory.reserved" => as_event::<inventory::InventoryReserved>(version, example),
        "inventory.rejected" => as_event::<inventory::InventoryRejected>(version, example),
        "inventory.committed" => as_event::<inventory::InventoryCommitted>(version, example),
        "inventory.released" => as_event::<inventory::InventoryReleased>(version, example),
        "notifications.sent" => as_event::<notifications::NotificationSent>(version, example),
        "notifications.failed" => as_event::<notifications::NotificationFailed>(version, example),
        "api.orders.get.request" | "api.payment.process.request" => as_type::<api::OrderQuery>(example),
        "api.payment.process.reply" => as_type::<api::PaymentStatus>(example),
        "api.inventory.stock.request" => as_type::<api::StockQuery>(example),
        "api.inventory.stock.reply" => as_type::<api::StockLevels>(example),
        "api.inventory.adjust.request" => as_type::<api::StockAdjustment>(example),
        "api.inventory.adjust.reply" => as_type::<api::StockLevel>(example),
        other => Err(format!("this test does not know {other}")),
    }
}

#[test]
fn every_example_validates_against_its_file_and_decodes_into_its_type() {
    for document in documents::all() {
        let name = document.file_name();
        let text = std::fs::read_to_string(folder().join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let file: Value = serde_json::from_str(&text).unwrap();
        let validator = Validator::new(&name, &file).unwrap();
        let examples = file["examples"].as_array().unwrap_or_else(|| panic!("{name} has no examples"));
        assert!(!examples.is_empty(), "{name} has no examples");
        for example in examples {
            validator.check(&serde_json::to_vec(example).unwrap()).unwrap();
            decodes(&document, example).unwrap_or_else(|reason| panic!("{name}: {example}: {reason}"));
            // A schema that allows anything would pass the above.
            for required in file["required"].as_array().into_iter().flatten() {
                let mut without = example.clone();
                without.as_object_mut().unwrap().remove(required.as_str().unwrap());
                let refused = validator.check(&serde_json::to_vec(&without).unwrap());
                assert!(refused.is_err(), "{name} takes an example without {required}");
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_every_property_what_it_means() {
    for document in documents::all() {
        let (name, schema) = (document.file_name(), &document.schema);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
        assert_eq!(schema["$id"], format!("urn:millrace:schema:{}:v{}", document.name, document.version), "{name}");
        for said in ["title", "description", "$comment"] {
            assert!(schema[said].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {said}");
        }
        if document.kind == Kind::Event {
            assert_eq!(document.title(), format!("{} v{}", document.name, document.version));
        }
        let mut objects = 0;
        each_object(schema, &mut |object| {
            objects += 1;
            assert_eq!(object["additionalProperties"], true, "{name}: an object does not say what it lets through");
            for (property, says) in object["properties"].as_object().unwrap() {
                let described = says["description"].as_str().is_some_and(|text| !text.is_empty());
                assert!(described, "{name}: {property} has no description");
            }
        });
        assert!(objects > 0, "{name} describes no object");
    }
}

/// Calls `visit` with every schema of an object that stands in `schema`.
fn each_object(schema: &Value, visit: &mut impl FnMut(&Value)) {
    match schema {
        Value::Object(keywords) => {
            if schema["properties"].is_object() {
                visit(schema);
            }
            keywords.iter().filter(|(name, _)| *name != "examples").for_each(|(_, value)| each_object(value, visit));
        }
        Value::Array(values) => values.iter().for_each(|value| each_object(value, visit)),
        _ => {}
    }
}

#[test]
fn the_schema_an_event_names_in_its_headers_is_the_id_of_its_file() {
    let ids: BTreeSet<String> = documents::all().iter().map(|d| d.schema["$id"].as_str().unwrap().to_owned()).collect();
    assert!(ids.contains("urn:millrace:schema:orders.created:v1"));
    assert!(ids.contains("urn:millrace:schema:orders.created:v2"));
    for schema in contracts::all_schemas() {
        let named = format!("urn:millrace:schema:{}:v{}", schema.event_type, schema.version);
        assert!(ids.contains(&named), "{named}");
    }
}
