//! Headers of events: CloudEvents attributes, trace context, and what JetStream recognises repetitions by.

use contracts::documents::Document;
use millrace::event::{Cause, Encoded, EventId, encode_headers};
use millrace::telemetry::trace::TraceContext;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::parts::Parts;

const SCHEMA: &str = "EventHeaders";

pub fn describe(parts: &mut Parts) {
    let text = |what: &str| json!({ "type": "string", "minLength": 1, "description": what });
    let time = json!({ "type": "string", "format": "date-time", "description": "When it happened." });
    parts.schemas.insert(
        SCHEMA.into(),
        json!({
            "type": "object",
            "description": "CloudEvents 1.0 in binary mode, as the NATS protocol binding has it. All of them are on every \
                event of ours. A foreign publisher may leave them out; then the subject says what it is.",
            "properties": {
                "ce-specversion": { "type": "string", "const": "1.0", "description": "Version of CloudEvents." },
                "ce-id": text("Names the event, the same in every version it is published in."),
                "ce-source": text("Who published it: /millrace/order."),
                "ce-type": text("What happened, the same in every version: orders.created."),
                "ce-subject": text("What it is about: the order's id. Events about one order leave in order."),
                "ce-time": time,
                "ce-datacontenttype": { "type": "string", "const": "application/json", "description": "What the body is." },
                "ce-dataschema": text("Type and version as the id of the schema: urn:millrace:schema:orders.created:v2."),
                "ce-correlationid": text("The same in everything that follows from one request."),
                "ce-causationid": text("The id of the event that made this one happen."),
                "traceparent": text("W3C Trace Context."),
                "tracestate": text("W3C Trace Context, vendors' part."),
                "Nats-Msg-Id": text("Event id and version; JetStream stores a repeated one once."),
            },
            "additionalProperties": true,
        }),
    );
}

/// The headers of one event: type and schema are known.
pub fn of(event: &Document) -> Value {
    json!({
        "type": "object",
        "allOf": [
            { "$ref": format!("#/components/schemas/{SCHEMA}") },
            { "properties": {
                "ce-type": { "type": "string", "const": event.name, "description": "What happened." },
                "ce-dataschema": { "type": "string", "const": event.schema["$id"], "description": "The version." },
            } },
        ],
    })
}

/// As the toolkit writes them.
pub fn example(event: &Document, body: &Value) -> Value {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let encoded = Encoded {
        event_id: EventId::from("01a1fc36-7aff-7c5e-8d1e-6f0b7c1f2a3b".to_owned()),
        event_type: event.subject.strip_suffix(&format!(".v{}", event.version)).unwrap_or(event.subject),
        version: event.version,
        subject: event.subject,
        key: text("order_id"),
        newest: true,
        body: Vec::new(),
    };
    let service = event.name.split('.').next().unwrap_or_default();
    let source = match service {
        "orders" => "/millrace/order",
        "payments" => "/millrace/payment",
        "notifications" => "/millrace/notification",
        _ => "/millrace/inventory",
    };
    let cause = Cause {
        correlation_id: "01a1fc36-7afe-751a-b49e-55bb8d76231c".into(),
        causation_id: None,
        trace: TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
    };
    let happened = body.as_object().into_iter().flatten().find_map(|(name, value)| {
        let at = (name.ends_with("_at") || name == "timestamp").then(|| value.as_str())??;
        OffsetDateTime::parse(at, &Rfc3339).ok()
    });
    let pairs = encode_headers(&encoded, source, happened.unwrap_or(OffsetDateTime::UNIX_EPOCH), &cause);
    pairs.into_iter().map(|(name, value)| (name, json!(value))).collect::<Map<_, _>>().into()
}
