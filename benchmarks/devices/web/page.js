// Runs a network for the Python process that serves this page (benchmarks/devices/browser.py):
// says when it is ready, then answers each input with an output, tensors as raw bytes.

const ARRAYS = { float32: Float32Array, float16: globalThis.Float16Array };

async function post(path, body) {
  await fetch(path, { method: "POST", body });
}

async function main() {
  const job = await (await fetch("/job")).json();
  const file = new Uint8Array(await (await fetch("/file")).arrayBuffer());
  const { open } = await import(`./${job.runtime}.js`);
  const { facts, run } = await open(file, job);
  await post("/ready", JSON.stringify(facts));
  for (;;) {
    const reply = await fetch("/input"); // waits until there is one
    if (reply.status === 204) return;
    const values = new ARRAYS[job.dtype](await reply.arrayBuffer());
    await post("/output", await run(values));
  }
}

main().catch((error) => post("/error", String(error)));
