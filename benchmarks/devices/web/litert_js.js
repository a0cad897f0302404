// LiteRT.js on WebAssembly or WebGPU.
import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

export async function open(file, job) {
  const facts = {};
  if (job.accelerator === "webgpu") {
    const adapter = await navigator.gpu?.requestAdapter();
    if (!adapter) throw new Error("this browser has no WebGPU adapter");
    const { vendor, architecture, isFallbackAdapter } = adapter.info;
    facts.adapter = [vendor, architecture].filter(Boolean).join(" ");
    facts["on the CPU"] = isFallbackAdapter ? "yes" : "no";
  }
  await loadLiteRt("/packages/@litertjs/core/wasm/");
  const model = await loadAndCompile(file, { accelerator: job.accelerator });
  // Without JSPI, what WebGPU does not take moves the whole file to WebAssembly with a warning.
  if (job.accelerator === "webgpu" && !model.isFullyAccelerated) {
    throw new Error("WebGPU does not take every operator of this file");
  }
  const run = async (values) => {
    const image = new Tensor(values, job.shape);
    const [restored] = await model.run(image);
    const fetched = await restored.moveTo("wasm");
    const output = fetched.toTypedArray().slice();
    image.delete();
    fetched.delete();
    return output;
  };
  return { facts, run };
}
