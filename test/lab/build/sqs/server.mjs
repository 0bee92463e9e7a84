#!/usr/bin/env node
// fauxqs on one address, which its own command cannot do: it would hold the port of every pod. Queue URLs name the address that
// the caller used, as SQS names its endpoint.
import { buildApp } from "fauxqs";
import { SqsStore } from "./node_modules/fauxqs/dist/sqs/sqsStore.js";

const [host, port] = process.argv.slice(2);
const sqsStore = new SqsStore();
sqsStore.host = "";
await buildApp({ logger: false, stores: { sqsStore } }).listen({ host, port: Number(port) });
console.log(`listening on ${host}:${port}`);
