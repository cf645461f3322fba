//! Events: one channel for each subject, sent by the service that owns its prefix, received through durable consumers.

use contracts::documents::{self, Document, Kind};
use contracts::topology::{TopologySettings, topology};
use millrace::topology::ConsumerSpec;
use serde_json::{Value, json};

use super::headers;
use super::parts::{Parts, message_in, reference};

/// Who publishes under which prefix; nobody else does.
const PUBLISHERS: [(&str, &str); 4] =
    [("orders.", "order"), ("payments.", "payment"), ("inventory.", "inventory"), ("notifications.", "notification")];

pub fn describe(parts: &mut Parts) {
    headers::describe(parts);
    let topology = topology(&TopologySettings::default());
    let events: Vec<Document> = documents::all().into_iter().filter(|document| document.kind == Kind::Event).collect();
    for event in &events {
        let name = event.subject;
        let payload = parts.schema(name, &event.schema);
        parts.messages.insert(name.to_owned(), message(payload, event));
        let stream = topology.streams.iter().find(|stream| stream.subjects.iter().any(|held| covers(held, name)));
        let channel = parts.channel(name, what(event), &[name]);
        channel.insert("x-jetstream".into(), json!({ "stream": stream.map(|stream| &stream.name) }));
        if let Some((_, service)) = PUBLISHERS.iter().find(|(prefix, _)| name.starts_with(prefix)) {
            parts.operations.insert(
                format!("{service}.sends.{name}"),
                json!({
                    "action": "send",
                    "channel": reference("channels", name),
                    "summary": what(event),
                    "tags": [{ "name": service }],
                    "messages": [message_in(name, name)],
                    "bindings": { "nats": { "bindingVersion": "0.1.0" } },
                }),
            );
        }
        let reads = |consumer: &&ConsumerSpec| consumer.filter_subjects.iter().any(|filter| covers(filter, name));
        for consumer in topology.consumers.iter().filter(reads) {
            let service = consumer.durable.split('-').next().unwrap_or_default();
            let summary = consumer.description.split_once(": ").map_or("", |(_, purpose)| purpose);
            parts.operations.insert(
                format!("{}.receives.{name}", consumer.durable),
                json!({
                    "action": "receive",
                    "channel": reference("channels", name),
                    "summary": summary,
                    "description": "Instances share the durable pull consumer: each event reaches one of them.",
                    "tags": [{ "name": service }],
                    "messages": [message_in(name, name)],
                    "bindings": { "nats": { "bindingVersion": "0.1.0" } },
                    "x-jetstream": { "stream": consumer.stream, "durable": consumer.durable, "ack": "explicit" },
                }),
            );
        }
    }
}

fn what(event: &Document) -> &str {
    event.schema["description"].as_str().unwrap_or_default()
}

fn message(payload: Value, event: &Document) -> Value {
    let examples = event.schema["examples"].as_array().map(Vec::as_slice).unwrap_or_default();
    let example = |(index, body): (usize, &Value)| json!({ "name": format!("example{}", index + 1), "headers": headers::example(event, body), "payload": body });
    json!({
        "name": event.name,
        "title": event.title(),
        "summary": what(event),
        "contentType": "application/json",
        "headers": headers::of(event),
        "payload": payload,
        "correlationId": { "location": "$message.header#/ce-correlationid" },
        "examples": examples.iter().enumerate().map(example).collect::<Vec<_>>(),
        "x-schema-id": event.schema["$id"],
    })
}

/// Whether a subject with wildcards is about this one. Replays are about a consumer.
fn covers(filter: &str, subject: &str) -> bool {
    let (mut filter, mut tokens) = (filter.split('.'), subject.split('.'));
    loop {
        match (filter.next(), tokens.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}
