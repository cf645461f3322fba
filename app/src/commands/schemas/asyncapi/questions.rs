//! Questions with an answer, over the NATS services framework.

use contracts::api::subjects;
use contracts::documents::{self, Document};
use serde_json::{Map, Value, json};

use super::parts::{Parts, message_in, reference};

/// One endpoint: who answers, in which queue group. A test holds this against what running services say of themselves.
struct Endpoint {
    subject: &'static str,
    service: &'static str,
    queue: &'static str,
    what: &'static str,
}

const ENDPOINTS: [Endpoint; 4] = [
    Endpoint {
        subject: subjects::ORDERS_GET,
        service: "order",
        queue: "order",
        what: "An order as it is now, as GET /orders/{order_id} shows it",
    },
    Endpoint {
        subject: subjects::PAYMENT_PROCESS,
        service: "payment",
        queue: "payment",
        what: "Sees to what is due for an order's payment now, and says where it stands",
    },
    Endpoint {
        subject: subjects::INVENTORY_STOCK,
        service: "inventory",
        queue: "q",
        what: "Stock of one product, or of all",
    },
    Endpoint {
        subject: subjects::INVENTORY_ADJUST,
        service: "inventory",
        queue: "q",
        what: "Adds to what is available, or takes from it; a repeated adjustment counts once",
    },
];

const ERROR: &str = "ServiceError";

pub fn describe(parts: &mut Parts) {
    shared(parts);
    let documents = documents::all();
    let find = |name: &str| documents.iter().find(|document| document.name == name);
    for Endpoint { subject, service, queue, what } in ENDPOINTS {
        let (request, reply) = (format!("{subject}.request"), format!("{subject}.reply"));
        if let Some(document) = find(&request) {
            let payload = parts.schema(&request, &document.schema);
            parts.messages.insert(request.clone(), asked(document, payload));
        }
        let answer = match find(&reply) {
            Some(document) => {
                let payload = parts.schema(&reply, &document.schema);
                message(document.title(), payload, &document.schema["examples"])
            }
            // The one answer that is a part of the HTTP API.
            None => message("An order", order_view(parts, &reply), &json!([order_example()])),
        };
        parts.messages.insert(reply.clone(), answer);
        parts.channel(subject, what, &[&request]);
        let answers = parts.channel(&reply, "The inbox that the request names as its reply subject.", &[&reply, ERROR]);
        answers.insert("address".into(), Value::Null);
        parts.operations.insert(
            format!("{service}.answers.{subject}"),
            json!({
                "action": "receive",
                "channel": reference("channels", subject),
                "summary": what,
                "description": "An endpoint of the NATS services framework: each request reaches one instance.",
                "tags": [{ "name": service }],
                "messages": [message_in(subject, &request)],
                "reply": {
                    "channel": reference("channels", &reply),
                    "messages": [message_in(&reply, &reply), message_in(&reply, ERROR)],
                },
                "bindings": { "nats": { "queue": queue, "bindingVersion": "0.1.0" } },
            }),
        );
    }
}

/// What all endpoints have in common.
fn shared(parts: &mut Parts) {
    parts.schemas.insert(
        "RequestHeaders".into(),
        json!({
            "type": "object",
            "description": "None of them is needed.",
            "properties": {
                "Millrace-Deadline-Ms": {
                    "type": "string", "pattern": "^[0-9]+$",
                    "description": "Milliseconds the caller still waits; work past it is abandoned. 5000 if absent, 30000 at most.",
                },
                "ce-correlationid": { "type": "string", "description": "As on events." },
                "traceparent": { "type": "string", "description": "W3C Trace Context." },
                "tracestate": { "type": "string", "description": "W3C Trace Context, vendors' part." },
            },
            "additionalProperties": true,
        }),
    );
    parts.messages.insert(
        ERROR.into(),
        json!({
            "name": ERROR,
            "title": "An error instead of an answer",
            "summary": "As the NATS services framework has it: the body is empty, headers say what is wrong.",
            "headers": {
                "type": "object",
                "properties": {
                    "Nats-Service-Error-Code": {
                        "type": "string", "pattern": "^[45][0-9]{2}$",
                        "description": "Numbers of HTTP: 400 to 499 the caller is wrong, 500 to 599 this side is.",
                    },
                    "Nats-Service-Error": { "type": "string", "description": "What is wrong." },
                    "Millrace-Retry-After-Ms": {
                        "type": "string", "pattern": "^[0-9]+$",
                        "description": "Milliseconds after which another attempt makes sense.",
                    },
                },
                "required": ["Nats-Service-Error-Code", "Nats-Service-Error"],
            },
            "examples": [{
                "name": "unknownProduct",
                "headers": {
                    "Nats-Service-Error-Code": "404",
                    "Nats-Service-Error": "product_id: teapot is not stocked",
                },
            }],
        }),
    );
}

fn asked(document: &Document, payload: Value) -> Value {
    let mut message = message(document.title(), payload, &document.schema["examples"]);
    message["headers"] = reference("components/schemas", "RequestHeaders");
    message
}

fn message(title: &str, payload: Value, examples: &Value) -> Value {
    let example = |(index, body): (usize, &Value)| json!({ "name": format!("example{}", index + 1), "payload": body });
    json!({
        "title": title,
        "contentType": "application/json",
        "payload": payload,
        "examples": examples.as_array().into_iter().flatten().enumerate().map(example).collect::<Vec<_>>(),
    })
}

/// The schema of the HTTP API, with its schemas as definitions.
fn order_view(parts: &mut Parts, name: &str) -> Value {
    const OF_HTTP: &str = "#/components/schemas/";
    fn moved(schema: &Value) -> Value {
        match schema {
            // `example` is a keyword of OpenAPI alone.
            Value::Object(members) => members
                .iter()
                .filter(|(name, value)| *name != "example" || value.is_object())
                .map(|(name, value)| match value.as_str().and_then(|to| to.strip_prefix(OF_HTTP)) {
                    Some(schema) => (name.clone(), json!(format!("#/$defs/Http{schema}"))),
                    None => (name.clone(), moved(value)),
                })
                .collect::<Map<_, _>>()
                .into(),
            Value::Array(values) => values.iter().map(moved).collect::<Vec<_>>().into(),
            other => other.clone(),
        }
    }
    let document: Value = serde_json::from_str(order::api::OPENAPI).unwrap_or_default();
    let all = &document["components"]["schemas"];
    let mut wanted = vec!["OrderView".to_owned()];
    let mut definitions = Map::new();
    while let Some(next) = wanted.pop() {
        let schema = moved(&all[&next]);
        for (reference, _) in schema.to_string().match_indices("#/$defs/Http").map(|(at, found)| (at + found.len(), ()))
        {
            let name: String =
                schema.to_string()[reference..].chars().take_while(char::is_ascii_alphanumeric).collect();
            if !definitions.contains_key(&format!("Http{name}")) && name != "OrderView" {
                wanted.push(name);
            }
        }
        definitions.insert(format!("Http{next}"), schema);
    }
    let mut view = definitions.remove("HttpOrderView").unwrap_or_default();
    view["$defs"] = Value::Object(definitions);
    parts.schema(name, &view)
}

fn order_example() -> Value {
    json!({
        "order_id": "01a1fc36-7afe-751a-b49e-55bc81fdd682",
        "status": "confirmed",
        "customer_id": "customer-42",
        "total": { "minor": 1380, "currency": "EUR" },
        "items": [{ "product_id": "espresso-cup", "quantity": 2, "unit_price": { "minor": 690, "currency": "EUR" } }],
        "payment": "captured",
        "stock": "committed",
        "foreign": false,
        "created_at": "2026-11-21T03:46:31.294Z",
        "deadline_at": "2026-11-21T04:01:31.294Z",
        "ended_at": "2026-11-21T03:46:31.322Z",
    })
}
