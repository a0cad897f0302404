// The self-test in Node:
//
//   npm install --ignore-scripts onnxruntime-node   (or onnxruntime-web)
//   node selftest.mjs                               (or node selftest.mjs onnxruntime-web)
//
// It ends with 1 if the restored picture is not the expected one.

import { readFile } from "node:fs/promises";
import { openNetwork, selfTest } from "./restore.mjs";

const beside = (name) => readFile(new URL(name, import.meta.url));
const ort = await import(process.argv[2] ?? "onnxruntime-node");
const facts = JSON.parse(await beside("app.json"));
const network = await openNetwork(ort, facts, new Uint8Array(await beside(facts.file)));
const golden = [await beside("golden/input.rgb"), await beside("golden/expected.rgb")];
const { passed, largest, tolerance } = await selfTest(network, ...golden);
const verdict = passed ? "passed" : "FAILED";
console.log(`${verdict}: largest difference ${largest}, ${tolerance} of 255 levels allowed`);
process.exitCode = passed ? 0 : 1;
