// LiteRT.js on WebAssembly or WebGPU.
import { describeAdapter } from "./adapter.mjs";

/** Open a file; returns { run, facts }, see restore.mjs for `run`. */
export async function open(model, file, { accelerator, threads, folder }) {
  const { loadAndCompile, loadLiteRt, Tensor } = await import(`${folder}/index.js`);
  const facts = accelerator === "webgpu" ? await describeAdapter() : {};
  const wasm = `${folder}/wasm/`;
  // In a worker the runtime would look beside the worker.
  self.Module = {
    locateFile: (name) => wasm + name,
    mainScriptUrlOrBlob: `${wasm}litert_wasm_threaded_internal.js`,
  };
  await loadLiteRt(wasm, { threads: threads > 1 });
  const cpuOptions = { numThreads: threads };
  const compiled = await loadAndCompile(model, { accelerator, cpuOptions });
  // What WebGPU does not take moves the whole file to WebAssembly, with a warning on the console.
  const moved = compiled.options.accelerator !== accelerator;
  if (accelerator === "webgpu" && (moved || !compiled.isFullyAccelerated)) {
    throw new Error("WebGPU does not take every operator of this file");
  }
  const run = async (values, shape) => {
    const image = new Tensor(values, shape);
    const [restored] = await compiled.run(image);
    const fetched = await restored.moveTo("wasm");
    const output = fetched.toTypedArray().slice();
    image.delete();
    fetched.delete();
    return output;
  };
  return { run, facts };
}
