// Pictures in poor light, corrected before they are searched again: what faces/light.py does, which
// says where numbers come from.

import { clamp, roundEven } from "./pixels.js";

const PERCENTILES = [0.01, 0.99];
const FULL_RANGE = 200;
const LEAST_RANGE = 4;
const SAMPLES = 96;
const WHITE = 250;
const WHITE_SHARE = 0.25;

/** The picture with each channel stretched over all levels; itself if its light is ordinary. */
export function stretched(image) {
  const samples = sampled(image);
  const white = samples.filter((pixel) => Math.max(...pixel) >= WHITE).length;
  if (white > WHITE_SHARE * samples.length) return darkest(image, samples);
  const channels = [0, 1, 2].map((c) => samples.map((pixel) => pixel[c]));
  const ranges = channels.map(limits);
  if (ranges.every(([low, high]) => high - low >= FULL_RANGE)) return image;
  const tables = ranges.map(tableOf);
  const data = new Uint8ClampedArray(image.data.length).fill(255);
  for (let at = 0; at < data.length; at += 4) {
    for (let c = 0; c < 3; c++) data[at + c] = tables[c][image.data[at + c]];
  }
  return { ...imageSize(image), data };
}

/** The darkest channel of each pixel, stretched over all levels. */
function darkest(image, samples) {
  const table = tableOf(limits(samples.map((pixel) => Math.min(...pixel))));
  const data = new Uint8ClampedArray(image.data.length).fill(255);
  for (let at = 0; at < data.length; at += 4) {
    const least = Math.min(image.data[at], image.data[at + 1], image.data[at + 2]);
    data.fill(table[least], at, at + 3);
  }
  return { ...imageSize(image), data };
}

const imageSize = ({ width, height }) => ({ width, height });

/** Evenly spread pixels: [[red, green, blue], …]. */
function sampled({ data, width, height }) {
  const down = Math.max(1, Math.floor(height / SAMPLES));
  const across = Math.max(1, Math.floor(width / SAMPLES));
  const pixels = [];
  for (let row = 0; row < height; row += down) {
    for (let column = 0; column < width; column += across) {
      const at = (row * width + column) * 4;
      pixels.push([data[at], data[at + 1], data[at + 2]]);
    }
  }
  return pixels;
}

/** The levels below and above which a hundredth of the values lies. */
function limits(values) {
  const sorted = Float64Array.from(values).sort();
  return PERCENTILES.map((share) => {
    const place = share * (sorted.length - 1);
    const low = Math.floor(place);
    const next = sorted[Math.min(low + 1, sorted.length - 1)];
    return sorted[low] + (next - sorted[low]) * (place - low);
  });
}

/** level → the level that it is stretched to. */
const tableOf = ([low, high]) =>
  Uint8Array.from({ length: 256 }, (_, level) =>
    clamp(roundEven(((level - low) * 255) / Math.max(high - low, LEAST_RANGE)), 0, 255));
