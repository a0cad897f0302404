// onnxruntime-web on WebAssembly or WebGPU.
import { describeAdapter } from "./adapter.mjs";
import { openNetwork } from "./restore.mjs";

/** Open a file; returns the network of restore.mjs, and facts of the target. */
export async function open(model, file, { accelerator, threads, folder }) {
  const facts = accelerator === "webgpu" ? await describeAdapter() : {};
  const ort = await import(`${folder}/ort.${accelerator}.min.mjs`);
  ort.env.wasm.wasmPaths = `${folder}/`;
  ort.env.wasm.numThreads = threads;
  const network = await openNetwork(ort, file, model, { executionProviders: [accelerator] });
  return { ...network, facts };
}
