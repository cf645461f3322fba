// Lists the services that answer questions now, one line of JSON for each instance.

import { Svcm } from "@nats-io/services";
import { connect } from "./millrace.js";

const connection = await connect("discover");
// The NATS services framework: every instance of every service answers. Nobody knows how many there are, so the list ends
// when nobody has said anything for a while.
const client = new Svcm(connection).client({ strategy: "stall", maxWait: 5_000, stall: 1_000 });
for await (const service of await client.info()) console.log(JSON.stringify(service));
await connection.close();
