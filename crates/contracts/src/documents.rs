//! The contracts as documents: what stands in `schemas/`, one JSON Schema (2020-12) file per message and version.
//!
//! Made from the types, so a document cannot promise what the code does not keep; committed, so that a change of a type
//! is seen as a change of a contract.

use millrace::event::Schema;
use schemars::{JsonSchema, schema_for};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::api::{self, subjects};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Written into every file: without it nobody knows whether a new field may be added.
const TOLERANT_READER: &str = "Readers ignore fields they do not know; writers send only the fields named here.";

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Event,
    Request,
    Reply,
}

/// One contract.
#[derive(Debug, Clone)]
pub struct Document {
    pub kind: Kind,
    /// An event's type, `orders.created`; or what is said on a subject, `api.inventory.stock.request`.
    pub name: String,
    pub version: u32,
    /// Where it travels.
    pub subject: &'static str,
    pub schema: Value,
}

impl Document {
    /// The name of its file: `orders.created.v2.json`.
    pub fn file_name(&self) -> String {
        format!("{}.v{}.json", self.name, self.version)
    }

    /// What stands in its file.
    pub fn file_text(&self) -> String {
        // A value always can be written.
        let mut text = serde_json::to_string_pretty(&Ordered(&self.schema)).unwrap_or_default();
        text.push('\n');
        text
    }

    pub fn title(&self) -> &str {
        self.schema["title"].as_str().unwrap_or_default()
    }

    fn new(kind: Kind, name: String, version: u32, subject: &'static str, mut schema: Value) -> Self {
        open(&mut schema);
        if let Value::Object(keywords) = &mut schema {
            keywords.insert("$schema".into(), json!(DIALECT));
            keywords.insert("$id".into(), json!(format!("urn:millrace:schema:{name}:v{version}")));
            keywords.insert("$comment".into(), json!(format!("Travels on {subject}. {TOLERANT_READER}")));
        }
        Self { kind, name, version, subject, schema }
    }
}

/// Every event and version, then every question and answer that contracts know of.
pub fn all() -> Vec<Document> {
    let events = crate::all_schemas().into_iter().map(|schema: Schema| {
        Document::new(Kind::Event, schema.event_type.to_owned(), schema.version, schema.subject, schema.schema)
    });
    let messages = [
        message::<api::OrderQuery>(Kind::Request, subjects::ORDERS_GET),
        message::<api::OrderQuery>(Kind::Request, subjects::PAYMENT_PROCESS),
        message::<api::PaymentStatus>(Kind::Reply, subjects::PAYMENT_PROCESS),
        message::<api::StockQuery>(Kind::Request, subjects::INVENTORY_STOCK),
        message::<api::StockLevels>(Kind::Reply, subjects::INVENTORY_STOCK),
        message::<api::StockAdjustment>(Kind::Request, subjects::INVENTORY_ADJUST),
        message::<api::StockLevel>(Kind::Reply, subjects::INVENTORY_ADJUST),
    ];
    events.chain(messages).collect()
}

fn message<T: JsonSchema>(kind: Kind, subject: &'static str) -> Document {
    let what = if kind == Kind::Request { "request" } else { "reply" };
    Document::new(kind, format!("{subject}.{what}"), 1, subject, schema_for!(T).to_value())
}

/// Says of every object that further fields are allowed, which an absent keyword only implies.
fn open(schema: &mut Value) {
    match schema {
        Value::Object(keywords) => {
            if keywords.get("properties").is_some_and(Value::is_object) {
                keywords.entry("additionalProperties").or_insert(Value::Bool(true));
            }
            // Examples are data, and no data of ours has a member of these names.
            keywords.iter_mut().filter(|(name, _)| *name != "examples").for_each(|(_, value)| open(value));
        }
        Value::Array(values) => values.iter_mut().for_each(open),
        _ => {}
    }
}

/// What says what a thing is comes first, what it is made of last; the rest goes by name.
const FIRST: [&str; 8] = ["$schema", "$id", "title", "description", "$comment", "$ref", "type", "properties"];
const LAST: [&str; 2] = ["examples", "$defs"];

/// Written in an order for people, and the same one wherever it is written.
struct Ordered<'a>(&'a Value);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(members) => {
                let mut names: Vec<&String> = members.keys().collect();
                let rank = |name: &str| {
                    let first = FIRST.iter().position(|known| *known == name);
                    let last = LAST.iter().position(|known| *known == name).map(|at| FIRST.len() + 1 + at);
                    first.or(last).unwrap_or(FIRST.len())
                };
                names.sort_by_key(|name| (rank(name), *name));
                let mut map = serializer.serialize_map(Some(names.len()))?;
                for name in names {
                    map.serialize_entry(name, &Ordered(&members[name]))?;
                }
                map.end()
            }
            Value::Array(values) => serializer.collect_seq(values.iter().map(Ordered)),
            other => other.serialize(serializer),
        }
    }
}
