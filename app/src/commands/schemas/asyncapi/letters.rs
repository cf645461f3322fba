//! What becomes of an event that could not be handled.

use millrace::dead_letters::replays;
use millrace::{dead_letter, dead_letters::audit};
use serde_json::{Value, json};

use super::parts::{Parts, message_in, reference};

const LETTER: &str = "DeadLetter";
const REPLAY: &str = "Replay";
const AUDIT: &str = "AuditEntry";

pub fn describe(parts: &mut Parts) {
    let text = |what: &str| json!({ "type": "string", "description": what });
    let header =
        |name: &str, what: &str| json!({ "type": "object", "required": [name], "properties": { name: text(what) } });
    let any = json!({ "description": "The body of the original, byte for byte; it may be no JSON at all." });
    let message = |title: &str, headers: Option<Value>, payload: &Value| {
        let mut message = json!({ "title": title, "contentType": "application/json", "payload": payload });
        if let Some(headers) = headers {
            message["headers"] = headers;
        }
        message
    };
    let letter = header(dead_letter::HEADER, "As JSON: reason, errors, attempts, consumer, the original's headers.");
    parts.messages.insert(LETTER.into(), message("A message that could not be handled", Some(letter), &any));
    let replay = header(replays::HEADER_OF, "The dead letter this is a replay of.");
    parts.messages.insert(REPLAY.into(), message("A message again, for one consumer alone", Some(replay), &any));
    let entry = json!({
        "type": "object",
        "properties": {
            "at": { "type": "string", "format": "date-time", "description": "When it was done." },
            "who": text("user@host, or the consumer."),
            "letter": { "type": "integer", "description": "The dead letter: its sequence in the stream." },
            "action": {
                "type": "string",
                "enum": ["replayed", "not_sent", "handled", "failed_again", "discarded"],
                "description": "What was done, or what came of it.",
            },
        },
        "required": ["at", "who", "letter", "action"],
    });
    parts.messages.insert(AUDIT.into(), message("What was done about a dead letter", None, &entry));

    let (letters, again, record) = (dead_letter::SUBJECT_PREFIX, replays::SUBJECT_PREFIX, audit::SUBJECT_PREFIX);
    let place = "Stream, sequence and time of the original: ORDERS-17-1795232791294000000.";
    let consumer = ("consumer", "The durable consumer that failed.");
    let channels = [
        (letters, format!("{letters}.{{consumer}}.{{place}}"), LETTER, vec![consumer, ("place", place)]),
        (again, format!("{again}.{{consumer}}.{{subject}}"), REPLAY, vec![consumer, ("subject", "The original's.")]),
        (
            record,
            format!("{record}.dead_letters.{{consumer}}.{{letter}}"),
            AUDIT,
            vec![consumer, ("letter", "The dead letter's sequence.")],
        ),
    ];
    // A replay is sent by the operator's command, everything else by whoever failed.
    let whose = [
        (
            "every_service",
            "Messages that could not be handled, whole, until somebody decides; kept by the stream DEAD_LETTERS.",
        ),
        ("operator", "Dead letters sent again: nobody but the consumer they name receives them."),
        ("every_service", "Every action on dead letters, kept by the stream AUDIT."),
    ];
    for ((name, address, message, parameters), (sender, what)) in channels.into_iter().zip(whose) {
        let channel = parts.channel(name, what, &[message]);
        channel.insert("address".into(), json!(address));
        let described = parameters.into_iter().map(|(name, what)| (name.to_owned(), json!({ "description": what })));
        channel.insert("parameters".into(), Value::Object(described.collect()));
        parts.operations.insert(
            format!("{sender}.sends.{name}"),
            json!({
                "action": "send",
                "channel": reference("channels", name),
                "summary": what,
                "messages": [message_in(name, message)],
                "bindings": { "nats": { "bindingVersion": "0.1.0" } },
            }),
        );
    }
}
