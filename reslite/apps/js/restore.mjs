// Restores pictures with an exported file, on ONNX Runtime: onnxruntime-web in browsers,
// onnxruntime-node in Node. Has no dependency of its own; the caller hands the runtime over.
//
// Everything that is particular to the file stands in app.json. A picture is
// { height, width, pixels }, RGB bytes in rows; canvases have RGBA, see fromImageData. A network is
// { facts, run }: `run` takes the floats of one window and their shape, and returns floats. A network
// that averages features over the whole picture (`pooling` in app.json) takes the average, too, and
// has `features`, which takes the same and returns the features.

/** Open the file once. `ort` is the runtime's module, `model` the file's bytes or address. */
export async function openNetwork(ort, facts, model, options = {}) {
  const session = await ort.InferenceSession.create(model, options);
  const { input, output, pooling } = facts;
  const outputs = async (values, shape, average) => {
    const feeds = { [input.name]: new ort.Tensor("float32", values, shape) };
    if (pooling) {
      feeds[pooling.pooled.name] = new ort.Tensor("float32", average, [1, average.length, 1, 1]);
    }
    return session.run(feeds);
  };
  return {
    facts,
    run: async (...given) => (await outputs(...given))[output.name].data,
    features: async (...given) => (await outputs(...given))[pooling.features.name].data,
  };
}

/** Restore one window, whose size is that of app.json. */
async function restoreWindow({ facts, run }, pixels, average) {
  const values = packed(pixels, facts.input.layout);
  return unpacked(await run(values, shapeOf(facts), average), facts.output.layout);
}

/** The shape of the input. */
export function shapeOf({ window: [height, width], input }) {
  return input.layout === "NCHW" ? [1, 3, height, width] : [1, height, width, 3];
}

/** RGB bytes to floats in [0, 1]; NCHW has first all of red, then green, then blue. */
export function packed(pixels, layout) {
  const plane = pixels.length / 3;
  const values = new Float32Array(pixels.length);
  if (layout === "NHWC") {
    for (let i = 0; i < pixels.length; i++) values[i] = pixels[i] / 255;
    return values;
  }
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) values[c * plane + i] = pixels[3 * i + c] / 255;
  }
  return values;
}

/** Back to RGB bytes; networks overshoot, so clamp before rounding (Uint8ClampedArray does both). */
export function unpacked(values, layout) {
  const plane = values.length / 3;
  const pixels = new Uint8ClampedArray(values.length);
  // In float32, as elsewhere, so that ties round alike.
  if (layout === "NHWC") {
    for (let i = 0; i < values.length; i++) pixels[i] = Math.fround(values[i] * 255);
    return pixels;
  }
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) pixels[3 * i + c] = Math.fround(values[c * plane + i] * 255);
  }
  return pixels;
}

/** Cover an axis with windows. A halo is cut off at each end but at the picture's edges. */
export function spans(extent, window, halo) {
  const found = [];
  for (let kept = 0; kept < extent; ) {
    const start = Math.min(Math.max(0, kept - halo), extent - window);
    const keepStop = start + window === extent ? extent : start + window - halo;
    found.push({ start, keepStart: kept, keepStop });
    kept = keepStop;
  }
  return found;
}

/** The pixel that stands at `index` of an axis that is continued by reflection. */
export function reflected(index, extent) {
  if (extent === 1) return 0;
  const at = index % (2 * extent - 2);
  return at < extent ? at : 2 * extent - 2 - at;
}

/** Restore a picture of any size; `told` hears of every tile: how many are done, and of how many. */
export async function restore(network, picture, told = () => {}) {
  const { window, halo, scale, multiple, pooling } = network.facts;
  const { height, width } = picture;
  // Continued by reflection up to a multiple that the network takes, and up to a whole window.
  const taken = [height, width].map((extent) => Math.ceil(extent / multiple) * multiple);
  const tiles = [];
  for (const y of spans(Math.max(window[0], taken[0]), window[0], halo)) {
    for (const x of spans(Math.max(window[1], taken[1]), window[1], halo)) tiles.push({ y, x });
  }
  const result = {
    height: scale * height,
    width: scale * width,
    pixels: new Uint8ClampedArray(3 * scale * height * scale * width),
  };
  const average = pooling && (await averaged(network, picture, tiles, taken));
  let done = 0;
  for (const { y, x } of tiles) {
    const restored = await restoreWindow(network, cut(picture, y.start, x.start, window), average);
    paste(restored, scale * window[1], result, y, x, scale);
    told(++done, tiles.length);
  }
  return result;
}

/**
 * Average a network's features (NCHW) over a picture: a first pass, in which every pixel counts
 * once. Pixels that fill a window beyond `taken`, height and width, do not count.
 */
async function averaged({ facts, features }, picture, tiles, taken) {
  const [height, width] = facts.window;
  const none = new Float32Array(facts.pooling.channels);
  const total = new Float64Array(facts.pooling.channels);
  for (const { y, x } of tiles) {
    const values = packed(cut(picture, y.start, x.start, facts.window), facts.input.layout);
    const found = await features(values, shapeOf(facts), none);
    for (let c = 0; c < total.length; c++) {
      for (let row = y.keepStart; row < Math.min(y.keepStop, taken[0]); row++) {
        const from = (c * height + row - y.start) * width - x.start;
        for (let column = x.keepStart; column < Math.min(x.keepStop, taken[1]); column++) {
          total[c] += found[from + column];
        }
      }
    }
  }
  return Float32Array.from(total, (sum) => sum / (taken[0] * taken[1]));
}

function cut(picture, top, left, [height, width]) {
  const pixels = new Uint8ClampedArray(3 * height * width);
  for (let y = 0; y < height; y++) {
    const row = reflected(top + y, picture.height) * picture.width;
    for (let x = 0; x < width; x++) {
      const from = 3 * (row + reflected(left + x, picture.width));
      pixels.set(picture.pixels.subarray(from, from + 3), 3 * (y * width + x));
    }
  }
  return pixels;
}

/** Copy what a tile keeps, without what was restored of reflected pixels. */
function paste(restored, stride, result, y, x, scale) {
  const right = Math.min(scale * x.keepStop, result.width);
  const bottom = Math.min(scale * y.keepStop, result.height);
  for (let row = scale * y.keepStart; row < bottom; row++) {
    const from = 3 * ((row - scale * y.start) * stride + scale * (x.keepStart - x.start));
    const length = 3 * (right - scale * x.keepStart);
    if (length <= 0) return;
    const to = 3 * (row * result.width + scale * x.keepStart);
    result.pixels.set(restored.subarray(from, from + length), to);
  }
}

/** Restore the golden picture; `input` and `expected` are the bytes of golden/*.rgb. */
export async function selfTest(network, input, expected, told = () => {}) {
  const { height, width, tolerance } = network.facts.golden;
  const restored = await restore(network, { height, width, pixels: input }, told);
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(restored.pixels[i] - expected[i]));
  }
  const passed = restored.pixels.length === expected.length && largest <= tolerance;
  return { passed, largest, tolerance };
}

/** A canvas' RGBA bytes to a picture. */
export function fromImageData({ data, height, width }) {
  const pixels = new Uint8ClampedArray(3 * height * width);
  for (let i = 0; i < height * width; i++) pixels.set(data.subarray(4 * i, 4 * i + 3), 3 * i);
  return { height, width, pixels };
}

/** A picture to a canvas' RGBA bytes, opaque. */
export function toImageData({ height, width, pixels }) {
  const data = new Uint8ClampedArray(4 * height * width).fill(255);
  for (let i = 0; i < height * width; i++) data.set(pixels.subarray(3 * i, 3 * i + 3), 4 * i);
  return new ImageData(data, width, height);
}
