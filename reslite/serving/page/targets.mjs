// What a file can compute on in this browser: one line for each.

/** Threads that WebAssembly gets: they need a page that is isolated from others. */
const THREADS = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;

/** Return the targets: { runtime, accelerator, threads, title }, the usual one first. */
export function targetsOf(runtime) {
  const name = { litert: "LiteRT.js", onnxruntime: "ONNX Runtime Web" }[runtime];
  const threads = THREADS > 1 ? [THREADS, 1] : [1];
  const targets = threads.map((count) => ({
    accelerator: "wasm",
    threads: count,
    title: `${name}, WebAssembly, ${count} thread${count > 1 ? "s" : ""}`,
  }));
  if (navigator.gpu) {
    targets.push({ accelerator: "webgpu", threads: 1, title: `${name}, WebGPU` });
  }
  return targets.map((target) => ({ runtime, ...target }));
}

/** Return why the targets leave something out. */
export function leftOut() {
  const notes = [];
  if (!globalThis.crossOriginIsolated) {
    notes.push("No threads: this page is not isolated from others.");
  }
  if (!navigator.gpu) notes.push("No WebGPU: this browser or this address (no HTTPS) has none.");
  notes.push(
    navigator.ml
      ? "No WebNN: it does not tell what it computes on; what it refuses runs on the CPU unsaid."
      : "No WebNN: this browser has none.",
  );
  return notes.join(" ");
}
