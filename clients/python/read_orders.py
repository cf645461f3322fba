"""Reads orders.created in both versions, and prints a line of JSON for each message.

Both versions of an order are one event with one id, so whoever reads both, say while moving from v1 to v2, acts once.
"""

import argparse
import asyncio
import json

from jsonschema import ValidationError
from millrace import connect, contract, from_nats, to_nats
from nats.js.api import AckPolicy, ConsumerConfig

VERSIONS = {"orders.created": 1, "orders.created.v2": 2}

options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
options.add_argument("--durable", default="partner-python", help="name of the consumer; it goes on where it stopped")
options.add_argument("--idle", type=float, default=5, help="end after so many seconds without a message")
options.add_argument("--forward", metavar="SUBJECT", help="pass each event on to this subject")


async def main(args) -> None:
    connection = await connect("read-orders")
    stream = connection.jetstream()
    contracts = {subject: contract("orders.created", version) for subject, version in VERSIONS.items()}
    # A durable consumer is shared by all who name it. Ack wait is how long handling one message may take.
    config = ConsumerConfig(durable_name=args.durable, filter_subjects=list(VERSIONS), ack_policy=AckPolicy.EXPLICIT,
                            ack_wait=30, max_deliver=5, description="reads orders for a partner")
    await stream.add_consumer("ORDERS", config)
    subscription = await stream.pull_subscribe_bind(durable=args.durable, stream="ORDERS")
    acted = set()  # A real service keeps the ids in its database and adds one in the transaction that acts.
    while True:
        try:
            messages = await subscription.fetch(20, timeout=args.idle)
        except asyncio.TimeoutError:
            break
        for message in messages:
            try:
                contracts[message.subject].validate(json.loads(message.data))
            except (ValidationError, ValueError) as problem:
                # It stays broken however often it is delivered, so it ends here.
                print(json.dumps({"subject": message.subject, "refused": str(problem).splitlines()[0]}), flush=True)
                await message.term()
                continue
            line = {"subject": message.subject, "version": VERSIONS[message.subject], "body": json.loads(message.data)}
            if message.headers and "ce-id" in message.headers:
                event = from_nats(message)
                line |= {"source": event.get_source(), "event_id": event.get_id(), "type": event.get_type(),
                         "about": event.get_subject(), "schema": event.get_dataschema(),
                         "correlation_id": event.get_extension("correlationid")}
                if args.forward:
                    headers, body = to_nats(event)
                    await connection.publish(args.forward, body, headers=headers)
            # An order of another system comes as its publisher sent it, and as v2 once Millrace has taken it on: under the
            # publisher's id, or under a new one where there was none.
            line["acts"] = line.get("event_id") not in (None, *acted)
            acted.add(line.get("event_id"))
            print(json.dumps(line), flush=True)
            # After the work is done, never before it.
            await message.ack()
    await connection.drain()


asyncio.run(main(options.parse_args()))
