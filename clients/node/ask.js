// Asks a service of Millrace and prints its answer:
//
//   node ask.js api.inventory.stock '{"product_id": "espresso-cup"}'
//
// Ends with exit code 0 after an answer and 1 after an error, which is printed as JSON too.

import { parseArgs } from "node:util";
import { ServiceError } from "@nats-io/services";
import { errors, headers as emptyHeaders } from "@nats-io/transport-node";
import { connect } from "./millrace.js";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { patience: { type: "string", default: "5" } }, // seconds to wait for the answer
});
const [subject, question = "{}"] = positionals; // see discover.js for what there is

const connection = await connect("ask");
const outcome = await ask(Number(options.patience) * 1_000);
await connection.close();
console.log(JSON.stringify(outcome));
process.exitCode = outcome.error ? 1 : 0;

async function ask(timeout) {
  // The service stops working on a question whose asker has gone, if it is told how long that waits.
  const headers = emptyHeaders();
  headers.set("Millrace-Deadline-Ms", String(timeout));
  let answer;
  try {
    answer = await connection.request(subject, question, { timeout, headers });
  } catch (failure) {
    if (failure instanceof errors.TimeoutError) {
      return { error: { code: 504, description: `no answer within ${timeout} ms` } };
    }
    if (failure instanceof errors.NoRespondersError || failure.isNoResponders?.()) {
      return { error: { code: 503, description: `nobody answers on ${subject}` } };
    }
    throw failure;
  }
  // The NATS services framework says in headers that something went wrong, with the codes of HTTP.
  if (ServiceError.isServiceError(answer)) {
    const { code, message: description } = ServiceError.toServiceError(answer);
    const retryAfter = answer.headers.get("Millrace-Retry-After-Ms");
    return { error: { code, description, ...(retryAfter && { retry_after_ms: Number(retryAfter) }) } };
  }
  return { answer: answer.json() };
}
