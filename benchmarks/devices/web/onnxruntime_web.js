// onnxruntime-web on WebAssembly, one thread.
import * as ort from "/packages/onnxruntime-web/dist/ort.wasm.mjs";

export async function open(file, job) {
  ort.env.wasm.wasmPaths = "/packages/onnxruntime-web/dist/";
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
  const run = async (values) => {
    const image = new ort.Tensor(job.dtype, values, job.shape);
    const results = await session.run({ [session.inputNames[0]]: image });
    return results[session.outputNames[0]].getData();
  };
  return { facts: {}, run };
}
