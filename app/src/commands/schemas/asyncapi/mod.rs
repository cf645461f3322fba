//! Everything that travels on NATS as one AsyncAPI 3.0 document, made from what the code declares: the contracts, the
//! topology, the endpoints.
//!
//! AsyncAPI says for one application what it sends and receives; here four are described at once, so every operation
//! names its service and has it as a tag.

mod events;
mod headers;
mod letters;
mod parts;
mod questions;

use serde_json::{Value, json};

use parts::Parts;

pub fn document() -> Value {
    let mut parts = Parts::default();
    events::describe(&mut parts);
    questions::describe(&mut parts);
    letters::describe(&mut parts);
    let Parts { channels, operations, messages, schemas } = parts;
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:millrace",
        "info": {
            "title": "Millrace events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Order, payment, inventory and notification services share nothing but these events. Each \
                event is a CloudEvent 1.0 in binary mode: the body is the event alone, its attributes are headers. \
                Readers ignore fields they do not know. An event may come more than once and in any order; `ce-source` \
                and `ce-id` together name it, in every version it is published in.",
            "license": { "name": "MIT OR Apache-2.0" },
            "tags": SERVICES.map(|(name, what)| json!({ "name": name, "description": what })),
        },
        "defaultContentType": "application/json",
        "servers": {
            "nats": {
                "host": "{host}:{port}",
                "protocol": "nats",
                "description": "NATS with JetStream. The setting nats.url says where it is.",
                "variables": { "host": { "default": "localhost" }, "port": { "default": "4222" } },
            },
        },
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas },
    })
}

const SERVICES: [(&str, &str); 4] = [
    ("order", "Takes orders over HTTP, and decides"),
    ("payment", "Authorizes, captures, voids and refunds"),
    ("inventory", "Stock and reservations"),
    ("notification", "Tells customers"),
];
