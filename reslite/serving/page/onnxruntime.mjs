// onnxruntime-web on WebAssembly or WebGPU.
import { describeAdapter } from "./adapter.mjs";
import { openNetwork } from "./restore.mjs";

/** Open a file; returns { run, facts }, see restore.mjs for `run`. */
export async function open(model, file, { accelerator, threads, folder }) {
  const facts = accelerator === "webgpu" ? await describeAdapter() : {};
  const ort = await import(`${folder}/ort.${accelerator}.min.mjs`);
  ort.env.wasm.wasmPaths = `${folder}/`;
  ort.env.wasm.numThreads = threads;
  const { run } = await openNetwork(ort, file, model, { executionProviders: [accelerator] });
  return { run, facts };
}
