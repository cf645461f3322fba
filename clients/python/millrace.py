"""What every program here needs: a connection, the contracts, and CloudEvents on NATS."""

import json
import os
from pathlib import Path

import nats
from cloudevents.core.bindings.http import HTTPMessage, from_binary_event, to_binary_event
from cloudevents.core.v1.event import CloudEvent
from jsonschema import Draft202012Validator, FormatChecker

NATS_URL = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
SCHEMAS = Path(os.environ.get("MILLRACE_SCHEMAS", Path(__file__).parents[2] / "schemas"))


async def connect(name: str):
    """A connection that fails at once when there is no server; a service would keep trying instead."""
    return await nats.connect(NATS_URL, name=name, connect_timeout=5, allow_reconnect=False)


def contract(event_type: str, version: int) -> Draft202012Validator:
    """The contract of one version of an event. Formats (uuid, date-time) are part of it."""
    schema = json.loads((SCHEMAS / f"{event_type}.v{version}.json").read_text())
    return Draft202012Validator(schema, format_checker=FormatChecker())


# CloudEvents in binary mode: the body is the event's data alone, the attributes are `ce-` headers. The SDK knows HTTP, and
# the NATS binding differs in one name: over HTTP the attribute `datacontenttype` is the header `content-type`.
_HTTP, _NATS = "content-type", "ce-datacontenttype"


def from_nats(message) -> CloudEvent:
    headers = {(_HTTP if name.lower() == _NATS else name): value for name, value in (message.headers or {}).items()}
    return from_binary_event(HTTPMessage(headers, message.data))


def to_nats(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Headers and body."""
    http = to_binary_event(event)
    return {(_NATS if name == _HTTP else name): value for name, value in http.headers.items()}, http.body
