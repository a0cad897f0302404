// Opens one file and computes with it. A classic worker, because LiteRT.js loads its WebAssembly by
// importScripts, which modules lack.
"use strict";

let network;

const JOBS = {
  async open({ file, target, folder, model }) {
    const { open } = await import(`./${target.runtime}.mjs`);
    const absolute = new URL(folder, self.location.href).href;
    const { facts, ...computing } = await open(model, file, { ...target, folder: absolute });
    network = { ...computing, facts: file };
    return facts;
  },

  async restore({ image }, told) {
    const { fromImageData, restore, toImageData } = await import("./restore.mjs");
    const picture = fromImageData(image);
    const facts = fitted(network.facts, picture);
    const tiles = (...progress) => told(progress);
    return toImageData(await restore({ ...network, facts }, picture, tiles));
  },

  async check({ golden }, told) {
    const { selfTest } = await import("./restore.mjs");
    const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    const facts = { ...network.facts, golden };
    const pair = [bytes(golden.input), bytes(golden.expected)];
    return selfTest({ ...network, facts }, ...pair, (...progress) => told(progress));
  },

  /** Return the milliseconds of some inferences of one window of noise. */
  async time({ count }) {
    const { shapeOf } = await import("./restore.mjs");
    const { pooling } = network.facts;
    const average = pooling && new Float32Array(pooling.channels);
    const shape = shapeOf(network.facts);
    network.noise ??= Float32Array.from({ length: shape.reduce((a, b) => a * b) }, Math.random);
    const samples = [];
    for (let i = 0; i < count; i++) {
      const started = performance.now();
      await network.run(network.noise, shape, average);
      samples.push(performance.now() - started);
    }
    if (!samples.every((one) => one > 0)) throw new Error("this browser's clock is too coarse");
    return samples;
  },
};

/** A file that takes any size gets no larger windows than the picture. */
function fitted(file, picture) {
  if (!file.any_size) return file;
  const { multiple, minimum, window: [height, width] } = file;
  const side = (extent) => Math.max(minimum, Math.ceil(extent / multiple) * multiple);
  const window = [Math.min(height, side(picture.height)), Math.min(width, side(picture.width))];
  return { ...file, window };
}

self.onmessage = async ({ data: { id, job, given } }) => {
  const told = (progress) => self.postMessage({ id, progress });
  try {
    const result = await JOBS[job](given, told);
    const moved = result instanceof ImageData ? [result.data.buffer] : [];
    self.postMessage({ id, done: true, result }, moved);
  } catch (error) {
    self.postMessage({ id, done: true, error: String(error?.message ?? error) });
  }
};
