// Publishes orders of another system as orders.created v1, one for each line of standard input:
//
//   {"order_id":"5d0c...","customer_id":"c-7","amount":19.99,"currency":"EUR","timestamp":"2026-01-02T03:04:05Z"}
//
// Millrace takes each of them on like an order of its own: it charges `amount` and reserves `items`, where there are any.

import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline/promises";
import { parseArgs } from "node:util";
import { jetstream } from "@nats-io/jetstream";
import { CloudEvent } from "cloudevents";
import { connect, contract, toNats } from "./millrace.js";

const { values: options } = parseArgs({
  options: {
    source: { type: "string", default: "/partner/node" }, // CloudEvents source: names your system
    bare: { type: "boolean", default: false }, // send the body alone, without CloudEvents headers
  },
});

const connection = await connect("publish-orders");
const stream = jetstream(connection);
const checkV1 = await contract("orders.created", 1);
for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim() === "") continue;
  const order = JSON.parse(line);
  // What breaks the contract would become a dead letter, which somebody has to look at: better not to send it.
  checkV1(order);
  // The id names the event for ever: send the same one again when you are not sure that it arrived.
  const id = randomUUID();
  const attributes = { id, source: options.source, type: "orders.created", datacontenttype: "application/json" };
  const { headers } = toNats(new CloudEvent({ ...attributes, data: order }));
  // Within its duplicate window the broker stores one message id once.
  const extra = options.bare ? {} : { headers, msgID: `${options.source}/${id}` };
  // Only the acknowledgement means that the order is stored; no answer means: send it again.
  const stored = await stream.publish("orders.created", line, { ...extra, timeout: 10_000 });
  console.log(JSON.stringify({ event_id: options.bare ? null : id, stream: stored.stream, seq: stored.seq }));
}
await connection.close();
