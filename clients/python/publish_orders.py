"""Publishes orders of another system as orders.created v1, one for each line of standard input:

{"order_id":"5d0c...","customer_id":"c-7","amount":19.99,"currency":"EUR","timestamp":"2026-01-02T03:04:05Z"}

Millrace takes each of them on like an order of its own: it charges `amount` and reserves `items`, where there are any.
"""

import argparse
import asyncio
import json
import sys
import uuid

from cloudevents.core.v1.event import CloudEvent
from millrace import connect, contract, to_nats

options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
options.add_argument("--source", default="/partner/python", help="CloudEvents source: names your system")
options.add_argument("--bare", action="store_true", help="send the body alone, without CloudEvents headers")
options.add_argument("--unchecked", action="store_true", help="send whatever it is, to see what becomes of it")
options.add_argument("--header", action="append", default=[], metavar="NAME=VALUE", help="set or replace a header")


async def main(args) -> None:
    connection = await connect("publish-orders")
    stream = connection.jetstream()
    v1 = contract("orders.created", 1)
    for line in filter(str.strip, sys.stdin):
        headers, body = {}, line.strip().encode()
        if not args.unchecked:
            # What breaks the contract would become a dead letter, which somebody has to look at: better not to send it.
            v1.validate(json.loads(body))
        if not args.bare:
            # The id names the event for ever: send the same one again when you are not sure that it arrived.
            attributes = {"id": str(uuid.uuid4()), "source": args.source, "type": "orders.created", "specversion": "1.0",
                          "datacontenttype": "application/json"}
            headers, _ = to_nats(CloudEvent(attributes))
            # Within its duplicate window the broker stores one id once.
            headers["Nats-Msg-Id"] = f"{args.source}/{attributes['id']}"
        headers.update(header.split("=", 1) for header in args.header)
        # Only the acknowledgement means that the order is stored; no answer means: send it again.
        stored = await stream.publish("orders.created", body, headers=headers, timeout=10)
        print(json.dumps({"event_id": headers.get("ce-id"), "stream": stored.stream, "seq": stored.seq}), flush=True)
    await connection.close()


asyncio.run(main(options.parse_args()))
