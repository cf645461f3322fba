// What every program here needs: a connection, the contracts, and CloudEvents on NATS.

import { readFile } from "node:fs/promises";
import { connect as connectTo, headers as emptyHeaders } from "@nats-io/transport-node";
import Ajv from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { HTTP } from "cloudevents";

const NATS_URL = process.env.NATS_URL ?? "nats://127.0.0.1:4222";
const SCHEMAS = process.env.MILLRACE_SCHEMAS ?? new URL("../../schemas", import.meta.url).pathname;

/** A connection that fails at once when there is no server; a service would keep trying instead. */
export function connect(name) {
  return connectTo({ servers: NATS_URL, name, timeout: 5_000, reconnect: false });
}

/** The contract of one version of an event, as a function that throws. Formats (uuid, date-time) are part of it. */
export async function contract(eventType, version) {
  const ajv = new Ajv({ allErrors: true, strict: false });
  addFormats(ajv);
  // Integer widths are Rust's way to say what minimum and maximum say as well.
  for (const width of ["uint32", "int64", "uint64"]) ajv.addFormat(width, true);
  const valid = ajv.compile(JSON.parse(await readFile(`${SCHEMAS}/${eventType}.v${version}.json`, "utf8")));
  return (body) => {
    if (!valid(body)) throw new Error(ajv.errorsText(valid.errors, { dataVar: eventType }));
  };
}

// CloudEvents in binary mode: the body is the event's data alone, the attributes are `ce-` headers. The SDK knows HTTP, and
// the NATS binding differs in one name: over HTTP the attribute `datacontenttype` is the header `content-type`.
const OVER_HTTP = "content-type";
const OVER_NATS = "ce-datacontenttype";

export function fromNats(message) {
  const headers = {};
  for (const [name, [value]] of message.headers ?? []) {
    headers[name.toLowerCase() === OVER_NATS ? OVER_HTTP : name] = value;
  }
  return HTTP.toEvent({ headers, body: message.string() });
}

/** Headers and body. */
export function toNats(event) {
  const { headers: overHttp, body } = HTTP.binary(event);
  const headers = emptyHeaders();
  for (const [name, value] of Object.entries(overHttp)) headers.set(name === OVER_HTTP ? OVER_NATS : name, value);
  return { headers, body };
}
