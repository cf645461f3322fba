// Reads orders.created in both versions, and prints a line of JSON for each message.
//
// Both versions of an order are one event with one id, so whoever reads both, say while moving from v1 to v2, acts once.

import { parseArgs } from "node:util";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, contract, fromNats, toNats } from "./millrace.js";

const VERSIONS = { "orders.created": 1, "orders.created.v2": 2 };

const { values: options } = parseArgs({
  options: {
    durable: { type: "string", default: "partner-node" }, // name of the consumer; it goes on where it stopped
    idle: { type: "string", default: "5" }, // end after so many seconds without a message
    forward: { type: "string" }, // pass each event on to this subject
  },
});

const connection = await connect("read-orders");
const checks = {};
for (const [subject, version] of Object.entries(VERSIONS)) checks[subject] = await contract("orders.created", version);

// A durable consumer is shared by all who name it. Ack wait is how long handling one message may take.
const seconds = 1_000_000_000;
await (await jetstreamManager(connection)).consumers.add("ORDERS", {
  durable_name: options.durable,
  description: "reads orders for a partner",
  filter_subjects: Object.keys(VERSIONS),
  ack_policy: AckPolicy.Explicit,
  ack_wait: 30 * seconds,
  max_deliver: 5,
});
const consumer = await jetstream(connection).consumers.get("ORDERS", options.durable);
const acted = new Set(); // A real service keeps the ids in its database and adds one in the transaction that acts.

while (true) {
  let received = 0;
  for await (const message of await consumer.fetch({ max_messages: 20, expires: Number(options.idle) * 1_000 })) {
    received += 1;
    handle(message);
  }
  if (received === 0) break;
}
await connection.drain();

function handle(message) {
  const { subject } = message;
  let body;
  try {
    body = message.json();
    checks[subject](body);
  } catch (problem) {
    // It stays broken however often it is delivered, so it ends here.
    console.log(JSON.stringify({ subject, refused: problem.message }));
    return message.term();
  }
  const line = { subject, version: VERSIONS[subject], body };
  if (message.headers?.has("ce-id")) {
    const event = fromNats(message);
    const { source, id: event_id, type, subject: about, dataschema: schema, correlationid: correlation_id } = event;
    Object.assign(line, { source, event_id, type, about, schema, correlation_id });
    if (options.forward) {
      const { headers, body } = toNats(event);
      connection.publish(options.forward, body, { headers });
    }
  }
  // An order of another system comes as its publisher sent it, and as v2 once Millrace has taken it on: under the
  // publisher's id, or under a new one where there was none.
  line.acts = line.event_id !== undefined && !acted.has(line.event_id);
  acted.add(line.event_id);
  console.log(JSON.stringify(line));
  // After the work is done, never before it.
  message.ack();
}
