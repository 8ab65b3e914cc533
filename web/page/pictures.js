// Drawings of bytes, weights and pictures, without any library.

import { failure } from "./failure.js";

function pixels(canvas, width, height, colour) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let at = 0; at < width * height; at += 1) {
    const [red, green, blue] = colour(at);
    image.data.set([red, green, blue, 255], 4 * at);
  }
  context.putImageData(image, 0, 0);
}

/** Draws bytes as grey pixels, the first in the upper left corner, in a square. */
export function drawBytes(canvas, bytes, side) {
  const rows = Math.max(1, Math.min(side, Math.floor(bytes.length / side)));
  const grey = (at) => (at < rows * side ? bytes[Math.floor(at % bytes.length)] : 0);
  pixels(canvas, side, side, (at) => {
    const value = grey(at);
    return [value, value, value];
  });
}

/** Bits of entropy in a byte: 8 if all values come equally often. */
export function entropy(bytes) {
  const counts = new Float64Array(256);
  bytes.forEach((byte) => {
    counts[byte] += 1;
  });
  return counts.reduce((sum, count) => {
    const share = count / bytes.length;
    return share > 0 ? sum - share * Math.log2(share) : sum;
  }, 0);
}

/** Draws the filters of a layer, `[filters][channels][height][width]`, in a grid: weights 0 are grey. */
export function drawFilters(canvas, weights, [filters, channels, height, width]) {
  const across = Math.ceil(Math.sqrt(filters));
  const [w, h] = [across * (width + 1) + 1, Math.ceil(filters / across) * (height + 1) + 1];
  // A few weights are much larger than the others: these are drawn as the largest.
  const most = 2.5 * Math.sqrt(weights.reduce((sum, value) => sum + value * value, 1e-12) / weights.length);
  pixels(canvas, w, h, (at) => {
    const [x, y] = [(at % w) - 1, Math.floor(at / w) - 1];
    const [column, row] = [Math.floor(x / (width + 1)), Math.floor(y / (height + 1))];
    const [dx, dy] = [x % (width + 1), y % (height + 1)];
    const filter = row * across + column;
    if (x < 0 || y < 0 || dx === width || dy === height || filter >= filters) return [30, 32, 48];
    const value = (channel) => {
      const place = ((filter * channels + Math.min(channel, channels - 1)) * height + dy) * width + dx;
      return 128 + 127 * Math.max(-1, Math.min(1, weights[place] / most));
    };
    return [value(0), value(1), value(2)];
  });
}

export function clear(canvas) {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

/** Draws a picture as large as fits. Rejects if the browser cannot read it. */
export async function drawPicture(canvas, blob) {
  const bitmap = await createImageBitmap(blob);
  const [width, height] = [bitmap.width, bitmap.height];
  const side = Math.max(width, height) < 100 ? Math.max(width, height) : 448;
  canvas.width = side;
  canvas.height = side;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = side > 100;
  const scale = side / Math.max(width, height);
  const [w, h] = [width * scale, height * scale];
  context.drawImage(bitmap, (side - w) / 2, (side - h) / 2, w, h);
  bitmap.close();
}

/** A file that the library reads: PNG, JPEG and .npy as they are, whatever else the browser reads as PNG. */
export async function readable(file) {
  const head = new Uint8Array(await file.slice(0, 8).arrayBuffer());
  // What is transparent becomes white, as it is shown: the network's own decoder would leave it out.
  const hasAlpha = head[0] === 0x89 && [4, 6].includes(new Uint8Array(await file.slice(25, 26).arrayBuffer())[0]);
  const begins = (...bytes) => bytes.every((byte, at) => head[at] === byte);
  if ((begins(0x89, 0x50, 0x4e, 0x47) && !hasAlpha) || begins(0xff, 0xd8, 0xff) || begins(0x93, 0x4e, 0x55, 0x4d)) return file;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw failure("image", "this browser cannot read the file as a picture");
  }
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.convertToBlob({ type: "image/png" });
}
