// Picture files to pixels and back.

// Canvases of phones hold no more pixels; the result must fit in one, too.
export const MOST_PIXELS = 4096 * 4096;

/** Read a picture file; larger ones are reduced. Returns { canvas, note }. */
export async function readPicture(file, scale) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name}: this browser does not read it; try a PNG or a JPEG file`);
  }
  const fits = Math.sqrt(MOST_PIXELS / (scale * scale * bitmap.width * bitmap.height));
  const factor = Math.min(1, fits);
  const [width, height] = [bitmap.width, bitmap.height].map((one) => Math.floor(one * factor) || 1);
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; // under transparent pixels
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const note = factor < 1
    ? `The picture of ${bitmap.width}×${bitmap.height} was reduced to ${width}×${height}, because `
      + "a page holds a result of 16.8 million pixels."
    : "";
  bitmap.close();
  return { canvas, note };
}

/** Return a canvas' pixels. */
export function pixelsOf(canvas) {
  return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
}

/** Return a canvas with these pixels. */
export function canvasOf(image) {
  const { width, height } = image;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Let the person save a canvas as a PNG file. */
export async function download(canvas, name) {
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  const address = URL.createObjectURL(blob);
  Object.assign(document.createElement("a"), { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
