//! The headers of a message that mean something to us, found in one pass.

use async_nats::HeaderMap;

/// Raw header values, percent-encoded as they came; `None` for what is absent or empty.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a> {
    pub(super) specversion: Option<&'a str>,
    pub(super) id: Option<&'a str>,
    pub(super) source: Option<&'a str>,
    pub(super) event_type: Option<&'a str>,
    pub(super) subject: Option<&'a str>,
    pub(super) time: Option<&'a str>,
    pub(super) dataschema: Option<&'a str>,
    pub(super) correlation_id: Option<&'a str>,
    pub(super) causation_id: Option<&'a str>,
    pub(super) traceparent: Option<&'a str>,
    pub(super) tracestate: Option<&'a str>,
    pub(super) message_id: Option<&'a str>,
}

/// Longest of the names below.
const LONGEST_NAME: usize = 16;

impl<'a> Attributes<'a> {
    /// Names are case-insensitive (the binding, 3.1.3.1). Of a name that stands there in several cases the one we write
    /// ourselves counts.
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, values) in headers.iter() {
            let name: &str = name.as_ref();
            let Some(value) = values.first().map(async_nats::HeaderValue::as_str).filter(|value| !value.is_empty())
            else {
                continue;
            };
            let mut buffer = [0; LONGEST_NAME];
            let Some(lower) = buffer.get_mut(..name.len()) else { continue };
            lower.copy_from_slice(name.as_bytes());
            lower.make_ascii_lowercase();
            let as_written = matches!(name, "Nats-Msg-Id") || &*lower == name.as_bytes();
            if let Some(slot) = found.slot(lower)
                && (slot.is_none() || as_written)
            {
                *slot = Some(value);
            }
        }
        found
    }

    fn slot(&mut self, lower: &[u8]) -> Option<&mut Option<&'a str>> {
        Some(match lower {
            b"ce-specversion" => &mut self.specversion,
            b"ce-id" => &mut self.id,
            b"ce-source" => &mut self.source,
            b"ce-type" => &mut self.event_type,
            b"ce-subject" => &mut self.subject,
            b"ce-time" => &mut self.time,
            b"ce-dataschema" => &mut self.dataschema,
            b"ce-correlationid" => &mut self.correlation_id,
            b"ce-causationid" => &mut self.causation_id,
            b"traceparent" => &mut self.traceparent,
            b"tracestate" => &mut self.tracestate,
            b"nats-msg-id" => &mut self.message_id,
            _ => return None,
        })
    }
}
