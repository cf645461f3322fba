//! The document while it is being put together.

use serde_json::{Map, Value, json};

#[derive(Default)]
pub struct Parts {
    pub channels: Map<String, Value>,
    pub operations: Map<String, Value>,
    pub messages: Map<String, Value>,
    pub schemas: Map<String, Value>,
}

/// Where the dialect of a JSON Schema file has definitions.
const DEFINITIONS: &str = "#/$defs/";

impl Parts {
    /// A place for messages to travel.
    pub fn channel(&mut self, name: &str, description: &str, messages: &[&str]) -> &mut Map<String, Value> {
        let listed: Map<String, Value> =
            messages.iter().map(|message| ((*message).to_owned(), reference("components/messages", message))).collect();
        let channel = json!({
            "address": name,
            "description": description,
            "servers": [{ "$ref": "#/servers/nats" }],
            "messages": listed,
        });
        self.channels.insert(name.to_owned(), channel);
        object(&mut self.channels[name])
    }

    /// A JSON Schema with all it refers to, as AsyncAPI has it: definitions are shared by the whole document, and what
    /// names the schema among files is left out, since references would be looked up there. Gives the reference to it.
    pub fn schema(&mut self, name: &str, schema: &Value) -> Value {
        let mut schema = schema.clone();
        let definitions = object(&mut schema).remove("$defs");
        for file_only in ["$schema", "$id", "$comment"] {
            object(&mut schema).remove(file_only);
        }
        let mut renamed = Map::new();
        for (definition, body) in definitions.as_ref().and_then(Value::as_object).into_iter().flatten() {
            // Two contracts may mean different things by one name.
            let shared = self.schemas.get(definition).is_none_or(|known| *known == referring(body, &Map::new()));
            let unique = if shared { definition.clone() } else { format!("{name}.{definition}") };
            renamed.insert(definition.clone(), json!(unique));
        }
        for (definition, body) in definitions.as_ref().and_then(Value::as_object).into_iter().flatten() {
            let unique = renamed[definition].as_str().unwrap_or_default().to_owned();
            self.schemas.insert(unique, referring(body, &renamed));
        }
        self.schemas.insert(name.to_owned(), referring(&schema, &renamed));
        reference("components/schemas", name)
    }
}

/// With references that lead into this document.
fn referring(schema: &Value, renamed: &Map<String, Value>) -> Value {
    match schema {
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| {
                let definition = value.as_str().and_then(|to| to.strip_prefix(DEFINITIONS));
                let value = match definition {
                    Some(definition) if name == "$ref" => {
                        let unique = renamed.get(definition).and_then(Value::as_str).unwrap_or(definition);
                        json!(format!("#/components/schemas/{unique}"))
                    }
                    _ => referring(value, renamed),
                };
                (name.clone(), value)
            };
            members.iter().map(member).collect::<Map<_, _>>().into()
        }
        Value::Array(values) => values.iter().map(|value| referring(value, renamed)).collect::<Vec<_>>().into(),
        other => other.clone(),
    }
}

pub fn reference(place: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/{place}/{name}") })
}

/// A message of a channel, as operations refer to it.
pub fn message_in(channel: &str, message: &str) -> Value {
    json!({ "$ref": format!("#/channels/{channel}/messages/{message}") })
}

/// For values that are made as objects a few lines above.
pub fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(members) => members,
        _ => unreachable!("it was just made an object"),
    }
}
