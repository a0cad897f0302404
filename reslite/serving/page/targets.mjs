// What a file can compute on in this browser: one line for each.

/** Threads that WebAssembly gets: they need a page that is isolated from others. */
const THREADS = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;

/** Whether there is an adapter; the worker that computes says which. */
const HAS_WEBGPU = Boolean(await navigator.gpu?.requestAdapter().catch(() => null));

/** Return the targets: { runtime, accelerator, threads, title, device }, the usual one first. */
export function targetsOf(bundle, runtime) {
  const name = bundle.runtimes[runtime].title;
  const threads = THREADS > 1 ? [THREADS, 1] : [1];
  const targets = threads.map((count) => ({
    accelerator: "wasm",
    threads: count,
    title: `${name}, WebAssembly, ${count} thread${count > 1 ? "s" : ""}`,
    device: `browser-wasm-${count}`,
  }));
  if (HAS_WEBGPU) {
    const title = `${name}, WebGPU`;
    targets.push({ accelerator: "webgpu", threads: 1, title, device: "browser-webgpu" });
  }
  return targets.map((target) => ({ runtime, ...target }));
}

/** Return why the targets leave something out. */
export function leftOut() {
  const notes = [];
  if (!globalThis.crossOriginIsolated) {
    notes.push("No threads: this page is not isolated from others.");
  }
  if (!HAS_WEBGPU) {
    const found = navigator.gpu ? "there is no adapter" : "this browser or address has none";
    notes.push(`No WebGPU: ${found}.`);
  }
  notes.push(
    navigator.ml
      ? "No WebNN: it does not tell what it computes on; what it refuses runs on the CPU unsaid."
      : "No WebNN: this browser has none.",
  );
  return notes.join(" ");
}
